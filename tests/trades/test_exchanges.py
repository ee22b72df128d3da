"""The mappers: recorded and malformed frames and pages in, trades out."""

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from services.common.errors import SourceError, SourceUnavailableError
from services.common.symbols import kraken_name
from services.trades import exchanges
from services.trades.exchanges import REGISTRY
from services.trades.exchanges.contract import (
    MAX_TRADE_ID,
    Ack,
    Alive,
    Bad,
    Event,
    Exchange,
    Gap,
    Ignored,
    PageRequest,
    Refused,
    Status,
    Trades,
    parse_time_ms,
)
from services.trades.exchanges.kraken import OVERLAP_MS
from tests.trades.support import RECORDINGS, T0_MS, kraken_frame, kraken_row

NOW_MS = T0_MS + 3_600_000
PAIRS = {
    "kraken": ("BTC/USD", "ETH/USD"),
    "coinbase": ("BTC/USD", "ETH/USD"),
    "binance": ("BTC/USDT", "ETH/USDT"),
}


def built(name: str) -> Exchange:
    return REGISTRY[name](PAIRS[name])


def kraken(frame: str | bytes) -> list[Event]:
    return built("kraken").parse_frame(frame if isinstance(frame, bytes) else frame.encode(), NOW_MS)


def coinbase(**values: Any) -> list[Event]:
    match = {
        "type": "match",
        "trade_id": 7,
        "side": "buy",
        "size": "0.5",
        "price": "100.25",
        "product_id": "BTC-USD",
        "time": "2026-05-28T20:26:40.123456Z",
    }
    return built("coinbase").parse_frame(json.dumps(match | values).encode(), NOW_MS)


def binance(**values: Any) -> list[Event]:
    data = {"e": "trade", "s": "BTCUSDT", "t": 7, "p": "100.25", "q": "0.5", "T": T0_MS, "m": True}
    frame = {"stream": "btcusdt@trade", "data": data | values}
    return built("binance").parse_frame(json.dumps(frame).encode(), NOW_MS)


def test_the_registry_and_the_folder_agree() -> None:
    folder = Path(exchanges.__file__).parent
    files = {path.stem for path in folder.glob("*.py")} - {"__init__", "contract"}
    assert files == set(REGISTRY)
    for name, exchange in REGISTRY.items():
        assert exchange(("BTC/USD",)).name == name
        assert list(RECORDINGS.glob(f"{name}-ws-*.ndjson.gz"))


@pytest.mark.parametrize(
    ("name", "counts"),
    [("kraken", (12, 5)), ("coinbase", (345, 92)), ("binance", (748, 415))],
)
def test_every_trade_of_a_recording_is_read_and_ids_have_no_hole(name: str, counts: tuple[int, int]) -> None:
    exchange = built(name)
    ids: dict[str, list[int]] = {pair: [] for pair in PAIRS[name]}
    kinds: Counter[str] = Counter()
    with gzip.open(RECORDINGS / f"{name}-ws-2026-07-07.ndjson.gz") as file:
        for line in file:
            for event in exchange.parse_frame(line, 1_790_000_000_000):
                kinds[type(event).__name__] += 1
                if isinstance(event, Trades):
                    ids[event.pair] += [trade.trade_id for trade in event.trades]
                    for trade in event.trades:
                        assert (trade.exchange, trade.pair) == (name, event.pair)
    assert tuple(len(of_pair) for of_pair in ids.values()) == counts
    for of_pair in ids.values():
        assert of_pair == list(range(of_pair[0], of_pair[0] + len(of_pair)))
    assert kinds["Bad"] == 0
    assert kinds["Ack"] == (0 if name == "binance" else 2)


def test_the_side_is_the_takers_everywhere() -> None:
    assert [t.side for t in trades_of(kraken(kraken_frame(kraken_row(1, side="sell"))))] == ["sell"]
    # Coinbase names the maker's.
    assert [t.side for t in trades_of(coinbase(side="buy"))] == ["sell"]
    # On Binance m says that the buyer was the maker.
    assert [t.side for t in trades_of(binance(m=True))] == ["sell"]
    assert [t.side for t in trades_of(binance(m=False))] == ["buy"]


