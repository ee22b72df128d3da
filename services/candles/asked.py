"""The asked range of a pair's candles: what lies in it, where the series begins and ends in it. Pure."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from services.candles.bucket import Bucket
from services.common.history_report import Missing, time_text
from services.common.joints import ANEW, BEGINS, HOLE, QUIET_MS, begin_ms, end_of, left_out


class AskedRange:
    """Takes a pair's intervals in order; `since_ms` 0: from the first one on.

    Files leave out intervals without trades; where none comes for longer than `QUIET_MS`, some are missing.
    """

    def __init__(self, pair: str, since_ms: int, until_ms: int | None, timeframes: Sequence[str]) -> None:
        self._pair = pair
        self._since_ms = since_ms
        self._until_ms = until_ms
        self._timeframes = timeframes
        #: End of the last interval, of the range or not.
        self._read_ms: int | None = None
        #: Whether an interval behind the range continues it, so that nothing is missing at its end.
        self._reached_until = False
        #: Start of the first and end of the last interval of the range.
        self.first_ms: int | None = None
        self.last_ms: int | None = None
        #: Whether all that follows lies behind the range.
        self.over = False
        self.missing: list[Missing] = []
        self.notes: list[str] = []

    def take(self, parts: Sequence[Bucket]) -> Iterator[tuple[list[Bucket], int | None]]:
        """Those of the range in runs, and the time at which the series begins, or begins anew, with a run."""
        holes: dict[int, int] = {}
        for row, part in enumerate(parts):
            if self._read_ms is not None and part.start_ms - self._read_ms > QUIET_MS:
                holes[row] = self._read_ms
            self._read_ms = part.end_ms
        for start, end in pairwise(sorted({0, *holes, len(parts)})):
            run, hole_ms = parts[start:end], holes.get(start)
            wanted = [part for part in run if self._wants(part)]
            if wanted:
                at_ms = self._begin(wanted[0].start_ms, hole_ms)
                self.last_ms = wanted[-1].end_ms
                yield wanted, at_ms
            if self._until_ms is not None and run[-1].end_ms > self._until_ms:
                self.over = True
                self._reached_until = hole_ms is None or run[0].end_ms <= self._until_ms
                return

    def _wants(self, part: Bucket) -> bool:
        return part.start_ms >= self._since_ms and (self._until_ms is None or part.end_ms <= self._until_ms)

    def _begin(self, first_ms: int, hole_ms: int | None) -> int | None:
        """Where the series begins with an interval, None where it only goes on."""
        if self.first_ms is None:
            self.first_ms = first_ms
            if first_ms - self._since_ms > QUIET_MS and hole_ms is not None:
                self.missing.append(Missing(HOLE, from_ms=hole_ms, until_ms=first_ms))
            elif first_ms - self._since_ms > QUIET_MS and self._since_ms:
                self.notes.append(BEGINS.format(self._pair, time_text(first_ms)))
            at_ms = begin_ms(first_ms, self._since_ms, None)
            self.notes += left_out(self._pair, at_ms, self._timeframes)
            return at_ms
        if hole_ms is None:
            return None
        why = ANEW.format(time_text(first_ms))
        self.missing.append(Missing(why, from_ms=hole_ms, until_ms=first_ms))
        return first_ms

    def end(self, now_ms: int) -> int:
        """Up to when the range is complete, once all was taken and something lay in it."""
        assert self.last_ms is not None
        if self._reached_until and self._until_ms is not None:
            return self._until_ms
        end = end_of(self._pair, self.last_ms, self._until_ms, (), now_ms)
        self.missing += end.missing
        self.notes += end.notes
        return end.at_ms
