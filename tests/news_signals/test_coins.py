"""Which coins a text names, and where."""

import csv
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.news import MARKET, MAX_BODY_CHARS
from services.news_signals.coin_list import load_coins
from services.news_signals.coins import Found
from tests.news_signals.support import FINDER

WORDS = [
    *("Bitcoin", "Cash", "bitcoin's", "BTC", "ETH/BTC", "BTCUSDT", "$sol", "SOL", "Near", "NEAR", "Protocol"),
    *(
        "Sui",
        "Avalanche",
        "Warning",
        "Ripple",
        "crypto",
        "Token",
        "price",
        "-",
        "/",
        ",",
        "$",
        "60,000",
        "’s",
    ),
    *(
        "One",
        "LINK",
        "https://x.y/bitcoin",
        "@ethereum",
        "\u200b",
        "Ｂｉｔｃｏｉｎ",
        "ﬁ",
        "e\u0301",
        "ß",
        "🚀",
        "\x00",
        " - ",
    ),
]
texts = st.lists(st.sampled_from(WORDS), max_size=30).flatmap(
    lambda words: st.sampled_from((" ", "", "  ")).map(lambda gap: gap.join(words))
) | st.text(max_size=200)

#: Headlines that we wrote, about crypto and not, with the coins that each is about but for the market.
HEADLINES = list(
    csv.DictReader((Path(__file__).parent / "headlines.csv").read_text(encoding="utf-8").splitlines())
)


def coins(title: str, body: str = "", hints: tuple[str, ...] = ()) -> list[str]:
    return list(FINDER.find(title, body, hints).coins)


def spans(title: str) -> list[tuple[str, str]]:
    return [(mention.coin, title[mention.start : mention.end]) for mention in FINDER.find(title).mentions]


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("Bitcoin rallies", ["BTC"]),
        ("bitcoin slips as ether gains", ["BTC", "ETH"]),
        ("Ether gains as BITCOIN slips", ["ETH", "BTC"]),
        ("Bitcoin’s rally and Ethereum's upgrade", ["BTC", "ETH"]),
        ("Police return 120 stolen bitcoins", ["BTC"]),
        ("Bitcoin-backed loans return", ["BTC"]),
        ("ETH/BTC hits a low", ["ETH", "BTC"]),
        ("ETH-BTC hits a low", ["ETH", "BTC"]),
        ("BTCUSD and SOLUSDT trade sideways", ["BTC", "SOL"]),
        ("NEAR/USDT listed", ["NEAR"]),
        ("Traders buy $eth and $SOL", ["ETH", "SOL"]),
        ("Bitcoin Cash jumps, Bitcoin does not", ["BCH", "BTC"]),
        ("Ethereum Classic hard fork", ["ETC"]),
        ("Wrapped Bitcoin moves to a new custodian", ["WBTC"]),
        ("Bitcoin SV delisted", ["BSV"]),
        ("Shiba Inu burns soar", ["SHIB"]),
        ("USD Coin supply shrinks", ["USDC"]),
        ("Spot Bitcoin ETF sees inflows", ["BTC"]),
        ("Toncoin and MATIC climb", ["TON", "POL"]),
        ("1inch unveils a wallet", ["1INCH"]),
        ("Ether.Bitcoin,XRP", ["ETH", "BTC", "XRP"]),
    ],
)
def test_names_and_tickers_are_found_in_the_order_of_their_first_mention(
    title: str, expected: list[str]
) -> None:
    assert coins(title) == expected


@pytest.mark.parametrize(
    "title",
    [
        "Solana Beach council approves bike lane",
        "Stellar earnings lift retailer's stock",
        "Avalanche kills two skiers near Innsbruck",
        "Near misses at regional airports double in a year",
        "Near-record heat expected across the plains",
        "The dot on the map where two rivers meet",
        "Sui Southern Gas announces load management schedule",
        "LINK trainer opens fitness studio",
        "Jupiter and Venus appear side by side",
        "Ripple effects of steel tariffs hit parts makers",
        "Study: compound found in broccoli",
        "One night in Lisbon",
        "Gas prices climb for the sixth week",
        "Maker Faire returns to Kansas City",
        "The sole remaining bank, in total, said nothing about the atom",
        "Flow of refugees slows",
        "ebitcoinx and ethereal bnbs",
        "LOCAL BAKERY NEAR OP SHOP WINS PRIZE FOR ONE DOT",
        "https://example.com/bitcoin-and-ethereum by @solana",
        "Вitcoin in Cyrillic look-alikes",
        "",
        "   ",
    ],
)
def test_words_that_look_like_coins_are_none(title: str) -> None:
    assert coins(title) == []


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("Sui validators freeze stolen funds", ["SUI"]),
        ("Avalanche token jumps 14%", ["AVAX"]),
        ("Near Protocol lays off staff", ["NEAR"]),
        ("Bitcoin near $60,000", ["BTC"]),
        ("Bitcoin Near $60,000 as ETF Demand Fades", ["BTC"]),
        ("Bitcoin and Near climb", ["BTC", "NEAR"]),
        ("Whale withdraws 3 million LINK", ["LINK"]),
        ("SEC drops its case against Ripple", ["XRP"]),
        ("Ripple and Stellar: same founder, different roads", ["XRP", "XLM"]),
        ("Curve tokens slide after exploit", ["CRV"]),
        ("Yield curve inverts, bitcoin slips", ["BTC"]),
        ("Maker and Compound tokens droop", ["MKR", "COMP"]),
        ("Dash jumps 12%", ["DASH"]),
        ("Bitcoin in a mad dash for cash", ["BTC"]),
        ("Optimism's bug bounty averts an ether disaster", ["OP", "ETH"]),
        ("Optimism over ETF approval lifts bitcoin", ["BTC"]),
        ("Sui-based exchange drained of tokens", ["SUI"]),
    ],
)
def test_ambiguous_names_need_their_context(title: str, expected: list[str]) -> None:
    assert coins(title) == expected


