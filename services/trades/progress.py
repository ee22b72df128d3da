"""Progress: the last trade of each pair that the bus has confirmed, in a file that survives restarts."""

import os
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic

import msgspec

from services.common.errors import SourceError

SAVE_EVERY_S = 1.0


class Position(msgspec.Struct, frozen=True):
    """Where a pair stands."""

    trade_id: int
    event_time_ms: int


class _File(msgspec.Struct):
    #: What the positions refer to: an exchange's live feed, or the files of a replay.
    source: str
    pairs: dict[str, Position]


class Progress:
    """Positions in memory and in `path`; only confirmed ones are written. Raises `SourceError`.

    A file about another `source` is not used, since its ids mean something else.
    """

    def __init__(self, path: Path, source: str, clock: Callable[[], float] = monotonic) -> None:
        self._path = path
        self._source = source
        self._clock = clock
        self._saved_at = clock()
        self._changed = False
        self._failed = False
        self._waiting: dict[str, deque[_Sent]] = {}
        self.positions: dict[str, Position] = self._load()

    def _load(self) -> dict[str, Position]:
        try:
            stored = msgspec.json.decode(self._path.read_bytes(), type=_File)
        except FileNotFoundError:
            return {}
        except (msgspec.DecodeError, OSError) as error:
            raise SourceError(
                f"cannot read the progress in {self._path} ({error}); delete the file to start anew"
            ) from error
        return stored.pairs if stored.source == self._source else {}

    def sent(self, pair: str, trade_id: int, event_time_ms: int) -> Callable[[], None]:
        """Note that trades up to `trade_id` were sent; call the result when they are confirmed."""
        queue = self._waiting.setdefault(pair, deque())
        item = _Sent(Position(trade_id, event_time_ms))
        queue.append(item)

        def confirm() -> None:
            item.confirmed = True
            # A later message's confirmation must not cover an earlier one that is still out.
            while queue and queue[0].confirmed:
                self.positions[pair] = queue.popleft().position
                self._changed = True

        return confirm

    def adopt(self, positions: Mapping[str, Position]) -> None:
        """Take over where another source has brought pairs to."""
        self.positions |= positions
        self._changed = True

    def failed(self) -> None:
        """A message was lost: nothing may be written from now on."""
        self._failed = True

    def save_if_due(self) -> None:
        """Write the file when positions changed and the last time was a while ago."""
        if self._changed and self._clock() - self._saved_at >= SAVE_EVERY_S:
            self.save()

    def save(self) -> None:
        """Write the confirmed positions, replacing the file in one step."""
        if self._failed or not self._changed:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            file.write(msgspec.json.encode(_File(self._source, self.positions)))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)
        self._changed = False
        self._saved_at = self._clock()

    def forget(self) -> None:
        """Remove the file: what it was about is complete."""
        self._path.unlink(missing_ok=True)


class _Sent:
    __slots__ = ("confirmed", "position")

    def __init__(self, position: Position) -> None:
        self.position = position
        self.confirmed = False
