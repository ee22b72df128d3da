"""The historical source over REST, against exchanges on loopback sockets."""

import threading
from collections.abc import Iterator
from itertools import count, pairwise
from pathlib import Path

import msgspec
import pytest
from loguru import logger

from services.common.errors import SettingsError, SourceError
from services.common.history_report import HistoryReport, Missing, PairHistory
from services.common.metrics import Metrics
from services.trades.counters import TradeMetrics
from services.trades.exchanges.contract import Gap, Page, PageRequest
from services.trades.history.ledger import Ledger, duration_text
from services.trades.history.walk import NOT_GIVEN, SETTLE_MS
from services.trades.rest import CONCURRENT_REQUESTS, PacedFetch
from tests.trades.history_support import (
    HOUR_MS,
    NOW_MS,
    T0_NS,
    Answer,
    FakeBinance,
    FakeKraken,
    Row,
    backfill,
    every,
    ok,
    prepare,
    rows_of,
    running,
    spooled,
)
from tests.trades.support import T0_MS, FakePublisher, replay, rest_server, trade, wait_until


@pytest.fixture
def log() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(str(message)), format="{level} {message}")
    yield lines
    logger.remove(sink)


# --- a whole run ----------------------------------------------------------------------------------


def test_a_range_goes_out_whole_in_batches_and_ends(tmp_path: Path) -> None:
    server = FakeKraken({"BTC/USD": every(2500, 1000)})
    with rest_server(server.answer) as rest:
        run = backfill(tmp_path, rest.url, batch_rows="400")
    assert run.kinds() == ["begin", "trades", "end"]
    assert run.publisher.ids() == list(range(1, 2501))
    begin, *sizes, end = run.publisher.messages
    assert begin[2] == T0_MS
    assert max(len(message[2]) for message in sizes) == 400
    assert end[2:4] == (T0_MS + HOUR_MS, 1)
    assert run.report() == HistoryReport(
        "kraken",
        "rest",
        T0_MS,
        T0_MS + HOUR_MS,
        [PairHistory("BTC/USD", 2500, 1, 2500, T0_MS, T0_MS + 2_499_000)],
        ended=True,
        duration_s=run.report().duration_s,
    )
    assert run.value("history_done_ratio", pair="BTC/USD") == 1
    assert run.value("trades_filled_total", pair="BTC/USD") == 2500
    assert run.health.not_ready() == []
    # Complete: the next run is a new one.
    assert not (tmp_path / "progress.json").exists()


def test_prices_and_quantities_survive_the_spool_to_the_last_bit(tmp_path: Path) -> None:
    rows = [
        Row(i, T0_NS + i * 10**9, price, quantity)
        for i, (price, quantity) in enumerate(
            [(1e-8, 5e-324), (0.1 + 0.2, 1e22), (123456789.12345679, 1 / 3), (1.7976931348623157e308, 7.0)]
        )
    ]
    with rest_server(FakeKraken({"BTC/USD": rows}).answer) as rest:
        run = backfill(tmp_path, rest.url)
    sent = [(t.price, t.quantity) for t in run.publisher.rows()]
    assert sent == [(row.price, row.quantity) for row in rows]
    kept = spooled(tmp_path)
    assert [msgspec.structs.replace(t, received_at_ms=0) for t in kept] == [
        msgspec.structs.replace(t, received_at_ms=0) for t in run.publisher.rows()
    ]


def test_the_spool_is_a_recording_that_can_be_replayed(tmp_path: Path) -> None:
    with rest_server(FakeKraken({"BTC/USD": every(2500, 1000)}).answer) as rest:
        run = backfill(tmp_path, rest.url)
    (path,) = tmp_path.rglob("trades.csv.gz")
    again = replay(tmp_path / "replay", path, exchange="kraken", pairs="BTC/USD")
    assert [msgspec.structs.replace(t, received_at_ms=0) for t in again.publisher.rows()] == [
        msgspec.structs.replace(t, received_at_ms=0) for t in run.publisher.rows()
    ]


def test_only_trades_from_since_to_before_until_go_out(tmp_path: Path) -> None:
    hour = HOUR_MS * 1_000_000
    rows = rows_of([-2_000_000_000, -1_000_000, 0, 1_000_000, hour - 1_000_000, hour, hour + 10**10], 7)
    with rest_server(FakeKraken({"BTC/USD": rows}).answer) as rest:
        run = backfill(tmp_path, rest.url)
    assert run.publisher.ids() == [9, 10, 11]
    assert (run.report().pairs[0].first_id, run.report().pairs[0].last_id) == (9, 11)


