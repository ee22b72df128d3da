"""`make dev svc=…`: one service on the host, started again whenever its code or settings change."""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from services.common.broker import EMBEDDED_ENV, EmbeddedBroker
from services.common.errors import ServiceError
from services.common.settings import BrokerSettings

SERVICES = ("trades", "candles", "ta", "news", "news_signals", "features")
ROOT = Path(__file__).resolve().parent.parent
EMBEDDED_STATE = ROOT.parent / ".run" / "dev-state"
POLL_S = 0.5
#: How the embedded broker calls itself; another `make dev` may have started it.
EMBEDDED_CLUSTER = "tansu_cluster"


def main() -> int:
    """Run until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="make dev", description=__doc__)
    parser.add_argument("service", nargs="?", choices=SERVICES, help="svc=…")
    service: str | None = parser.parse_args().service
    if service is None:
        sys.stderr.write(f"which service? make dev svc={'|'.join(SERVICES)}\n")
        return 2
    env_file = ROOT / service / ".env"
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        brokers = BrokerSettings.load(env_file=env_file).brokers
        cluster = cluster_at(brokers)
        with nullcontext() if cluster else EmbeddedBroker(int(brokers.rpartition(":")[2])) as started:
            environ = dict(os.environ)
            if started is not None:
                sys.stderr.write(f"no broker at {brokers}: started the embedded one\n")
                # It forgets everything when it ends, so state from an earlier one fits nothing.
                shutil.rmtree(EMBEDDED_STATE, ignore_errors=True)
            else:
                kind = "an embedded broker" if cluster == EMBEDDED_CLUSTER else "the message bus"
                sys.stderr.write(f"{kind} at {brokers}\n")
            if started is not None or cluster == EMBEDDED_CLUSTER:
                # The settings file has the address already; the rest says what kind of broker it is.
                environ |= EMBEDDED_ENV | {f"{service.upper()}_STATE_DIR": str(EMBEDDED_STATE)}
            return run(service, env_file, environ)
    except ServiceError as error:
        sys.stderr.write(f"dev: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 0


def cluster_at(brokers: str) -> str | None:
    """Id of the cluster that answers at `brokers` now, or None when none does."""
    try:
        found = AdminClient({"bootstrap.servers": brokers, "log_level": 0}).list_topics(timeout=2)
    except KafkaException:
        return None
    return found.cluster_id or "unnamed"


def stamp() -> float:
    """Newest change of the code and the settings files."""
    files = (path for kind in ("*.py", ".env") for path in ROOT.rglob(kind))
    return max(path.stat().st_mtime for path in files)


def run(service: str, env_file: Path, environ: dict[str, str]) -> int:
    """Keep the service running; a change of a file starts it again, an end of its own waits for one."""
    command = [sys.executable, "-m", f"services.{service}.main", "--env-file", str(env_file)]
    while True:
        known = stamp()
        process = subprocess.Popen(command, env=environ)
        try:
            while stamp() == known:
                if process.poll() is not None:
                    sys.stderr.write(f"{service} ended with {process.returncode}; waiting for a change\n")
                    while stamp() == known:
                        time.sleep(POLL_S)
                    break
                time.sleep(POLL_S)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(timeout=15)
        sys.stderr.write(f"{service}: a file changed, starting again\n")


if __name__ == "__main__":
    sys.exit(main())
