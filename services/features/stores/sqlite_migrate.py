"""Moving the rows of a group's earlier versions into the table of its newest one.

Readers take the rows of all versions together, so nothing has to be moved to be read. But SQL sees one table
at a time, and rows that were computed anew are stored twice until the earlier ones go. A few hundred rows go
in one transaction, so that others go on reading and writing, and a kill between two of them leaves each row
in one table.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from services.common.errors import StoreError
from services.features.groups import FeatureGroup
from services.features.layers import readable_as
from services.features.stores.sqlite_connection import open_reader, open_writer, pause_after, transaction
from services.features.stores.sqlite_layers import Catalog
from services.features.stores.sqlite_rolled import TABLE, has_files, read_files, rolled_files, rolled_folder
from services.features.stores.sqlite_schema import (
    check_moveable,
    has_rows,
    load_versions,
    quoted,
    table_columns,
    upsert_sql,
)
from services.features.stores.sqlite_select import Span, history_sql

#: Rows moved in one transaction.
MOVE_ROWS = 200


class Moved(NamedTuple):
    """What became of the rows of one earlier version."""

    table: str
    into: str
    rows: int


def migrate(store: Path) -> Iterator[Moved]:
    """Move all that can be read as the newest version, and drop the tables that it leaves empty.

    A row that the newest version has as well, in its table or a rolled file, is only deleted unless its
    revision is higher. Columns that the earlier version has not are null. Raises `StoreError`.
    """
    if not store.is_file():
        raise StoreError(f"there is no feature store at {store}")
    connection = open_writer(store, "normal")
    try:
        catalog = Catalog.load(connection)
        for name, newest in catalog.groups.items():
            versions = [newest, *catalog.earlier[name]]
            for place, earlier in enumerate(versions[1:], 1):
                if earlier.table in catalog.tables:
                    check_moveable(connection, earlier, store)
                    rows = _Move(connection, rolled_folder(store), earlier, versions[:place]).run()
                    yield Moved(earlier.table, newest.table, rows)
    except apsw.Error as error:
        raise StoreError(f"cannot migrate the feature store {store}: {error}") from error
    finally:
        connection.close()


def staying(store: Path) -> list[str]:
    """What there is of earlier versions that is not moved, a line each. Raises `StoreError`."""
    connection, _ = open_reader(store)
    try:
        lines: list[str] = []
        for newest, *earlier in load_versions(connection).values():
            for group in earlier:
                if has_files(connection, group.table):
                    read = "the newest has them" if readable_as(group, newest) else "no answer has them"
                    lines.append(f"{group.table}: its rows in Parquet files stay there; {read}")
                if has_rows(connection, group.table) and not readable_as(group, newest):
                    lines.append(
                        f"{group.table}: cannot be read as {newest.table} (other kinds of columns), so it "
                        "stays; SQL has it"
                    )
        return lines
    except apsw.Error as error:
        raise StoreError(f"cannot read the feature store {store}: {error}") from error
    finally:
        connection.close()


class _Move:
    def __init__(
        self, connection: apsw.Connection, folder: Path, earlier: FeatureGroup, above: Sequence[FeatureGroup]
    ) -> None:
        self._connection = connection
        self._folder = folder
        self._earlier = earlier
        self._above = above
        self._newest = newest = above[0]
        self._rolled = bool(table_columns(connection, TABLE))
        # Null where the earlier version has no such column.
        self._places = [earlier.index(name) if name in earlier.names else None for name in newest.names]

    def run(self) -> int:
        key_names = ", ".join(quoted(name) for name in self._earlier.key)
        online = quoted(self._earlier.table + "_online")
        keys: Any = self._connection.execute(f"SELECT {key_names} FROM {online}").fetchall()  # noqa: S608
        moved = sum(self._key(key) for key in keys)
        with transaction(self._connection):
            # A service of before may have written meanwhile.
            tables = (self._earlier.table, self._earlier.table + "_online")
            left = any(
                self._connection.execute(f"SELECT 1 FROM {quoted(table)} LIMIT 1").fetchall()  # noqa: S608
                for table in tables
            )
            for table in () if left else tables:
                self._connection.execute(f"DROP TABLE {quoted(table)}")
        return moved

    def _key(self, key: tuple[str, ...]) -> int:
        group = self._earlier
        where = " AND ".join(f"{quoted(name)} = ?" for name in group.primary_key)
        delete = f"DELETE FROM {quoted(group.table)} WHERE {where}"  # noqa: S608
        sql, _ = history_sql(group, group.names, Span(0, 0), 1)
        places = [group.index(name) for name in group.primary_key]
        moved = 0
        while True:
            with pause_after(), transaction(self._connection):
                rows: Any = self._connection.execute(sql, (*key, 0, 2**62, MOVE_ROWS)).fetchall()
                self._upsert(self._not_rolled(key, rows), online=False)
                self._connection.executemany(delete, [[row[i] for i in places] for row in rows])
                moved += len(rows)
                if len(rows) < MOVE_ROWS:
                    self._move_online(key)
                    return moved

    def _move_online(self, key: tuple[str, ...]) -> None:
        group = self._earlier
        where = " AND ".join(f"{quoted(name)} = ?" for name in group.key)
        online = quoted(group.table + "_online")
        sql = f"SELECT * FROM {online} WHERE {where}"  # noqa: S608
        self._upsert(self._connection.execute(sql, key).fetchall(), online=True)
        self._connection.execute(f"DELETE FROM {online} WHERE {where}", key)  # noqa: S608

    def _upsert(self, rows: Sequence[Any], *, online: bool) -> None:
        sql = upsert_sql(self._newest, online=online, over_equal=False)
        values = [[None if i is None else row[i] for i in self._places] for row in rows]
        self._connection.executemany(sql, values)

    def _not_rolled(self, key: tuple[str, ...], rows: Sequence[Any]) -> Sequence[Any]:
        """Without the rows that a rolled file of a newer version has in the same or a later revision."""
        group = self._earlier
        names = [group.event_time, *group.within, *(() if group.revision is None else (group.revision,))]
        places = [group.index(name) for name in names]
        width = 1 + len(group.within)
        for newer in self._above if rows else ():
            first_ms, last_ms = rows[0][places[0]], rows[-1][places[0]]
            files = rolled_files(self._connection, newer, key, first_ms, last_ms) if self._rolled else []
            if not files:
                continue
            table = read_files(self._folder, files, newer, key, Span(first_ms, last_ms), names)
            columns = [table[name].to_pylist() for name in names]
            known = {row[:width]: row for row in zip(*columns, strict=True)}
            # Without revisions the two are equal, and the newer version's goes first.
            rows = [
                row for row in rows if (mine := tuple(row[i] for i in places)) > known.get(mine[:width], ())
            ]
        return rows
