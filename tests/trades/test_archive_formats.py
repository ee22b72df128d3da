"""What downloaded files say, and what is said about ones that are wrong."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.common.errors import SourceError
from services.common.messages import Trade
from services.common.symbols import pair_of_stem
from services.trades.history.formats import parser_for, period_of
from tests.trades.archive_support import DAY_MS, NOW_MS, T0_MS, T0_S, Run, binance, kraken, write
from tests.trades.support import RECORDINGS


def test_krakens_rows_are_numbered_and_their_sides_follow_the_tick_rule(tmp_path: Path) -> None:
    prices = ["10.0", "11.0", "11.0", "10.5", "10.5", "12.0"]
    path = write(tmp_path / "XBTUSD.csv", "".join(f"{T0_S + i},{p},1\n" for i, p in enumerate(prices)))
    run = Run(tmp_path, path)
    assert [row.side for row in run.publisher.rows()] == ["buy", "buy", "buy", "sell", "sell", "buy"]
    assert run.publisher.ids() == [1, 2, 3, 4, 5, 6]
    assert run.publisher.rows()[1] == Trade(
        "kraken", "BTC/USD", 2, "buy", 11.0, 1.0, (T0_S + 1) * 1000, NOW_MS
    )
    (end, note) = run.report.notes
    assert "end where its files do, at 2024-01-01 00:00:05" in end
    assert "BTC/USD" in note
    assert "tick rule" in note


def test_identical_rows_of_kraken_are_distinct_trades(tmp_path: Path) -> None:
    run = Run(tmp_path, write(tmp_path / "XBTUSD.csv", f"{T0_S},10,1\n" * 3))
    assert run.publisher.ids() == [1, 2, 3]


@pytest.mark.parametrize(
    ("text", "ms"),
    [("1672531436", 1672531436000), ("1381095255.0951", 1381095255095), ("1672531436.9999", 1672531436999)],
)
def test_krakens_seconds_become_milliseconds(text: str, ms: int) -> None:
    parser = parser_for("f", f"{text},1,1", "BTC/USD")
    assert parser is not None
    by_pair, _ = parser.parse(f"{text},1,1\n", 1, NOW_MS)
    assert by_pair["BTC/USD"].times == [ms]


@pytest.mark.parametrize("micro", [False, True])
def test_binances_rows_keep_ids_and_the_takers_side_in_both_units_of_time(
    tmp_path: Path, micro: bool
) -> None:
    path = write(tmp_path / "BTCUSDT-trades-2024-01-01.csv", binance(range(5, 11), micro=micro))
    run = Run(tmp_path, path, exchange="binance", pairs="BTC/USDT")
    assert run.publisher.ids("BTC/USDT") == list(range(5, 11))
    first = run.publisher.rows()[0]
    assert (first.side, first.event_time_ms) == ("sell", T0_MS + 50)
    assert run.publisher.rows()[1].side == "buy"  # 6 % 3 is 0: the seller was the maker
    assert not any("tick rule" in note for note in run.report.notes)


def test_a_header_and_odd_notation_are_accepted(tmp_path: Path) -> None:
    text = "id,price,qty,quote_qty,time,is_buyer_maker,is_best_match\r\n"
    text += f'5,"100.5",1e-3,1,{T0_MS},true,true\r\n\r\n6,100.5,2,1,{T0_MS + 1},FALSE,true\r\n'
    path = write(tmp_path / "BTCUSDT-trades-2024-01-01.csv", text)
    rows = Run(tmp_path, path, exchange="binance").publisher.rows()
    assert [(row.trade_id, row.side, row.quantity) for row in rows] == [(5, "sell", 1e-3), (6, "buy", 2.0)]


@pytest.mark.parametrize(
    "head", ["time,price,volume\n", '"timestamp", "price", "volume"\r\n', "\n\n", "\n \r\n"]
)
def test_a_kraken_file_may_have_a_header_and_blank_lines_before_its_rows(tmp_path: Path, head: str) -> None:
    run = Run(tmp_path, write(tmp_path / "XBTUSD.csv", head + kraken(3)))
    assert run.publisher.ids() == [1, 2, 3]
    assert run.publisher.rows()[0].event_time_ms == T0_MS


def test_our_own_recordings_are_archives_too(tmp_path: Path) -> None:
    recording = RECORDINGS / "kraken-btcusd-2019-07-01T00.csv.gz"
    run = Run(tmp_path, recording, pairs="BTC/USD")
    assert run.publisher.ids() == list(range(1, 2673))
    assert not any("tick rule" in note for note in run.report.notes)


def test_a_kraken_row_means_the_same_as_in_a_recording(tmp_path: Path) -> None:
    rows = Run(tmp_path / "a", write(tmp_path / "XBTUSD.csv", kraken(500))).publisher.rows()
    recorded = "time_ms,side,price,quantity\n" + "".join(
        f"{row.event_time_ms},{row.side},{row.price!r},{row.quantity!r}\n" for row in rows
    )
    again = Run(tmp_path / "b", write(tmp_path / "BTC-USD.csv", recorded)).publisher.rows()
    assert again == rows


@pytest.mark.parametrize(
    ("stem", "pairs", "pair"),
    [
        ("XBTUSD", (), "BTC/USD"),
        ("XBTUSD", ("BTC/USD",), "BTC/USD"),
        ("BTCUSD", ("BTC/USD",), "BTC/USD"),
        ("XBTUSD", ("ETH/USD",), None),
        ("XDGEUR_60", (), "DOGE/EUR"),
        ("ETHXBT", (), "ETH/BTC"),
        ("DOTUSD", (), "DOT/USD"),
        ("USDTUSD", (), "USDT/USD"),
        ("USDCUSDT", (), "USDC/USDT"),
        ("BTCTUSD", ("BTC/TUSD",), "BTC/TUSD"),
        ("BTCUSDT-trades-2024-01", (), "BTC/USDT"),
        ("ETHFDUSD-trades-2024-01-05", (), "ETH/FDUSD"),
        ("BTC-USD-2024", (), "BTC/USD"),
        ("XBTUSD-2024", (), "BTC/USD"),
        ("ETHUSD-1", (), "ETH/USD"),
        ("XBTUSD-TRADES-2024", (), "BTC/USD"),
        ("WBTC-USD", (), "WBTC/USD"),
        ("FOO-BAR", (), "FOO/BAR"),
        ("USD", (), None),
        ("readme", (), None),
    ],
)
def test_names_tell_the_pair(stem: str, pairs: tuple[str, ...], pair: str | None) -> None:
    assert pair_of_stem(stem, pairs) == pair


@pytest.mark.parametrize(
    ("stem", "period"),
    [
        ("BTCUSDT-trades-2024-01", (T0_MS, T0_MS + 31 * DAY_MS)),
        ("BTCUSDT-trades-2024-02", (T0_MS + 31 * DAY_MS, T0_MS + 60 * DAY_MS)),
        ("BTCUSDT-trades-2024-01-05", (T0_MS + 4 * DAY_MS, T0_MS + 5 * DAY_MS)),
        ("BTCUSDT-trades-2024-13", None),
        ("BTCUSDT-trades-2024-02-30", None),
        ("XBTUSD", None),
    ],
)
def test_names_of_a_day_or_a_month_tell_what_they_hold(stem: str, period: tuple[int, int] | None) -> None:
    assert period_of(stem) == period


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1,2,3,4,5,1704067200000,True,True\n", "aggTrades merge trades.*download the files called trades"),
        (",".join(["1"] * 12) + "\n", "klines"),
        ("1704067200,1,1,1,1,5,2\n", "OHLCVT of Kraken.*make backfill chooses"),
        ("a,b\n", "2 columns, of no known kind"),
        ("", "no trades of BTC/USD"),
        (f"{T0_S},1\n", "2 columns"),
        ("time,volume,price\n", "of no known kind"),
        # How long a cell may be is set for the whole process, by whoever came first.
        (f"{T0_S},1,1\n{T0_S},\"{'1' * 140_000}\",1\n", ":2: (field larger than field limit|price '1)"),
        (f"{T0_S},1,1\n{T0_S},1\n", ":2: 2 fields instead of 3"),
        (f"{T0_S},1,1\n{T0_S - 1},1,1\n", ":2: time_ms .* after .*sort the file"),
        (f"{T0_MS},1,1\n", ":1: time .*write seconds, not milliseconds"),
        (f"{T0_S},-1,1\n", ":1: price '-1'"),
        (f"{T0_S},nan,1\n", ":1: price 'nan'"),
        (f"{T0_S},1,0\n", ":1: quantity '0'"),
        (f"{T0_S},1e999,1\n", ":1: price '1e999'"),
        ("1e400,1,1\n", ":1: time '1e400'"),
        ("inf,1,1\n", "of no known kind"),
        ("time,open,high,low,close,volume,count\n", "OHLCVT of Kraken"),
        (f"{T0_S},1_0,1\n", ":1: price '1_0'"),
        (f"{NOW_MS},1,1\n", "write seconds"),
        (f"{NOW_MS // 1000 + 60},1,1\n", "lies in the future"),
        (f"1,1,1,1,{T0_MS},maybe,True\n", "OHLCVT|isBuyerMaker"),
        (f"1,1,1,1,{T0_MS},True,True\n2,1,1,1,{T0_MS},maybe,True\n", ":2: isBuyerMaker 'maybe'"),
        (f"1,1,1,1,{T0_S},True,True\n", "write milliseconds"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_with_file_line_and_remedy(
    tmp_path: Path, text: str, says: str
) -> None:
    path = write(tmp_path / "XBTUSD.csv", text)
    with pytest.raises(SourceError, match=says) as caught:
        Run(tmp_path, path, pairs="BTC/USD")
    assert str(path) in str(caught.value)


@settings(max_examples=50, deadline=None)
@given(
    steps=st.lists(st.integers(0, 90_000), min_size=1, max_size=120),
    prices=st.lists(st.sampled_from(["1.5", "2", "1.0", "3e1"]), min_size=120, max_size=120),
    cuts=st.lists(st.integers(1, 119), max_size=10, unique=True),
)
def test_any_cut_of_a_kraken_file_into_blocks_gives_the_same_rows(
    steps: list[int], prices: list[str], cuts: list[int]
) -> None:
    lines, at = [], T0_MS
    for step, price in zip(steps, prices, strict=False):
        at += step
        lines.append(f"{at / 1000},{price},0.5\n")

    def parse(edges: list[int]) -> list[tuple[int, str, float]]:
        parser = parser_for("f", lines[0], "BTC/USD")
        assert parser is not None
        found = []
        for begin, end in pairwise(edges):
            by_pair, _ = parser.parse("".join(lines[begin:end]), begin + 1, NOW_MS)
            columns = by_pair["BTC/USD"]
            found += list(zip(columns.times, columns.sides, columns.prices, strict=True))
        return found

    inner = sorted(cut for cut in cuts if cut < len(lines))
    assert parse([0, *inner, len(lines)]) == parse([0, len(lines)])
