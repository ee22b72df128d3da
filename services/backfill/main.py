"""`make backfill`: history through the same services into the store, on an embedded broker or yours."""

import argparse
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from uuid import uuid4

from services.backfill.coverage import coverage, have_earlier
from services.backfill.report import report_text
from services.backfill.source import CHAIN, SourceService, source_settings
from services.backfill.state import EMBEDDED as EMBEDDED_NAME
from services.backfill.state import broker_name, forget_other_brokers
from services.backfill.watch import wait_until_ended
from services.common.broker import EMBEDDED_ENV, EmbeddedBroker
from services.common.errors import BrokerUnavailableError, ServiceError, SettingsError, SourceError
from services.common.history_report import HistoryReport, load_report
from services.common.settings import BrokerSettings
from services.demo.indicators import chosen_indicators, told
from services.demo.processes import Cluster, DemoError, FolderError, RefusedError, own_folder
from services.features import open_store

GOES_ON = "the same command goes on where it was\n"
SUFFIX = "-historical"
BEGAN_ANEW = (
    "the store holds earlier rows of {}: indicators of this run began anew where it begins, so its first "
    "rows are null or differ until they are warm; a run from the beginning mends that"
)
#: The embedded broker looks through its log for each fetch: fewer, longer ones leave the cores to us.
EMBEDDED = {**EMBEDDED_ENV, "KAFKA_FETCH_WAIT_MS": "200"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a backfill to its end: 0 when it is complete, 1 when something is missing, 2 for wrong options."""
    asked = _arguments(arguments)
    folder: Path = asked.folder.resolve()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        source = source_settings(asked, folder / "state", time.time_ns() // 1_000_000)
        indicators = chosen_indicators()
        sys.stdout.write(told(indicators))
        own_broker = os.environ.get("KAFKA_BROKERS")
        with own_folder(folder), nullcontext() if own_broker else EmbeddedBroker() as broker:
            common = broker_env(os.environ, broker.address if broker else None)
            # Without a broker that remembers, services begin anew; what was downloaded stays.
            name = EMBEDDED_NAME if broker else broker_name(BrokerSettings.load(common))
            forget_other_brokers(folder / "state", name)
            cluster = Cluster(folder, common)
            try:
                suffix = common["KAFKA_TOPIC_SUFFIX"]
                return run(cluster, source, folder, asked.store.resolve(), indicators, suffix)
            finally:
                cluster.stop()
    except (SettingsError, SourceError, RefusedError) as error:
        sys.stderr.write(f"backfill: {error}\n")
        return 2
    except (DemoError, ServiceError) as error:
        again = isinstance(error, (DemoError, BrokerUnavailableError)) and not isinstance(error, FolderError)
        sys.stderr.write(f"\nbackfill: {error}\n{GOES_ON if again else ''}")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write(f"\nstopped; {GOES_ON}")
        return 130


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make backfill", description=__doc__)
    parser.add_argument(
        "--exchange",
        default="",
        help="kraken, binance; any name with --source archive; kraken, or what the files say, if not given",
    )
    parser.add_argument("--pairs", default="", help="like BTC/USD,ETH/USD; an archive knows its own")
    parser.add_argument("--since", default="", help="begin with this time, like 2024-01-01")
    parser.add_argument("--until", default="", help="end before this time; now if unset")
    parser.add_argument("--source", choices=("rest", "archive"), help="archive if --path is given, else rest")
    parser.add_argument("--path", default="", help="archive file or folder")
    parser.add_argument("--rest-url", default="", help="another address of the exchange's REST API")
    parser.add_argument("--store", type=Path, default=Path("store/features.sqlite"), help="the feature store")
    parser.add_argument("--folder", type=Path, default=Path(".backfill"), help="where state and logs go")
    return parser.parse_args(arguments)


def broker_env(environ: Mapping[str, str], embedded: str | None) -> dict[str, str]:
    """Broker settings of all services: the embedded one's, or what the environment says."""
    # The end of an earlier run, which a broker that remembers may still hold, must stop nobody.
    own = {"KAFKA_TOPIC_SUFFIX": SUFFIX, "KAFKA_HISTORY_RUN": uuid4().hex}
    if embedded is not None:
        return {**EMBEDDED, **own, "KAFKA_BROKERS": embedded}
    return own | {name: value for name, value in environ.items() if name.startswith("KAFKA_")}


def run(
    cluster: Cluster,
    source: SourceService,
    folder: Path,
    store: Path,
    indicators: Sequence[str],
    suffix: str = SUFFIX,
) -> int:
    """Start the services, wait for their end and say what came of it. Raises `DemoError`."""
    began = time.monotonic()
    report_path = source.report_path(suffix)
    report_path.unlink(missing_ok=True)
    chosen = {"ta": {"INDICATORS": ",".join(indicators)}}
    services = [
        cluster.start(name, chosen.get(name, {})) for name in CHAIN[CHAIN.index(source.name) + 1 : -1]
    ]
    services.append(cluster.start(CHAIN[-1], {"STORE_PATH": str(store)}))
    cluster.wait_until_up()
    first = cluster.start(source.name, source.settings)

    def has_ended() -> bool:
        report = load_report(report_path)
        return report is not None and report.ended

    wait_until_ended(first, services, has_ended)
    report = load_report(report_path)
    if report is None:
        raise DemoError(f"the {source.name} service left no report; its log is {first.log}")
    pairs = [pair.pair for pair in report.pairs]
    with open_store(store) as reader:
        rows = coverage(reader, report.exchange, pairs, report.since_ms, report.until_ms)
        earlier = have_earlier(reader, report)
    if earlier:
        report.notes.append(BEGAN_ANEW.format(", ".join(earlier)))
    sys.stdout.write(f"{report_text(report, rows, time.monotonic() - began)}\n")
    sys.stdout.write(f"  store {store}; logs {folder}\n")
    return 0 if is_complete(report) else 1


def is_complete(report: HistoryReport) -> bool:
    """Whether nothing is missing."""
    return report.ended and not any(pair.missing for pair in report.pairs)


if __name__ == "__main__":
    sys.exit(main())
