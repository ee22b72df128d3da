"""A process that rolls a store, for the tests that kill it or read beside it.

`python -m tests.features.roll_process PATH BEFORE_MS [POINT NUMBER]`: it kills itself at the NUMBER-th time
that it comes to POINT, one of `POINTS`; without one it rolls a day at a time up to BEFORE_MS.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from services.features.stores import sqlite_roll, sqlite_rolled
from services.features.stores.sqlite_roll import Roll
from tests.features.rows import T0

POINTS = ("before_write", "amid_write", "before_count", "in_transaction", "before_delete", "amid_delete")
STEP_MS = 86_400_000


def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(point: str, number: int) -> None:
    """Die at the `number`-th call of what `point` means."""
    target, name = {
        "before_write": (Roll, "_write"),
        "amid_write": (sqlite_rolled, "_sync"),
        "before_count": (Roll, "_let_count"),
        "in_transaction": (sqlite_roll, "key_text"),
        "before_delete": (Roll, "_delete"),
        "amid_delete": (sqlite_roll, "pause_after"),
    }[point]
    plain: Callable[..., Any] = getattr(target, name)
    calls = 0

    def counted(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            die()
        return plain(*arguments)

    setattr(target, name, counted)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def main() -> None:
    path, before_ms = Path(sys.argv[1]), int(sys.argv[2])
    if len(sys.argv) > 3:
        arm(sys.argv[3], int(sys.argv[4]))
        list(Roll(path, clock_ms=now_ms).before(before_ms))
        return
    for time_ms in range(T0 + STEP_MS, before_ms, STEP_MS):
        list(Roll(path, clock_ms=now_ms).before(time_ms))
        sys.stdout.write(f"{time_ms}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
