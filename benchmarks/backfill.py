"""`make backfill` from archives, beside a plain Quix pipeline and Polars with TA-Lib in one process."""

import contextlib
import io
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from benchmarks.measure import Bench, Row, Table, fill, growth, interleave, markets, singles
from services.backfill.main import EMBEDDED, SUFFIX, run
from services.backfill.source import SourceService
from services.common.columns import INDICATOR_NAMES
from services.common.history_report import load_report
from services.common.topics import ensure_topics
from services.demo.market import Market
from services.demo.processes import Cluster

TRADES = 10_000_000
TARGET = 300_000.0
#: At most so many times the time of one process that keeps nothing for a restart.
MOST_TIMES_LIMIT = 4.0
MIB_LIMIT = 300.0
#: It keeps all that went through it.
BROKER = "embedded broker"
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def bench_backfill(table: Table, scale: float) -> None:
    """Trades of 4 pairs from Kraken's kind of files to the store."""
    count = int(TRADES * scale)
    table.title(f"backfill of {count:,} trades of 4 pairs, 5 trades/s each, from archives to the store")
    plain = _plain(table)
    with Bench(**EMBEDDED) as bench:
        folder = bench.folder / "archive"
        folder.mkdir()
        for market in markets(count, 5.0):
            write_archive(market, folder)
        limit_s = _limit(table, folder, bench.folder / "limit.sqlite")
        _ours(table, bench, folder, limit_s, plain)


def write_archive(market: Market, folder: Path) -> None:
    """The trades of a market as Kraken offers them."""
    name = market.pair.replace("/", "").replace("BTC", "XBT")
    columns = zip(market.times_ms.tolist(), market.prices.tolist(), market.quantities.tolist(), strict=True)
    with (folder / f"{name}.csv").open("w") as file:
        file.writelines(f"{at / 1000},{price!r},{quantity!r}\n" for at, price, quantity in columns)


def _plain(table: Table) -> float:
    count = 60_000
    with Bench() as bench:
        ensure_topics(bench.settings, ("trades",))
        rows = fill(bench.settings, "trades", interleave([singles(market) for market in markets(count, 5.0)]))
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.plain_quix", bench.broker.address]
        command += ["trades", str(rows), str(bench.folder / "plain")]
        result = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    per_second, cpu = (float(value) for value in result.stdout.split())
    note = f"{cpu / count * 1e6:.1f} CPU s per 1M; 1m candles only, nothing stored"
    table.add(Row("plain Quix tumbling window, 1 trade a message", per_second, "trades/s", note=note))
    return per_second


def _limit(table: Table, folder: Path, database: Path) -> float:
    command = [sys.executable, "-m", "benchmarks.polars_limit", str(folder), str(database)]
    result = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
    count, wall_s, cpu_s, peak_mib = (float(value) for value in result.stdout.split())
    note = (
        f"{wall_s:.1f} s, {cpu_s:.1f} CPU s, peak {peak_mib:,.0f} MiB; no restart, no late trades, no broker"
    )
    table.add(Row("Polars + TA-Lib to SQLite in one process", count / wall_s, "trades/s", note=note))
    return wall_s


def _ours(table: Table, bench: Bench, folder: Path, limit_s: float, plain: float) -> None:
    state = bench.folder / "state"
    source = SourceService(
        "trades",
        {
            "SOURCE": "historical", "HISTORY": "archive", "EXCHANGE": "kraken", "BATCH_ROWS": "13000",
            "ARCHIVE_PATH": str(folder), "STATE_DIR": str(state),
        },
    )  # fmt: skip
    cluster = Cluster(bench.folder, {**bench.env, "KAFKA_TOPIC_SUFFIX": SUFFIX, "KAFKA_HISTORY_RUN": "bench"})
    watch = Watch(cluster, bench.broker.pid)
    began = time.monotonic()
    try:
        with watch, contextlib.redirect_stdout(io.StringIO()) as said:
            code = run(cluster, source, bench.folder, bench.folder / "features.sqlite", INDICATOR_NAMES)
    finally:
        cluster.stop()
    whole_s = time.monotonic() - began
    report = load_report(source.report_path(SUFFIX))
    assert code == 0, said.getvalue()
    assert report is not None
    trades = sum(pair.trades for pair in report.pairs)
    busy_s = watch.busy_s
    cpu = " ".join(f"{name} {seconds:.1f}" for name, seconds in watch.cpu_s.items())
    note = f"{busy_s:.1f} s from the source's start to the end, {whole_s:.1f} s in all; CPU s: {cpu}"
    table.add(Row("make backfill, four services", trades / busy_s, "trades/s", TARGET, note=note))
    table.add(Row("  times the plain window", trades / busy_s / plain, "×"))
    table.add(
        Row("  times the limit's time", busy_s / limit_s, "×", MOST_TIMES_LIMIT, higher_is_better=False)
    )
    for name, samples in watch.memory.items():
        note = f"growth in the last two thirds {growth(samples):+.0f} MiB"
        peak = max(mib for _, mib in samples)
        limit = None if name == BROKER else MIB_LIMIT
        table.add(Row(f"  peak memory, {name}", peak, "MiB", limit, higher_is_better=False, note=note))


class Watch:
    """Reads CPU and memory of a cluster's processes while they live."""

    def __init__(self, cluster: Cluster, broker_pid: int) -> None:
        self._cluster = cluster
        self._broker_pid = broker_pid
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.cpu_s: dict[str, float] = {}
        #: Sample number and MiB.
        self.memory: dict[str, list[tuple[int, float]]] = {}
        self._busy: list[float] = []
        self._cpu_at_start: dict[str, float] = {}

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def busy_s(self) -> float:
        """From the first trade sent to the end of the last service."""
        return self._busy[-1] - self._busy[0]

    def _run(self) -> None:
        sample = 0
        while not self._ended.wait(0.1):
            sample += 1
            alive = False
            processes = [(service.name, service.process.pid) for service in list(self._cluster.services)]
            for name, pid in (*processes, (BROKER, self._broker_pid)):
                seconds, mib = _usage(pid)
                if seconds is None:
                    continue
                alive |= name != BROKER
                # Before the source starts, the others only import what they need.
                begun = self._cpu_at_start.setdefault(name, seconds)
                if not self._busy:
                    self._cpu_at_start[name] = begun = seconds
                self.cpu_s[name] = seconds - begun
                self.memory.setdefault(name, []).append((sample, mib))
            # The source starts when the others are up, and needs a second itself.
            if alive and "trades" in self.cpu_s:
                self._busy.append(time.monotonic())


def _usage(pid: int) -> tuple[float | None, float]:
    """CPU seconds and resident MiB of a process; None once it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None, 0.0
    # A process that nobody has waited for yet has no memory left.
    pages = int(fields[21])
    if pages == 0:
        return None, 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S, pages * os.sysconf("SC_PAGE_SIZE") / 2**20
