"""The list of coins and the one that a user adds."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.errors import SettingsError
from services.common.news import MARKET
from services.news_signals.coin_list import DEFAULT_PATH, FIELDS, load_coins, parse_coins
from services.news_signals.coins import CoinFinder

HEADER = ",".join(FIELDS)


def test_our_list_is_read_and_names_the_coins_of_weight() -> None:
    coins = [coin.coin for coin in load_coins()]
    assert len(coins) > 80
    assert {MARKET, "BTC", "ETH", "XRP", "SOL", "DOGE", "POL", "MKR"} <= set(coins)
    assert coins[1] == "BTC"


def test_a_file_adds_coins_and_replaces_lines_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(f"\ufeff{HEADER}\r\n# ours\r\nFOO,Foocoin|FOO,,,,Foo Fighters\r\nBTC,Bitcoin,,,,\r\n")
    coins = load_coins(path)
    assert len(coins) == len(load_coins()) + 1
    finder = CoinFinder(coins)
    assert finder.find("Foocoin beats Bitcoin and BTC, says Foo Fighters fan of ether").coins == (
        "FOO",
        "BTC",
        "ETH",
    )
    assert finder.find("Only BTC").coins == ()


def test_a_file_can_be_the_whole_list(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(f"{HEADER}\nFOO,Foocoin,,,,\n")
    finder = CoinFinder(load_coins(path, replace=True))
    assert finder.find("Foocoin beats Bitcoin").coins == ("FOO",)


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ("coin,name\nBTC,Bitcoin", "line 1: the header must be coin,sure,"),
        (f"{HEADER}\nBTC,Bitcoin", "line 2: 2 fields, expected 6"),
        (f"{HEADER}\nBTC,Bitcoin,,,,\nbtc,Bitcoin,,,,", "line 3, coin: 'btc' is no ticker"),
        (f"{HEADER}\nBTC,Bitcoin,,,,\nBTC,Bitcoin,,,,", "line 3, coin: BTC was on a line before"),
        (f"{HEADER}\nBTC,Bitcoin||BTC,,,,", "line 2, sure: '' is no term"),
        (f"{HEADER}\nBTC,Bitcoin,,{'x' * 61},,", "line 2, unsure: "),
        (f"{HEADER}\nBTC,Bitcoin,,,$,", "line 2, words: '$' is no term"),
        (f"{HEADER}\nBTC,,,,,Bitcoin Magazine", "line 2: BTC has no term"),
        (f"{HEADER}\n", "names no coin"),
        (f'{HEADER}\nBTC,"Bit"coin"', "line 2"),
        (f"{HEADER}\nFOO,bitcoin,,,,", "sure of FOO: 'bitcoin' is BTC already"),
        ("", "line 1"),
    ],
)
def test_a_wrong_file_is_refused_with_its_name_the_line_and_the_field(
    tmp_path: Path, lines: str, complaint: str
) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(lines)
    with pytest.raises(SettingsError) as refused:
        load_coins(path)
    assert str(path) in str(refused.value)
    assert complaint in str(refused.value)


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        load_coins(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="cannot be read"):
        load_coins(tmp_path / "binary.csv")


@given(
    st.text(max_size=300) | st.text(alphabet='BTC,|"\n$#x', max_size=80).map(lambda text: f"{HEADER}\n{text}")
)
def test_any_text_is_a_list_or_refused(text: str) -> None:
    try:
        coins = parse_coins(text, "the file")
    except SettingsError as error:
        complaint = str(error)
        coins = {}
    else:
        complaint = ""
    assert complaint.startswith("the file") != bool(coins)
    CoinFinder(coins.values()).find("Bitcoin BTC x")


def test_our_list_has_one_line_a_coin() -> None:
    lines = DEFAULT_PATH.read_text().splitlines()
    assert len(lines) == len(load_coins()) + 1
