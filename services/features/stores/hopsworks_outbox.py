"""What the working copy has and Hopsworks may not have yet, kept by triggers in the copy's own transactions.

A row is noted in the transaction that stores it, so no kill can part the two, and forgotten when it was
delivered; what a kill leaves noted is sent again. Noted are keys: what is sent is what the copy holds then,
so an older revision never follows a newer one.
"""

from typing import Any

import apsw

from services.features.groups import FeatureGroup
from services.features.stores.sqlite_schema import SQL_TYPES, has_rows, load_versions, quoted, table_columns

EVENTS = ("INSERT", "UPDATE")
_EVER = 2**62


def unsent_table(table: str) -> str:
    """The table that notes what of `table` waits."""
    return f"{table}_unsent"


def _trigger(table: str, event: str) -> str:
    return f"{table}_after_{event.lower()}"


def is_noted(connection: apsw.Connection, table: str) -> bool:
    """Whether changes of a table were ever noted."""
    return bool(table_columns(connection, unsent_table(table)))


def any_unsent(connection: apsw.Connection, table: str) -> bool:
    """Whether a row of a table waits."""
    return has_rows(connection, unsent_table(table))


def drop_triggers(connection: apsw.Connection, table: str) -> None:
    """Note no more changes of a table."""
    for event in EVENTS:
        connection.execute(f"DROP TRIGGER IF EXISTS {quoted(_trigger(table, event))}")


def leave(connection: apsw.Connection) -> dict[str, int]:
    """Make a working copy a store of its own: how many rows of each table had not been delivered."""
    waited = {}
    for versions in load_versions(connection).values():
        for table in (group.table for group in versions):
            if is_noted(connection, table):
                unsent = quoted(unsent_table(table))
                ((waited[table],),) = connection.execute(f"SELECT count(*) FROM {unsent}")  # noqa: S608
                drop_triggers(connection, table)
                connection.execute(f"DROP TABLE {unsent}")
    return waited


def _list(names: tuple[str, ...], prefix: str = "") -> str:
    return ", ".join(prefix + quoted(name) for name in names)


class Outbox:
    """Rows of one group to be sent, in the order in which they last changed. Raises `apsw.Error`."""

    def __init__(self, connection: apsw.Connection, group: FeatureGroup) -> None:
        self._connection = connection
        self._group = group
        key = group.primary_key
        self._table = quoted(unsent_table(group.table))
        kinds = {column.name: SQL_TYPES[column.kind] for column in group.columns}
        columns = ", ".join(f"{quoted(name)} {kinds[name]} NOT NULL" for name in key)
        new = not is_noted(connection, group.table)
        # A number is never given twice, so that what is sent can be told from what came meanwhile.
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS {self._table} (seq INTEGER PRIMARY KEY AUTOINCREMENT, {columns}, "
            f"UNIQUE ({_list(key)})) STRICT"
        )
        for event in EVENTS:
            connection.execute(
                f"CREATE TRIGGER IF NOT EXISTS {quoted(_trigger(group.table, event))} "  # noqa: S608
                f"AFTER {event} ON {quoted(group.table)} BEGIN "
                f"DELETE FROM {self._table} WHERE ({_list(key)}) = ({_list(key, 'new.')}); "
                f"INSERT INTO {self._table} ({_list(key)}) VALUES ({_list(key, 'new.')}); END"
            )
        if new:
            # A file that was a store of its own before has rows that Hopsworks has never seen.
            connection.execute(
                f"INSERT INTO {self._table} ({_list(key)}) "  # noqa: S608
                f"SELECT {_list(key)} FROM {quoted(group.table)} "
                f"ORDER BY {_list((group.event_time,))}"
            )

    def last(self) -> int:
        """The highest number that waits, 0 where nothing does."""
        ((number,),) = self._connection.execute(f"SELECT max(seq) FROM {self._table}")  # noqa: S608
        return number or 0

    def rows(self, after: int, limit: int, until: int = _EVER) -> tuple[int, list[tuple[Any, ...]]]:
        """Rows with a number behind `after`, up to `until`, as the store has them; and the last number."""
        found: list[Any] = self._connection.execute(
            f"SELECT u.seq, {_list(self._group.names, 'g.')} FROM {self._table} u "  # noqa: S608
            f"JOIN {quoted(self._group.table)} g USING ({_list(self._group.primary_key)}) "
            "WHERE u.seq > ? AND u.seq <= ? ORDER BY u.seq LIMIT ?",
            (after, until, limit),
        ).fetchall()
        return (found[-1][0] if found else after), [row[1:] for row in found]

    def waiting(self) -> int:
        """How many rows wait."""
        ((count,),) = self._connection.execute(f"SELECT count(*) FROM {self._table}")  # noqa: S608
        number: int = count
        return number

    def forget(self, after: int, until: int) -> None:
        """What has a number behind `after`, up to `until`, was delivered."""
        sql = f"DELETE FROM {self._table} WHERE seq > ? AND seq <= ?"  # noqa: S608
        self._connection.execute(sql, (after, until))

    def prune(self, keep_ms: int, limit: int) -> int:
        """Remove from the copy delivered rows that end so long before the newest of their key.

        At most `limit` of them; how many it were.
        """
        group = self._group
        table, time = quoted(group.table), quoted(group.event_time)
        same = " AND ".join(f"{quoted(name)} = ?" for name in group.key)
        own = _list(group.primary_key)
        unsent = f"SELECT 1 FROM {self._table} u WHERE ({_list(group.primary_key, 'u.')}) = "  # noqa: S608
        unsent += f"({_list(group.primary_key, 'g.')})"
        removed = 0
        newest = f"SELECT {_list((*group.key, group.event_time))} FROM {quoted(group.table + '_online')}"  # noqa: S608
        found: list[Any] = self._connection.execute(newest).fetchall()
        for *key, newest_ms in found:
            if removed >= limit:
                break
            self._connection.execute(
                f"DELETE FROM {table} WHERE ({own}) IN (SELECT {own} FROM {table} g "  # noqa: S608
                f"WHERE {same} AND {time} < ? AND NOT EXISTS ({unsent}) ORDER BY {time} LIMIT ?)",
                (*key, newest_ms - keep_ms, limit - removed),
            )
            removed += self._connection.changes()
        return removed
