"""Where a pair's series begins, where it begins anew since something is missing, where it ends. Pure.

Candles that began before a beginning are incomplete, and nobody sends them; so where the beginning is put
decides which candles are believed.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from services.common.history_report import Missing, time_text
from services.common.timeframes import TIMEFRAMES, floor_ms

#: A pair may not trade for this long without its files being taken for incomplete.
QUIET_MS = 24 * 3_600_000
#: From here on a quiet end is worth a note.
NOTED_QUIET_MS = 3_600_000
HOLE = "the files lack them"
ANEW = "the files lack them; candles and indicators begin anew at {}"
ENDS = "the files end here"
BEGINS = "the files of {} begin at {} only; before that nothing is known of it"
LEFT_OUT = (
    "the first candles ({}) of {}, which began before {}, are left out, as not all of their trades are "
    "known; an earlier since, or files that reach back further, bring them"
)
QUIET = "the files of {} end at {}; until {} it is taken for quiet"
OPEN = "the candles of {} end where its files do, at {}; say until when these are complete if that is later"


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


def whole_ms(last_ms: int, said_ms: Iterable[int], before_ms: int) -> int:
    """Up to when everything is known where the last trade is at `last_ms`.

    `said_ms` are the ends of what files hold by their names. Those up to `before_ms` count, and are believed
    when the last trade is not long before them: a file that was cut short still has its name.
    """
    latest_ms = min(before_ms, last_ms + QUIET_MS)
    return max((said for said in said_ms if last_ms < said <= latest_ms), default=last_ms)


def left_out(pair: str, at_ms: int, timeframes: Sequence[str] = TIMEFRAMES) -> list[str]:
    """A note on the candles at the beginning `at_ms` that began before it, if there are any."""
    partial = [timeframe for timeframe in timeframes if floor_ms(at_ms, timeframe) < at_ms]
    return [LEFT_OUT.format(", ".join(partial), pair, time_text(at_ms))] if partial else []


class End(NamedTuple):
    """Up to when a pair's history is complete, what is missing behind it, and what people should know."""

    at_ms: int
    missing: list[Missing]
    notes: list[str]


def end_of(pair: str, last_ms: int, asked_ms: int | None, said_ms: Sequence[int], now_ms: int) -> End:
    """The end of files whose last trade is at `last_ms`; `said_ms` are the ends that their names say.

    `asked_ms` is the end that was asked for.
    """
    named_ms = min(max(said_ms, default=0), now_ms)
    known_ms = whole_ms(last_ms, [min(said, now_ms) for said in said_ms], now_ms)
    if asked_ms is None:
        until_ms = max(named_ms, last_ms)
        notes = [] if said_ms else [OPEN.format(pair, time_text(last_ms))]
    else:
        until_ms, notes = min(asked_ms, now_ms), []
    # A name that says where its file ends leaves nothing to believe beyond that.
    if until_ms - last_ms > QUIET_MS or until_ms > known_ms > last_ms:
        return End(known_ms, [Missing(ENDS, from_ms=known_ms, until_ms=until_ms)], notes)
    if until_ms - last_ms > NOTED_QUIET_MS:
        notes.append(QUIET.format(pair, time_text(last_ms), time_text(until_ms)))
    return End(until_ms, [], notes)


def jumps(last_id: int | None, ids: Sequence[int]) -> list[int]:
    """Which of ascending `ids`, after `last_id`, do not follow the one before."""
    before = ids[0] - 1 if last_id is None else last_id
    if ids[-1] - before == len(ids):
        return []
    return [row for row, (one, other) in enumerate(pairwise((before, *ids))) if other != one + 1]
