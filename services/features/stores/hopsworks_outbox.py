"""What the working copy has and Hopsworks may not have yet, kept by triggers in the copy's own transactions.

A row is noted in the transaction that stores it, so no kill can part the two, and forgotten when it was
delivered; what a kill leaves noted is sent again. Noted are keys: what is sent is what the copy holds then,
so an older revision never follows a newer one.
"""

from typing import Any

import apsw

from services.features.groups import FeatureGroup
from services.features.stores.sqlite_schema import SQL_TYPES, quoted


def _list(names: tuple[str, ...], prefix: str = "") -> str:
    return ", ".join(prefix + quoted(name) for name in names)


class Outbox:
    """Rows of one group to be sent, in the order in which they last changed. Raises `apsw.Error`."""

    def __init__(self, connection: apsw.Connection, group: FeatureGroup) -> None:
        self._connection = connection
        self._group = group
        key = group.primary_key
        self._table = quoted(f"{group.table}_unsent")
        kinds = {column.name: SQL_TYPES[column.kind] for column in group.columns}
        columns = ", ".join(f"{quoted(name)} {kinds[name]} NOT NULL" for name in key)
        new = (
            connection.execute(
                "SELECT 1 FROM sqlite_schema WHERE name = ?", (f"{group.table}_unsent",)
            ).fetchall()
            == []
        )
        # A number is never given twice, so that what is sent can be told from what came meanwhile.
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS {self._table} (seq INTEGER PRIMARY KEY AUTOINCREMENT, {columns}, "
            f"UNIQUE ({_list(key)})) STRICT"
        )
        for event in ("INSERT", "UPDATE"):
            connection.execute(
                f"CREATE TRIGGER IF NOT EXISTS {quoted(f'{group.table}_after_{event.lower()}')} "  # noqa: S608
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

    def rows(self, after: int, limit: int) -> tuple[int, list[tuple[Any, ...]]]:
        """Rows behind the number `after` as the store has them, and the number of the last."""
        found: list[Any] = self._connection.execute(
            f"SELECT u.seq, {_list(self._group.names, 'g.')} FROM {self._table} u "  # noqa: S608
            f"JOIN {quoted(self._group.table)} g USING ({_list(self._group.primary_key)}) "
            "WHERE u.seq > ? ORDER BY u.seq LIMIT ?",
            (after, limit),
        ).fetchall()
        return (found[-1][0] if found else after), [row[1:] for row in found]

    def waiting(self) -> int:
        """How many rows wait."""
        ((count,),) = self._connection.execute(f"SELECT count(*) FROM {self._table}")  # noqa: S608
        number: int = count
        return number

    def forget(self, until: int) -> None:
        """What has a number up to `until` was delivered."""
        self._connection.execute(f"DELETE FROM {self._table} WHERE seq <= ?", (until,))  # noqa: S608

    def prune(self, keep_ms: int) -> None:
        """Remove from the copy delivered rows that end so long before the newest of their key."""
        group = self._group
        table, time = quoted(group.table), quoted(group.event_time)
        same = " AND ".join(f"{quoted(name)} = ?" for name in group.key)
        rest = _list(group.primary_key)
        newest = f"SELECT {_list((*group.key, group.event_time))} FROM {quoted(group.table + '_online')}"  # noqa: S608
        found: list[Any] = self._connection.execute(newest).fetchall()
        for *key, newest_ms in found:
            self._connection.execute(
                f"DELETE FROM {table} WHERE {same} AND {time} < ? "  # noqa: S608
                f"AND ({rest}) NOT IN (SELECT {rest} FROM {self._table})",
                (*key, newest_ms - keep_ms),
            )
