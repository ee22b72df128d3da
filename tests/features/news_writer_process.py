"""A process that writes signals and their sentiment without end, for the tests that kill it.

`python -m tests.features.news_writer_process PATH POINT NUMBER` dies at the write NUMBER: at POINT
``between_groups``, when the signals are written and the sentiment is not, ``before_commit`` or
``after_commit``. A line is printed when a batch is in the store. Batch n is of minute n; the next process
goes on where the last one died.
"""

import os
import signal as signals
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from services.common.news import NewsSignal
from services.features.groups import SENTIMENT
from services.features.sentiment import SentimentWriter
from services.features.stores import sqlite
from tests.features.rows import MINUTE, T0, make_store, signal

BATCH = 3


def batch(number: int) -> list[NewsSignal]:
    """The signals of one minute."""
    return [signal(number * MINUTE + i, f"s{i}", ((number + i) % 21 - 10) / 10) for i in range(BATCH)]


def die() -> None:
    os.kill(os.getpid(), signals.SIGKILL)


def arm(point: str, number: int) -> None:
    """Die at the point of a write that has rows of two groups."""
    divide = sqlite._divide
    write_many = sqlite.SqliteStore.write_many
    write = SentimentWriter.write
    calls = 0

    def deadly_divide(plan: Any, *args: Any) -> Any:
        offline, newest = divide(plan, *args)
        if calls != number or SENTIMENT.table not in plan.offline_sql:
            return offline, newest

        def deadly() -> Iterator[Any]:
            die()
            yield

        rows: Any = [*offline] if point == "before_commit" else deadly()
        return rows, deadly()

    def counted(store: Any, writes: Any) -> None:
        nonlocal calls
        calls += 1
        write_many(store, writes)

    def deadly_write(*args: Any) -> None:
        write(*args)
        if calls == number:
            die()

    setattr(sqlite.SqliteStore, "write_many", counted)  # noqa: B010
    if point == "after_commit":
        setattr(SentimentWriter, "write", deadly_write)  # noqa: B010
    else:
        setattr(sqlite, "_divide", deadly_divide)  # noqa: B010


def main() -> None:
    store = make_store(Path(sys.argv[1]))
    arm(sys.argv[2], int(sys.argv[3]))
    done = store.sql("SELECT count(*) FROM news_signals")[1][0][0] // BATCH
    now = 0
    writer = SentimentWriter(store, lambda: now)
    while True:
        # What the last process committed may come again, as from a broker.
        for number in range(max(0, done - 1), done + 40):
            now = T0 + number * MINUTE + 30_000
            writer.write("BTC", batch(number))
            sys.stdout.write(f"{number}\n")
            sys.stdout.flush()
        done += 40


if __name__ == "__main__":
    main()
