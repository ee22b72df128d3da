"""What people write for a time, as UTC epoch milliseconds. Pure."""

from datetime import UTC, date, datetime

from services.common.errors import QueryError
from services.common.messages import MAX_TIME_MS

type Time = int | str | date | datetime

# Numbers between 0 and this (March 1973) are seconds that somebody forgot to multiply.
_LIKELY_SECONDS = 100_000_000_000


def to_ms(time: Time) -> int:
    """UTC epoch milliseconds of an int of milliseconds, a datetime, a date or an ISO 8601 text.

    Times without a zone are UTC. Raises `QueryError` on anything else, and on numbers that look like
    seconds.
    """
    if isinstance(time, bool):
        raise QueryError(f"{time!r} is no time")
    if isinstance(time, str):
        text = time.strip()
        # Eight digits are a date, 20260131.
        if text.isascii() and text.isdigit() and len(text) != 8:
            return to_ms(int(text))
        try:
            return to_ms(datetime.fromisoformat(text))
        except ValueError as error:
            raise QueryError(
                f"{text[:40]!r} is no time; write epoch milliseconds or ISO 8601 like 2026-01-31T12:00"
            ) from error
    if isinstance(time, datetime):
        aware = time if time.tzinfo is not None else time.replace(tzinfo=UTC)
        milliseconds = round(aware.timestamp() * 1000)
    elif isinstance(time, date):
        milliseconds = round(datetime(time.year, time.month, time.day, tzinfo=UTC).timestamp() * 1000)
    else:
        try:
            # numpy's integers and the like.
            milliseconds = time.__index__()
        except AttributeError as error:
            raise QueryError(f"{time!r} is no time") from error
        if 0 < milliseconds < _LIKELY_SECONDS:
            raise QueryError(f"{milliseconds} looks like seconds; times are epoch milliseconds")
    if not 0 <= milliseconds <= MAX_TIME_MS:
        raise QueryError(f"{time} is not between 1970 and 2100")
    return milliseconds


def iso(time_ms: int) -> str:
    """``2026-01-31T12:00:00.000Z`` for a UTC epoch time in milliseconds."""
    text = datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
