"""The last candles of one series: arrays in memory, small chunks in the state. Pure.

A candle changes one chunk of `CHUNK` candles, so that the state written per candle is bounded
(`CHUNK_BYTES`, about half of that on average) however long the history is. After a restart the arrays
are rebuilt from the chunks.
"""

from collections.abc import Iterable
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

type Array = NDArray[np.float64]

#: Columns of the history, each a float64: times and counts are exact in one.
COLUMNS = (
    "start_ms",
    "end_ms",
    "open",
    "high",
    "low",
    "close",
    "volume",
    "vwap",
    "buy_volume",
    "trade_count",
    "revision",
    "obv",
)
COLUMN = {name: position for position, name in enumerate(COLUMNS)}
INTEGERS = ("start_ms", "end_ms", "trade_count", "revision")

#: Candles in one chunk of state.
CHUNK = 8
CHUNK_BYTES = 8 + CHUNK * len(COLUMNS) * 8
#: Candles that a recursive indicator sees before the first one it is computed for. Wilder's smoothing
#: forgets at (n - 1) / n a candle: RSI 28, the slowest, has forgotten all but 7e-13 after this many.
WARM = 768
#: Arrays begin `WARM` before a multiple of this, so that a value depends on the candle's place in the
#: series only and not on how candles were batched.
BLOCK = 256
#: The same for indicators over a window, the longest of which is 52 candles. Divides `BLOCK`.
WINDOW_WARM = 64
WINDOW_BLOCK = 128
#: Further back than the two together, candles can still be corrected for this many.
CORRECTABLE = 256
#: Candles kept; a multiple of `CHUNK`.
KEPT = WARM + BLOCK + CORRECTABLE


class State(Protocol):
    """Where chunks are kept."""

    def get_bytes(self, key: str) -> bytes | None:
        """Value of `key`, or None."""

    def set_bytes(self, key: str, value: bytes) -> None:
        """Set the value of `key`."""


class History:
    """Candles `first` … `count` - 1 of a series, counted from the series' beginning."""

    def __init__(self) -> None:
        self.count = 0
        #: Changes with every write to the state, so that a copy in memory can tell that it is old.
        self.version = 0
        # Twice the size, so that the kept part moves to the front only once in a while.
        self._rows: Array = np.empty((len(COLUMNS), 2 * KEPT + BLOCK))
        self._begin = 0
        self._dirty_from: int | None = None

    @property
    def first(self) -> int:
        """Index of the oldest candle kept. Always a multiple of `CHUNK`."""
        return max(0, (self.count - KEPT + CHUNK - 1) // CHUNK * CHUNK)

    def column(self, name: str, begin: int, end: int) -> Array:
        """Contiguous view of a column for the candles `begin` … `end` - 1."""
        return self._rows[COLUMN[name], begin - self._begin : end - self._begin]

    def newest_end_ms(self) -> int:
        """End of the newest candle, 0 when there is none."""
        return int(self.column("end_ms", self.count - 1, self.count)[0]) if self.count else 0

    def append(self, rows: Array) -> None:
        """Add candles, shape (n, len(COLUMNS)), n up to `BLOCK`, after the newest one."""
        self._make_room(len(rows))
        at = self.count - self._begin
        self._rows[:, at : at + len(rows)] = rows.T
        self._mark(self.count)
        self.count += len(rows)

    def replace(self, index: int, row: Array) -> None:
        """Put another candle in the place of `index`."""
        self._rows[:, index - self._begin] = row
        self._mark(index)

    def touch(self, index: int) -> None:
        """The candles from `index` on changed in place."""
        self._mark(index)

    def drop_last(self) -> None:
        """Take back an `append` of one candle that must not be kept."""
        self.count -= 1
        self._dirty_from = None

    def find(self, start_ms: int) -> int | None:
        """Index of the candle that starts at `start_ms`, or None."""
        starts = self.column("start_ms", self.first, self.count)
        place = int(np.searchsorted(starts, start_ms))
        found = place < len(starts) and starts[place] == start_ms
        return self.first + place if found else None

    def _mark(self, index: int) -> None:
        self._dirty_from = index if self._dirty_from is None else min(self._dirty_from, index)

    def _make_room(self, count: int) -> None:
        used = self.count - self._begin
        if used + count > self._rows.shape[1]:
            first = self.first
            kept = self.count - first
            # Source and target never overlap: the array is more than twice as long as what is kept.
            self._rows[:, :kept] = self._rows[:, first - self._begin : used]
            self._begin = first

    def save(self, state: State, name: str) -> int:
        """Write what changed; returns the number of bytes written."""
        if self._dirty_from is None:
            return 0
        written = 0
        chunk = max(self._dirty_from, self.first) // CHUNK
        while chunk * CHUNK < self.count:
            begin, end = chunk * CHUNK, min((chunk + 1) * CHUNK, self.count)
            rows = self._rows[:, begin - self._begin : end - self._begin]
            value = chunk.to_bytes(8, "big") + rows.T.tobytes()
            state.set_bytes(_slot(name, chunk), value)
            written += len(value)
            chunk += 1
        self.version += 1
        header = _header(self.count, self.version)
        state.set_bytes(name, header)
        self._dirty_from = None
        return written + len(header)

    @classmethod
    def load(cls, state: State, name: str) -> Self:
        """Rebuild from the state; empty when it holds nothing of `name`."""
        history = cls()
        header = state.get_bytes(name)
        if header is None:
            return history
        history.count = int.from_bytes(header[:8], "big")
        history.version = int.from_bytes(header[8:16], "big")
        history._begin = history.first
        for chunk in range(history.first // CHUNK, (history.count + CHUNK - 1) // CHUNK):
            value = state.get_bytes(_slot(name, chunk))
            if value is None or int.from_bytes(value[:8], "big") != chunk:
                raise RuntimeError(f"the state of {name} lacks candles {chunk * CHUNK} and on")
            rows = np.frombuffer(value, dtype=np.float64, offset=8).reshape(-1, len(COLUMNS))
            at = chunk * CHUNK - history._begin
            # The last chunk may hold more than was counted when its header was written.
            rows = rows[: history.count - chunk * CHUNK]
            history._rows[:, at : at + len(rows)] = rows.T
        return history


def _header(count: int, version: int) -> bytes:
    return count.to_bytes(8, "big") + version.to_bytes(8, "big")


def _slot(name: str, chunk: int) -> str:
    # One more slot than chunks are kept, since the newest may be begun while the oldest is needed.
    return f"{name}/{chunk % (KEPT // CHUNK + 1)}"


class Histories:
    """The histories of many series, in memory as long as the state has not moved on without us."""

    def __init__(self) -> None:
        self._known: dict[tuple[bytes, str], History] = {}

    def get(self, key: bytes, name: str, state: State) -> History:
        """History `name` of the message key `key`, rebuilt from `state` when ours is old."""
        header = state.get_bytes(name)
        version = 0 if header is None else int.from_bytes(header[8:16], "big")
        history = self._known.get((key, name))
        if history is None or history.version != version:
            history = History.load(state, name)
            self._known[key, name] = history
        return history

    def forget(self, key: bytes, names: Iterable[str], state: State) -> None:
        """Make the histories `names` of the message key `key` empty."""
        for name in names:
            header = state.get_bytes(name)
            if header is not None:
                # The version goes on, so that a copy of before is not taken for this one.
                state.set_bytes(name, _header(0, int.from_bytes(header[8:16], "big") + 1))
            self._known.pop((key, name), None)
