"""The series of a historical run that have ended, in a file: a service that starts again goes on counting."""

import os
from pathlib import Path

import msgspec

from services.common.errors import StateError
from services.common.history import End, Series


class EndedSeries:
    """`Series` that survive a restart. Raises `StateError`."""

    def __init__(self, path: Path, run: str | None) -> None:
        self._path = path
        self._series = Series(run, self._load())

    def _load(self) -> dict[str, list[str]]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, list[str]])
        except FileNotFoundError:
            return {}
        except (msgspec.DecodeError, OSError) as error:
            raise StateError(
                f"cannot read {self._path} ({error}); delete it and run the history again"
            ) from error

    def begin(self, key: bytes) -> None:
        """The series `key` begins."""
        self._series.begin(key)

    def end(self, key: bytes, end: End) -> bool:
        """The series `key` has ended; whether all of the run have."""
        complete = self._series.end(key, end)
        temporary = self._path.with_suffix(".tmp")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(msgspec.json.encode(self._series.dump()))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path)
        except OSError as error:
            raise StateError(f"cannot write {self._path}: {error}") from error
        return complete
