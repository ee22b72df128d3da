"""Opening SQLite files: the version that is safe, the writer's connection, the readers'."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import apsw

from services.common.errors import StoreError

type Synchronous = Literal["normal", "full"]

BUSY_TIMEOUT_MS = 10_000
PAGE_SIZE_BYTES = 4096
# 16 MB of log between checkpoints. SQLite's own 1,000 pages put the checkpoint's disk sync into one
# write of 30 (p99 10 ms a batch); at 4,000 the p99 is 1 ms.
CHECKPOINT_PAGES = 4_000

_FIXED_SINCE = (3, 51, 3)
_FIXED_LINES = ((3, 50, 7), (3, 44, 6))


def check_version(version: str) -> None:
    """Refuse an SQLite with the WAL-reset bug (sqlite.org/wal.html#walresetbug).

    Raises `StoreError`.
    """
    found = tuple(int(part) for part in version.split(".")[:3])
    if found >= _FIXED_SINCE:
        return
    if any(found[:2] == line[:2] and found >= line for line in _FIXED_LINES):
        return
    raise StoreError(
        f"SQLite {version} can corrupt a store that several connections use; "
        "it takes 3.51.3 or later (or 3.50.7, 3.44.6): install a newer apsw"
    )


def open_writer(path: Path, synchronous: Synchronous) -> apsw.Connection:
    """A connection that may write; creates the file and its folder. Raises `StoreError`."""
    check_version(apsw.sqlite_lib_version())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = apsw.Connection(str(path))
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        # These two take effect in a new file only.
        connection.pragma("page_size", PAGE_SIZE_BYTES)
        # So that the file can shrink, page by page, when old rows have been rolled; it costs 1 µs a row.
        connection.pragma("auto_vacuum", "INCREMENTAL")
        mode = connection.pragma("journal_mode", "WAL")
        connection.pragma("synchronous", synchronous.upper())
        connection.pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
        connection.pragma("foreign_keys", True)
    except (apsw.Error, OSError) as error:
        raise StoreError(f"cannot write to the feature store {path}: {error}") from error
    if mode != "wal":
        raise StoreError(
            f"cannot use WAL for the feature store {path} (it is {mode}); "
            "put it on a local disk, not on a network or desktop-shared folder"
        )
    return connection


@contextmanager
def transaction(connection: apsw.Connection) -> Iterator[None]:
    """Hold the lock for writing, and commit or take back what is written inside."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # Some errors have rolled back already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def pause_after() -> Iterator[None]:
    """Leave others as much time to write as the work inside took."""
    begun = time.perf_counter()
    yield
    time.sleep(time.perf_counter() - begun)


def open_reader(path: Path) -> tuple[apsw.Connection, bool]:
    """A read-only connection, and whether it is a snapshot that later writes do not reach.

    Where the file may be read but its folder not be written and no writer has it open, SQLite cannot
    create the shared index of the log; then the file is opened as immutable. Raises `StoreError`.
    """
    check_version(apsw.sqlite_lib_version())
    if not path.is_file():
        raise StoreError(f"there is no feature store at {path}; `make demo` makes one, or name another file")
    try:
        return _open(str(path), apsw.SQLITE_OPEN_READONLY), False
    except (apsw.CantOpenError, apsw.ReadOnlyError) as error:
        log = path.with_name(path.name + "-wal")
        if log.exists() and log.stat().st_size:
            # Immutable would leave out what is in the log, silently.
            raise StoreError(
                f"{path} was not closed by its writer and its folder is read-only; start the features "
                "service on it once, or open it as the user that owns it"
            ) from error
    except apsw.Error as error:
        raise StoreError(f"cannot open the feature store {path}: {error}") from error
    try:
        uri = f"file:{quote(str(path.absolute()))}?immutable=1"
        return _open(uri, apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI), True
    except apsw.Error as error:
        raise StoreError(f"cannot open the feature store {path}: {error}") from error


def _open(name: str, flags: int) -> apsw.Connection:
    connection = apsw.Connection(name, flags=flags)
    try:
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        # Opening is lazy; the first statement is what fails.
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
    except apsw.Error:
        connection.close()
        raise
    return connection
