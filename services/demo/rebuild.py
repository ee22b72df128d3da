"""`make rebuild`: indicators of every candle in a store anew, by ta and features on an embedded broker."""

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import requests

from services.common.broker import EMBEDDED_ENV, EmbeddedBroker
from services.common.errors import ServiceError
from services.demo.indicators import chosen_indicators, told
from services.demo.processes import Cluster, DemoError, Service
from services.demo.progress import Progress, total
from services.features.rebuild import check_whole

SUFFIX = "-rebuild"
STUCK_AFTER_S = 120.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Rebuild a store; 0 when every candle went through."""
    parser = argparse.ArgumentParser(prog="make rebuild", description=__doc__)
    parser.add_argument("--store", type=Path, required=True, help="the SQLite store")
    parser.add_argument("--pair", action="append", help="like BTC/USD; all pairs without it")
    asked = parser.parse_args(arguments)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    store: Path = asked.store.resolve()
    if not store.is_file():
        sys.stderr.write(f"rebuild: there is no feature store at {store}\n")
        return 1
    try:
        check_whole(store)
        indicators = chosen_indicators()
        sys.stdout.write(told(indicators))
        with tempfile.TemporaryDirectory() as folder, EmbeddedBroker() as broker:
            common = {
                **EMBEDDED_ENV,
                "KAFKA_BROKERS": broker.address,
                "KAFKA_TOPIC_SUFFIX": SUFFIX,
                # Fewer, longer fetches leave the processor to the services.
                "KAFKA_FETCH_WAIT_MS": "200",
            }
            cluster = Cluster(Path(folder), common)
            try:
                run(cluster, store, asked.pair or [], indicators)
            finally:
                cluster.stop()
    except (DemoError, ServiceError) as error:
        sys.stderr.write(f"\nrebuild: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped; what was computed is in the store, and the same command begins anew\n")
        return 130
    return 0


def run(cluster: Cluster, store: Path, pairs: Sequence[str], indicators: Sequence[str]) -> None:
    """Start the services and the source, and wait until all have ended. Raises `DemoError`."""
    ta = cluster.start("ta", {"INDICATORS": ",".join(indicators)})
    services = [ta, cluster.start("features", {"STORE_PATH": str(store)})]
    cluster.wait_until_up()
    options = [option for pair in pairs for option in ("--pair", pair)]
    source = ("services.features.rebuild", "--store", str(store), *options)
    candles = cluster.start("candles", {}, name="source", command=source)
    progress, moved_at, seen = Progress(), time.monotonic(), -1
    while any(service.process.poll() is None for service in services):
        cluster.check()
        if candles.process.poll() not in (None, 0):
            candles.check()
        stored = _stored(services[-1], seen)
        if stored != seen:
            seen, moved_at = stored, time.monotonic()
        elif time.monotonic() - moved_at > STUCK_AFTER_S:
            raise DemoError(f"nothing moved for {STUCK_AFTER_S:.0f} s:\n{services[-1].tail()}")
        progress.show(f"{max(seen, 0):,} rows stored")
        time.sleep(0.3)
    cluster.check()
    progress.show(candles.tail(1), last=True)


def _stored(features: Service, before: int) -> int:
    try:
        return int(total(features.metrics(), "rows_in_total"))
    except requests.RequestException:
        # It ends just now.
        return before


if __name__ == "__main__":
    sys.exit(main())
