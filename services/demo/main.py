"""`make demo`: broker, services, trades and news on one machine; `--live` takes real ones."""

import argparse
import fcntl
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from services.common.broker import EMBEDDED_ENV, EmbeddedBroker
from services.common.errors import ServiceError
from services.demo.live import run_live
from services.demo.processes import Cluster, DemoError
from services.demo.replay import run_replay


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


if __name__ == "__main__":
    sys.exit(main())