@pytest.mark.parametrize("row", HEADLINES, ids=lambda row: row["title"])
def test_headlines_name_their_coins_and_no_others(row: dict[str, str]) -> None:
    assert sorted(set(coins(row["title"])) - {MARKET}) == sorted(row["coins"].split())


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("Near tops $8", ["NEAR"]),
        ("Optimism slips below $2", ["OP"]),
        ("Traders' Optimism slips below $2", []),
        ("Market Optimism Slips as Ether Falls", ["ETH"]),
        ("Layer 2 Optimism Slips as Ether Falls", ["OP", "ETH"]),
        ("Upbit Lists Optimism Token", ["OP"]),
        ("Ether Slips 4% on Optimism", ["ETH"]),
        ("Uniswap Goes Live on Optimism", ["UNI", "OP"]),
    ],
)
def test_a_name_that_is_an_everyday_word_begins_its_phrase(title: str, expected: list[str]) -> None:
    assert coins(title) == expected


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("DOT tops $8", ["DOT"]),
        ("DOT finally breaks out above $8", ["DOT"]),
        ("DOT (+4.2%)", ["DOT"]),
        ("DOT sags 11%", ["DOT"]),
        ("DOT to $20", ["DOT"]),
        ("DOT hits an all-time high", ["DOT"]),
        ("DOT slips to 80 cents", ["DOT"]),
        ("Fund sells 4,000 DOT", ["DOT"]),
        ("Fund sells 3.5 million DOT", ["DOT"]),
        ("DOT tops $8 billion in road grants", []),
        ("DOT hits railway with $140M fine", []),
        ("DOT cuts 11% of jobs", []),
        ("DOT tests new signs: drivers save $8", []),
        ("DOT drops 4% of airline rules", []),
        ("A $3.5 million DOT contract", []),
        ("DOT, ADA agree", []),
    ],
)
def test_a_ticker_beside_a_price_or_an_amount_needs_no_other_context(title: str, expected: list[str]) -> None:
    assert coins(title) == expected


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("Sonic (S) explained", ["S"]),
        ("Compound cuts COMP rewards", ["COMP"]),
        ("Flow (FLOW) explained", ["FLOW"]),
        ("SPX Flow (FLOW) explained", []),
        ("Seagate (STX) climbs", []),
        ("S may be read as a letter of S&P and U.S. crypto", [MARKET]),
    ],
)
def test_a_name_and_its_ticker_speak_for_each_other(title: str, expected: list[str]) -> None:
    assert coins(title) == expected


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("BITCOIN NEAR RECORD AS OP ED SAYS ONE MORE LINK TO GO", ["BTC"]),
        ("SHIBA INU TO $1 SAYS ANALYST WHO SAW DOT AND LINK", ["SHIB"]),
        ("BREAKING: XRP ARMY ASSEMBLES, $LINK TOO", ["XRP", "LINK"]),
    ],
)
def test_a_title_in_capitals_does_not_turn_every_word_into_a_ticker(title: str, expected: list[str]) -> None:
    assert coins(title) == expected


def test_a_letter_is_a_ticker_only_in_brackets_after_its_name() -> None:
    assert spans("Sonic (S) leads U.S. tokens") == [("S", "Sonic"), ("S", "S")]


def test_a_coin_that_is_certain_once_is_meant_elsewhere_too() -> None:
    assert coins("Flow halts", "The Flow blockchain stopped.") == ["FLOW"]
    assert coins("Flow halts", "The river stopped.") == []
    assert coins("Cosmos Falls to Earth (ATOM)") == ["ATOM"]