def test_a_pair_without_trades_begins_and_ends_too(tmp_path: Path) -> None:
    server = FakeKraken({"BTC/USD": every(5), "ETH/USD": []})
    with rest_server(server.answer) as rest:
        run = backfill(tmp_path, rest.url, pairs="BTC/USD,ETH/USD")
    assert run.kinds("ETH/USD") == ["begin", "end"]
    assert run.kinds() == ["begin", "trades", "end"]
    assert {message[3] for message in run.publisher.messages if message[0] == "end"} == {2}
    assert run.value("history_done_ratio", pair="ETH/USD") == 1


def test_without_until_it_ends_with_the_present_when_that_has_settled(tmp_path: Path) -> None:
    start_ms = T0_MS + 60_000
    now = [start_ms]
    server = FakeKraken({"BTC/USD": every(61, 1000)})

    def answer(path: str, params: dict[str, str]) -> Answer:
        # Twelve requests, and the exchange still does not show a trade of the last second.
        now[0] = start_ms + SETTLE_MS - (50 if len(server.requests) < 12 else 0)
        if len(server.requests) == 12:
            server.rows["BTC/USD"].append(Row(62, (start_ms - 1) * 10**6))
            server.rows["BTC/USD"].sort(key=lambda row: row.ns)
        return server.answer(path, params)

    with rest_server(answer) as rest:
        run = backfill(tmp_path, rest.url, lambda: now[0], until="")
    assert run.report().until_ms == start_ms
    assert run.publisher.messages[-1][:3] == ("end", "BTC/USD", start_ms)
    # The 61st lies at the end itself.
    assert run.publisher.ids() == [*range(1, 61), 62]


def test_the_future_is_cut_off_and_refused_alone(tmp_path: Path) -> None:
    with rest_server(FakeKraken({"BTC/USD": every(5)}).answer) as rest:
        clock = count(T0_MS + HOUR_MS, 50_000)
        run = backfill(tmp_path, rest.url, lambda: next(clock), until=str(NOW_MS))
        assert run.report().until_ms == T0_MS + HOUR_MS
        assert "TRADES_UNTIL lies in the future" in run.report().notes[0]
        with pytest.raises(SourceError, match="TRADES_SINCE lies in the future"):
            prepare(tmp_path, rest.url, lambda: T0_MS)


def test_pairs_are_fetched_side_by_side(tmp_path: Path) -> None:
    server = FakeKraken({"BTC/USD": every(30), "ETH/USD": every(20)})
    both = threading.Barrier(2, timeout=10)
    met: set[str] = set()

    def answer(path: str, params: dict[str, str]) -> Answer:
        if params["pair"] not in met:
            met.add(params["pair"])
            # Neither goes on before the other has asked.
            both.wait()
        return server.answer(path, params)

    with rest_server(answer) as rest:
        run = backfill(tmp_path, rest.url, pairs="BTC/USD,ETH/USD")
    assert run.publisher.ids() == list(range(1, 31))
    assert run.publisher.ids("ETH/USD") == list(range(1, 21))


# --- what goes wrong ------------------------------------------------------------------------------

TROUBLE: list[Answer] = [
    ok({"error": ["EAPI:Rate limit exceeded"]}),
    ok({"error": ["EGeneral:Too many requests"], "result": {}}),
    ok({"error": ["EService:Unavailable"], "result": None}),
    ok({"error": ["EService:Busy"]}),
    ok({"error": ["EService:Deadline elapsed"]}),
    ok({"error": [f"EService: Throttled: {NOW_MS // 1000 - 5}"]}),
    ok({"error": [], "result": {}}),
    ok({"error": [], "result": None}),
    ok({"error": []}),
    (200, {}, b"<html>cloudflare</html>"),
    (200, {}, b'{"error":[],"result":{"XXBTZUSD":[["1","2"'),
    (200, {}, b""),
    (520, {}, b"<html>"),
    (500, {}, b""),
    (429, {"Retry-After": "0"}, b""),
    (503, {}, b"busy"),
    ok({"error": [], "result": {"XXBTZUSD": [], "last": str(T0_NS)}}),
    ok({"error": [], "result": {"last": str(T0_NS)}}),
]


def test_every_transient_answer_is_asked_again(tmp_path: Path) -> None:
    instead = [answer for trouble in TROUBLE for answer in (trouble, None)]
    server = FakeKraken({"BTC/USD": every(400, 1000)}, page_rows=20, instead=instead)
    with rest_server(server.answer) as rest:
        run = backfill(tmp_path, rest.url)
    assert server.instead == []
    assert run.publisher.ids() == list(range(1, 401))
    assert run.report().pairs[0].missing == []


