"""Prefilled topics, sampled services, and a table at the end."""

import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from confluent_kafka import Producer

from services.common.broker import EMBEDDED_ENV, EmbeddedBroker
from services.common.messages import Trade, batch_headers, encode, series_key
from services.common.settings import BrokerSettings
from services.common.topics import producer_config
from services.demo.market import EXCHANGE, Market, simulate
from services.demo.processes import Cluster, Service
from services.demo.progress import total

BEGIN_MS = 1_704_067_200_000
PAIRS = ("BTC/USD", "ETH/USD", "SOL/USD", "XRP/USD")


@dataclass
class Row:
    """One line of the table: what, measured, unit, target (None when it is only for comparison)."""

    what: str
    value: float
    unit: str
    target: float | None = None
    higher_is_better: bool = True
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one."""
        if self.target is None:
            return None
        return self.value >= self.target if self.higher_is_better else self.value <= self.target


@dataclass
class Table:
    """Collects and prints rows."""

    rows: list[Row] = field(default_factory=list)

    def add(self, row: Row) -> None:
        """Add and show at once."""
        self.rows.append(row)
        print(_line(row), flush=True)

    def title(self, text: str) -> None:
        """Begin a section."""
        print(f"\n{text}", flush=True)

    def missed(self) -> list[Row]:
        """Rows whose target is not met."""
        return [row for row in self.rows if row.met is False]


def _line(row: Row) -> str:
    value = f"{row.value:,.0f}" if row.value >= 100 else f"{row.value:,.2f}"
    sign = "≥" if row.higher_is_better else "≤"
    target = "" if row.target is None else f"{sign} {row.target:,.0f}"
    verdict = {None: "", True: "met", False: "MISSED"}[row.met]
    return f"  {row.what:<52}{value:>13} {row.unit:<10}{target:>13}  {verdict:<7}{row.note}"


def markets(trades: int, per_second: float, seed: int = 11) -> list[Market]:
    """About `trades` trades, spread over `PAIRS`, at `per_second` each."""
    length_ms = int(trades / len(PAIRS) / per_second * 1000)
    return [
        simulate(pair, BEGIN_MS, [(length_ms, per_second)], 1_000.0 * (number + 1), seed + number)
        for number, pair in enumerate(PAIRS)
    ]


def batches(market: Market, size: int) -> Iterable[tuple[bytes, bytes, int]]:
    """Key, value and row count of the messages of a market."""
    key = series_key(EXCHANGE, market.pair)
    now_ms = time.time_ns() // 1_000_000
    times, prices = market.times_ms.tolist(), market.prices.tolist()
    quantities, buys = market.quantities.tolist(), market.buys.tolist()
    for begin in range(0, len(times), size):
        end = min(begin + size, len(times))
        rows = [
            Trade(
                EXCHANGE,
                market.pair,
                i + 1,
                "buy" if buys[i] else "sell",
                prices[i],
                quantities[i],
                times[i],
                now_ms,
            )
            for i in range(begin, end)
        ]
        yield key, encode(rows), end - begin


def singles(market: Market) -> Iterable[tuple[bytes, bytes, int]]:
    """The same trades as one JSON object a message, for what knows no batches."""
    for key, value, count in batches(market, 1):
        yield key, value[1:-1], count


def fill(settings: BrokerSettings, topic: str, messages: Iterable[tuple[bytes, bytes, int]]) -> int:
    """Send messages; returns the number of rows in them."""
    producer = Producer(
        {**settings.client_config(), **producer_config(settings), "queue.buffering.max.messages": 1_000_000}
    )
    headers = batch_headers(time.time_ns() // 1_000_000)
    rows = 0
    for key, value, count in messages:
        while True:
            try:
                producer.produce(topic, key=key, value=value, headers=headers)
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
        rows += count
    if producer.flush(120):
        raise RuntimeError("the broker did not take everything")
    return rows


def interleave[T](streams: Sequence[Iterable[T]]) -> Iterable[T]:
    """One of each in turn."""
    iterators = [iter(stream) for stream in streams]
    while iterators:
        for iterator in list(iterators):
            try:
                yield next(iterator)
            except StopIteration:
                iterators.remove(iterator)


@dataclass
class Rate:
    """What a service did between its first and its last row."""

    per_second: float
    cpu_s: float
    peak_mib: float
    samples: list[tuple[int, float]]


def watch(service: Service, metric: str, expected: int, timeout_s: float = 300.0) -> Rate:
    """Sample a service until `metric` reaches `expected`; the clock starts with the first rows seen."""
    deadline = time.monotonic() + timeout_s
    samples: list[tuple[float, int, float, float]] = []
    while time.monotonic() < deadline:
        service.check()
        metrics = service.metrics()
        count = total(metrics, metric)
        samples.append((time.monotonic(), count, metrics["process_cpu_seconds_total"], resident_mib(service)))
        if count >= expected:
            break
        # Looking costs the service some milliseconds each time.
        time.sleep(0.25)
    else:
        raise RuntimeError(f"{service.name} did {samples[-1][1]:,} of {expected:,} in {timeout_s:.0f} s")
    moving = [sample for sample in samples if sample[1] > 0]
    first, last = moving[0], moving[-1]
    per_second = (last[1] - first[1]) / max(last[0] - first[0], 1e-9)
    done = last[1] - first[1] or 1
    cpu_s = (last[2] - first[2]) / done * 1e6
    memory = [(sample[1], sample[3]) for sample in moving]
    return Rate(per_second, cpu_s, peak_mib(service), memory)


class Bench:
    """A fresh broker, folder and cluster for one measurement."""

    def __init__(self, **settings: str) -> None:
        self._settings = settings
        self._scratch = tempfile.TemporaryDirectory()
        self.folder = Path(self._scratch.name)
        self.broker = EmbeddedBroker()

    def __enter__(self) -> "Bench":
        self.broker.start()
        # One partition keeps the comparison to one core's worth of work in one consumer.
        self.env = {**EMBEDDED_ENV, "KAFKA_BROKERS": self.broker.address, "KAFKA_PARTITIONS": "1"}
        self.env |= self._settings
        self.settings = BrokerSettings.load(self.env)
        self.cluster = Cluster(self.folder, self.env)
        return self

    def watch(self, service: str, rows: int) -> Rate:
        """Start a service on a filled topic and measure it."""
        started = self.cluster.start(service, {})
        self.cluster.wait_until_up()
        return watch(started, "rows_in_total", rows)

    def __exit__(self, *_: object) -> None:
        self.cluster.stop()
        self.broker.stop()
        self._scratch.cleanup()


def _status(service: Service, name: str) -> float:
    with Path(f"/proc/{service.process.pid}/status").open() as file:
        for line in file:
            if line.startswith(name):
                return float(line.split()[1]) / 1024
    return float("nan")


def resident_mib(service: Service) -> float:
    """Memory that a service has now."""
    return _status(service, "VmRSS")


def peak_mib(service: Service) -> float:
    """The most memory that a service ever had."""
    return _status(service, "VmHWM")


def growth(samples: list[tuple[int, float]]) -> float:
    """How much more memory the last tenth of a run has than the tenth after its first third, in MiB."""
    values = np.array([mib for _, mib in samples])
    tenth = max(1, len(values) // 10)
    third = len(values) // 3
    return float(np.median(values[-tenth:]) - np.median(values[third : third + tenth]))