def trades_of(events: list[Event]) -> list[Any]:
    return [trade for event in events if isinstance(event, Trades) for trade in event.trades]


def test_all_rows_of_a_frame_are_taken_and_split_by_pair() -> None:
    rows = [kraken_row(i) for i in range(12)] + [kraken_row(3, "ETH/USD")]
    first, second = kraken(kraken_frame(*rows, kind="snapshot"))
    assert isinstance(first, Trades)
    assert first.is_snapshot
    assert [trade.trade_id for trade in first.trades] == list(range(12))
    assert isinstance(second, Trades)
    assert second.pair == "ETH/USD"
    assert kraken(kraken_frame()) == []


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("2026-07-07T23:00:04Z", 0),
        ("2026-07-07T23:00:04.5Z", 500),
        ("2026-07-07T23:00:04.585Z", 585),
        ("2026-07-07T23:00:04.585999Z", 585),
        ("2026-07-07T23:00:04.585999999Z", 585),
    ],
)
def test_times_have_up_to_nine_digits(text: str, ms: int) -> None:
    assert parse_time_ms(text) == 1_783_465_204_000 + ms


@pytest.mark.parametrize(
    ("frame", "event"),
    [
        ('{"channel":"heartbeat"}', Alive()),
        ('{"method":"pong","req_id":101}', Alive()),
        ('{"channel":"status","type":"update","data":[{"system":"maintenance"}]}', Status("maintenance")),
        ('{"channel":"book","type":"update","data":[]}', Ignored("unknown_channel")),
        (
            '{"method":"subscribe","result":{"channel":"trade","symbol":"ETH/USD"},"success":true}',
            Ack("ETH/USD"),
        ),
        (
            '{"error":"Currency pair not supported","method":"subscribe","success":false,"symbol":"ETH/USD"}',
            Refused("ETH/USD", "Currency pair not supported"),
        ),
        (
            '{"error":"Currency pair not supported XBT/USD","method":"subscribe","success":false}',
            Refused(None, "Currency pair not supported XBT/USD"),
        ),
        ('{"Error":"Exceeded msg rate"}', Refused(None, "Exceeded msg rate", transient=True)),
        (
            '{"error":"Already subscribed","method":"subscribe","success":false,"symbol":"BTC/USD"}',
            Ack("BTC/USD"),
        ),
    ],
)
def test_krakens_other_frames(frame: str, event: Event) -> None:
    assert kraken(frame) == [event]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"price": 0}, "bad_price"),
        ({"price": -1.5}, "bad_price"),
        ({"qty": 0}, "bad_quantity"),
        ({"qty": -1}, "bad_quantity"),
        ({"price": "100"}, "bad_row"),
        ({"side": "short"}, "bad_row"),
        ({"trade_id": "a"}, "bad_row"),
        ({"trade_id": -1}, "bad_trade_id"),
        ({"timestamp": "yesterday"}, "bad_time"),
        ({"timestamp": "2026-05-28T20:26:40"}, "bad_time"),
        ({"timestamp": "2026-05-29T20:26:40Z"}, "future_event"),
    ],
)
def test_a_bad_kraken_row_is_refused_and_its_neighbours_are_kept(change: dict[str, Any], reason: str) -> None:
    events = kraken(kraken_frame(kraken_row(1), kraken_row(2) | change, kraken_row(3)))
    assert [trade.trade_id for trade in trades_of(events)] == [1, 3]
    (bad,) = [event for event in events if isinstance(event, Bad)]
    assert bad.error.reason == reason
    assert json.loads(bad.raw) == kraken_row(2) | change


@pytest.mark.parametrize("number", ["1e999", "-1e999"])
def test_a_number_beyond_floats_is_refused_with_its_row_only(number: str) -> None:
    frame = kraken_frame(kraken_row(1), kraken_row(2, price=123456789)).replace("123456789", number)
    events = kraken(frame)
    assert [trade.trade_id for trade in trades_of(events)] == [1]
    assert [event.error.reason for event in events if isinstance(event, Bad)] == ["bad_row"]


