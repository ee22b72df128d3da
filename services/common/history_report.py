"""What a backfill fetched, what is missing and why, in a file that `make backfill` and people read."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec


class Missing(msgspec.Struct, frozen=True):
    """Trades that a backfill does not have: ids and times, both ends included where they are known."""

    reason: str
    first_id: int | None = None
    last_id: int | None = None
    from_ms: int | None = None
    until_ms: int | None = None


class PairHistory(msgspec.Struct):
    """What became of one pair. `trades` counts those sent by all runs of this backfill."""

    pair: str
    trades: int = 0
    first_id: int | None = None
    last_id: int | None = None
    first_ms: int | None = None
    last_ms: int | None = None
    missing: list[Missing] = []


class HistoryReport(msgspec.Struct):
    """The end state of a backfill, or its state so far. `notes` are for people, like how sides were found."""

    exchange: str
    source: Literal["rest", "archive"]
    since_ms: int
    until_ms: int
    pairs: list[PairHistory]
    ended: bool = False
    duration_s: float = 0.0
    notes: list[str] = []

    def save(self, path: Path) -> None:
        """Write the report, replacing the file in one step."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(self)))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)


def load_report(path: Path) -> HistoryReport | None:
    """The report in `path`; None where there is none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=HistoryReport)
    except FileNotFoundError:
        return None


def time_text(time_ms: int | None) -> str:
    """Epoch ms as ``2024-01-01 00:00:00``, ``-`` for none."""
    if time_ms is None:
        return "-"
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
