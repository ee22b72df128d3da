"""Times as files and APIs write them. Pure."""

import re
from datetime import UTC, datetime
from typing import NamedTuple

from services.common.messages import MAX_TIME_MS

# In 1973 nobody wrote about crypto: a smaller number is in seconds.
MIN_TIME_MS = 100_000_000_000
DAY_MS = 86_400_000
_NUMBER = re.compile(r"^[+-]?\d+(?:\.0*)?$")
_DAY = re.compile(r"^\d{4}-\d{2}-\d{2}$")


class NotATimeError(ValueError):
    """The text is no time; the message says what it is."""


class WrongUnitError(ValueError):
    """The number is no epoch milliseconds but perhaps seconds."""


class Time(NamedTuple):
    """Epoch milliseconds. For a day without a time it is the day's beginning, and `latest_ms` its end."""

    ms: int
    latest_ms: int


def parse_time(value: object) -> Time:
    """Epoch milliseconds or ISO 8601 (UTC unless it says otherwise).

    Raises `NotATimeError`, and `WrongUnitError` for a number in another unit.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise NotATimeError("no time given")
    text = str(value).strip()
    if not text:
        raise NotATimeError("no time given")
    if len(text) > 60:
        raise NotATimeError(f"{text[:60]!r}… is too long for a time")
    if _NUMBER.match(text):
        ms = int(text.partition(".")[0])
        if not MIN_TIME_MS <= ms <= MAX_TIME_MS:
            raise WrongUnitError(f"{text[:40]} is no epoch milliseconds, which have 13 digits")
        return Time(ms, ms)
    try:
        moment = datetime.fromisoformat(text.removesuffix(" UTC"))
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        ms = int(moment.timestamp() * 1000)
    except (ValueError, OverflowError):
        raise NotATimeError(f"{text[:100]!r} is neither ISO 8601 nor epoch ms") from None
    if not 0 <= ms <= MAX_TIME_MS:
        raise NotATimeError(f"{text[:100]!r} is out of range")
    return Time(ms, ms + DAY_MS - 1 if _DAY.match(text) else ms)
