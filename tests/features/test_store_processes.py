"""Several processes on one store: readers beside a writer, killed writers, read-only folders."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from services.common.errors import StoreError
from services.features.groups import TA
from services.features.stores.sqlite import SqliteStore
from services.features.stores.sqlite_reader import SqliteReader
from services.features.windows import Observed, sentiment_rows
from tests.features import news_writer_process
from tests.features.rows import T0, make_store, ta_row, tuples
from tests.features.writer_process import BATCH

ROOT = Path(__file__).parents[2]


@contextmanager
def writing(path: Path) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.features.writer_process", str(path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    try:
        yield process, process.stdout
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


def whole_batches(store: SqliteReader) -> int:
    """Number of batches in the store; fails on a part of one."""
    counts: dict[float, int] = dict(store.sql("SELECT close, count(*) FROM ta GROUP BY close")[1])
    assert set(counts.values()) <= {BATCH}
    assert sorted(counts) == list(range(1, len(counts) + 1))
    latest = store.latest("BTC/USD", "1m")
    assert latest is not None
    assert latest["close"] >= len(counts)
    return len(counts)


def test_readers_see_whole_batches_only_while_another_process_writes(path: Path) -> None:
    with writing(path) as (_, lines):
        lines.readline()
        with SqliteReader(path) as reader:
            seen = []
            for _ in range(20):
                promised = int(lines.readline())
                seen.append(whole_batches(reader))
                # What the writer reported before the question is in the answer.
                assert seen[-1] >= promised
    assert seen == sorted(seen)


def test_a_killed_writer_leaves_whole_batches_and_an_intact_file(path: Path) -> None:
    reported = 0
    for kills in range(1, 6):
        with writing(path) as (process, lines):
            for _ in range(kills * 7):
                reported = max(reported, int(lines.readline()))
            process.kill()
        with SqliteReader(path) as reader:
            assert whole_batches(reader) >= reported
            assert reader.sql("PRAGMA integrity_check")[1] == [("ok",)]
    with make_store(path) as store:
        # The next writer goes on where the killed one stopped.
        store.write(TA, tuples([ta_row(0, close=1.0)]))
        assert whole_batches(store) >= reported


def test_a_second_writer_waits_for_the_first_and_both_are_kept(path: Path) -> None:
    with make_store(path) as one, make_store(path) as other:
        for i in range(20):
            (one if i % 2 else other).write(TA, tuples([ta_row(i)]))
        assert one.history("BTC/USD", "1m").num_rows == 20


def run_until_killed(path: Path, point: str, number: int) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.features.news_writer_process", str(path), point, str(number)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        timeout=60,
    )
    assert ran.returncode == -signal.SIGKILL, ran.stderr


@pytest.mark.parametrize("point", ["between_groups", "before_commit", "after_commit"])
def test_a_writer_killed_amid_a_transaction_leaves_signals_with_their_sentiment_or_neither(
    path: Path, point: str
) -> None:
    for number in (1, 8, 20):
        run_until_killed(path, point, number)
        with SqliteReader(path) as reader:
            assert reader.sql("PRAGMA integrity_check")[1] == [("ok",)]
            observed = reader.sql("SELECT observed_at_ms FROM news_signals ORDER BY 1")[1]
            batches = len(observed) // news_writer_process.BATCH
            written = [s for i in range(batches) for s in news_writer_process.batch(i)]
            assert [time for (time,) in observed] == [s.observed_at_ms for s in written]
            last_ms = T0 + (batches - 1) * 60_000 + 30_000
            known = [Observed(*(getattr(s, name) for name in Observed._fields)) for s in written]
            rows = reader.sql("SELECT * FROM sentiment ORDER BY as_of_ms")[1]
            assert [row[:-1] for row in rows] == sentiment_rows("BTC", known, 0, last_ms)
            online = reader.sql("SELECT * FROM sentiment_online")[1]
            assert online == rows[-1:]
    assert batches > 20


# Root may write to any folder, so another user has to try.
AS_NOBODY = """
import os, sys
from pathlib import Path
from services.features.stores.sqlite_reader import SqliteReader
os.setgid(65534); os.setuid(65534)
print(SqliteReader(Path(sys.argv[1])).history("BTC/USD", "1m").num_rows)
"""


@contextmanager
def read_only_store() -> Iterator[tuple[SqliteStore, Path]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "features.sqlite")
        store = make_store(path)
        store.write(TA, tuples([ta_row(0), ta_row(1)]))
        os.chmod(folder, 0o755)  # noqa: PTH101
        try:
            yield store, path
        finally:
            store.close()


def ask_as_nobody(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", AS_NOBODY, str(path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )


@pytest.mark.skipif(os.getuid() != 0, reason="takes root to become another user")
def test_another_user_reads_a_closed_store_in_a_folder_he_cannot_write() -> None:
    with read_only_store() as (store, path):
        store.close()
        assert not path.with_name(path.name + "-shm").exists()
        asked = ask_as_nobody(path)
        assert asked.stdout.strip() == "2", asked.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="takes root to become another user")
def test_another_user_reads_an_open_store_in_a_folder_he_cannot_write() -> None:
    with read_only_store() as (_, path):
        asked = ask_as_nobody(path)
        assert asked.stdout.strip() == "2", asked.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="takes root to become another user")
def test_a_log_that_cannot_be_read_is_an_error_and_not_missing_rows() -> None:
    with read_only_store() as (store, path):
        log = path.with_name(path.name + "-wal")
        kept = log.read_bytes()
        store.close()
        # As a killed writer leaves it, on a system that cleared the shared index.
        log.write_bytes(kept)
        asked = ask_as_nobody(path)
        assert StoreError.__name__ in asked.stderr
        assert "was not closed by its writer" in asked.stderr
