"""Where a pair's series begins, where it begins anew since something is missing, where it ends. Pure.

Candles that began before a beginning are incomplete, and nobody sends them; so where the beginning is put
decides which candles are believed.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from services.common.timeframes import TIMEFRAMES, floor_ms

#: A pair may not trade for this long without its files being taken for incomplete.
QUIET_MS = 24 * 3_600_000


class Begin(NamedTuple):
    """From `at_ms` on candles are whole. Where a series begins anew, the trades before it were whole up to
    `before_ms`."""

    at_ms: int
    before_ms: int | None = None


def begin_ms(first_ms: int, since_ms: int, named_ms: int | None) -> int:
    """From when on everything of a pair is known whose first trade is at `first_ms`.

    `since_ms` is what was asked for, 0 for nothing, `named_ms` the beginning of what the file holds by its
    name. Both are believed when the first trade comes soon after.
    """
    for said_ms in (since_ms, max(since_ms, named_ms or 0)):
        if said_ms and 0 <= first_ms - said_ms <= QUIET_MS:
            return said_ms
    return floor_ms(first_ms, "1m")


def whole_ms(last_ms: int, said_ms: Iterable[int | None], before_ms: int) -> int:
    """Up to when everything is known where the last trade is at `last_ms`.

    `said_ms` are the ends of what files hold by their names. Those up to `before_ms` count, and are believed
    when the last trade is not long before them: a file that was cut short still has its name.
    """
    said = max((said for said in said_ms if said is not None and said <= before_ms), default=0)
    return said if last_ms < said <= last_ms + QUIET_MS else last_ms


def left_out(at_ms: int) -> list[str]:
    """The timeframes whose candle at the beginning `at_ms` began before it."""
    return [timeframe for timeframe in TIMEFRAMES if floor_ms(at_ms, timeframe) < at_ms]


def jumps(last_id: int | None, ids: Sequence[int]) -> list[int]:
    """Which of ascending `ids`, after `last_id`, do not follow the one before."""
    before = ids[0] - 1 if last_id is None else last_id
    if ids[-1] - before == len(ids):
        return []
    return [row for row, (one, other) in enumerate(pairwise((before, *ids))) if other != one + 1]
