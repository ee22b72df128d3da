"""Opening the engine's SQLite files.

Rollback journal, not WAL: the standard library's SQLite may have the WAL-reset bug, and a few writes a
second need no WAL. SQLite's default syncs every transaction, so what was committed outlives any crash.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.common.errors import StoreError

BUSY_TIMEOUT_S = 5.0


def open_file(path: Path, schema: str) -> sqlite3.Connection:
    """A connection to `path`, which is created with `schema` if it is new. Raises `StoreError`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Used by the thread of the requests and the main thread, never at the same time.
        connection = sqlite3.connect(
            path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        connection.execute(schema)
    except (sqlite3.Error, OSError) as error:
        raise StoreError(f"cannot open {path} ({error}); delete the file to start anew") from error
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection, path: Path) -> Iterator[sqlite3.Connection]:
    """All that is done within it happens or none of it does. Raises `StoreError`."""
    try:
        # IMMEDIATE: what is read here is still true when it is written, also with a second process.
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    except sqlite3.Error as error:
        raise StoreError(f"cannot write to {path}: {error}") from error