@pytest.mark.parametrize("name", REGISTRY)
@pytest.mark.parametrize(
    "frame", [b"", b"nonsense", b"\xff\xfe\x00", b'{"channel":"trade","data":[{"price":NaN}]}', b"[1]"]
)
def test_what_is_no_frame_goes_to_the_dead_letters(name: str, frame: bytes) -> None:
    (event,) = built(name).parse_frame(frame, NOW_MS)
    assert isinstance(event, Bad)
    assert event.raw == frame


@pytest.mark.parametrize("value", ["NaN", "inf", "1e999", "0", "-1", "", "1_0", None])
def test_bad_numbers_written_as_text_are_refused(value: str | None) -> None:
    for events in (coinbase(price=value), coinbase(size=value), binance(p=value), binance(q=value)):
        (event,) = events
        assert isinstance(event, Bad)


def test_pairs_that_are_not_configured_are_ignored() -> None:
    ignored = [Ignored("unconfigured_pair")]
    assert kraken(kraken_frame(kraken_row(1, "SOL/USD"))) == ignored
    assert coinbase(product_id="SOL-USD") == ignored
    assert binance(s="SOLUSDT") == ignored


def test_coinbase_acks_heartbeats_and_errors() -> None:
    exchange = built("coinbase")

    def parse(**frame: Any) -> list[Event]:
        return exchange.parse_frame(json.dumps(frame).encode(), NOW_MS)

    channel = {"name": "matches", "product_ids": ["ETH-USD"]}
    assert parse(type="subscriptions", channels=[channel]) == [Ack("ETH/USD")]
    assert parse(type="heartbeat", product_id="BTC-USD", last_trade_id=9) == [Alive((("BTC/USD", 9),))]
    refusal = parse(type="error", message="Failed to subscribe", reason="BTC-USD is not a valid product")
    assert refusal == [Refused("BTC/USD", "Failed to subscribe: BTC-USD is not a valid product")]
    (last,) = coinbase(type="last_match")
    assert isinstance(last, Trades)
    assert last.is_snapshot


def test_binance_answers_errors_and_shutdown() -> None:
    exchange = built("binance")
    assert exchange.parse_frame(b'{"result":null,"id":1}', NOW_MS) == [Ack("BTC/USDT"), Ack("ETH/USDT")]
    (refused,) = exchange.parse_frame(b'{"error":{"code":2,"msg":"Invalid request"},"id":1}', NOW_MS)
    assert refused == Refused(None, "Invalid request (2)")
    (status,) = exchange.parse_frame(b'{"e":"serverShutdown","E":1}', NOW_MS)
    assert isinstance(status, Status)
    assert status.reconnect


# --- REST -----------------------------------------------------------------------------------------

GAP = Gap("BTC/USD", 11, 20, T0_MS)


def kraken_page(body: str | bytes, gap: Gap = GAP) -> Any:
    exchange = built("kraken")
    return exchange.parse_page(
        gap, exchange.first_page(gap), body if isinstance(body, bytes) else body.encode(), NOW_MS
    )


def test_krakens_kraken_names_are_those_of_its_asset_pairs() -> None:
    pairs = json.loads((RECORDINGS / "kraken-assetpairs.json").read_text())["result"]
    ours = {"XBT": "BTC", "XDG": "DOGE"}
    for entry in pairs.values():
        base, quote = entry["wsname"].split("/")
        assert kraken_name(f"{ours.get(base, base)}/{ours.get(quote, quote)}") == entry["altname"]


@pytest.mark.parametrize("key", ["XXBTZUSD", "XBTUSDT", "BTC/USD"])
def test_a_kraken_page_is_read_whatever_its_key(key: str) -> None:
    row = ["30243.40000", "0.34507674", 1688669597.8277369, "b", "m", "", 11]
    page = kraken_page(json.dumps({"error": [], "result": {key: [row], "last": "1688671969993150842"}}))
    (trade,) = page.trades
    assert (trade.price, trade.side, trade.event_time_ms) == (30243.4, "buy", 1688669597827)
    # Nanoseconds as text, asked from one before.
    assert page.next.params["since"] == "1688671969993150841"


