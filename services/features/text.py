"""Rows as text for a terminal. Pure."""

from collections.abc import Sequence
from typing import Any

from services.features.times import iso

MAX_CELL = 40


def second(time_ms: int) -> str:
    """``2026-01-31 12:00:00`` for a UTC epoch time in milliseconds."""
    return iso(time_ms)[:19].replace("T", " ")


def table_text(names: Sequence[str], rows: Sequence[Sequence[Any]], max_cell: int = MAX_CELL) -> list[str]:
    """Rows as lines of an aligned table; numbers to the right, nulls as a dash."""
    if not rows:
        return ["no rows"]
    texts = [[_cell(value, max_cell) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(names, *texts, strict=True)]
    right = [any(isinstance(row[i], int | float) for row in rows) for i in range(len(names))]

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(cells, widths, right, strict=True)
        )
        return "  ".join(padded).rstrip()

    return [line(names), *(line(cells) for cells in texts)]


def _cell(value: Any, longest: int) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}" if abs(value) < 1e5 else f"{value:.2f}"
    # Text of a query may hold anything, also what moves the cursor.
    text = "".join(char if char.isprintable() else "?" for char in str(value))
    return text if len(text) <= longest else text[: longest - 1] + "…"
