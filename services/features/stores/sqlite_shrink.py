"""Giving the pages of deleted rows back to the file system."""

from collections.abc import Callable
from pathlib import Path

import apsw

from services.common.errors import StoreError
from services.features.stores.sqlite_connection import open_reader, open_writer, pause_after

#: Pages given back in one transaction.
VACUUM_PAGES = 500


def shrink(connection: apsw.Connection, stopped: Callable[[], bool]) -> None:
    """Give all free pages back, a few at a time, if the file was made so that it can (`open_writer`)."""
    if not connection.pragma("auto_vacuum"):
        return
    while connection.pragma("freelist_count") and not stopped():
        with pause_after():
            connection.execute(f"PRAGMA incremental_vacuum({VACUUM_PAGES})").fetchall()
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)


def can_shrink(store: Path) -> bool:
    """Whether the file gives back its free pages; one that was made before could not. Raises `StoreError`."""
    connection, _ = open_reader(store)
    try:
        return bool(connection.pragma("auto_vacuum"))
    finally:
        connection.close()


def compact(store: Path) -> None:
    """Rewrite a file that was made without the means to shrink, so that it can from now on.

    Nobody can write meanwhile, which takes some seconds a gigabyte. Raises `StoreError`.
    """
    connection = open_writer(store, "full")
    try:
        connection.pragma("auto_vacuum", "INCREMENTAL")
        connection.execute("VACUUM")
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
    except apsw.Error as error:
        raise StoreError(f"cannot compact the feature store {store}: {error}") from error
    finally:
        connection.close()