def test_while_the_exchange_is_away_it_waits_alive_and_says_for_what(tmp_path: Path, log: list[str]) -> None:
    away = threading.Event()
    away.set()
    server = FakeKraken({"BTC/USD": every(30)})

    def answer(path: str, params: dict[str, str]) -> Answer:
        return (503, {}, b"") if away.is_set() else server.answer(path, params)

    with rest_server(answer) as rest:
        run = prepare(tmp_path, rest.url)
        with running(run) as errors:
            wait_until(lambda: len(rest.requests) > 20, "many attempts")
            assert run.health.not_live() == []
            assert "history of BTC/USD: kraken: HTTP 503" in run.health.not_ready()
            away.clear()
            wait_until(lambda: "end" in run.kinds(), "the end")
    assert errors == []
    assert run.publisher.ids() == list(range(1, 31))
    assert len([line for line in log if "waiting" in line]) == 1


def test_it_stops_at_once_and_claims_no_end(tmp_path: Path) -> None:
    server = FakeKraken({"BTC/USD": every(3000, 1000)}, page_rows=10)
    with rest_server(server.answer) as rest:
        run = prepare(tmp_path, rest.url, rest_interval_s="60")
        with running(run) as errors:
            wait_until(run.publisher.ids, "the first page")
            run.stop.set()
    assert errors == []
    assert run.kinds() == ["begin", "trades"]
    assert not run.report().ended
    assert run.report().pairs[0].trades == 10
    assert (tmp_path / "progress.json").exists()


def test_an_unknown_pair_fails_the_run_after_the_others_have_ended(tmp_path: Path) -> None:
    server = FakeKraken({"BTC/USD": every(300, 1000)}, page_rows=10)
    with rest_server(server.answer) as rest:
        run = prepare(tmp_path, rest.url, pairs="XYZ/USD,BTC/USD")
        with pytest.raises(SourceError, match=r"XYZ/USD: kraken: EQuery:Unknown asset pair"):
            run.source.run(run.stop)
    assert run.kinds() == ["begin", "trades", "end"]
    assert run.publisher.ids() == list(range(1, 301))
    # It ends where it is, so that what follows does not wait for it.
    assert run.kinds("XYZ/USD") == ["begin", "end"]
    report = run.report()
    assert report.ended
    assert report.pairs[0].missing == [
        Missing("kraken: EQuery:Unknown asset pair", from_ms=T0_MS, until_ms=T0_MS + HOUR_MS)
    ]
    assert report.pairs[1].missing == []


def test_a_hole_is_in_the_report_the_metrics_and_the_log(tmp_path: Path, log: list[str]) -> None:
    rows = [row for row in every(300, 1000) if row.trade_id not in (100, 101)]
    # Before and after the range: none of our business.
    rows += [Row(400, T0_NS + (HOUR_MS + 5000) * 10**6)]
    with rest_server(FakeKraken({"BTC/USD": rows}).answer) as rest:
        run = backfill(tmp_path, rest.url)
        hole = Missing(NOT_GIVEN, 100, 101, T0_MS + 98_000, T0_MS + 101_000)
        late = Missing(NOT_GIVEN, 301, 399, T0_MS + 299_000, T0_MS + HOUR_MS + 5000)
        assert run.report().pairs[0].missing == [hole, late]
        assert run.value("trades_missing_total", pair="BTC/USD") == 2 + 99
        assert run.value("trade_gaps_total", pair="BTC/USD") == 2
        assert any("BTC/USD lacks 2 trades, ids 100 to 101" in line for line in log)
        # It is known from the spool too, and not of an earlier range.
        again = backfill(tmp_path, rest.url, until=str(T0_MS + 90_000))
    assert again.report().pairs[0].missing == []
    assert again.report().pairs[0].trades == 90


def test_bad_rows_become_dead_letters(tmp_path: Path) -> None:
    rows = every(30, 1000)
    rows[4] = Row(5, rows[4].ns, quantity=-2.0)
    with rest_server(FakeKraken({"BTC/USD": rows}).answer) as rest:
        run = backfill(tmp_path, rest.url)
    assert [bad.error.reason for bad in run.publisher.dead] == ["bad_quantity"]
    assert run.report().pairs[0].missing[0].first_id == 5


def test_an_error_in_a_thread_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("services.trades.history.spool.Spool.append", broken)
    with rest_server(FakeKraken({"BTC/USD": every(3)}).answer) as rest:
        run = prepare(tmp_path, rest.url)
        with pytest.raises(OSError, match="no space"):
            run.source.run(run.stop)


