"""How a series begins and ends in a historical run. Pure.

An empty message with the header ``history`` says it: ``begin`` before the first row of a series, ``end RUN
N`` after the last one, where N series are in the run. Each service passes it on behind its own rows. On the
first, services forget the series, so that the same history can be run again; when all N have ended, they
stop. Where a history has a hole, ``pause`` says that what came so far is whole up to the message's time, and
another ``begin`` that the series begins anew behind the hole.
"""

from typing import NamedTuple

from services.common.messages import Headers, header

HISTORY_HEADER = "history"
EMPTY = b"[]"


class End(NamedTuple):
    """The end of one of `series` series of the run `run`."""

    run: str
    series: int


def begin_header() -> tuple[str, bytes]:
    """Header of the message before the first one of a series."""
    return HISTORY_HEADER, b"begin"


def pause_header() -> tuple[str, bytes]:
    """Header of the last message of a series before a hole."""
    return HISTORY_HEADER, b"pause"


def end_header(run: str, series: int) -> tuple[str, bytes]:
    """Header of the last message of a series; `run` holds no space."""
    return HISTORY_HEADER, f"end {run} {series}".encode("ascii")


def begins(value: bytes, headers: Headers) -> bool:
    """Whether a message says that its series begins anew."""
    return value == EMPTY and header(headers, HISTORY_HEADER) == "begin"


def pauses(value: bytes, headers: Headers) -> bool:
    """Whether a message says that a hole follows in its series."""
    return value == EMPTY and header(headers, HISTORY_HEADER) == "pause"


def ending(value: bytes, headers: Headers) -> End | None:
    """What a message says of the end of its series, None for any other."""
    text = header(headers, HISTORY_HEADER) if value == EMPTY else None
    match text.split(" ") if text else []:
        case ["end", run, series] if series.isdigit():
            return End(run, int(series))
    return None


class Series:
    """Which series have ended of the run `run`; None: of any run."""

    def __init__(self, run: str | None = None) -> None:
        self._run = run
        self._ended: dict[str, set[str]] = {}

    def begin(self, key: bytes) -> None:
        """The series `key` begins: an end that was seen before was an earlier run's."""
        for keys in self._ended.values():
            keys.discard(key.decode())

    def end(self, key: bytes, end: End) -> bool:
        """The series `key` has ended; whether all of its run have, if that is ours."""
        if self._run not in (None, end.run):
            return False
        keys = self._ended.setdefault(end.run, set())
        keys.add(key.decode())
        return len(keys) >= end.series
