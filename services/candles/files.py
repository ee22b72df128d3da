"""Kraken's downloadable candles on disk: which files there are of a pair, and what they hold together."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from heapq import merge
from itertools import batched
from operator import itemgetter
from pathlib import Path
from typing import Any

from services.candles.bucket import Bucket
from services.candles.ohlcvt import IntervalParser, timeframe_of
from services.common.errors import SourceError
from services.common.history_report import time_text
from services.common.symbols import pair_of_stem
from services.common.text_files import TextFile, locate
from services.common.timeframes import TIMEFRAMES

ENDINGS = (".csv", ".csv.gz")
MERGED_ROWS = 2_000


@dataclass(frozen=True, slots=True)
class CandleFiles:
    """The files of one pair with its shortest candles, those of `timeframe`."""

    pair: str
    timeframe: str
    files: Sequence[TextFile]

    @property
    def share(self) -> float:
        """How much of them was read."""
        return sum(file.read_bytes for file in self.files) / max(1, sum(f.total_bytes for f in self.files))

    def __str__(self) -> str:
        return ", ".join(str(file.location) for file in self.files)

    def intervals(self, now_ms: Callable[[], int]) -> Iterator[list[Bucket]]:
        """The intervals with trades, ascending, a block at a time.

        Raises `SourceError` with file, line and remedy, also when two files differ about an interval.
        """
        if len(self.files) == 1:
            yield from _intervals(self.files[0], self.timeframe, now_ms)
            return
        every = (self._rows(file, now_ms) for file in self.files)
        # At each time the files that have it, in the order of their names.
        yield from map(list, batched(self._joined(merge(*every, key=itemgetter(0))), MERGED_ROWS))

    def _rows(self, file: TextFile, now_ms: Callable[[], int]) -> Iterator[tuple[int, Bucket, TextFile]]:
        for buckets in _intervals(file, self.timeframe, now_ms):
            for bucket in buckets:
                yield bucket.start_ms, bucket, file

    def _joined(self, rows: Iterator[tuple[int, Bucket, TextFile]]) -> Iterator[Bucket]:
        last: tuple[int, Bucket, TextFile] | None = None
        for row in rows:
            if last is None or row[0] > last[0]:
                yield row[1]
                last = row
            elif row[1] != last[1]:
                raise SourceError(
                    f"{last[2].location} and {row[2].location} differ about {self.pair} at "
                    f"{time_text(row[0])}; keep one of them"
                )


def _intervals(file: TextFile, timeframe: str, now_ms: Callable[[], int]) -> Iterator[list[Bucket]]:
    parser = IntervalParser(str(file.location), timeframe)
    for line, text in file.texts():
        yield parser.parse(text, line, now_ms())


def candle_files(path: Path, pairs: tuple[str, ...]) -> dict[str, CandleFiles]:
    """The files with the shortest candles of each pair. Raises `SourceError`."""
    found: dict[str, CandleFiles] = {}
    locations = locate(path, ENDINGS)
    for location in locations:
        timeframe = timeframe_of(location.stem)
        pair = pair_of_stem(location.stem, pairs)
        if timeframe is None or pair is None:
            continue
        known = found.get(pair)
        if known is None or _rank(timeframe) < _rank(known.timeframe):
            found[pair] = CandleFiles(pair, timeframe, [TextFile(location)])
        elif timeframe == known.timeframe:
            found[pair] = CandleFiles(pair, timeframe, [*known.files, TextFile(location)])
    lacking = [pair for pair in pairs if pair not in found]
    if lacking or not found:
        names = ", ".join(location.name for location in locations[:5])
        raise SourceError(
            f"{path}: no candles of {', '.join(lacking) or 'any pair'}; there are {names}, "
            "and names like XBTUSD_1.csv are known"
        )
    return {pair: found[pair] for pair in pairs} if pairs else dict(sorted(found.items()))


def _rank(timeframe: Any) -> int:
    return TIMEFRAMES.index(timeframe)
