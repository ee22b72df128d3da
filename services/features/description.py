"""What `describe` says of a group, as text. Pure."""

from collections.abc import Mapping
from typing import Any

from services.features.text import second, table_text


def description_text(described: Mapping[str, Any]) -> list[str]:
    """Lines: the group, its series with times and ages, its columns with units and null rates.

    What a store does not count is a dash.
    """
    series = described["series"]
    key = described["key"]
    title = f"{described['name']} version {described['version']}: {described['description']}"
    names = [*key, "rows", "first (UTC)", "last (UTC)", "age", "written (UTC)"]
    cells = [
        (
            *(row[name] for name in key),
            *(row["rows"], _time(row["first_ms"]), _time(row["last_ms"])),
            *(age(row["age_s"]), _time(row["written_ms"])),
        )
        for row in series
    ]
    columns = [
        (column["name"], column["unit"], share(column["null_rate"]), column["description"])
        for column in described["columns"]
    ]
    return [
        title,
        f"{'-' if described['rows'] is None else described['rows']} closed rows in {len(series)} series",
        "",
        *table_text(names, cells),
        "",
        *table_text(["column", "unit", "nulls", "description"], columns, max_cell=110),
        "",
    ]


def _time(time_ms: int | None) -> str | None:
    return None if time_ms is None else second(time_ms)


def age(seconds: float) -> str:
    """``3 s``, ``12 min``, ``5 h`` or ``8 d``."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def share(part: float | None) -> str | None:
    """A null rate in percent; a dash (None) where there are no nulls or no rows."""
    if not part:
        return None
    return f"{part:.1%}" if part >= 0.001 else "<0.1%"
