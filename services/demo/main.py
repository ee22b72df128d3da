"""`make demo`: broker, services, trades and news on one machine; `--live` takes real ones."""

import argparse
import shutil
import signal
import sys
from pathlib import Path

from services.common.broker import EMBEDDED_ENV, EmbeddedBroker
from services.common.errors import ServiceError
from services.demo.live import run_live
from services.demo.processes import LOCK, Cluster, DemoError, own_folder
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
        with own_folder(folder), EmbeddedBroker() as broker:
            for path in folder.iterdir():
                if path.name != LOCK:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
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


if __name__ == "__main__":
    sys.exit(main())
