"""`make demo`: broker, four services and market data on one machine; `--live` takes Kraken's instead."""

import argparse
import fcntl
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from services.common.broker import EMBEDDED_ENV, EmbeddedBroker
from services.common.columns import INDICATOR_NAMES
from services.common.errors import ServiceError
from services.common.timeframes import TIMEFRAMES
from services.demo import plot, scenario, summary
from services.demo.processes import Cluster, DemoError, Service
from services.demo.progress import Progress, latency_counts, quantile_s, total
from services.features import open_store

STUCK_AFTER_S = 60.0
LIVE_PAIRS = "BTC/USD,ETH/USD,SOL/USD,XRP/USD"
type Counts = dict[tuple[str, str, str], int]


def main() -> int:
    """Run the demo; 0 only if every row that must be there is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(".demo"), help="where store and logs go")
    parser.add_argument("--live", action="store_true", help="trades of live Kraken until Ctrl-C")
    arguments = parser.parse_args()
    folder: Path = arguments.folder.resolve()
    # SIGTERM ends the demo like Ctrl-C, through the same clean-up, also where a shell ignores SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with _own(folder), EmbeddedBroker() as broker:
            common = {**EMBEDDED_ENV, "KAFKA_BROKERS": broker.address}
            if arguments.live:
                # The broker looks through all that it holds for each fetch, and a live run goes on long.
                common["KAFKA_FETCH_WAIT_MS"] = "100"
            cluster = Cluster(folder, common)
            try:
                if arguments.live:
                    return run_live(cluster, folder)
                return run_replay(cluster, folder)
            finally:
                cluster.stop()
    except (DemoError, ServiceError) as error:
        sys.stderr.write(f"\ndemo: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stdout.write("\nstopped; every process of the demo has ended\n")
        return 0 if arguments.live else 130


@contextmanager
def _own(folder: Path) -> Iterator[None]:
    """Empty the folder and keep a second demo out of it while we run."""
    folder.mkdir(parents=True, exist_ok=True)
    lock: TextIO
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DemoError(f"another demo is running in {folder}; end it or use --folder") from error
        for path in folder.iterdir():
            if path.name != "lock":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        yield


def start_consumers(cluster: Cluster, folder: Path) -> Service:
    """candles, ta and features; returns the last."""
    cluster.start("candles", {})
    cluster.start("ta", {})
    return cluster.start("features", {"STORE_PATH": str(folder / "features.sqlite")})


def run_replay(cluster: Cluster, folder: Path) -> int:
    """The scripted demo."""
    began = time.monotonic()
    out = sys.stdout.write
    out("Crypto Price Predictor: trades → candles → ta → features, on an embedded broker\n")
    progress = Progress()
    with tempfile.TemporaryDirectory() as scratch:
        kraken = scenario.kraken_hour(Path(scratch))
        history, live = scenario.synthetic(Path(scratch))
        features = start_consumers(cluster, folder)
        cluster.wait_until_up()
        progress.show(f"started: {', '.join(service.name for service in cluster.services)}", last=True)
        play(cluster, features, folder, [(kraken, 0.0), (history, 0.0)], progress)
        progress.show(
            f"history stored: {kraken.trades:,} trades of a real Kraken hour, "
            f"{history.trades:,} synthetic ones",
            last=True,
        )
        bulk_s = time.monotonic() - began
        earlier = kraken.candles | history.candles
        before = play(cluster, features, folder, [(live, scenario.LIVE_SPEED)], progress, earlier)
        after = latency_counts(features)
    trades = kraken.trades + history.trades + live.trades
    expected = kraken.candles | history.candles | live.candles
    samples = features.metrics()
    dead = total(samples, "dead_letters_total") + sum(
        total(service.metrics(), "dead_letters_total")
        for service in cluster.services
        if service.process.poll() is None and service is not features
    )
    cluster.stop()
    store_path = folder / "features.sqlite"
    counts, warm, newest, table = read_back(store_path)
    picture = folder / "features.png"
    plot.plot_features(table, "simulated BTC/USD, 1h", picture)
    wrong = summary.missing(expected, counts)
    p50, p99 = quantile_s(before, after, 0.50), quantile_s(before, after, 0.99)
    rows = sum(counts.values())
    out(f"\n  {trades:,} trades in, {rows:,} candles with {len(INDICATOR_NAMES)} indicators each stored, ")
    out(f"{dead} dead letters; history in {bulk_s:.0f} s\n")
    if p50 is not None and p99 is not None:
        out(
            f"  live-like stretch ({2 * scenario.LIVE_RATE} trades/s): from the trade that closes a candle "
            f"to its feature row readable: p50 {p50 * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms\n"
        )
    out(f"\n{summary.counts_table(counts, warm)}\n\n{summary.newest_table(newest)}\n\n")
    out(f"{summary.ways_to_query(_short(store_path), _short(picture))}\n\n")
    if wrong:
        raise DemoError("rows are missing from the store:\n  " + "\n  ".join(wrong))
    out(f"  every row is there; done in {time.monotonic() - began:.0f} s\n")
    return 0


def play(
    cluster: Cluster,
    features: Service,
    folder: Path,
    plays: list[tuple[scenario.Play, float]],
    progress: Progress,
    already: Counts | None = None,
) -> dict[float, float]:
    """Run a trades service for each play, and wait until the store holds what must come of them.

    Returns the latency counts of the moment when rows of this play began to arrive, so that the start
    of the trades process, which connects to the broker, is not taken for latency.
    """
    expected: Counts = dict(already or {})
    runs = []
    for number, (item, speed) in enumerate(plays):
        expected |= item.candles
        settings = {
            "EXCHANGE": item.exchange,
            "SOURCE": "replay",
            "PAIRS": ",".join(sorted({pair for _, pair, _ in item.candles})),
            "REPLAY_PATH": str(item.folder),
            "REPLAY_SPEED": str(speed),
            "REPLAY_UNTIL": str(item.until_ms),
        }
        runs.append(cluster.start("trades", settings, f"trades-{item.exchange}-{item.folder.name}-{number}"))
    wanted = sum(expected.values())
    have, moved_at = -1, time.monotonic()
    at_start = total(features.metrics(), "rows_out_total")
    seam = len(already or {})
    counts: dict[float, float] | None = None
    while True:
        cluster.check()
        now_have = total(features.metrics(), "rows_out_total")
        if counts is None and now_have > at_start + seam:
            counts = latency_counts(features)
        if now_have >= wanted and not summary.missing(expected, stored(folder / "features.sqlite")):
            break
        if now_have != have:
            have, moved_at = now_have, time.monotonic()
        elif time.monotonic() - moved_at > STUCK_AFTER_S:
            problems = "\n  ".join(summary.missing(expected, stored(folder / "features.sqlite")))
            raise DemoError(f"no new rows for {STUCK_AFTER_S:.0f} s; logs are in {folder}\n  {problems}")
        progress.show(f"{have:,} of {wanted:,} feature rows stored ({min(1, have / wanted):.0%})")
        time.sleep(0.25)
    for run in runs:
        run.process.wait(timeout=30)
        run.check()
    return counts or {}


def stored(path: Path) -> Counts:
    """Closed rows in the store by series."""
    if not path.exists():
        return {}
    with suppress(ServiceError), open_store(path) as store:
        return {(s["exchange"], s["pair"], s["timeframe"]): s["rows"] for s in store.describe()["series"]}
    return {}


def read_back(path: Path) -> tuple[Counts, Counts, list[dict[str, Any]], Any]:
    """Row counts, indicators that are warm, a few newest vectors, and rows for the plot."""
    with open_store(path) as store:
        latest = store.latest_all()
        warm = {
            (row["exchange"], row["pair"], row["timeframe"]): sum(row[n] is not None for n in INDICATOR_NAMES)
            for row in latest
        }
        order = {timeframe: place for place, timeframe in enumerate(TIMEFRAMES)}
        shown = [row for row in latest if row["timeframe"] in ("1m", "1h", "1d")]
        shown.sort(key=lambda row: (row["exchange"], row["pair"], order[row["timeframe"]]))
        table = store.history("BTC/USD", "1h", exchange="simulated", limit=240, newest=True)
    return stored(path), warm, shown, table


def run_live(cluster: Cluster, folder: Path) -> int:
    """Live Kraken until Ctrl-C."""
    host = "ws.kraken.com"
    try:
        socket.create_connection((host, 443), timeout=5).close()
    except OSError as error:
        raise DemoError(
            f"cannot reach {host}:443 ({error}); live=1 needs the internet, `make demo` alone does not"
        ) from error
    features = start_consumers(cluster, folder)
    live = {"EXCHANGE": "kraken", "SOURCE": "live", "PAIRS": LIVE_PAIRS}
    trades = cluster.start("trades", live)
    cluster.wait_until_up()
    store_path = folder / "features.sqlite"
    sys.stdout.write(f"live Kraken {LIVE_PAIRS}; Ctrl-C ends it\n")
    sys.stdout.write(f"{summary.ways_to_query(_short(store_path), None, features.url)}\n")
    progress = Progress()
    before = latency_counts(features)
    while True:
        cluster.check()
        if trades.process.poll() is not None:
            raise DemoError(f"the trades service ended:\n{trades.tail()}")
        sent = total(trades.metrics(), "rows_out_total")
        rows = sum(stored(store_path).values())
        p50 = quantile_s(before, latency_counts(features), 0.5)
        latency = f", p50 {p50 * 1000:.0f} ms" if p50 is not None else ", the first candle closes in a minute"
        progress.show(f"{sent:,} trades in, {rows:,} feature rows stored{latency}")
        time.sleep(1)


def _short(path: Path) -> Path:
    with suppress(ValueError):
        return path.relative_to(Path.cwd())
    return path


if __name__ == "__main__":
    sys.exit(main())
