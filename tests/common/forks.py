"""Services as forks of one process, so that only the first of many pays for the imports.

`forked` is given to a `Cluster` in place of its own way to start processes. What runs is the same module in
the same environment, with the same arguments, signals and end; only the interpreter's start and the imports
are not its own. The process behind it, this file as a program, reads orders (``{"module": […], "env": {…},
"log": path}``), forks, and writes ``{"pid": …}``, and later ``{"pid": …, "code": …}``.
"""

import atexit
import gc
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from socket import socketpair
from typing import Any

from services.common.broker import die_with_parent
from services.demo.processes import Process

#: Libraries that would start threads at their import, which no fork has.
ONE_THREAD = {"JE_ARROW_MALLOC_CONF": "background_thread:false", "OPENBLAS_NUM_THREADS": "1"}


class Forked:
    """One fork, as `subprocess.Popen` would show it."""

    def __init__(self, parent: "Parent", pid: int) -> None:
        self._parent = parent
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        return self._await(0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._await(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        return code

    def _await(self, timeout_s: float | None) -> int | None:
        if self.returncode is None:
            self.returncode = self._parent.code_of(self.pid, timeout_s)
        return self.returncode

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, sig)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Parent:
    """The process that forks."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.common.forks"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env={**os.environ, **ONE_THREAD},
            preexec_fn=die_with_parent,
        )
        self._unread = b""
        self._codes: dict[int, int] = {}

    def fork(self, module: Sequence[str], env: Mapping[str, str], log: Path) -> Forked:
        """Run a module in a fork."""
        assert self._process.stdin is not None
        log.write_bytes(b"")
        order = {"module": list(module), "env": dict(env), "log": str(log)}
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        while (pid := self._read()) is None:
            pass
        return Forked(self, pid)

    def code_of(self, pid: int, timeout_s: float | None) -> int | None:
        """How a fork ended; None when it still runs after `timeout_s`."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while pid not in self._codes:
            left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not self._readable(left_s):
                return None
            self._read()
        return self._codes[pid]

    def _readable(self, timeout_s: float | None) -> bool:
        assert self._process.stdout is not None
        return b"\n" in self._unread or bool(select.select([self._process.stdout], [], [], timeout_s)[0])

    def _read(self) -> int | None:
        """Take in one line: the id of a new fork, None when it tells of an end."""
        assert self._process.stdout is not None
        while b"\n" not in self._unread:
            more = self._process.stdout.read(65_536)
            assert more, "the process that forks has ended"
            self._unread += more
        line, _, self._unread = self._unread.partition(b"\n")
        told = json.loads(line)
        if "code" not in told:
            return int(told["pid"])
        self._codes[told["pid"]] = told["code"]
        return None

    def close(self) -> None:
        """End it, and with it what it forked."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


@cache
def _parent() -> Parent:
    parent = Parent()
    atexit.register(parent.close)
    return parent


def forked(module: Sequence[str], env: Mapping[str, str], log: Path) -> Process:
    """As `services.demo.processes.spawn` does, but from a process that has imported the services already."""
    return _parent().fork(module, env, log)


def next_order() -> dict[str, Any]:
    """Fork for every order; returns the order in the fork, and ends the process when no more can come."""
    ended, wake = socketpair()
    ended.setblocking(False)
    wake.setblocking(False)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    unread = b""
    while True:
        readable, _, _ = select.select([0, ended.fileno()], [], [])
        if ended.fileno() in readable:
            ended.recv(4_096)
            while True:
                try:
                    pid, status = os.waitpid(-1, os.WNOHANG)
                except ChildProcessError:
                    break
                if pid == 0:
                    break
                tell({"pid": pid, "code": os.waitstatus_to_exitcode(status)})
        if 0 in readable:
            if not (more := os.read(0, 65_536)):
                sys.exit()
            *lines, unread = (unread + more).split(b"\n")
            for line in lines:
                pid = os.fork()
                if pid == 0:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    ended.close()
                    wake.close()
                    order: dict[str, Any] = json.loads(line)
                    return order
                tell({"pid": pid})


def tell(what: Mapping[str, int]) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


def become(order: Mapping[str, Any]) -> None:
    """Run the ordered module as `python -m` would."""
    die_with_parent()
    os.setsid()
    os.environ.clear()
    os.environ.update(order["env"])
    log = os.open(order["log"], os.O_WRONLY | os.O_APPEND)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(log)
    os.close(nothing)
    sys.argv[1:] = order["module"][1:]
    runpy.run_module(order["module"][0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    for service in ("trades", "candles", "ta", "features", "news", "news_signals"):
        __import__(f"services.{service}.pipeline")
    gc.freeze()
    become(next_order())
