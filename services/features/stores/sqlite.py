"""The default store: one SQLite file in WAL mode, written by one process and read by any number."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from services.common.errors import StoreError
from services.features.groups import FeatureGroup
from services.features.stores.sqlite_connection import Synchronous, open_writer, transaction
from services.features.stores.sqlite_reader import SqliteReader
from services.features.stores.sqlite_schema import (
    check_moveable,
    check_tables,
    create_registry,
    create_sql,
    save_group,
    table_columns,
    upsert_sql,
)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class SqliteStore(SqliteReader):
    """`contract.Store` on one SQLite file. Writing is for the thread that made it; reading for any.

    Outside of `transaction` every `write` is one of its own, so a row can be read once `write` returns and
    a killed writer leaves whole batches. With ``synchronous="normal"`` a commit survives the death of the
    process, and `flush` makes it survive a power cut as well; with ``"full"`` each commit does.
    Raises `StoreError`.
    """

    def __init__(
        self,
        path: Path,
        *,
        synchronous: Synchronous = "normal",
        clock_ms: Callable[[], int] = _now_ms,
    ) -> None:
        self._writer = open_writer(path, synchronous)
        self._synchronous = synchronous
        self._log = path.with_name(path.name + "-wal")
        self._clock_ms = clock_ms
        self._plans: dict[str, _Plan] = {}
        self._dirty = False
        super().__init__(path)

    def ensure_group(self, group: FeatureGroup) -> None:
        """Make the tables of a group, or check them. Raises `SchemaMismatchError`, `StoreError`."""
        # Reading first and writing then would fail, not wait, where another writer comes in between.
        with self.transaction():
            create_registry(self._writer)
            if not table_columns(self._writer, group.table):
                self._writer.execute(create_sql(group))
            check_tables(self._writer, group, str(self.path))
            self._check_triggers(group)
            save_group(self._writer, group)
        self._plans[group.table] = _Plan(
            upsert_sql(group, online=False),
            upsert_sql(group, online=True),
            len(group.key),
            None if group.closed is None else group.index(group.closed),
            itemgetter(*(group.index(name) for name in group.order)),
        )

    def _check_triggers(self, group: FeatureGroup) -> None:
        """Raises `StoreError` where another store's outbox would note every row from now on, for nobody."""
        check_moveable(self._writer, group, self.path)

    def write(self, group: FeatureGroup, rows: Sequence[tuple[Any, ...]]) -> None:
        """Upsert rows in one transaction: the closed ones offline, the newest of each key online."""
        self.write_many([(group, rows)])

    def write_many(self, writes: Sequence[tuple[FeatureGroup, Sequence[tuple[Any, ...]]]]) -> None:
        """`write` rows of several groups in one transaction."""
        ingested = (self._clock_ms(),)
        plans = [(self._plans[group.table], rows) for group, rows in writes if rows]
        divided = [(plan, *_divide(plan, rows, ingested)) for plan, rows in plans]
        if not divided:
            return
        executemany = self._writer.executemany
        with self.transaction():
            for plan, offline, newest in divided:
                if offline:
                    executemany(plan.offline_sql, offline)
                executemany(plan.online_sql, newest)
        self._dirty = True

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Hold the lock for writing, and commit or take back what is written inside.

        Questions are asked on other connections, so inside they see the store as it was before.
        """
        if self._writer.in_transaction:
            # The outer one commits.
            yield
            return
        try:
            with transaction(self._writer):
                yield
        except apsw.Error as error:
            raise StoreError(f"cannot write to the feature store {self.path}: {error}") from error

    def foreign_writes(self) -> int:
        """Changes when another connection has written to the file, and not when this one has."""
        try:
            version: int = self._writer.pragma("data_version")
        except apsw.Error as error:
            raise StoreError(f"cannot read the feature store {self.path}: {error}") from error
        return version

    def flush(self) -> None:
        """Sync the log to the disk, so that no committed offset is ahead of the store."""
        if not self._dirty or self._synchronous == "full":
            return
        try:
            # SQLite holds its locks on other files, so closing this descriptor frees none of them.
            descriptor = os.open(self._log, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except FileNotFoundError:
            # Everything is in the main file already, which SQLite syncs itself.
            pass
        except OSError as error:
            raise StoreError(f"cannot sync the feature store {self.path}: {error}") from error
        self._dirty = False

    def close(self) -> None:
        """Flush and close; the last one to close folds the log into the file."""
        self.flush()
        super().close()
        self._writer.close()


class _Plan(NamedTuple):
    """How rows of a group are written; looking it up in the group would cost more than a row."""

    offline_sql: str
    online_sql: str
    #: The key is the first so many columns; a slice is cheaper than picking them.
    key_width: int
    closed: int | None
    order: Callable[[tuple[Any, ...]], Any]


def _divide(
    plan: _Plan, rows: Sequence[tuple[Any, ...]], ingested: tuple[int]
) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """The rows for the offline table, and the newest of each key for the online one.

    A batch holds many rows of a key, and all but its newest would only be overwritten online.
    """
    _, _, width, closed, order = plan
    offline: list[tuple[Any, ...]] = []
    newest: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for row in rows:
        stamped = row + ingested
        if closed is None or row[closed]:
            offline.append(stamped)
        key = row[:width]
        other = newest.get(key)
        if other is None or order(row) >= order(other):
            newest[key] = stamped
    return offline, list(newest.values())
