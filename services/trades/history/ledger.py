"""The books of a historical run: the report, the metrics and what the log says of its way."""

from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic

from loguru import logger

from services.common.history_report import HistoryReport, Missing
from services.common.messages import Trade
from services.trades.counters import TradeMetrics

EVERY_S = 5.0


class Ledger:
    """Counts what goes by; the report is written now and then and at the end."""

    def __init__(
        self,
        report: HistoryReport,
        path: Path,
        metrics: TradeMetrics,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._report = report
        self._path = path
        self._metrics = metrics
        self._clock = clock
        self._began = self._noted_at = clock()
        self._noted_trades = 0
        self._pairs = {pair.pair: pair for pair in report.pairs}
        self._shares = dict.fromkeys(self._pairs, 0.0)
        #: When fetching began, and from where on; the spool before it would flatter the speed.
        self._fetching: tuple[float, dict[str, float]] | None = None
        for pair in self._pairs:
            self.reached(pair, 0.0)
        self.save()

    @property
    def trades(self) -> int:
        """Trades of all pairs so far."""
        return sum(pair.trades for pair in self._pairs.values())

    def passed(self, pair: str, rows: Sequence[Trade]) -> None:
        """Trades of the range went out, or had before."""
        if not rows:
            return
        entry = self._pairs[pair]
        entry.trades += len(rows)
        if entry.first_id is None:
            entry.first_id, entry.first_ms = rows[0].trade_id, rows[0].event_time_ms
        entry.last_id, entry.last_ms = rows[-1].trade_id, rows[-1].event_time_ms

    def covered(self, pair: str, time_ms: int) -> None:
        """Everything of the pair before `time_ms` went out."""
        since_ms, until_ms = self._report.since_ms, self._report.until_ms
        self.reached(pair, (min(time_ms, until_ms) - since_ms) / (until_ms - since_ms))

    def reached(self, pair: str, share: float) -> None:
        """So much of the pair, 0 to 1, went out."""
        self._shares[pair] = max(self._shares[pair], share)
        self._metrics.history_done.labels(pair).set(self._shares[pair])

    def ends(self, until_ms: int) -> None:
        """The history turned out to end there."""
        self._report.until_ms = until_ms

    def note(self, text: str) -> None:
        """Something that people should know of the result."""
        if text not in self._report.notes:
            self._report.notes.append(text)
            logger.warning(text)

    def missing(self, pair: str, missing: Missing) -> None:
        """Part of the range is not to be had."""
        report = self._report
        if missing.from_ms is not None and missing.from_ms >= report.until_ms:
            return
        if missing.until_ms is not None and missing.until_ms < report.since_ms:
            return
        self._pairs[pair].missing.append(missing)
        self._metrics.gaps.labels(pair).inc()
        count = ""
        if missing.first_id is not None and missing.last_id is not None:
            lost = missing.last_id - missing.first_id + 1
            self._metrics.missing.labels(pair).inc(lost)
            count = f" {lost} trades, ids {missing.first_id} to {missing.last_id}"
        logger.error("{} lacks{}: {}", pair, count, missing.reason)

    def fetching_begins(self) -> None:
        """What was spooled went out; from now on pages come from the exchange."""
        self._fetching = (self._clock(), dict(self._shares))

    def note_if_due(self) -> None:
        """Write the report and a line in the log when the last time was a while ago."""
        now = self._clock()
        seconds = now - self._noted_at
        if seconds < EVERY_S:
            return
        trades = self.trades
        rate = (trades - self._noted_trades) / seconds
        self._noted_at, self._noted_trades = now, trades
        self.save()
        shares = self._shares
        last = min(shares, key=lambda pair: shares[pair])
        logger.info(
            "{:,} trades, {:,.0f}/s, {:.1%} of the range, {} left; least of {}, {:.1%}",
            trades,
            rate,
            sum(shares.values()) / len(shares),
            duration_text(self._left_s(now)),
            last,
            shares[last],
        )

    def end(self) -> None:
        """The run came to its end by itself."""
        self._report.ended = True
        self.save()
        logger.info(
            "{:,} trades of {} pairs, {} ranges missing, in {}",
            self.trades,
            len(self._pairs),
            sum(len(pair.missing) for pair in self._pairs.values()),
            duration_text(self._report.duration_s),
        )

    def _left_s(self, now: float) -> float | None:
        """Of the pair that takes longest, if the market and the exchange stay as they are."""
        if self._fetching is None:
            return None
        began, first = self._fetching
        longest = 0.0
        for pair, share in self._shares.items():
            if share >= 1:
                continue
            done = share - first[pair]
            if done <= 0:
                return None
            longest = max(longest, (now - began) * (1 - share) / done)
        return longest

    def save(self) -> None:
        """Write the report as it is now."""
        self._report.duration_s = round(self._clock() - self._began, 3)
        self._report.save(self._path)


def duration_text(seconds: float | None) -> str:
    """``2 h 05 min``, ``3 min 07 s`` or ``12 s``."""
    if seconds is None:
        return "an unknown time"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
