"""`make serve`: the HTTP face of a store file, without broker or services, until Ctrl-C."""

import argparse
import signal
import sys
import threading
import time
from pathlib import Path

from services.common.errors import QueryError, ServiceError
from services.common.health import Health
from services.common.http import HttpServer, build_http_app
from services.common.metrics import Metrics
from services.features.api import build_router
from services.features.settings import FeaturesSettings
from services.features.stores import open_for_reading
from services.features.stores.location import parse_location


def main() -> int:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(prog="make serve", description=__doc__)
    parser.add_argument("--store", default="store/features.sqlite", help="path of the store")
    parser.add_argument("--port", type=int, default=8004, help="port on 127.0.0.1; 0 takes a free one")
    arguments = parser.parse_args()
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    try:
        if not 0 <= arguments.port <= 65_535:
            raise QueryError(f"--port must be from 0 to 65535, not {arguments.port}")
        settings = FeaturesSettings.load()
        kind, path = parse_location(arguments.store)
        # Opened here once, so that a wrong path is an error now and not at the first request.
        open_for_reading(kind, path).close()
        api_key = settings.api_key.get_secret_value() if settings.api_key else None
        router = build_router(
            lambda: open_for_reading(kind, path),
            api_key=api_key,
            max_rows=settings.max_rows,
            stale_grace_s=settings.stale_grace_s,
            clock_ms=lambda: time.time_ns() // 1_000_000,
        )
        health = Health(stale_after_s=60)
        app = build_http_app("features", {"store": str(Path(path))}, health, Metrics(), [router])
        server = HttpServer(app, "127.0.0.1", arguments.port)
    except ServiceError as error:
        sys.stderr.write(f"serve: {error}\n")
        return 1
    server.start()
    sys.stdout.write(f"{server.url}/docs\n{server.url}/features/ta/latest?timeframe=1h\n")
    sys.stdout.flush()
    # There is no stream behind it; it is ready as long as it answers.
    while not stopped.wait(1):
        health.input_arrived()
    server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