# --- starting again -------------------------------------------------------------------------------


class StopsEarly(FakePublisher):
    """Calls `stop` after so many messages."""

    after = 4
    stop = threading.Event()

    def trades(self, *arguments: object) -> None:
        super().trades(*arguments)  # type: ignore[arg-type]
        if len(self.messages) >= self.after:
            self.stop.set()


def test_a_restart_on_the_same_broker_repeats_nothing(tmp_path: Path) -> None:
    server = FakeKraken({"BTC/USD": every(300, 1000)}, page_rows=20)
    with rest_server(server.answer) as rest:
        first = prepare(tmp_path, rest.url, publisher=StopsEarly)
        StopsEarly.stop = first.stop
        first.source.run(first.stop)
        before = first.publisher.ids()
        assert 0 < len(before) < 300
        asked = len(server.requests)
        second = backfill(tmp_path, rest.url)
    assert before + second.publisher.ids() == list(range(1, 301))
    assert second.kinds() == ["trades", "end"]
    assert second.report().pairs[0].trades == 300
    # Nor does it ask for what is spooled.
    assert min(since for _, since in server.requests[asked:]) > T0_NS + (len(before) - 2) * 10**9


def test_an_empty_broker_gets_all_from_the_spool_without_a_request(tmp_path: Path) -> None:
    rows = {"BTC/USD": every(300, 1000), "ETH/USD": every(77, 1000), "SOL/USD": []}
    with rest_server(FakeKraken(rows, page_rows=50).answer) as rest:
        first = backfill(tmp_path, rest.url, pairs="BTC/USD,ETH/USD,SOL/USD")
        asked = len(rest.requests)
        second = backfill(tmp_path, rest.url, pairs="BTC/USD,ETH/USD,SOL/USD", batch_rows="60")
        assert len(rest.requests) == asked
    for pair in rows:
        assert second.publisher.ids(pair) == first.publisher.ids(pair) == [r.trade_id for r in rows[pair]]
        assert second.kinds(pair) == first.kinds(pair)
    assert second.report().pairs == first.report().pairs


def test_a_later_until_fetches_only_what_is_new(tmp_path: Path) -> None:
    server = FakeKraken({"BTC/USD": every(300, 1000)}, page_rows=50)
    with rest_server(server.answer) as rest:
        backfill(tmp_path, rest.url, until=str(T0_MS + 100_000))
        asked = len(server.requests)
        run = backfill(tmp_path, rest.url, until=str(T0_MS + 200_000))
    assert run.publisher.ids() == list(range(1, 201))
    assert min(since for _, since in server.requests[asked:]) >= T0_NS + 98 * 10**9


# --- the books ------------------------------------------------------------------------------------


def test_the_log_says_rate_share_time_left_and_who_is_last(tmp_path: Path, log: list[str]) -> None:
    now = [100.0]
    report = HistoryReport("kraken", "rest", 0, 1000, [PairHistory("BTC/USD"), PairHistory("ETH/USD")])
    ledger = Ledger(report, tmp_path / "r.json", TradeMetrics(Metrics()), lambda: now[0])
    ledger.covered("ETH/USD", 100)
    ledger.fetching_begins()
    now[0] += 10
    ledger.passed("BTC/USD", [trade(i) for i in range(1, 51)])
    ledger.covered("BTC/USD", 600)
    ledger.covered("ETH/USD", 200)
    ledger.note_if_due()
    ledger.note_if_due()
    (line,) = [line for line in log if "of the range" in line]
    assert "50 trades, 5/s, 40.0% of the range, 1 min 20 s left; least of ETH/USD, 20.0%" in line


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "an unknown time"),
        (0.2, "0 s"),
        (59.7, "1 min 00 s"),
        (3599, "59 min 59 s"),
        (7500, "2 h 05 min"),
    ],
)
def test_durations_are_written_for_people(seconds: float | None, text: str) -> None:
    assert duration_text(seconds) == text


# --- pacing ---------------------------------------------------------------------------------------


