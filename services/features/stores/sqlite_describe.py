"""Counting what a feature group of the SQLite store holds."""

from collections.abc import Sequence
from typing import Any

import apsw

from services.features.groups import INGESTED, FeatureGroup
from services.features.stores.sqlite_layers import Layers
from services.features.stores.sqlite_schema import quoted
from services.features.stores.sqlite_select import Span

_EVER = 2**62
#: Rows that are counted at a time where they are in several places.
PAGE_ROWS = 50_000


def describe_group(
    connection: apsw.Connection, layers: Layers, keys: Sequence[tuple[str, ...]], now_ms: int
) -> dict[str, Any]:
    """Columns with null rates and series with counts and ages, from one pass over the closed rows."""
    group = layers.group
    width = len(group.key)
    in_table = {row[:width]: row for row in _counted(connection, group)}
    rows = [
        _counted_in_pages(layers, key) if layers.beneath(key, 0, _EVER) else in_table.get(key) for key in keys
    ]
    return _described(group, [row for row in rows if row is not None], now_ms)


def _counted(connection: apsw.Connection, group: FeatureGroup) -> list[Any]:
    """Key, rows, first and last time, last write, and how many values each column has."""
    key = ", ".join(quoted(name) for name in group.key)
    time = quoted(group.event_time)
    counts = ", ".join(f"count({quoted(column.name)})" for column in group.stored)
    return connection.execute(
        f"SELECT {key}, count(*), min({time}), max({time}), max({quoted(INGESTED.name)}), {counts} "  # noqa: S608
        f"FROM {quoted(group.table)} GROUP BY {key} ORDER BY {key}"
    ).fetchall()


def _counted_in_pages(layers: Layers, key: tuple[str, ...]) -> tuple[Any, ...] | None:
    """The same of one key, whose rows are in several places."""
    group = layers.group
    rows, first, last, written = 0, None, 0, 0
    values = [0] * len(group.stored)
    span = Span(0, _EVER, PAGE_ROWS)
    while (page := layers.table(key, span, group.names)).num_rows:
        times = page[group.event_time]
        first = times[0].as_py() if first is None else first
        last = times[-1].as_py()
        stamps: list[Any] = page[INGESTED.name].to_pylist()
        written = max(written, *stamps)
        rows += page.num_rows
        values = [
            n + page.num_rows - page[c.name].null_count for n, c in zip(values, group.stored, strict=True)
        ]
        if page.num_rows < PAGE_ROWS:
            break
        if group.within:
            span = span._replace(start_ms=last, after=page[group.within[0]][-1].as_py())
        else:
            span = span._replace(start_ms=last + 1)
    return (*key, rows, first, last, written, *values) if rows else None


def _described(group: FeatureGroup, rows: Sequence[tuple[Any, ...]], now_ms: int) -> dict[str, Any]:
    width = len(group.key)
    total = sum(row[width] for row in rows)
    present = [sum(values) for values in zip(*(row[width + 4 :] for row in rows), strict=True)]
    present = present or [0] * len(group.stored)
    return {
        "name": group.name,
        "version": group.version,
        "description": group.description,
        "key": list(group.key),
        "event_time": group.event_time,
        "rows": total,
        "columns": [
            {
                "name": column.name,
                "kind": column.kind,
                "unit": column.unit,
                "description": column.description,
                "nullable": column.nullable,
                "null_rate": 1 - values / total if total else None,
            }
            for column, values in zip(group.stored, present, strict=True)
        ],
        "series": [
            {
                **dict(zip(group.key, row, strict=False)),
                "rows": row[width],
                "first_ms": row[width + 1],
                "last_ms": row[width + 2],
                "written_ms": row[width + 3],
                "age_s": max(0, now_ms - row[width + 2]) / 1000,
            }
            for row in rows
        ],
    }
