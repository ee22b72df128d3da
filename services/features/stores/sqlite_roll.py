"""Rolling old rows of the SQLite store into Parquet files, while others read and write it.

For each series and month (or year) with old rows:

1. read them and the file that there is, and write both as a new file, synced to the disk;
2. in one transaction, let the new file count instead of the old one;
3. delete from SQLite, a few hundred at a time, the rows that are still what the file has.

From step 2 on readers take each row once, from wherever it is, so that a kill at any point loses and doubles
nothing; the next roll goes on. A row that is corrected meanwhile, or later, stays in SQLite, where it goes
before the file's, and is in the file after the next roll.
"""

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import pyarrow as pa

from services.common.errors import StoreError
from services.features.arrow import arrow_schema, to_batches
from services.features.groups import FeatureGroup
from services.features.layers import conformed, merged
from services.features.partitions import Period, period_of
from services.features.stores.sqlite_connection import open_writer, pause_after, transaction
from services.features.stores.sqlite_rolled import (
    ROLLED_SQL,
    key_text,
    read_files,
    rolled_files,
    rolled_folder,
    write_file,
)
from services.features.stores.sqlite_schema import check_moveable, load_versions, quoted, table_columns
from services.features.stores.sqlite_select import Span, as_of_sql, history_sql
from services.features.stores.sqlite_shrink import shrink

#: Rows deleted in one transaction: about 5 ms in which others wait to write.
DELETE_ROWS = 200
#: Readers that began before a file was replaced are done after this long.
KEEP_REPLACED_MS = 3_600_000
_EVER = 2**62


class RolledPeriod(NamedTuple):
    """What one file has taken."""

    path: Path
    rows: int
    size_bytes: int
    taken: int


