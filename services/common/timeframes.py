"""The candle timeframes: names, lengths and calendar alignment. Pure.

Every timeframe is aligned to the UTC calendar: days start at 00:00, weeks on Monday, months on the
first. Times are epoch milliseconds; an interval is ``[start_ms, end_ms)``.
"""

from datetime import MAXYEAR, UTC, datetime
from typing import Literal, get_args

Timeframe = Literal["1m", "5m", "15m", "30m", "1h", "4h", "1d", "1w", "1M"]
TIMEFRAMES: tuple[Timeframe, ...] = get_args(Timeframe)

MINUTE_MS = 60_000
DAY_MS = 86_400_000
WEEK_MS = 7 * DAY_MS
# 1970-01-05 was the first Monday of the epoch.
FIRST_MONDAY_MS = 4 * DAY_MS

#: Length in milliseconds of the timeframes that have a fixed one; a month does not.
FIXED_MS: dict[str, int] = {
    "1m": MINUTE_MS,
    "5m": 5 * MINUTE_MS,
    "15m": 15 * MINUTE_MS,
    "30m": 30 * MINUTE_MS,
    "1h": 60 * MINUTE_MS,
    "4h": 240 * MINUTE_MS,
    "1d": DAY_MS,
    "1w": WEEK_MS,
}

#: Each timeframe and the longest shorter one that tiles it, so that candles can be built from candles.
PARENT_OF: dict[str, str] = {
    "5m": "1m",
    "15m": "5m",
    "30m": "15m",
    "1h": "30m",
    "4h": "1h",
    "1d": "4h",
    "1w": "1d",
    "1M": "1d",
}


def floor_ms(time_ms: int, timeframe: str) -> int:
    """Start of the interval of `timeframe` that contains `time_ms`."""
    if timeframe == "1M":
        day = datetime.fromtimestamp(time_ms // 1000, UTC)
        return int(datetime(day.year, day.month, 1, tzinfo=UTC).timestamp()) * 1000
    length = FIXED_MS[timeframe]
    if timeframe == "1w":
        return (time_ms - FIRST_MONDAY_MS) // length * length + FIRST_MONDAY_MS
    return time_ms // length * length


def next_ms(start_ms: int, timeframe: str) -> int:
    """End of the interval of `timeframe` that starts at `start_ms`, which is the next one's start."""
    if timeframe == "1M":
        # 31 days and a bit after the first of a month always lies in the next month.
        return floor_ms(start_ms + 31 * DAY_MS + DAY_MS // 2, "1M")
    return start_ms + FIXED_MS[timeframe]


def later_ms(start_ms: int, timeframe: str, intervals: int) -> int | None:
    """Start of the interval so many places after the one that starts at `start_ms`; None after year 9999."""
    if timeframe == "1M":
        day = datetime.fromtimestamp(start_ms // 1000, UTC)
        years, month = divmod(day.month - 1 + intervals, 12)
        if day.year + years > MAXYEAR:
            return None
        return int(datetime(day.year + years, month + 1, 1, tzinfo=UTC).timestamp()) * 1000
    return start_ms + intervals * FIXED_MS[timeframe]


def is_aligned(start_ms: int, end_ms: int, timeframe: str) -> bool:
    """Whether ``[start_ms, end_ms)`` is exactly one interval of `timeframe`."""
    return floor_ms(start_ms, timeframe) == start_ms and next_ms(start_ms, timeframe) == end_ms
