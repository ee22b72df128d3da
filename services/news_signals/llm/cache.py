"""Answers that were given, in a file: a repeated delivery costs nothing and gives the same signals."""

import sqlite3
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import msgspec

from services.common.errors import StoreError
from services.news_signals.llm.answers import Probabilities
from services.news_signals.llm.files import open_file, transaction

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS answers "
    "(key BLOB PRIMARY KEY, written_at_s INTEGER NOT NULL, answer BLOB NOT NULL)"
)
_INDEX = "CREATE INDEX IF NOT EXISTS answers_by_age ON answers (written_at_s)"
_DECODER = msgspec.json.Decoder(dict[str, tuple[float, float, float]])
DAY_S = 86_400


class Cache:
    """At most `max_rows` answers, none older than `max_age_s`. `clock` gives Unix seconds.

    An answer is what `answers.by_coin` gives for one story; its key is `prompt.answer_key`. The oldest go
    first. Several processes may share the file. Raises `StoreError`.
    """

    def __init__(self, path: Path, max_rows: int, max_age_s: float, clock: Callable[[], float]) -> None:
        self._path = path
        self._max_rows = max_rows
        self._max_age_s = max_age_s
        self._clock = clock
        self._connection = open_file(path, _SCHEMA)
        self._connection.execute(_INDEX)

    def get(self, keys: Iterable[bytes]) -> dict[bytes, dict[str, Probabilities]]:
        """The answers that are remembered."""
        since = self._clock() - self._max_age_s
        found: dict[bytes, dict[str, Probabilities]] = {}
        try:
            for key in keys:
                row = self._connection.execute(
                    "SELECT answer FROM answers WHERE key = ? AND written_at_s > ?", (key, since)
                ).fetchone()
                if row is not None:
                    found[key] = _DECODER.decode(row[0])
        except (sqlite3.Error, msgspec.DecodeError) as error:
            raise StoreError(f"cannot read {self._path} ({error}); delete the file to start anew") from error
        return found

    def put(self, answers: Mapping[bytes, Mapping[str, Probabilities]]) -> None:
        """Remember answers; one that is there already stays, so that signals do not change."""
        now = self._clock()
        with transaction(self._connection, self._path) as connection:
            connection.execute("DELETE FROM answers WHERE written_at_s <= ?", (now - self._max_age_s,))
            connection.executemany(
                "INSERT OR IGNORE INTO answers VALUES (?, ?, ?)",
                [(key, int(now), msgspec.json.encode(answer)) for key, answer in answers.items()],
            )
            excess = len(self) - self._max_rows
            if excess > 0:
                connection.execute(
                    "DELETE FROM answers WHERE rowid IN "
                    "(SELECT rowid FROM answers ORDER BY written_at_s, rowid LIMIT ?)",
                    (excess,),
                )

    def __len__(self) -> int:
        row = self._connection.execute("SELECT count(*) FROM answers").fetchone()
        return int(row[0])

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
