"""The downloaded files of one pair as one run of trades."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from services.common.errors import SourceError
from services.common.history_report import Missing, time_text
from services.common.joints import (
    ANEW,
    BEGINS,
    HOLE,
    QUIET_MS,
    Begin,
    begin_ms,
    end_of,
    jumps,
    left_out,
    whole_ms,
)
from services.common.messages import Trade
from services.trades.history.files import ArchiveFile
from services.trades.history.formats import period_of
from services.trades.sources.files import Columns, to_trades
from services.trades.sources.timeline import Numbering

TICK_RULE = (
    "the files of {} do not say who took: a trade above the last price counts as bought, one below as sold "
    "(tick rule), so buy_volume and flow_imbalance are estimates"
)
OVERLAP = (
    "{}: begins before the file ahead of it ends; without trade ids it cannot be told which trades are the "
    "same: keep only one of them"
)
NONE_ASKED = "{}: no trades of {} in the asked time; the files hold {} to {}"


class _Run(NamedTuple):
    """Rows without a hole, and the last row before the hole ahead of them, if there is one."""

    rows: Columns
    hole: tuple[int, int] | None
    #: When that what their file holds begins, by its name.
    named_ms: int | None


class PairArchive:
    """All files of one pair, the earliest first. Raises `SourceError` when they do not fit together."""

    def __init__(
        self, exchange: str, pair: str, files: Sequence[ArchiveFile], since_ms: int, until_ms: int | None
    ) -> None:
        self.pair = pair
        self._exchange = exchange
        self._since_ms = since_ms
        self._until_ms = until_ms
        firsts = [(first, file) for file in files if (first := file.first()) is not None]
        if not firsts:
            raise SourceError(f"{', '.join(str(file.location) for file in files)}: no trades of {pair}")
        if len({first.trade_id is None for first, _ in firsts}) > 1:
            raise SourceError(f"{pair}: some files have trade ids and some have not; keep one kind")
        firsts.sort(key=lambda item: (item[0].time_ms, item[0].trade_id or 0))
        self.first_ms = firsts[0][0].time_ms
        self._has_ids = firsts[0][0].trade_id is not None
        self._files = [file for _, file in firsts]
        self._begun = False
        #: Of all rows that were read, and of those in the asked range.
        self._read_ms = self._last_ms = 0
        #: Whether what lies behind the range continues it, so that nothing can be missing at its end.
        self._reached_until = False
        #: What turned out to be missing, to be taken from here.
        self.missing: list[Missing] = []
        self.notes: list[str] = []
        if since_ms and self.first_ms - since_ms > QUIET_MS:
            self.notes.append(BEGINS.format(pair, time_text(self.first_ms)))

    @property
    def share(self) -> float:
        """How much of the files was read."""
        return sum(file.read_bytes for file in self._files) / max(1, sum(f.total_bytes for f in self._files))

    @property
    def estimates_sides(self) -> bool:
        """Whether the takers' sides are not in the files."""
        return any(file.estimates_sides for file in self._files)

    def batches(
        self, now_ms: Callable[[], int], batch_rows: int
    ) -> Iterator[tuple[list[Trade], Begin | None]]:
        """Trades of the asked range by id, `batch_rows` at a time, and how the series begins with them.

        Raises `SourceError`.
        """
        waiting: list[Trade] = []
        begin: Begin | None = None
        for columns, begins in self._columns():
            if begins is not None:
                if waiting:
                    yield waiting, begin
                waiting, begin = [], begins
            waiting += to_trades(self._exchange, self.pair, columns, now_ms())
            done = 0
            while len(waiting) - done >= batch_rows:
                yield waiting[done : done + batch_rows], begin
                begin = None
                done += batch_rows
            del waiting[:done]
        if waiting:
            yield waiting, begin

    def _columns(self) -> Iterator[tuple[Columns, Begin | None]]:
        """Rows of the asked range."""
        known_before = False
        for run in self._runs():
            times, hole = run.rows.times, run.hole
            start = 0 if times[0] >= self._since_ms else bisect_left(times, self._since_ms)
            until_ms = self._until_ms
            end = len(times) if until_ms is None or times[-1] < until_ms else bisect_left(times, until_ms)
            anew = hole is not None and times[0] - hole[1] > QUIET_MS
            if start < end:
                rows = run.rows if (start, end) == (0, len(times)) else run.rows.part(start, end)
                begin = None
                if not self._begun:
                    begin = self._first_begin(run, rows.times[0], start > 0 or (known_before and not anew))
                elif hole is not None:
                    begin = self._after_hole(run, hole)
                self._begun = True
                self._last_ms = rows.times[-1]
                yield rows, begin
            known_before = True
            if end < len(times):
                self._reached_until = end > 0 or not anew
                return

    def _runs(self) -> Iterator[_Run]:
        """All rows by id, cut where some are missing."""
        numbering = Numbering({})
        last: tuple[int, int] | None = None
        for file in self._files:
            opens = True
            period = period_of(file.location.stem)
            for columns in file.read():
                if opens and not self._has_ids and columns.times[0] < self._read_ms:
                    raise SourceError(OVERLAP.format(file.location))
                rows = numbering.number(self.pair, [columns])
                if not rows.times:
                    continue
                self._read_ms = max(self._read_ms, rows.times[-1])
                assert rows.ids is not None
                holes = jumps(last and last[0], rows.ids) if self._has_ids else []
                if opens and last and not self._has_ids and rows.times[0] - last[1] > QUIET_MS:
                    holes = [0]
                opens = False
                for start, end in pairwise(sorted({0, *holes, len(rows.times)})):
                    part = rows if end - start == len(rows.times) else rows.part(start, end)
                    assert part.ids is not None
                    yield _Run(part, last if start in holes else None, period and period[0])
                    last = part.ids[-1], part.times[-1]

    def _first_begin(self, run: _Run, first_ms: int, continues: bool) -> Begin:
        """How the series begins; `continues` tells whether the trades before the range are known."""
        since_ms = self._since_ms
        at_ms = since_ms if continues else begin_ms(first_ms, since_ms, run.named_ms)
        if run.hole is not None and not continues and first_ms - since_ms > QUIET_MS:
            self.missing.append(self._missing(run, run.hole, HOLE))
        self.notes += left_out(self.pair, at_ms)
        return Begin(at_ms)

    def _after_hole(self, run: _Run, hole: tuple[int, int]) -> Begin | None:
        """How the series goes on after a hole: a long one would be filled with candles that never were."""
        first_ms = run.rows.times[0]
        if first_ms - hole[1] <= QUIET_MS:
            self.missing.append(self._missing(run, hole, HOLE))
            return None
        at_ms = begin_ms(first_ms, 0, run.named_ms)
        self.missing.append(self._missing(run, hole, ANEW.format(time_text(at_ms))))
        return Begin(at_ms, whole_ms(hole[1], self._ends(), first_ms))

    def _missing(self, run: _Run, hole: tuple[int, int], why: str) -> Missing:
        if not self._has_ids:
            return Missing(why, from_ms=hole[1], until_ms=run.rows.times[0])
        assert run.rows.ids is not None
        return Missing(why, hole[0] + 1, run.rows.ids[0] - 1)

    def _ends(self) -> list[int]:
        """Up to when the files are complete by their names, as far as these say that."""
        periods = [period_of(file.location.stem) for file in self._files]
        return [period[1] for period in periods if period is not None]

    def end_ms(self, now_ms: int) -> int:
        """Up to when the pair's history is complete, once it has been read."""
        if self._reached_until and self._until_ms is not None:
            return min(self._until_ms, now_ms)
        end = end_of(self.pair, self._last_ms, self._until_ms, self._ends(), now_ms)
        self.missing += end.missing
        self.notes += end.notes
        return end.at_ms

    def check_any(self) -> None:
        """Raise `SourceError` when, read to the end, nothing lay in the asked time."""
        if not self._begun:
            held = time_text(self.first_ms), time_text(self._read_ms)
            raise SourceError(NONE_ASKED.format(self._files[0].location, self.pair, *held))