def test_a_kraken_page_without_a_cursor_does_not_advance() -> None:
    page = kraken_page('{"error":[],"result":{"XXBTZUSD":[]}}')
    assert page.trades == []
    assert page.next.cursor == built("kraken").first_page(GAP).cursor


def test_a_kraken_page_that_reaches_the_gaps_end_is_the_last() -> None:
    rows = [["1", "1", T0_MS / 1000, "s", "l", "", i] for i in (19, 20, 21)]
    page = kraken_page(json.dumps({"error": [], "result": {"X": rows, "last": "17"}}))
    assert page.next is None
    assert [trade.side for trade in page.trades] == ["sell"] * 3


@pytest.mark.parametrize(
    "body",
    [
        '{"error":["EAPI:Rate limit exceeded"]}',
        '{"error":["EGeneral:Too many requests"],"result":{}}',
        '{"error":["EService:Unavailable"],"result":null}',
        '{"error":["EService:Busy"]}',
        '{"error":["EService: Throttled: 1780003610"]}',
        '{"error":[],"result":{}}',
        '{"error":[],"result":null}',
        '{"error":[]}',
        "<html>cloudflare</html>",
        '{"error":[],"result":{"XXBTZUSD":[["1","2"',
        "",
    ],
)
def test_kraken_answers_that_are_worth_another_try(body: str) -> None:
    with pytest.raises(SourceUnavailableError) as caught:
        kraken_page(body)
    if "Throttled" in body:
        assert caught.value.retry_after_s == pytest.approx(10.0)


@pytest.mark.parametrize("text", ["EQuery:Unknown asset pair", "EGeneral:Invalid arguments"])
def test_kraken_answers_that_are_final(text: str) -> None:
    with pytest.raises(SourceError, match=text) as caught:
        kraken_page(json.dumps({"error": [text]}))
    assert not isinstance(caught.value, SourceUnavailableError)


def test_a_bad_rest_row_is_refused_alone() -> None:
    rows = [["1", "1", T0_MS / 1000, side, "l", "", 20] for side in ("b", "x")]
    rows.append(["NaN", "1", T0_MS / 1000, "b", "l", "", 20])
    page = kraken_page(json.dumps({"error": [], "result": {"X": rows}}))
    assert len(page.trades) == 1
    assert [bad.error.reason for bad in page.bad] == ["bad_row", "bad_price"]


def test_coinbase_pages_go_backwards_to_the_gaps_beginning() -> None:
    exchange = built("coinbase")
    gap = Gap("BTC/USD", 500, 3000, T0_MS)
    request: PageRequest | None = exchange.first_page(gap)
    assert request is not None
    assert request.params["after"] == "3001"
    seen: set[int] = set()
    while request is not None:
        newest = int(request.params["after"]) - 1
        at = "2026-05-28T20:26:40.1Z"
        body = [
            {"trade_id": i, "side": "sell", "size": "1", "price": "2", "time": at}
            for i in range(newest, newest - 1000, -1)
        ]
        page = exchange.parse_page(gap, request, json.dumps(body).encode(), NOW_MS)
        assert {trade.side for trade in page.trades} == {"buy"}
        seen |= {trade.trade_id for trade in page.trades}
        assert page.next is None or page.next.cursor > request.cursor
        request = page.next
    assert seen >= set(range(500, 3001))


def test_refusals_of_coinbase_and_binance_are_final_or_not() -> None:
    for name, body, final in [
        ("coinbase", b'{"message":"NotFound"}', True),
        ("coinbase", b'{"message":"Public rate limit exceeded"}', False),
        ("coinbase", b"<html>", False),
        ("binance", b'{"code":-1121,"msg":"Invalid symbol."}', True),
        ("binance", b'{"code":-1003,"msg":"Too many requests."}', False),
        ("binance", b"<html>", False),
    ]:
        exchange = built(name)
        with pytest.raises(SourceError) as caught:
            exchange.parse_page(GAP, exchange.first_page(GAP), body, NOW_MS)
        assert isinstance(caught.value, SourceUnavailableError) is not final, body


