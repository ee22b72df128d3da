"""Counting what a feature group of the SQLite store holds."""

from typing import Any

import apsw

from services.features.groups import INGESTED, FeatureGroup
from services.features.stores.sqlite_schema import quoted


def describe_group(connection: apsw.Connection, group: FeatureGroup, now_ms: int) -> dict[str, Any]:
    """Columns with null rates and series with counts and ages, from one pass over the closed rows."""
    key = ", ".join(quoted(name) for name in group.key)
    time = quoted(group.event_time)
    counts = ", ".join(f"count({quoted(column.name)})" for column in group.stored)
    rows: list[Any] = connection.execute(
        f"SELECT {key}, count(*), min({time}), max({time}), max({quoted(INGESTED.name)}), {counts} "  # noqa: S608
        f"FROM {quoted(group.table)} GROUP BY {key} ORDER BY {key}"
    ).fetchall()
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
