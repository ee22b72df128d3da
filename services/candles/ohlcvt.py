"""Kraken's downloadable candles (OHLCVT) as intervals. Pure.

``XBTUSD_60.csv``: ``unix seconds,open,high,low,close,volume,trades`` of one interval length in minutes; no
header, and intervals without trades are left out. They lack two of our columns, which are estimated: the
vwap as the typical price (high + low + close) / 3, and what takers bought as half of the volume, so that the
trade-flow imbalance is 0.
"""

import re
from collections.abc import Sequence
from itertools import pairwise
from math import isfinite

from services.candles.bucket import Bucket
from services.common.errors import SourceError
from services.common.timeframes import FIXED_MS, next_ms

#: Minutes in a file's name, and the timeframe.
TIMEFRAME_OF = {length // 60_000: name for name, length in FIXED_MS.items() if name != "1w"}
ESTIMATES = (
    "Kraken's candles have no vwap and no sides: vwap is estimated as (high + low + close) / 3, and "
    "buy_volume as half of the volume"
)
WIDTH = 7
_TIMES = ("time", "timestamp", "unixtime")
_NAMES = ["open", "high", "low", "close", "volume"]
_NUMBER = re.compile(r"\s*\+?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?\s*", re.ASCII)
_MINUTES = re.compile(r"_(\d{1,5})$")


def timeframe_of(stem: str) -> str | None:
    """``XBTUSD_60`` holds candles of 1h; None for another name or a length that we have not."""
    match = _MINUTES.search(stem)
    return TIMEFRAME_OF.get(int(match[1])) if match else None


def holds_candles(head: str) -> bool:
    """Whether the first line of a file is of these, and not of Binance, whose trades have as many columns."""
    cells = head.split(",")
    return is_header(head) or (len(cells) == WIDTH and all(map(_NUMBER.fullmatch, cells)))


def is_header(head: str) -> bool:
    """Whether a line names the columns; Kraken's files have none, but people give them one."""
    cells = [cell.strip().strip('"').lower() for cell in head.split(",")]
    return len(cells) == WIDTH and cells[0] in _TIMES and cells[1:6] == _NAMES


class IntervalParser:
    """Reads blocks of one file of `timeframe`; `name` is for errors."""

    def __init__(self, name: str, timeframe: str) -> None:
        self._name = name
        self._timeframe = timeframe
        self._last_ms = 0
        self._begun = False

    def parse(self, text: str, line: int, latest_ms: int) -> list[Bucket]:
        """The intervals with trades of whole lines, the first of which is `line`. Raises `SourceError`."""
        lines = text.splitlines()
        if not self._begun and lines:
            self._begun = True
            if is_header(lines[0]):
                lines, line = lines[1:], line + 1
        numbers = [line + index for index, row in enumerate(lines) if row.strip()]
        cells = [cell for row in lines if row.strip() for cell in row.split(",")]
        if len(cells) != WIDTH * len(numbers):
            bad = next(line + i for i, row in enumerate(lines) if row.strip() and row.count(",") != WIDTH - 1)
            raise SourceError(f"{self._name}:{bad}: not {WIDTH} fields; repair the line")
        columns = [self._floats(cells[index::WIDTH], numbers) for index in range(WIDTH)]
        starts = [int(seconds) * 1000 for seconds in columns[0]]
        self._check(starts, columns, numbers, latest_ms)
        if starts:
            self._last_ms = starts[-1]
        return [
            self._bucket(start, *row)
            for start, *row in zip(starts, *columns[1:], strict=True)
            # Some files do have intervals without trades; they are made anew.
            if row[-1] > 0 and row[-2] > 0
        ]

    def _floats(self, cells: Sequence[str], numbers: Sequence[int]) -> list[float]:
        # float() reads 1_000; nobody else does.
        try:
            values = [] if any("_" in cell for cell in cells) else list(map(float, cells))
        except ValueError:
            values = []
        if values and isfinite(sum(values)) and min(values) >= 0:
            return values
        for number, cell in zip(numbers, cells, strict=True):
            if not _NUMBER.fullmatch(cell) or not isfinite(float(cell)):
                raise SourceError(f"{self._name}:{number}: {cell[:40]!r} is no number ≥ 0; repair it")
        return values

    def _check(
        self, starts: list[int], columns: list[list[float]], numbers: list[int], latest_ms: int
    ) -> None:
        length = FIXED_MS[self._timeframe]
        rows = zip(numbers, starts, *columns[1:6], strict=True)
        for (before, *_), (start, number, opened, high, low, close, volume) in pairwise(
            [(self._last_ms,), *((start, number, *prices) for number, start, *prices in rows)]
        ):
            if start % length:
                problem = f"time {start // 1000} is no start of {self._timeframe}; is this seconds?"
            elif start <= before:
                problem = f"time {start // 1000} is not after the one before; sort the file"
            elif start + length > latest_ms:
                problem = f"time {start // 1000} lies in the future; cut the file before it"
            elif not 0 < low <= min(opened, close) <= max(opened, close) <= high:
                problem = "open and close must lie between low and high, above 0; repair the line"
            elif not isfinite(volume):
                problem = "volume is no number; repair the line"
            else:
                continue
            raise SourceError(f"{self._name}:{number}: {problem}")

    def _bucket(
        self, start: int, opened: float, high: float, low: float, close: float, volume: float, count: float
    ) -> Bucket:
        end = next_ms(start, self._timeframe)
        typical = min(high, max(low, (high + low + close) / 3))
        return Bucket(
            start, end, int(count), opened, start, 0, high, low, close, end - 1, 0,
            volume, 0.0, volume / 2, 0.0, typical * volume, 0.0,
        )  # fmt: skip
