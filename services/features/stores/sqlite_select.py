"""Which rows and columns of the SQLite store a question means."""

from collections.abc import Mapping, Sequence
from typing import Any

import apsw

from services.common.errors import QueryError, UnknownSeriesError
from services.features.groups import FeatureGroup
from services.features.stores.sqlite_schema import quoted

#: What is asked of each key column: one value, several, or (None) anything.
type Filters = Mapping[str, str | Sequence[str] | None]


def as_dict(group: FeatureGroup, row: tuple[Any, ...]) -> dict[str, Any]:
    """A row as stored, by column name."""
    return {
        column.name: bool(value) if column.kind == "bool" else value
        for column, value in zip(group.stored, row, strict=True)
    }


def selected_names(group: FeatureGroup, columns: Sequence[str] | None) -> list[str]:
    """The key, the event time and the asked columns. Raises `QueryError` that names all columns."""
    if isinstance(columns, str):
        columns = (columns,)
    asked = group.names if columns is None else columns
    unknown = [str(name) for name in asked if name not in group.names]
    if unknown:
        raise QueryError(
            f"unknown column {', '.join(unknown)[:100]} in group {group.name}; "
            f"known: {', '.join(group.names)}"
        )
    return list(dict.fromkeys((*group.key, group.event_time, *asked)))


def history_sql(group: FeatureGroup, names: Sequence[str], newest: bool) -> str:
    """The query for one key: its values, first and last time, and how many rows (-1 for all)."""
    time = quoted(group.event_time)
    where = " AND ".join(f"{quoted(name)} = ?" for name in group.key)
    sql = (
        f"SELECT {', '.join(quoted(name) for name in names)} FROM {quoted(group.table)} "  # noqa: S608
        f"WHERE {where} AND {time} BETWEEN ? AND ? ORDER BY {time} {'DESC' if newest else ''} LIMIT ?"
    )
    return f"SELECT * FROM ({sql}) ORDER BY {time}" if newest else sql  # noqa: S608


def matching_keys(
    connection: apsw.Connection, group: FeatureGroup, filters: Filters
) -> list[tuple[str, ...]]:
    """The keys that fit, in order. Every series has an online row, so that table is the list of them.

    Raises `UnknownSeriesError` when no series has one of the asked values.
    """
    names = ", ".join(quoted(name) for name in group.key)
    sql = f"SELECT {names} FROM {quoted(group.table + '_online')} ORDER BY {names}"  # noqa: S608
    keys: list[Any] = connection.execute(sql).fetchall()
    for name, asked in filters.items():
        if asked is None:
            continue
        wanted = {asked} if isinstance(asked, str) else set(asked)
        position = group.key.index(name)
        known = sorted({key[position] for key in keys})
        unknown = sorted(str(value) for value in wanted.difference(known))
        if unknown:
            raise UnknownSeriesError(
                f"unknown {name} {', '.join(unknown)[:100]}; known: {', '.join(known) or 'none yet'}"
            )
        if not wanted:
            raise QueryError(f"name at least one {name}")
        keys = [key for key in keys if key[position] in wanted]
    return keys
