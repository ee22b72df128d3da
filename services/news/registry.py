"""The registry: which articles were told, what still has to be sent, and where each feed stands. Durable.

A decision and the message that it leads to are written in one transaction, before the message is sent;
the message is removed when the broker has confirmed it. So after a kill at any moment the same message,
with the same story id and observed time, is sent again, and nothing is decided twice.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from loguru import logger

from services.common.errors import SourceError
from services.news.identity import Article, Telling

#: Rows of `told` and of `refused` that are kept at most; some 150 bytes each.
MAX_ROWS = 500_000
#: Rows are cleared away after so many new ones.
PRUNE_EVERY = 1_000
#: How long a start waits for a process that is about to end.
BUSY_S = 2.0
_VERSION = 1
_SCHEMA = """
CREATE TABLE meta (identity TEXT NOT NULL);
CREATE TABLE told (
    id INTEGER PRIMARY KEY, feed TEXT NOT NULL, item TEXT NOT NULL, source TEXT NOT NULL, url TEXT,
    title TEXT NOT NULL, story_id TEXT NOT NULL, observed_at_ms INTEGER NOT NULL);
CREATE INDEX told_item ON told (feed, item);
CREATE INDEX told_url ON told (url);
CREATE INDEX told_title ON told (title);
CREATE INDEX told_story ON told (story_id, observed_at_ms);
CREATE INDEX told_time ON told (observed_at_ms);
CREATE TABLE refused (
    feed TEXT NOT NULL, item TEXT NOT NULL, reason TEXT NOT NULL, at_ms INTEGER NOT NULL,
    PRIMARY KEY (feed, item, reason)) WITHOUT ROWID;
CREATE TABLE cursors (feed TEXT PRIMARY KEY, cursor TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL,
    received_at_ms INTEGER NOT NULL);