@pytest.mark.parametrize(
    ("title", "body", "expected"),
    [
        ("Regulator publishes crypto rules", "", [MARKET]),
        ("Stablecoins and DeFi under review", "", [MARKET]),
        ("Bitcoin leads crypto higher", "", ["BTC"]),
        ("Binance fined", "Ether fell after the news.", [MARKET, "ETH"]),
        ("Whale wakes up", "An owner of bitcoin, the largest cryptocurrency, moved coins.", ["BTC"]),
        ("Lender freezes accounts", "The cryptocurrency firm said so.", [MARKET]),
        ("Lender freezes accounts", "It is sorry. " * 40 + "The crypto firm said so.", []),
    ],
)
def test_the_market_is_meant_only_where_no_coin_is_named(title: str, body: str, expected: list[str]) -> None:
    assert coins(title, body) == expected


def test_a_source_that_hints_at_the_market_means_it_where_no_coin_is_named() -> None:
    assert coins("Lender freezes accounts", hints=(MARKET,)) == [MARKET]
    assert coins("Bitcoin slips", hints=(MARKET,)) == ["BTC"]


def test_spans_are_those_of_the_original_title() -> None:
    assert spans("ETH/BTC: Bitcoin’s BTCUSDT") == [
        ("ETH", "ETH"), ("BTC", "BTC"), ("BTC", "Bitcoin"), ("BTC", "BTC"),
    ]  # fmt: skip
    assert spans("🚀 Bit\u200bcoin Ｅｔｈｅｒ 🚀") == [("BTC", "Bit\u200bcoin"), ("ETH", "Ｅｔｈｅｒ")]
    assert spans("Traders dump $SOL") == [("SOL", "SOL")]


def test_a_body_is_searched_with_the_title_as_context() -> None:
    found = FINDER.find("Prices slide", "Sui fell most. Then Bitcoin.")
    assert [m.coin for m in found.body_mentions] == ["SUI", "BTC"]
    assert found.mentions == ()


def test_hinted_coins_are_named_last_and_unknown_ones_are_counted() -> None:
    found = FINDER.find("Bitcoin slips", hints=("ETH", "BTC", "NOSUCHCOIN", "XBT"))
    assert found.coins == ("BTC", "ETH")
    assert found.hinted == {"BTC", "ETH"}
    assert found.unknown_hints == 1


def test_a_hint_makes_a_doubtful_ticker_certain() -> None:
    assert coins("ANALYST SAYS LINK IS READY") == []
    assert [m.coin for m in FINDER.find("ANALYST SAYS LINK IS READY", hints=("LINK",)).mentions] == ["LINK"]


def test_every_coin_of_the_list_is_found_by_a_term_of_its_own() -> None:
    for coin in load_coins():
        ways = [f"{term} token" for grade, terms in coin.terms.items() for term in terms if grade != "not"]
        assert any(coin.coin in coins(f"{way} jumps on crypto exchanges") for way in ways) or (
            coin.coin == MARKET
        ), coin.coin


@given(texts, texts, st.lists(st.sampled_from(("BTC", "ETH", "NEAR", MARKET, "X")), max_size=4))
def test_any_text_has_valid_spans_in_order_without_overlap(title: str, body: str, hints: list[str]) -> None:
    found = FINDER.find(title, body, hints)
    for text, mentions in ((title, found.mentions), (body, found.body_mentions)):
        ends = [0]
        for mention in mentions:
            assert ends[-1] <= mention.start < mention.end <= len(text)
            assert mention.coin in found.coins
            ends.append(mention.end)
    assert len(set(found.coins)) == len(found.coins)
    named = {mention.coin for mention in (*found.mentions, *found.body_mentions)}
    assert set(found.coins) == named | found.hinted
    assert isinstance(found, Found)
    assert FINDER.find(title, body, hints[::-1]) == found


@given(st.lists(st.sampled_from(["Bitcoin", "Ethereum", "Solana", "Dogecoin", "Monero"]), unique=True))
def test_every_sure_name_of_a_list_is_found_in_order(names: list[str]) -> None:
    tickers = {"Bitcoin": "BTC", "Ethereum": "ETH", "Solana": "SOL", "Dogecoin": "DOGE", "Monero": "XMR"}
    assert coins(", ".join(names)) == [tickers[name] for name in names]


@pytest.mark.parametrize(
    "word",
    ["Near, ", "NEAR Near ", "$", "Bitcoin-", "Flow Link Dash ", "COMP Compound ", "LINK will ", "(1,0 S "],
)
def test_the_longest_body_is_searched_in_well_under_a_second(word: str) -> None:
    body = (word * MAX_BODY_CHARS)[:MAX_BODY_CHARS]
    begun = time.process_time()
    FINDER.find("Bitcoin slips", body)
    assert time.process_time() - begun < 1