# --- histories ------------------------------------------------------------------------------------

SINCE = Gap("BTC/USD", 0, MAX_TRADE_ID, T0_MS)


@pytest.mark.parametrize("name", REGISTRY)
def test_an_exchange_can_begin_a_history_at_a_time_or_says_why_not(name: str) -> None:
    exchange = built(name)
    gap = Gap(PAIRS[name][0], 0, MAX_TRADE_ID, T0_MS)
    if exchange.no_history is None:
        assert exchange.first_page_since(gap).path.startswith("/")
    else:
        with pytest.raises(SourceError) as caught:
            exchange.first_page_since(gap)
        assert str(caught.value) == exchange.no_history
    first = exchange.first_page(gap)
    assert exchange.page_at(gap, first.cursor) == first


def test_krakens_history_begins_a_little_before_its_time_in_nanoseconds() -> None:
    request = built("kraken").first_page_since(SINCE)
    assert request.params["since"] == f"{T0_MS - OVERLAP_MS - 1}999999"
    assert len(request.params["since"]) == 19


def test_a_kraken_page_without_a_cursor_goes_on_from_its_last_trade() -> None:
    rows = [["1", "1", (T0_MS + ms) / 1000, "s", "l", "", ms] for ms in (1, 2, 3)]
    page = kraken_page(json.dumps({"error": [], "result": {"X": rows}}), SINCE)
    assert page.next.cursor == (T0_MS + 3) * 1_000_000


def test_an_empty_kraken_page_moves_no_cursor() -> None:
    page = kraken_page('{"error":[],"result":{"X":[],"last":"1999999999999999999"}}', SINCE)
    assert page.next == built("kraken").first_page(SINCE)


def test_a_kraken_page_says_whether_it_is_full() -> None:
    rows = [["1", "1", T0_MS / 1000, "s", "l", "", i] for i in range(1000)]
    for count in (999, 1000):
        page = kraken_page(json.dumps({"error": [], "result": {"X": rows[:count]}}), SINCE)
        assert page.full is (count == 1000)


def test_krakens_unknown_service_errors_are_worth_another_try() -> None:
    with pytest.raises(SourceUnavailableError):
        kraken_page('{"error":["EService:Deadline elapsed"]}')


def test_binance_passes_an_aggregate_that_names_no_trades() -> None:
    exchange = built("binance")
    gap = Gap("BTC/USDT", 0, MAX_TRADE_ID, T0_MS)
    request = PageRequest("/api/v3/aggTrades", {"startTime": str(T0_MS)}, -1)
    page = exchange.parse_page(gap, request, b'[{"f":-1,"l":-1,"T":%d}]' % (T0_MS + 4), NOW_MS)
    assert page.next is not None
    assert (page.next.path, page.next.params["startTime"]) == (request.path, str(T0_MS + 5))


@pytest.mark.parametrize(
    ("status", "body", "asks"),
    [
        (401, b"", True),
        (401, b'{"code":-2015,"msg":"Invalid API-key"}', True),
        (400, b'{"code":-2014,"msg":"API-key format invalid."}', True),
        (429, b'{"code":-1003,"msg":"Too many requests."}', False),
        (400, b'{"code":-1121,"msg":"Invalid symbol."}', False),
        (403, b"<html>", False),
    ],
)
def test_binance_asking_for_a_key_is_told_apart(status: int, body: bytes, asks: bool) -> None:
    refusal = built("binance").parse_refusal(status, body)
    assert (refusal is not None) is asks
    if refusal is not None:
        assert "data.binance.vision" in str(refusal)
    assert built("kraken").parse_refusal(status, body) is None
    assert built("coinbase").parse_refusal(status, body) is None