"""


class Outgoing(NamedTuple):
    """A message that is on its way until the broker confirms it. `topic` is without its suffix."""

    id: int
    topic: str
    key: bytes
    value: bytes
    received_at_ms: int


class Registry:
    """One SQLite file, used by one process at a time. Raises `SourceError` when it cannot be used.

    `identity` is what the contents are about; those about anything else are given up.
    """

    def __init__(self, path: Path, identity: str, max_rows: int = MAX_ROWS) -> None:
        self._path = path
        self._max_rows = max_rows
        # The first transaction clears away what an earlier run left.
        self._new_rows = PRUNE_EVERY
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = self._open()
            if self._identity() not in (None, identity):
                self._db.close()
                self._remove()
                self._db = self._open()
            if self._identity() is None:
                self._create(identity)
        except (sqlite3.Error, OSError) as error:
            raise self._unusable(error) from error

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, timeout=BUSY_S, isolation_level=None)
        # One connection, a rollback journal and a sync at each commit: safe against kills and power cuts
        # with every version of SQLite. Truncating is what makes the end of a transaction durable.
        for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=TRUNCATE", "synchronous=FULL"):
            db.execute(f"PRAGMA {pragma}")
        # Takes the lock for good, so that a second process is told at once.
        db.execute("BEGIN EXCLUSIVE")
        db.execute("COMMIT")
        return db

    def _identity(self) -> str | None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            return None
        if version != _VERSION:
            raise sqlite3.DatabaseError(f"it is of version {version}, expected {_VERSION}")
        (identity,) = self._db.execute("SELECT identity FROM meta").fetchone()
        return str(identity)

    def _create(self, identity: str) -> None:
        self._db.executescript(f"BEGIN;{_SCHEMA}")
        self._db.execute("INSERT INTO meta VALUES (?)", (identity,))
        self._db.execute(f"PRAGMA user_version={_VERSION}")
        self._db.execute("COMMIT")

    def _unusable(self, error: Exception) -> SourceError:
        return SourceError(
            f"cannot use the registry in {self._path} ({error}); another news service may use it, or "
            "the disk is full; if the file is broken delete it, and news of the last days is sent again"
        )

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is done inside is written together, or not at all. Raises `SourceError`."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    # What `identity.decide` asks.

    def is_told(self, article: Article, since_ms: int) -> bool:
        """Whether the feed told this item, or the source this address."""
        found = self._db.execute(
            "SELECT 1 FROM told WHERE feed = ? AND item = ? AND observed_at_ms >= ? "
            "UNION ALL SELECT 1 FROM told WHERE url = ? AND source = ? AND observed_at_ms >= ? LIMIT 1",
            (article.feed, article.item, since_ms, article.url, article.source, since_ms),
        ).fetchone()
        return found is not None

    def story_of(self, article: Article, since_ms: int) -> str | None:
        """Story of the first telling of another source with the article's address, else with its title."""
        for column, value in (("url", article.url), ("title", article.title)):
            found = self._db.execute(
                f"SELECT story_id FROM told WHERE {column} = ? AND source != ? AND observed_at_ms >= ? "  # noqa: S608
                "ORDER BY id LIMIT 1",
                (value, article.source, since_ms),
            ).fetchone()
            if found is not None:
                return str(found[0])
        return None

    def last_observed_ms(self, story_id: str, since_ms: int) -> int | None:
        """When the newest telling of a story was observed."""
        last: int | None = self._db.execute(
            "SELECT max(observed_at_ms) FROM told WHERE story_id = ? AND observed_at_ms >= ?",
            (story_id, since_ms),
        ).fetchone()[0]
        return last

    # What is written, inside `transaction`.

    def add(self, article: Article, telling: Telling) -> None:
        """Remember a telling."""
        self._db.execute(
            "INSERT INTO told (feed, item, source, url, title, story_id, observed_at_ms) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                *(article.feed, article.item, article.source, article.url, article.title),
                *(telling.story_id, telling.observed_at_ms),
            ),
        )
        self._new_rows += 1

    def refuse(self, feed: str, item: str, reason: str, at_ms: int) -> bool:
        """Remember that an item was refused; False when it was before, for the same reason."""
        key = (feed, item, reason)
        known = self._db.execute(
            "SELECT 1 FROM refused WHERE feed = ? AND item = ? AND reason = ?", key
        ).fetchone()
        self._db.execute(
            "INSERT INTO refused VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET at_ms = excluded.at_ms",
            (*key, at_ms),
        )
        self._new_rows += known is None
        return known is None

    def put(self, topic: str, key: bytes, value: bytes, received_at_ms: int) -> Outgoing:
        """Write down a message that has to be sent."""
        done = self._db.execute(
            "INSERT INTO outbox (topic, key, value, received_at_ms) VALUES (?, ?, ?, ?)",
            (topic, key, value, received_at_ms),
        )
        assert done.lastrowid is not None
        return Outgoing(done.lastrowid, topic, key, value, received_at_ms)

    def set_cursor(self, feed: str, cursor: str) -> None:
        """Note where a feed stands."""
        self._db.execute(
            "INSERT INTO cursors VALUES (?, ?) ON CONFLICT DO UPDATE SET cursor = excluded.cursor",
            (feed, cursor),
        )

    def forget_before(self, told_ms: int, refused_ms: int) -> None:
        """Clear away what is older, from time to time, and what is more than there is room for."""
        if self._new_rows < PRUNE_EVERY:
            return
        self._new_rows = 0
        self._db.execute("DELETE FROM told WHERE observed_at_ms < ?", (told_ms,))
        self._db.execute("DELETE FROM refused WHERE at_ms < ?", (refused_ms,))
        for table, column in (("told", "id"), ("refused", "at_ms")):
            (rows,) = self._db.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608
            if rows <= self._max_rows:
                continue
            logger.warning(
                "the registry remembers {} of {} {} articles; a repeat of the others is sent again",
                *(self._max_rows, rows, table),
            )
            oldest = f"SELECT {column} FROM {table} ORDER BY {column} DESC LIMIT 1 OFFSET ?"  # noqa: S608
            self._db.execute(f"DELETE FROM {table} WHERE {column} <= ({oldest})", (self._max_rows,))  # noqa: S608

    # What the loop asks, outside `transaction`.

    def cursor(self, feed: str) -> str | None:
        """Where a feed stands, None when it was never read. Raises `SourceError`."""
        found = self._ask("SELECT cursor FROM cursors WHERE feed = ?", feed)
        return str(found[0][0]) if found else None

    def unconfirmed(self) -> list[Outgoing]:
        """What an earlier run did not see delivered, in the order in which it was written.

        Raises `SourceError`.
        """
        rows = self._ask("SELECT id, topic, key, value, received_at_ms FROM outbox ORDER BY id")
        return [Outgoing(*row) for row in rows]

    def _ask(self, sql: str, *values: str) -> list[Any]:
        try:
            return self._db.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def confirm(self, ids: Iterable[int]) -> None:
        """These were delivered. Raises `SourceError`."""
        with self.transaction():
            self._db.executemany("DELETE FROM outbox WHERE id = ?", [(number,) for number in ids])

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def forget(self) -> None:
        """Close and remove the file: what it was about is complete."""
        self._db.close()
        self._remove()

    def _remove(self) -> None:
        # The journal last: a database without its journal is broken, a journal without one is ignored.
        self._path.unlink(missing_ok=True)
        Path(f"{self._path}-journal").unlink(missing_ok=True)
