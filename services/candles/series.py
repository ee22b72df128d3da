"""The candles of one pair: trades and heartbeats in, candles of every timeframe out. Pure.

Event time alone decides: the clock of a pair is its newest trade or heartbeat, and an interval closes
once the clock is `grace_ms` past its end. A trade for a closed interval within `horizon_ms` corrects
it (next revision); an older one is refused as late. What comes out does not depend on how the trades
are cut into batches: a candle's revision is the number of trades that came after its close.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain, pairwise
from typing import Any

import msgspec

from services.candles.bucket import Bucket, absorb, empty, merge, of_trades
from services.candles.seen import SeenIds
from services.common.errors import ContractError
from services.common.timeframes import MINUTE_MS, PARENT_OF, TIMEFRAMES, floor_ms, next_ms


class Frame(msgspec.Struct, array_like=True):
    """One timeframe of a pair."""

    #: Start of the first interval that has not closed; None before the first trade.
    cursor: int | None = None
    #: Close of the candle before the cursor.
    last_close: float = 0.0
    #: The open intervals that have trades, and all closed ones that a trade may still correct.
    buckets: dict[int, Bucket] = {}


class PairState(msgspec.Struct, array_like=True):
    """All that is kept of a pair between batches."""

    clock_ms: int = 0
    #: Candles that begin before this time are incomplete; 0 when all can be trusted.
    coverage_ms: int = 0
    updated_ms: int = 0
    seen: list[tuple[int, int]] = []
    frames: dict[str, Frame] = {}


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(PairState).decode


@dataclass(slots=True)
class Applied:
    """What a batch brought about."""

    #: Closed or corrected candles by timeframe, ascending.
    closed: dict[str, list[Bucket]] = field(default_factory=dict)
    #: Candles that are still open, when updates are asked for.
    updates: dict[str, Bucket] = field(default_factory=dict)
    #: Index in the batch of each late trade, and why.
    late: list[tuple[int, ContractError]] = field(default_factory=list)
    duplicates: int = 0
    corrections: int = 0
    partial: int = 0


@dataclass(frozen=True, slots=True)
class Rules:
    """When candles close and what still counts."""

    grace_ms: int = 2_000
    horizon_ms: int = 300_000
    #: At least this much event time between updates of open candles; 0 for none at all.
    update_every_ms: int = 0


#: Corrected candles by timeframe and start.
type Dirty = dict[str, dict[int, Bucket]]


class PairCandles:
    """The candles of one pair. Load with bytes of `dump`, or with None for a new pair."""

    def __init__(self, rules: Rules, state: bytes | None = None) -> None:
        self._rules = rules
        self._state = PairState() if state is None else _decode(state)
        if not self._state.frames:
            self._state.frames = {timeframe: Frame() for timeframe in TIMEFRAMES}
        self._seen = SeenIds(self._state.seen)

    def dump(self) -> bytes:
        """State to give to the next instance."""
        return _encode(self._state)

    def heartbeat(self, time_ms: int, *, final: bool = False) -> Applied:
        """Nothing traded up to `time_ms` that is not known already.

        `final` says that nothing comes late any more, so that an interval which ends then closes.
        """
        state = self._state
        if state.clock_ms == 0 and not state.seen:
            # Watching begins here, perhaps in the middle of an interval.
            state.coverage_ms = time_ms
        applied = Applied()
        if time_ms > state.clock_ms or final:
            state.clock_ms = max(state.clock_ms, time_ms)
            self._close(applied, dirty={}, grace_ms=0 if final else self._rules.grace_ms)
        return applied

    def trades(self, trades: Sequence[Any], times: list[int] | None = None) -> Applied:
        """Apply a batch of trades (`messages.Trade`), in the order in which they came.

        `times` are their event times, for a caller that has them already.
        """
        applied = Applied()
        if times is None:
            times = [trade.event_time_ms for trade in trades]
        ids = [trade.trade_id for trade in trades]
        fresh: Sequence[Any] = trades
        indexes: Sequence[int] = range(len(trades))
        first_id = ids[0]
        in_order = ids == list(range(first_id, first_id + len(ids)))
        if not (in_order and self._seen.is_new_run(first_id, ids[-1])):
            indexes = [index for index, trade_id in enumerate(ids) if self._seen.add(trade_id)]
            applied.duplicates = len(trades) - len(indexes)
            if not indexes:
                return applied
            if applied.duplicates:
                fresh = [trades[index] for index in indexes]
                times = [times[index] for index in indexes]
        ascending = in_order or all(a < b for a, b in pairwise(ids))
        if not ascending or sorted(times) != times:
            if self._touches_closed(times):
                self._one_by_one(fresh, indexes, applied)
                return applied
            fresh = sorted(fresh, key=lambda trade: (trade.event_time_ms, trade.trade_id))
            times = sorted(times)
        elif times[0] < self._closed_until(self._state.clock_ms):
            self._one_by_one(fresh, indexes, applied)
            return applied
        self._add_sorted(fresh, times)
        self._state.clock_ms = max(self._state.clock_ms, times[-1])
        self._close(applied, dirty={})
        return applied

    def _closed_until(self, clock_ms: int) -> int:
        """All one-minute intervals, and so all intervals, that end by this time have closed."""
        return (clock_ms - self._rules.grace_ms) // MINUTE_MS * MINUTE_MS

    def _touches_closed(self, times: list[int]) -> bool:
        """Whether, taken in this order, some trade belongs to an interval that closed before it came."""
        clocks = accumulate(chain((self._state.clock_ms,), times), max)
        return any(time < self._closed_until(clock) for time, clock in zip(times, clocks, strict=False))

    def _add_sorted(self, trades: Sequence[Any], times: list[int]) -> None:
        """Add trades of open intervals, sorted by (time, id): by minute, then up the timeframes."""
        prices = [trade.price for trade in trades]
        parts: list[Bucket] = []
        begin, count = 0, len(times)
        while begin < count:
            start_ms = times[begin] // MINUTE_MS * MINUTE_MS
            end_ms = start_ms + MINUTE_MS
            end = count if times[-1] < end_ms else bisect_left(times, end_ms, begin)
            parts.append(of_trades(trades[begin:end], prices[begin:end], start_ms, end_ms))
            begin = end
        self._add_parts(parts, "1m")

    def intervals(self, parts: list[Bucket], timeframe: str) -> Applied:
        """Apply whole intervals of `timeframe`, ascending and after all known ones, in place of their trades.

        They have trades. Shorter timeframes get nothing.
        """
        applied = Applied()
        self._add_parts(parts, timeframe)
        self._state.clock_ms = max(self._state.clock_ms, parts[-1].end_ms)
        self._close(applied, dirty={})
        return applied

    def _add_parts(self, parts: list[Bucket], base: str) -> None:
        """Add buckets of the timeframe `base`, and what they make of the longer ones."""
        made = {base: parts}
        for timeframe in TIMEFRAMES[TIMEFRAMES.index(base) :]:
            if timeframe != base:
                made[timeframe] = _roll_up(made[PARENT_OF[timeframe]], timeframe)
            frame = self._state.frames[timeframe]
            buckets = frame.buckets
            for part in made[timeframe]:
                # A part keeps the interval of the shorter timeframe that it came from.
                start_ms = floor_ms(part.start_ms, timeframe)
                known = buckets.get(start_ms)
                if known is not None:
                    absorb(known, part)
                    continue
                end_ms = next_ms(start_ms, timeframe)
                buckets[start_ms] = msgspec.structs.replace(part, start_ms=start_ms, end_ms=end_ms)
                if frame.cursor is None or start_ms < frame.cursor:
                    frame.cursor = start_ms

    def _one_by_one(self, trades: Sequence[Any], indexes: Sequence[int], applied: Applied) -> None:
        """The careful way: some trade comes after its interval closed."""
        state = self._state
        dirty: Dirty = {timeframe: {} for timeframe in TIMEFRAMES}
        for index, trade in zip(indexes, trades, strict=True):
            time_ms = trade.event_time_ms
            if time_ms < state.clock_ms - self._rules.horizon_ms:
                behind_s = (state.clock_ms - time_ms) / 1000
                applied.late.append((index, ContractError("late", f"{behind_s:.1f} s behind the clock")))
                # It may come again, from the dead letters, under rules that let it in.
                self._seen.discard(trade.trade_id)
                continue
            corrected = False
            for timeframe in TIMEFRAMES:
                corrected |= self._add_one(trade, timeframe, dirty[timeframe])
            applied.corrections += corrected
            if time_ms > state.clock_ms:
                state.clock_ms = time_ms
                self._close(applied, dirty={})
        self._close(applied, dirty)
        for name, buckets in applied.closed.items():
            # One that closed and was corrected in this batch goes out once, as it is in the end.
            latest = {bucket.start_ms: bucket for bucket in buckets}
            applied.closed[name] = [latest[start_ms] for start_ms in sorted(latest)]

    def _add_one(self, trade: Any, timeframe: str, dirty: dict[int, Bucket]) -> bool:
        frame = self._state.frames[timeframe]
        start_ms = floor_ms(trade.event_time_ms, timeframe)
        end_ms = next_ms(start_ms, timeframe)
        part = of_trades((trade,), [trade.price], start_ms, end_ms)
        known = frame.buckets.get(start_ms)
        bucket = merge((known, part), start_ms, end_ms) if known is not None and known.count else part
        if known is not None:
            bucket.revision, bucket.emitted = known.revision, known.emitted
        frame.buckets[start_ms] = bucket
        if end_ms + self._rules.grace_ms > self._state.clock_ms:
            if frame.cursor is None or start_ms < frame.cursor:
                frame.cursor = start_ms
            return False
        bucket.revision += 1
        dirty[start_ms] = bucket
        # The empty candles after it are flat at its close; before the series' first one they are new.
        while frame.cursor is not None and end_ms < frame.cursor:
            follower = frame.buckets.get(end_ms)
            if follower is not None and follower.count:
                break
            flat = empty(end_ms, next_ms(end_ms, timeframe), bucket.close)
            flat.revision = follower.revision + 1 if follower is not None else 1
            flat.emitted = True
            frame.buckets[end_ms] = flat
            dirty[end_ms] = flat
            end_ms = flat.end_ms
        if frame.cursor is None or frame.cursor == end_ms:
            frame.cursor = end_ms
            frame.last_close = bucket.close
        return True

    def _close(self, applied: Applied, dirty: Dirty, grace_ms: int | None = None) -> None:
        """Close what the clock has passed, and collect it with the corrected candles."""
        state = self._state
        grace_ms = self._rules.grace_ms if grace_ms is None else grace_ms
        keep_ms = state.clock_ms - self._rules.horizon_ms
        for timeframe in TIMEFRAMES:
            frame = state.frames[timeframe]
            # Corrected ones may have left the horizon since, so they are held here.
            out = [bucket for _, bucket in sorted(dirty.get(timeframe, {}).items())]
            for bucket in out:
                bucket.emitted = True
            while frame.cursor is not None:
                start_ms = frame.cursor
                end_ms = next_ms(start_ms, timeframe)
                if end_ms + grace_ms > state.clock_ms:
                    break
                closing = frame.buckets.get(start_ms)
                if closing is None:
                    closing = empty(start_ms, end_ms, frame.last_close)
                    if end_ms > keep_ms:
                        frame.buckets[start_ms] = closing
                closing.emitted = True
                frame.last_close = closing.close
                frame.cursor = end_ms
                out.append(closing)
            if out:
                known = applied.closed.setdefault(timeframe, [])
                for bucket in out:
                    if bucket.start_ms < state.coverage_ms:
                        applied.partial += not bucket.revision
                    else:
                        known.append(bucket)
            for start_ms in [s for s, b in frame.buckets.items() if b.emitted and b.end_ms <= keep_ms]:
                del frame.buckets[start_ms]
        self._update(applied)

    def _update(self, applied: Applied) -> None:
        state, every_ms = self._state, self._rules.update_every_ms
        if not every_ms or state.clock_ms - state.updated_ms < every_ms:
            return
        state.updated_ms = state.clock_ms
        for timeframe in TIMEFRAMES:
            frame = state.frames[timeframe]
            bucket = frame.buckets.get(floor_ms(state.clock_ms, timeframe))
            if bucket is not None and not bucket.emitted and bucket.start_ms >= state.coverage_ms:
                applied.updates[timeframe] = bucket


def _roll_up(parts: list[Bucket], timeframe: str) -> list[Bucket]:
    """Merge those buckets of a shorter timeframe, ascending, that share an interval of a longer one."""
    if len(parts) == 1:
        return parts
    rolled: list[Bucket] = []
    begin = 0
    while begin < len(parts):
        start_ms = floor_ms(parts[begin].start_ms, timeframe)
        end_ms = next_ms(start_ms, timeframe)
        end = begin + 1
        while end < len(parts) and parts[end].start_ms < end_ms:
            end += 1
        rolled.append(parts[begin] if end - begin == 1 else merge(parts[begin:end], start_ms, end_ms))
        begin = end
    return rolled