class Roll:
    """Moves rows that are older than a time. For one thread; raises `StoreError`."""

    def __init__(
        self, store: Path, *, clock_ms: Callable[[], int], stopped: Callable[[], bool] = lambda: False
    ) -> None:
        self._store = store
        self._folder = rolled_folder(store)
        self._clock_ms = clock_ms
        self._stopped = stopped

    def before(self, time_ms: int) -> Iterator[RolledPeriod]:
        """Roll all closed rows with an event time before `time_ms`; what each file took, as it is done."""
        if not self._store.is_file():
            raise StoreError(f"there is no feature store at {self._store}")
        try:
            with self._alone(), self._connected() as connection:
                with transaction(connection):
                    connection.execute(ROLLED_SQL)
                self._remove_replaced(connection)
                for due in self._due(connection, time_ms):
                    if self._stopped():
                        return
                    yield self._roll(connection, *due)
                    # Else Arrow keeps what the largest period took, for good.
                    pa.default_memory_pool().release_unused()
                shrink(connection, self._stopped)
        except (apsw.Error, OSError, pa.ArrowException) as error:
            raise StoreError(f"cannot roll the feature store {self._store}: {error}") from error

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Only one roll of a store at a time: another would take our new files for left-overs."""
        self._folder.mkdir(exist_ok=True)
        with (self._folder / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StoreError(f"{self._store} is being rolled by another process") from error
            yield

    @contextmanager
    def _connected(self) -> Iterator[apsw.Connection]:
        # A row must not be gone for good before it is known that the file counts.
        connection = open_writer(self._store, "full")
        try:
            yield connection
        finally:
            connection.close()

    def _due(
        self, connection: apsw.Connection, time_ms: int
    ) -> Iterator[tuple[FeatureGroup, tuple[str, ...], Period, int]]:
        """The series and periods with rows before a time, of all versions, and that time for the series.

        The newest row of a series stays, so that what holds now is found without opening a file.
        """
        versions = [group for found in load_versions(connection).values() for group in found]
        for group in versions:
            if not table_columns(connection, group.table):
                continue
            check_moveable(connection, group, self._store)
            names = ", ".join(quoted(name) for name in group.key)
            sql = f"SELECT {names} FROM {quoted(group.table + '_online')}"  # noqa: S608
            keys: Any = connection.execute(sql).fetchall()
            for key in keys:
                newest = connection.execute(as_of_sql(group, [group.event_time]), (*key, _EVER)).fetchone()
                if newest is None:
                    continue
                begin_ms, end_ms = 0, min(time_ms, newest[0])
                sql, _ = history_sql(group, [group.event_time], Span(0, 0), 1)
                while first := connection.execute(sql, (*key, begin_ms, end_ms - 1, 1)).fetchone():
                    period = period_of(group, key, first[0])
                    yield group, key, period, end_ms
                    begin_ms = period.end_ms

    def _roll(
        self,
        connection: apsw.Connection,
        group: FeatureGroup,
        key: tuple[str, ...],
        period: Period,
        time_ms: int,
    ) -> RolledPeriod:
        span = Span(period.start_ms, min(period.end_ms, time_ms) - 1)
        sql, bounds = history_sql(group, group.names, span, 1)
        schema = arrow_schema(group.stored)
        # As Python objects the rows of a month would take six times as much memory as in columns, so only a
        # few are that at a time, here and where they are deleted.
        newer = pa.Table.from_batches(
            to_batches(connection.execute(sql, (*key, *bounds, -1)), schema), schema
        )
        known = rolled_files(connection, group, key, period.start_ms, period.end_ms - 1)
        whole = Span(period.start_ms, period.end_ms - 1)
        older = schema.empty_table()
        if known:
            found = read_files(self._folder, known, group, key, whole, group.names)
            older = conformed(found, group, group.names)
        table = merged(group, newer, older)
        if table.equals(older):
            # A kill came after the file counted and before all its rows were deleted.
            path = self._folder / known[0].path
        else:
            path = self._write(table, group, key, period)
            self._let_count(connection, group, key, period, path, table)
        rows = table.num_rows
        # Deleting takes longest, and needs only what was read.
        del table, older
        self._delete(connection, group, newer)
        return RolledPeriod(path, rows, path.stat().st_size, newer.num_rows)

    def _write(self, table: pa.Table, group: FeatureGroup, key: tuple[str, ...], period: Period) -> Path:
        return write_file(self._folder, table, group, key, period, self._clock_ms())

    def _let_count(
        self,
        connection: apsw.Connection,
        group: FeatureGroup,
        key: tuple[str, ...],
        period: Period,
        path: Path,
        table: pa.Table,
    ) -> None:
        times = table[group.event_time]
        now_ms = self._clock_ms()
        with transaction(connection):
            connection.execute(
                "UPDATE rolled_files SET replaced_at_ms = ? "
                "WHERE (group_table, key, period) = (?, ?, ?) AND replaced_at_ms IS NULL",
                (now_ms, group.table, key_text(key), period.name),
            )
            connection.execute(
                "INSERT INTO rolled_files VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)",
                (
                    *(str(path.relative_to(self._folder)), group.table, key_text(key), period.name),
                    *(table.num_rows, times[0].as_py(), times[-1].as_py(), path.stat().st_size, now_ms),
                ),
            )

    def _delete(self, connection: apsw.Connection, group: FeatureGroup, rows: pa.Table) -> None:
        """Delete rows that are still as they were read."""
        primary = [f"{quoted(name)} = ?" for name in group.primary_key]
        others = [name for name in group.names if name not in group.primary_key]
        sql = (
            f"DELETE FROM {quoted(group.table)} WHERE {' AND '.join(primary)} "  # noqa: S608
            f"AND ({', '.join(quoted(name) for name in others)}) IS ({', '.join('?' * len(others))})"
        )
        # Values come back from columns as the bits that went in.
        rows = rows.select([*group.primary_key, *others])
        for begin in range(0, rows.num_rows, DELETE_ROWS):
            if self._stopped():
                # The next roll finds them in the file, and deletes them.
                return
            with pause_after(), transaction(connection):
                some = rows.slice(begin, DELETE_ROWS)
                connection.executemany(sql, zip(*(c.to_pylist() for c in some.columns), strict=True))

    def _remove_replaced(self, connection: apsw.Connection) -> None:
        """Delete files that were replaced, or written and never counted, long enough ago."""
        limit_ms = self._clock_ms() - KEEP_REPLACED_MS
        rows: Any = connection.execute("SELECT path, replaced_at_ms FROM rolled_files").fetchall()
        known = dict(rows)
        for path in self._folder.rglob("*.parquet*"):
            name = str(path.relative_to(self._folder))
            if name in known:
                gone = known[name] is not None and known[name] < limit_ms
            else:
                gone = path.stat().st_mtime * 1000 < limit_ms
            if gone:
                path.unlink()
        with transaction(connection):
            connection.execute("DELETE FROM rolled_files WHERE replaced_at_ms < ?", (limit_ms,))
