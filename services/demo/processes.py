"""The services as child processes, exactly as they run in production, and their end."""

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import requests

from services.common.broker import die_with_parent, free_port

STOP_WITHIN_S = 12.0
START_WITHIN_S = 30.0
PREFIXES = ("KAFKA_", "TRADES_", "CANDLES_", "TA_", "NEWS_", "FEATURES_")


#: The exit code of a service that refuses what it was given, see `run_service`.
REFUSED = 2
#: The file in a folder that whoever uses it holds locked.
LOCK = "lock"


class DemoError(Exception):
    """The demo cannot go on; the text says why and what to do."""


class RefusedError(DemoError):
    """A service refuses what it was given, so the same again is refused again."""


class FolderError(DemoError):
    """The folder cannot be used."""


class Process(Protocol):
    """What is used of a child process; `subprocess.Popen` is one."""

    pid: int
    #: None while it runs; minus the number of the signal that ended it.
    returncode: int | None

    def poll(self) -> int | None:
        """Its return code when it has ended."""

    def wait(self, timeout: float | None = None) -> int:
        """Its return code once it ends. Raises `subprocess.TimeoutExpired`."""
        ...

    def send_signal(self, sig: int) -> None:
        """Send it a signal, unless it has ended."""

    def terminate(self) -> None:
        """Send it SIGTERM."""

    def kill(self) -> None:
        """Send it SIGKILL."""


def spawn(module: Sequence[str], env: Mapping[str, str], log: Path) -> Process:
    """Run a Python module (its name and arguments) in a process that ends with this one."""
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", *module],
            env=env,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )


@dataclass
class Service:
    """One running service."""

    name: str
    process: Process
    url: str
    log: Path

    def check(self) -> None:
        """Raise `DemoError` with the end of its log if it died."""
        code = self.process.poll()
        if code not in (None, 0):
            kind = RefusedError if code == REFUSED else DemoError
            raise kind(f"{self.name} ended with code {code}; its log {self.log} ends:\n{self.tail()}")

    def tail(self, lines: int = 15) -> str:
        """The end of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def metrics(self) -> dict[str, float]:
        """Samples of `/metrics`, by name with labels as Prometheus writes them."""
        text = requests.get(f"{self.url}/metrics", timeout=10).text
        samples = {}
        for line in text.splitlines():
            if not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                samples[name] = float(value)
        return samples


class Cluster:
    """Starts services and ends them, the first one last."""

    def __init__(
        self,
        folder: Path,
        common: Mapping[str, str],
        spawn: Callable[[Sequence[str], Mapping[str, str], Path], Process] = spawn,
    ) -> None:
        self._folder = folder
        self._common = dict(common)
        self._spawn = spawn
        self.services: list[Service] = []

    def start(
        self,
        service: str,
        settings: Mapping[str, str],
        name: str | None = None,
        command: Sequence[str] = (),
    ) -> Service:
        """Start `services.<service>.main`, or `command`, with `settings` (without their prefix)."""
        name = name or service
        port = free_port()
        prefix = service.upper()
        defaults = {"HTTP_PORT": str(port), "STATE_DIR": str(self._folder / "state")}
        own = {f"{prefix}_{key}": value for key, value in {**defaults, **settings}.items()}
        # What the user's shell sets for real services must not reach the demo's.
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(PREFIXES)}
        log = self._folder / f"{name}.log"
        module = command or (f"services.{service}.main",)
        process = self._spawn(module, {**inherited, **self._common, **own}, log)
        started = Service(name, process, f"http://127.0.0.1:{port}", log)
        self.services.append(started)
        return started

    def wait_until_up(self) -> None:
        """Wait until every service answers."""
        deadline = time.monotonic() + START_WITHIN_S
        for service in self.services:
            while service.process.poll() is None:
                try:
                    requests.get(f"{service.url}/health/live", timeout=2)
                    break
                except requests.ConnectionError as error:
                    if time.monotonic() > deadline:
                        raise DemoError(f"{service.name} does not start:\n{service.tail()}") from error
                    time.sleep(0.05)
            service.check()

    def check(self) -> None:
        """Raise `DemoError` if any service died."""
        for service in self.services:
            service.check()

    def stop(self) -> None:
        """SIGTERM to all, SIGKILL to those that stay."""
        for service in self.services:
            if service.process.poll() is None:
                service.process.terminate()
        deadline = time.monotonic() + STOP_WITHIN_S
        for service in reversed(self.services):
            try:
                service.process.wait(timeout=max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                service.process.kill()
                service.process.wait()


@contextmanager
def own_folder(folder: Path) -> Iterator[None]:
    """Keep other runs out of `folder` meanwhile. Raises `FolderError` if it has one, or is of no use."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / LOCK).touch()
    except OSError as error:
        raise FolderError(f"cannot use the folder {folder}: {error.strerror}; name another one") from error
    with (folder / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise FolderError(f"another run is using {folder}; end it or use --folder") from error
        yield