def test_requests_keep_to_the_pace_of_each_pair_and_of_the_address() -> None:
    now = [0.0]
    started: list[tuple[str, float]] = []

    def fetch(gap: Gap, _request: PageRequest) -> Page:
        started.append((gap.pair, now[0]))
        now[0] += 0.0625
        return Page([])

    def wait(seconds: float) -> bool:
        now[0] += seconds
        return False

    paced = PacedFetch(fetch, 1.0, lambda: now[0])
    pairs = ["A/USD", "A/USD", "B/USD", "C/USD", "D/USD", "E/USD", "F/USD", "A/USD"] * 5
    for pair in pairs:
        paced(Gap(pair, 0, None, 0), PageRequest("/", {}, 0), wait)
    assert [pair for pair, _ in started] == pairs
    for pair in set(pairs):
        times = [at for of, at in started if of == pair]
        assert all(later - earlier >= 1.0 for earlier, later in pairwise(times))
    all_times = [at for _, at in started]
    for earlier, later in zip(all_times, all_times[CONCURRENT_REQUESTS:], strict=False):
        assert later - earlier >= 1.0
    with pytest.raises(SourceError, match="given up"):
        paced(Gap("A/USD", 0, None, 0), PageRequest("/", {}, 0), lambda _: True)


# --- Binance and Coinbase -------------------------------------------------------------------------


def binance_run(tmp_path: Path, server: FakeBinance, **values: str) -> FakePublisher:
    with rest_server(server.answer) as rest:
        run = backfill(tmp_path, rest.url, lambda: NOW_MS, exchange="binance", pairs="BTC/USDT", **values)
    assert run.kinds("BTC/USDT")[-1] == "end"
    return run.publisher


@pytest.mark.parametrize("page_rows", [7, 1000])
def test_binance_history_begins_with_the_id_of_its_time_and_goes_on_by_ids(
    tmp_path: Path, page_rows: int
) -> None:
    server = FakeBinance(every(3000, 1000, first_id=5000, start_ms=-100_000), page_rows)
    publisher = binance_run(tmp_path, server, until=str(T0_MS + 60_000))
    assert publisher.ids("BTC/USDT") == list(range(5100, 5160))
    paths = [path for path, _ in server.requests]
    assert paths[0] == "/api/v3/aggTrades"
    assert set(paths[1:]) == {"/api/v3/historicalTrades"}
    assert server.requests[0][1] == {"symbol": "BTCUSDT", "startTime": str(T0_MS), "limit": "1"}
    assert server.requests[1][1]["fromId"] == "5100"


def test_binance_hours_without_trades_are_passed(tmp_path: Path) -> None:
    rows = every(3, 1000, first_id=1, start_ms=-9 * HOUR_MS)
    rows += every(5, 1000, first_id=4, start_ms=3 * HOUR_MS + 7)
    server = FakeBinance(rows)
    publisher = binance_run(tmp_path, server, until=str(T0_MS + 5 * HOUR_MS))
    assert publisher.ids("BTC/USDT") == [4, 5, 6, 7, 8]
    assert [path for path, _ in server.requests].count("/api/v3/aggTrades") == 4


def test_a_binance_pair_younger_than_since_begins_with_its_first_trade(tmp_path: Path) -> None:
    server = FakeBinance(every(5, 1000, first_id=0, start_ms=900 * HOUR_MS))
    with rest_server(server.answer) as rest:
        until = T0_MS + 1000 * HOUR_MS
        run = backfill(
            tmp_path,
            rest.url,
            lambda: until + HOUR_MS,
            exchange="binance",
            pairs="BTC/USDT",
            until=str(until),
        )
    assert run.publisher.ids("BTC/USDT") == [0, 1, 2, 3, 4]
    assert len(server.requests) < 10


@pytest.mark.parametrize("rows", [[], every(5, 1000, start_ms=-50_000)])
def test_a_binance_pair_without_trades_since_then_ends_at_once(tmp_path: Path, rows: list[Row]) -> None:
    server = FakeBinance(rows)
    assert binance_run(tmp_path, server).ids("BTC/USDT") == []
    assert len(server.requests) < 10


@pytest.mark.parametrize(
    "refusal",
    [
        (401, {}, b'{"code":-2014,"msg":"API-key format invalid."}'),
        (400, {}, b'{"code":-2015,"msg":"Invalid API-key, IP, or permissions for action."}'),
        (401, {}, b"<html>"),
    ],
)
def test_binance_asking_for_a_key_is_told_with_the_way_out(tmp_path: Path, refusal: Answer) -> None:
    server = FakeBinance(every(5), needs_key=refusal)
    with (
        rest_server(server.answer) as rest,
        pytest.raises(SourceError, match=r"API key .*data\.binance\.vision and use TRADES_HISTORY=archive"),
    ):
        backfill(tmp_path, rest.url, exchange="binance", pairs="BTC/USDT")


def test_coinbase_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"backwards .*TRADES_SOURCE=replay.*TRADES_HISTORY=archive"):
        prepare(tmp_path, "http://127.0.0.1:9", exchange="coinbase")
