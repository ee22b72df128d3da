"""The series of a historical run that have ended, in a file: a service that starts again goes on counting."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from services.common.errors import StateError
from services.common.history import End, Series


class Position(NamedTuple):
    """Where a message is."""

    topic: str
    partition: int
    offset: int


class _Ended(NamedTuple):
    key: str
    run: str
    series: int
    at: Position


#: The next offset to be read of each of these partitions, as committed; none where nothing is.
type Committed = Callable[[set[tuple[str, int]]], Mapping[tuple[str, int], int]]


class EndedSeries:
    """`Series` that survive a restart. Raises `StateError`."""

    def __init__(self, path: Path, run: str | None) -> None:
        self._path = path
        self._series = Series(run)
        self._ended: dict[tuple[str, str], _Ended] = {}

    def restore(self, committed: Committed) -> bool:
        """Count what ended before this start; whether that is the whole run.

        Only ends whose messages are committed: the others come again, and what stands before them too.
        """
        earlier = self._load()
        if not earlier:
            return False
        offsets = committed({(one.at.topic, one.at.partition) for one in earlier})
        complete = False
        for one in earlier:
            if one.at.offset < offsets.get((one.at.topic, one.at.partition), 0):
                self._ended[one.run, one.key] = one
                complete |= self._series.end(one.key.encode(), End(one.run, one.series))
        return complete

    def _load(self) -> list[_Ended]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=list[_Ended])
        except FileNotFoundError:
            return []
        except (msgspec.DecodeError, OSError) as error:
            raise StateError(
                f"cannot read {self._path} ({error}); delete it and run the history again"
            ) from error

    def begin(self, key: bytes) -> None:
        """The series `key` begins."""
        self._series.begin(key)
        name = key.decode()
        if of_it := [(run, ended) for run, ended in self._ended if ended == name]:
            for one in of_it:
                del self._ended[one]
            self._save()

    def end(self, key: bytes, end: End, at: Position) -> bool:
        """The series `key` has ended, says the message at `at`; whether all of the run have."""
        self._ended[end.run, key.decode()] = _Ended(key.decode(), end.run, end.series, at)
        self._save()
        return self._series.end(key, end)

    def _save(self) -> None:
        temporary = self._path.with_suffix(".tmp")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(msgspec.json.encode(list(self._ended.values())))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path)
        except OSError as error:
            raise StateError(f"cannot write {self._path}: {error}") from error
