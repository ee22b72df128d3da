"""What people write for a time, as UTC epoch milliseconds. Pure."""

import re
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, SupportsIndex

from services.common.errors import QueryError
from services.common.messages import MAX_TIME_MS
from services.features.given import whole_number

if TYPE_CHECKING:
    import numpy as np

type Time = SupportsIndex | str | date | datetime | np.datetime64

# Numbers between 0 and this (March 1973) are seconds that somebody forgot to multiply.
_LIKELY_SECONDS = 100_000_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: What `datetime.fromisoformat` cuts off.
_FINER = re.compile(r"[.,][0-9]{6}[0-9]*[1-9]")


def to_ms(time: Time, *, up: bool = False) -> int:
    """UTC epoch milliseconds of an int of milliseconds, a datetime, a date or an ISO 8601 text.

    Those of numpy and pandas too. Times without a zone are UTC. A time between two milliseconds is the
    earlier one, as the end of a range must be, or with `up` the later one, as its start must be.
    Raises `QueryError` on anything else, and on numbers that look like seconds.
    """
    milliseconds, more = _floored(time)
    if more and up:
        milliseconds += 1
    if not 0 <= milliseconds <= MAX_TIME_MS:
        raise QueryError(f"{str(time)[:40]} is not between 1970 and 2100")
    return milliseconds


def _floored(time: Any) -> tuple[int, bool]:
    """Whole milliseconds, and whether there is more."""
    if isinstance(time, str):
        return _of_text(time.strip())
    if isinstance(time, datetime):
        return _of_datetime(time)
    if isinstance(time, date):
        return _of_datetime(datetime(time.year, time.month, time.day, tzinfo=UTC))
    if getattr(getattr(time, "dtype", None), "kind", None) == "M" and not getattr(time, "shape", ()):
        if str(time) == "NaT":
            raise QueryError("NaT is no time")
        whole = time.astype("datetime64[ms]")
        return int(whole.astype("int64")), bool(whole != time)
    number = whole_number(time)
    if number is None:
        raise QueryError(f"{str(time)[:40]!r} is no time")
    if 0 < number < _LIKELY_SECONDS:
        raise QueryError(f"{number} looks like seconds; times are epoch milliseconds")
    return number, False


def _of_text(text: str) -> tuple[int, bool]:
    try:
        # Eight digits are a date, 20260131.
        if text.isascii() and text.isdigit() and len(text) != 8:
            return _floored(int(text))
        milliseconds, more = _of_datetime(datetime.fromisoformat(text))
    except ValueError as error:
        raise QueryError(
            f"{text[:40]!r} is no time; write epoch milliseconds or ISO 8601 like 2026-01-31T12:00"
        ) from error
    return milliseconds, more or _FINER.search(text) is not None


def _of_datetime(time: datetime) -> tuple[int, bool]:
    # pandas' NaT is a datetime that equals nothing.
    if time != time:
        raise QueryError("NaT is no time")
    aware = time if time.tzinfo is not None else time.replace(tzinfo=UTC)
    # In whole numbers: seconds as a float would round 23:59:59.999999 into the next day.
    whole, rest = divmod(aware - _EPOCH, timedelta(milliseconds=1))
    return int(whole), bool(rest)


def iso(time_ms: int) -> str:
    """``2026-01-31T12:00:00.000Z`` for a UTC epoch time in milliseconds."""
    text = datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
