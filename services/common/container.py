"""The entry point of every image, and its health check.

`python -m services.common.container` runs the service that ``SERVICE`` names; with ``health`` it asks that
service whether it lives. Docker only marks a container that is not healthy, so the check itself ends a
service that lived and no longer does; the restart policy then starts it again.
"""

import os
import runpy
import signal
import sys
from contextlib import suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

#: What is the image's business, whatever the settings that a service on the host shares say.
PLACES = {"HTTP_HOST": "0.0.0.0", "HTTP_PORT": "8000", "STATE_DIR": "/state"}  # noqa: S104
FAILURES_ALLOWED = 3
TIMEOUT_S = 4.0
PID_FILE = Path("/tmp/service.pid")  # noqa: S108
#: How often in a row the service did not answer; it is there once it did.
FAILURES_FILE = Path("/tmp/service.failures")  # noqa: S108


def places(service: str) -> dict[str, str]:
    """Variables that say where a service listens and keeps its files in a container."""
    own = {f"{service.upper()}_{name}": value for name, value in PLACES.items()}
    return own | ({"FEATURES_STORE_PATH": "/store/features.sqlite"} if service == "features" else {})


def run(service: str) -> None:
    """Become the service."""
    os.environ.update(places(service))
    FAILURES_FILE.unlink(missing_ok=True)
    PID_FILE.write_text(str(os.getpid()))
    sys.argv[0] = service
    runpy.run_module(f"services.{service}.main", run_name="__main__", alter_sys=True)


def alive(url: str) -> bool:
    """Whether the service answers that it lives."""
    try:
        with urlopen(url, timeout=TIMEOUT_S) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def check(url: str, pid_file: Path = PID_FILE, failures_file: Path = FAILURES_FILE) -> int:
    """Exit code of the health check; ends a service that stopped living `FAILURES_ALLOWED` checks ago."""
    if alive(url):
        failures_file.write_text("0")
        return 0
    if not failures_file.exists():
        # It is starting: a broker may take its time.
        return 1
    failures = int(failures_file.read_text() or 0) + 1
    failures_file.write_text(str(failures))
    if failures >= FAILURES_ALLOWED:
        with suppress(ProcessLookupError):
            os.kill(int(pid_file.read_text()), signal.SIGKILL)
    return 1


def main() -> int:
    """Run the service, or check it."""
    if sys.argv[1:] == ["health"]:
        return check(f"http://127.0.0.1:{PLACES['HTTP_PORT']}/health/live")
    run(os.environ["SERVICE"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
