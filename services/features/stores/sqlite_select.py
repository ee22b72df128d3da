"""Which rows and columns of the SQLite store a question means."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Self, SupportsIndex

import apsw
import apsw.ext

from services.common.errors import QueryError, UnknownSeriesError
from services.features.asked import Filters
from services.features.given import several, whole_number
from services.features.groups import FeatureGroup
from services.features.stores.sqlite_schema import quoted
from services.features.times import Time, to_ms

#: What SQLite counts to.
MAX_LIMIT = 2**63 - 1


class Span(NamedTuple):
    """Which rows of a key: event times with both ends included, how many, and from which end."""

    start_ms: int
    end_ms: int
    limit: int | None = None
    newest: bool = False
    after: str | None = None

    @classmethod
    def of(
        cls,
        start: Time | None,
        end: Time | None,
        limit: SupportsIndex | None,
        newest: bool,
        after: str | None = None,
    ) -> Self:
        """Raises `QueryError` on times that are none, or the wrong way round, and on a limit below 1."""
        since = 0 if start is None else to_ms(start, up=True)
        until = 2**62 if end is None else to_ms(end)
        if start is not None and to_ms(start) > until:
            raise QueryError(f"the start {start} is after the end {end}")
        return cls(since, until, checked_limit(limit), newest, after)


def checked_limit(limit: SupportsIndex | None) -> int | None:
    """How many rows, None for all. Raises `QueryError` unless it is a number of rows."""
    if limit is None:
        return None
    rows = whole_number(limit)
    if rows is None or not 1 <= rows <= MAX_LIMIT:
        raise QueryError(f"limit must be a whole number of rows, at least 1, not {str(limit)[:40]!r}")
    return rows


def as_dict(group: FeatureGroup, row: tuple[Any, ...]) -> dict[str, Any]:
    """A row as stored, by column name."""
    return {
        column.name: bool(value) if column.kind == "bool" else value
        for column, value in zip(group.stored, row, strict=True)
    }


def selected_names(group: FeatureGroup, columns: Sequence[str] | None) -> list[str]:
    """What names a row, and the asked columns. Raises `QueryError` that names all columns."""
    asked = group.names if columns is None else several("column", columns)
    unknown = [name for name in asked if name not in group.names]
    if unknown:
        raise QueryError(
            f"unknown column {', '.join(unknown)[:100]} in group {group.name}; "
            f"known: {', '.join(group.names)}"
        )
    return list(dict.fromkeys((*group.primary_key, *asked)))


def _where_key(group: FeatureGroup) -> str:
    return " AND ".join(f"{quoted(name)} = ?" for name in group.key)


def newest_row(
    connection: apsw.Connection, group: FeatureGroup, versions: Sequence[FeatureGroup], key: Sequence[str]
) -> tuple[Any, ...]:
    """The newest row of one key in any of the versions of a group, with the columns of `group`."""
    best: tuple[Any, ...] | None = None
    order = [group.index(name) for name in group.order] if len(versions) > 1 else []
    for version in versions:
        columns = "*" if version is group else _columns_of(version, group)
        row: Any = connection.execute(
            f"SELECT {columns} FROM {quoted(version.table + '_online')} WHERE {_where_key(group)}",  # noqa: S608
            tuple(key),
        ).fetchone()
        # Of equals the newer version's, which come first.
        if row is not None and (best is None or [row[i] for i in order] > [best[i] for i in order]):
            best = row
    assert best is not None
    return best


def _columns_of(version: FeatureGroup, group: FeatureGroup) -> str:
    """The columns of `group` in a table of another version, null where it has none."""
    known = {*version.names}
    return ", ".join(quoted(n) if n in known else f"NULL AS {quoted(n)}" for n in group.names)


def as_of_sql(group: FeatureGroup, names: Sequence[str]) -> str:
    """The query for the row that held at a time: key, time."""
    time = quoted(group.event_time)
    return (
        f"SELECT {', '.join(quoted(name) for name in names)} FROM {quoted(group.table)} "  # noqa: S608
        f"WHERE {_where_key(group)} AND {time} <= ? ORDER BY {time} DESC LIMIT 1"
    )


def history_sql(
    group: FeatureGroup, names: Sequence[str], span: Span, keys: int
) -> tuple[str, tuple[int | str, ...]]:
    """The query for one key and its bounds. Its parameters: key, bounds, how many rows (-1 for all)."""
    time = quoted(group.event_time)
    order = ", ".join(quoted(name) for name in (group.event_time, *group.within))
    bounds: tuple[int | str, ...] = (span.start_ms, span.end_ms)
    behind = ""
    if span.after is not None:
        if len(group.within) != 1 or keys != 1:
            raise QueryError("`after` goes on with a page of one coin's news_signals, and nothing else")
        behind = f"AND ({order}) > (?, ?) "
        bounds += (span.start_ms, span.after)
    newest = span.newest and span.limit is not None
    last_first = ", ".join(f"{quoted(name)} DESC" for name in (group.event_time, *group.within))
    sql = (
        f"SELECT {', '.join(quoted(name) for name in names)} FROM {quoted(group.table)} "  # noqa: S608
        f"WHERE {_where_key(group)} AND {time} BETWEEN ? AND ? {behind}"
        f"ORDER BY {last_first if newest else order} LIMIT ?"
    )
    return f"SELECT * FROM ({sql}) ORDER BY {order}" if newest else sql, bounds  # noqa: S608


def matching_keys(
    connection: apsw.Connection, versions: Sequence[FeatureGroup], filters: Filters
) -> list[tuple[str, ...]]:
    """The keys that fit, in order. Every series has an online row, so that table is the list of them.

    Raises `UnknownSeriesError` when no series has one of the asked values.
    """
    group = versions[0]
    names = ", ".join(quoted(name) for name in group.key)
    tables = (f"SELECT {names} FROM {quoted(version.table + '_online')}" for version in versions)  # noqa: S608
    keys: list[Any] = connection.execute(f"{' UNION '.join(tables)} ORDER BY {names}").fetchall()
    for name, asked in filters.items():
        if asked is None:
            continue
        wanted = {*asked}
        position = group.key.index(name)
        known = sorted({key[position] for key in keys})
        unknown = sorted(wanted.difference(known))
        if unknown:
            raise UnknownSeriesError(
                f"unknown {name} {', '.join(unknown)[:100]}; known: {', '.join(known) or 'none yet'}"
            )
        keys = [key for key in keys if key[position] in wanted]
    return keys


def statement_columns(connection: apsw.Connection, sql: str) -> list[str]:
    """Names of the columns that a statement answers with. Raises `QueryError` unless it is a single one."""
    found = apsw.ext.query_info(connection, sql, actions=True)
    rest = found.query_remaining
    if not found.actions or (rest and apsw.ext.query_info(connection, rest, actions=True).actions):
        raise QueryError(f"SQL: give one statement, not {'several' if found.actions else 'none'}")
    # What is read is one transaction, which a question has no business to end.
    actions = {action.action_name for action in found.actions}
    if actions & {"SQLITE_TRANSACTION", "SQLITE_SAVEPOINT"}:
        raise QueryError("SQL: a question neither begins nor ends a transaction")
    return [name for name, _ in found.description]
