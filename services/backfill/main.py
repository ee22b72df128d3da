"""`make backfill`: history through the same services into the store, on an embedded broker or yours."""

import argparse
import os
import shutil
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import requests

from services.backfill.coverage import coverage
from services.backfill.report import report_text
from services.common.broker import EMBEDDED_ENV, EmbeddedBroker
from services.common.errors import ServiceError, SettingsError
from services.demo.processes import Cluster, DemoError, Service, own_folder
from services.demo.progress import Progress, total
from services.features import open_store
from services.trades.history.report import HistoryReport, load_report
from services.trades.settings import TradesSettings

SUFFIX = "-historical"
STUCK_AFTER_S = 180.0
#: The embedded broker looks through its log for each fetch: fewer, longer ones leave the cores to us.
EMBEDDED = {**EMBEDDED_ENV, "KAFKA_FETCH_WAIT_MS": "200"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a backfill to its end: 0 when it is complete, 1 when something is missing, 2 for wrong options."""
    asked = _arguments(arguments)
    folder: Path = asked.folder.resolve()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        trades = trades_settings(asked, folder / "state")
        with own_folder(folder):
            own_broker = os.environ.get("KAFKA_BROKERS")
            # Without a broker that remembers, services begin anew; what was downloaded stays.
            if not own_broker:
                _forget(folder / "state")
            with nullcontext() if own_broker else EmbeddedBroker() as broker:
                common = broker_env(os.environ, broker.address if broker else None)
                cluster = Cluster(folder, common)
                try:
                    return run(cluster, trades, folder, asked.store.resolve())
                finally:
                    cluster.stop()
    except SettingsError as error:
        sys.stderr.write(f"backfill: {error}\n")
        return 2
    except (DemoError, ServiceError) as error:
        sys.stderr.write(f"\nbackfill: {error}\nthe same command goes on where it was\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped; the same command goes on where it was\n")
        return 130


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make backfill", description=__doc__)
    parser.add_argument(
        "--exchange", default="kraken", help="kraken, binance; any name with --source archive"
    )
    parser.add_argument("--pairs", default="", help="like BTC/USD,ETH/USD; an archive knows its own")
    parser.add_argument("--since", default="", help="begin with this time, like 2024-01-01")
    parser.add_argument("--until", default="", help="end before this time; now if unset")
    parser.add_argument("--source", choices=("rest", "archive"), help="archive if --path is given, else rest")
    parser.add_argument("--path", default="", help="archive file or folder")
    parser.add_argument("--store", type=Path, default=Path("store/features.sqlite"), help="the feature store")
    parser.add_argument("--folder", type=Path, default=Path(".backfill"), help="where state and logs go")
    return parser.parse_args(arguments)


def trades_settings(asked: argparse.Namespace, state: Path) -> dict[str, str]:
    """Settings of the trades service, without their prefix. Raises `SettingsError`."""
    settings = {
        "SOURCE": "historical",
        "HISTORY": asked.source or ("archive" if asked.path else "rest"),
        "EXCHANGE": asked.exchange,
        "PAIRS": asked.pairs,
        "SINCE": asked.since,
        "UNTIL": asked.until,
        "ARCHIVE_PATH": str(Path(asked.path).resolve()) if asked.path else "",
        "BATCH_ROWS": "8000",
        "STATE_DIR": str(state),
    }
    given = {name: value for name, value in settings.items() if value}
    # Here, so that a typing error shows at once and not in a log.
    TradesSettings.load({f"TRADES_{name}": value for name, value in given.items()})
    return given


def broker_env(environ: Mapping[str, str], embedded: str | None) -> dict[str, str]:
    """Broker settings of all services: the embedded one's, or what the environment says."""
    if embedded is not None:
        return {**EMBEDDED, "KAFKA_BROKERS": embedded, "KAFKA_TOPIC_SUFFIX": SUFFIX}
    given = {name: value for name, value in environ.items() if name.startswith("KAFKA_")}
    return {"KAFKA_TOPIC_SUFFIX": SUFFIX, **given}


def _forget(state: Path) -> None:
    """Remove what belongs to a broker that is gone, but not the downloads of `services.trades.history`."""
    for path in state.glob("*") if state.exists() else ():
        if path.name != "trades":
            shutil.rmtree(path)
    for path in (state / "trades").glob("*.json"):
        path.unlink()


def run(cluster: Cluster, trades: Mapping[str, str], folder: Path, store: Path) -> int:
    """Start the services, wait for their end and say what came of it. Raises `DemoError`."""
    began = time.monotonic()
    services = [cluster.start(name, {}) for name in ("candles", "ta")]
    services.append(cluster.start("features", {"STORE_PATH": str(store)}))
    cluster.wait_until_up()
    source = cluster.start("trades", trades)
    wait_until_ended(cluster, source, services)
    report = load_report(report_path(Path(trades["STATE_DIR"]), trades["EXCHANGE"], SUFFIX))
    if report is None:
        raise DemoError(f"the trades service left no report; its log is {source.log}")
    pairs = [pair.pair for pair in report.pairs]
    with open_store(store) as reader:
        rows = coverage(reader, report.exchange, pairs, report.since_ms, report.until_ms)
    sys.stdout.write(f"{report_text(report, rows, time.monotonic() - began)}\n")
    sys.stdout.write(f"  store {store}; logs {folder}\n")
    return 0 if is_complete(report) else 1


def report_path(state: Path, exchange: str, suffix: str) -> Path:
    """Where the trades service leaves its report."""
    return state / "trades" / f"{exchange}{suffix}.history.json"


def is_complete(report: HistoryReport) -> bool:
    """Whether nothing is missing."""
    return report.ended and not any(pair.missing for pair in report.pairs)


def wait_until_ended(cluster: Cluster, source: Service, services: Sequence[Service]) -> None:
    """Show progress until every service has ended by itself. Raises `DemoError`."""
    progress = Progress()
    seen: dict[str, int] = {}
    moved_at = time.monotonic()
    while any(service.process.poll() is None for service in (source, *services)):
        cluster.check()
        before = dict(seen)
        share = None
        for service in (source, *services):
            try:
                metrics = service.metrics()
            except requests.RequestException:
                # It starts or ends just now.
                continue
            seen[service.name] = total(metrics, "rows_out_total")
            if service is source:
                done = [value for name, value in metrics.items() if name.startswith("history_done_ratio")]
                share = sum(done) / len(done) if done else None
                moved_at = time.monotonic()
        if seen != before:
            moved_at = time.monotonic()
        elif time.monotonic() - moved_at > STUCK_AFTER_S:
            raise DemoError(f"nothing moved for {STUCK_AFTER_S:.0f} s; logs are in {source.log.parent}")
        progress.show(progress_text(seen, share, progress.elapsed_s))
        time.sleep(0.25)
    cluster.check()
    progress.show(progress_text(seen, 1.0, progress.elapsed_s), last=True)


def progress_text(rows: Mapping[str, int], share: float | None, elapsed_s: float) -> str:
    """One line: a bar, rows and rate, time left."""
    trades = rows.get("trades", 0)
    text = (
        f"{trades:,} trades ({trades / max(elapsed_s, 1e-9):,.0f}/s), {rows.get('features', 0):,} rows stored"
    )
    if share is None:
        return text
    filled = round(20 * share)
    bar = f"[{'#' * filled}{'.' * (20 - filled)}] {share:4.0%}  "
    if 0.01 < share < 1:
        text += f", about {_duration(elapsed_s * (1 - share) / share)} left"
    return bar + text


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
    )


if __name__ == "__main__":
    sys.exit(main())
