"""Exchanges whose REST history is known, and runs of the historical source against them."""

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from services.common.health import Health
from services.common.history_report import HistoryReport, load_report
from services.common.messages import Trade
from services.common.metrics import Metrics
from services.common.symbols import kraken_name
from services.trades.counters import TradeMetrics
from services.trades.exchanges import REGISTRY
from services.trades.history.spool import Spool, spool_folder
from services.trades.progress import Progress
from services.trades.rest import http_fetch
from services.trades.settings import TradesSettings
from services.trades.sources.history import HistorySource, history_identity
from tests.trades.support import T0_MS, FakePublisher, settings

T0_NS = T0_MS * 1_000_000
HOUR_MS = 3_600_000
#: The runs' present: everything has long settled.
NOW_MS = T0_MS + 24 * HOUR_MS

type Answer = tuple[int, dict[str, str], bytes]


@dataclass(frozen=True)
class Row:
    """A trade as the exchange has it."""

    trade_id: int
    ns: int
    price: float = 100.5
    quantity: float = 0.25

    @property
    def event_ms(self) -> int:
        """As the mapper reads the float."""
        return round(self.ns / 1e9 * 1e6) // 1000


def rows_of(times_ns: Iterable[int], first_id: int = 1) -> list[Row]:
    """Rows with prices and quantities that differ in their last digits."""
    return [
        Row(first_id + i, T0_NS + ns, 100 + (i * 0.1) % 7, (i % 13 + 1) / 3e5)
        for i, ns in enumerate(times_ns)
    ]


def every(count_rows: int, step_ms: int = 100, first_id: int = 1, start_ms: int = 0) -> list[Row]:
    """Rows at equal distances."""
    return rows_of(((start_ms + i * step_ms) * 1_000_000 for i in range(count_rows)), first_id)


def ids_between(rows: Sequence[Row], since_ms: int, until_ms: int) -> list[int]:
    return [row.trade_id for row in rows if since_ms <= row.event_ms < until_ms]


@dataclass
class FakeKraken:
    """`/0/public/Trades` of the pairs in `rows`."""

    rows: dict[str, list[Row]]
    page_rows: int = 1000
    #: Whether `since` itself is included.
    inclusive: bool = False
    #: The server compares times only this finely.
    resolution_ns: int = 1
    with_last: bool = True
    #: Answers to give instead, the next one first.
    instead: list[Answer | None] = field(default_factory=list)
    #: Ids that are there only for requests after so many.
    late_ids: dict[int, int] = field(default_factory=dict)
    requests: list[tuple[str, int]] = field(default_factory=list)

    def answer(self, path: str, params: dict[str, str]) -> Answer:
        assert path == "/0/public/Trades"
        assert params["count"] == "1000"
        since = int(params["since"])
        assert len(params["since"]) == 19
        self.requests.append((params["pair"], since))
        if self.instead:
            answer = self.instead.pop(0)
            if answer is not None:
                return answer
        asked = len(self.requests)
        named = {kraken_name(pair): rows for pair, rows in self.rows.items()}
        if params["pair"] not in named:
            return ok({"error": ["EQuery:Unknown asset pair"]})
        unit = self.resolution_ns
        found = [
            row
            for row in named[params["pair"]]
            if row.ns // unit >= since // unit + (0 if self.inclusive else 1)
            and asked >= self.late_ids.get(row.trade_id, 0)
        ][: self.page_rows]
        cells = [
            [repr(row.price), repr(row.quantity), row.ns / 1e9, "b", "l", "", row.trade_id] for row in found
        ]
        last = {"last": str(found[-1].ns if found else since)} if self.with_last else {}
        return ok({"error": [], "result": {f"X{params['pair']}": cells, **last}})


def ok(body: object) -> Answer:
    return 200, {}, json.dumps(body).encode()


