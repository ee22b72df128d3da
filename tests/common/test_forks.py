"""A fork shows what a process of its own would: arguments, environment, output, signals and end."""

import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from services.demo.processes import Process, spawn
from tests.common.forks import forked
from tests.common.support import runs, wait_until

each_way = pytest.mark.parametrize("start", [spawn, forked])
type Start = Callable[[Sequence[str], Mapping[str, str], Path], Process]
RUN = ("timeit", "-n", "1", "-r", "1")
SLEEP = "import sys, time; sys.stderr.write('up'); sys.stderr.flush(); time.sleep(60)"


@each_way
def test_it_has_its_own_environment_arguments_and_log(start: Start, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("of an earlier one")
    say = "import os, sys; print(sorted(os.environ), sys.argv[1:3], __import__('__main__').__name__)"
    process = start((*RUN, say), {"HERE": "1"}, log)
    assert process.wait(timeout=20) == process.poll() == process.returncode == 0
    assert "'HERE'" in log.read_text()
    assert "['-n', '1'] __main__" in log.read_text()
    assert "PATH" not in log.read_text()
    assert "earlier" not in log.read_text()


@each_way
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_it_and_says_so(start: Start, number: signal.Signals, tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = start((*RUN, SLEEP), {}, log)
    wait_until(lambda: log.read_text() == "up", "its start")
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.01)
    process.send_signal(number)
    assert process.wait() == -number
    assert not runs(process.pid)
    process.kill()


@each_way
def test_an_error_is_in_its_log_and_its_code(start: Start, tmp_path: Path) -> None:
    process = start((*RUN, "raise ValueError('of mine')"), {}, tmp_path / "log")
    assert process.wait() == 1
    assert "of mine" in (tmp_path / "log").read_text()
