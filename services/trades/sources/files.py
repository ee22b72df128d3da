"""Recordings on disk: which files there are, and what a stretch of one holds."""

from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

from services.common.errors import SourceError
from services.common.messages import Trade

CSV_ENDINGS = (".csv", ".csv.gz")
FRAME_ENDINGS = (".ndjson", ".ndjson.gz")
#: A paced replay reads little at a time, since reading delays what is due meanwhile.
PACED_BLOCK_BYTES = 16_384


@dataclass(slots=True)
class Columns:
    """Trades of one pair as columns of equal length; `ids` None: they are still to be numbered.

    `times` never falls and says when a trade is due in a replay; `events` are the trades' own times.
    """

    ids: list[int] | None
    sides: list[str]
    prices: list[float]
    quantities: list[float]
    events: list[int]
    times: list[int]

    def part(self, start: int, end: int | None = None) -> "Columns":
        """Rows from `start` to before `end`."""
        cut = slice(start, end)
        events = self.events[cut]
        return Columns(
            None if self.ids is None else self.ids[cut],
            self.sides[cut],
            self.prices[cut],
            self.quantities[cut],
            events,
            events if self.times is self.events else self.times[cut],
        )


#: Trades of a stretch of a file, by pair, and the last time in it.
type Block = tuple[dict[str, Columns], int]


def find_recordings(path: Path) -> list[Path]:
    """The recordings that `path` names: itself or those in it. Raises `SourceError`."""
    endings = CSV_ENDINGS + FRAME_ENDINGS
    if path.is_dir():
        found = sorted(item for item in path.iterdir() if item.name.endswith(endings))
        if not found:
            raise SourceError(f"{path}: no {', '.join(endings)} in this folder")
        if len({item.name.endswith(CSV_ENDINGS) for item in found}) > 1:
            raise SourceError(f"{path}: holds both CSV and frame recordings; keep them apart")
        return found
    if not path.is_file():
        raise SourceError(f"{path}: does not exist; set TRADES_REPLAY_PATH to a file or folder")
    if not path.name.endswith(endings):
        raise SourceError(f"{path}: of unknown kind; expected {', '.join(endings)}")
    return [path]


def to_trades(exchange: str, pair: str, columns: Columns, received_at_ms: int) -> list[Trade]:
    """Trades out of numbered columns."""
    assert columns.ids is not None
    return list(
        map(
            Trade,
            repeat(exchange),
            repeat(pair),
            columns.ids,
            columns.sides,
            columns.prices,
            columns.quantities,
            columns.events,
            repeat(received_at_ms),
        )
    )