@dataclass
class FakeBinance:
    """aggTrades (an hour at a time), historicalTrades and trades of one symbol."""

    rows: list[Row]
    page_rows: int = 1000
    needs_key: Answer | None = None
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def answer(self, path: str, params: dict[str, str]) -> Answer:
        self.requests.append((path, params))
        assert params["symbol"] == "BTCUSDT"
        limit = min(int(params["limit"]), self.page_rows)
        if path == "/api/v3/aggTrades":
            assert "endTime" not in params
            start = int(params["startTime"])
            near = [row for row in self.rows if start <= row.event_ms < start + HOUR_MS]
            return ok([{"a": 1, "f": row.trade_id, "l": row.trade_id, "T": row.event_ms} for row in near[:1]])
        if path == "/api/v3/trades":
            return ok([self._cells(row) for row in self.rows[-limit:]])
        assert path == "/api/v3/historicalTrades"
        if self.needs_key is not None:
            return self.needs_key
        first = int(params["fromId"])
        return ok([self._cells(row) for row in self.rows if row.trade_id >= first][:limit])

    @staticmethod
    def _cells(row: Row) -> dict[str, object]:
        return {
            "id": row.trade_id,
            "price": repr(row.price),
            "qty": repr(row.quantity),
            "time": row.event_ms,
            "isBuyerMaker": False,
        }


def history_settings(state: Path, url: str, **values: str) -> TradesSettings:
    defaults = {
        "source": "historical",
        "pairs": "BTC/USD",
        "since": str(T0_MS),
        "until": str(T0_MS + HOUR_MS),
        "rest_url": url,
        "rest_interval_s": "0.001",
        "backoff_min_s": "0.001",
        "backoff_max_s": "0.002",
        "state_dir": str(state),
    }
    return settings(**(defaults | values))


@dataclass
class History:
    """One run of the source."""

    settings: TradesSettings
    source: HistorySource
    publisher: FakePublisher
    progress: Progress
    metrics: Metrics
    health: Health
    stop: threading.Event
    report_path: Path

    def report(self) -> HistoryReport:
        report = load_report(self.report_path)
        assert report is not None
        return report

    def value(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    def kinds(self, pair: str = "BTC/USD") -> list[str]:
        """The pair's messages, runs of trades as one."""
        kinds: list[str] = []
        for message in self.publisher.messages:
            if message[1] == pair and (message[0] != "trades" or kinds[-1:] != ["trades"]):
                kinds.append(message[0])
        return kinds


def prepare(
    state: Path,
    url: str,
    now_ms: Callable[[], int] = lambda: NOW_MS,
    publisher: type[FakePublisher] = FakePublisher,
    **values: str,
) -> History:
    """A source that is ready to run; each of its saves of progress is due at once."""
    chosen = history_settings(state, url, **values)
    ticks = count(0, 10)
    progress = Progress(state / "progress.json", history_identity(chosen), clock=lambda: float(next(ticks)))
    exchange = REGISTRY[chosen.exchange](chosen.pairs)
    fake = publisher(progress)
    metrics, health = Metrics(), Health(60.0)
    report_path = state / "report.json"
    source = HistorySource(
        chosen,
        exchange,
        http_fetch(exchange, str(chosen.rest_url), now_ms),
        fake,
        progress,
        health,
        TradeMetrics(metrics),
        now_ms,
        report_path,
    )
    return History(chosen, source, fake, progress, metrics, health, threading.Event(), report_path)


def backfill(state: Path, url: str, now_ms: Callable[[], int] = lambda: NOW_MS, **values: str) -> History:
    """Run to the end."""
    run = prepare(state, url, now_ms, FakePublisher, **values)
    run.source.run(run.stop)
    return run


@contextmanager
def running(run: History) -> Iterator[list[BaseException]]:
    """Run in a thread; the list is of what it raised."""
    errors: list[BaseException] = []

    def go() -> None:
        try:
            run.source.run(run.stop)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=go, daemon=True)
    thread.start()
    try:
        yield errors
    finally:
        run.stop.set()
        thread.join(10)
        assert not thread.is_alive()


def spooled(
    state: Path, pair: str = "BTC/USD", exchange: str = "kraken", since_ms: int = T0_MS
) -> list[Trade]:
    """What a pair's spool holds."""
    spool = Spool(spool_folder(state, exchange, pair, since_ms), exchange, pair, since_ms)
    try:
        return list(spool.read(lambda: NOW_MS).trades)
    finally:
        spool.close()
