"""A file of news, played by observed time, at once or paced. It ends with its file.

The rows are sorted by a database on disk, so that memory does not grow with the file. Nothing is sent
before the whole file was read, so a file that is wrong somewhere is refused as a whole.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from time import monotonic

import msgspec
from loguru import logger

from services.common.errors import ContractError, SourceError
from services.news.contract import Bad, Item, Poll, Source
from services.news.fetch import Fetcher
from services.news.file_items import FEED, RowReader
from services.news.file_rows import check_path, read_rows
from services.news.settings import NewsSettings
from services.news.times import WrongUnitError

BATCH_ITEMS = 500
#: A paced replay is looked at this often at least, and items due within it share a look.
LOOK_S = 0.05


class _Place(msgspec.Struct, frozen=True):
    """A row's place in the order. Which rows are refused depends on the clock, so a count would not do."""

    at_ms: int
    row: int


class FileSource:
    """Plays a file; the cursor is the last row that was played, in the order of observed time."""

    interval_s = 0.0

    def __init__(
        self, settings: NewsSettings, now_ms: Callable[[], int], clock: Callable[[], float] = monotonic
    ) -> None:
        assert settings.file_path is not None
        check_path(settings.file_path)
        self.name = FEED
        self._path = settings.file_path
        self._max_bytes = settings.file_max_bytes
        self._reader = RowReader(settings.columns_by_field, settings.file_source, settings.file_delay_s)
        self._speed = settings.file_speed
        self._sorting = settings.state_dir / "news" / "sorting.sqlite"
        self._now_ms = now_ms
        self._clock = clock
        self._rows: Iterator[tuple[_Place, Item | Bad]] | None = None
        self._next: tuple[_Place, Item | Bad] | None = None
        self._played: _Place | None = None
        self._empty = 0
        self._origin: tuple[float, int] | None = None

    def poll(self, cursor: str | None) -> Poll:
        """What is due. Raises `SourceError` for a file that is wrong."""
        poll = Poll(self._now_ms(), cursor)
        if self._rows is None:
            self._played = self._place(cursor)
            if self._played is not None:
                logger.info("{} goes on after row {:,}", self._path, self._played.row)
            self._rows = self._sorted(self._played)
            self._advance()
            poll.ignored["empty_text"] = self._empty
            # Reading took its time.
            poll.fetched_at_ms = self._now_ms()
        due_ms = self._due_ms()
        while self._next is not None and len(poll.items) + len(poll.bad) < BATCH_ITEMS:
            place, article = self._next
            if due_ms is not None and place.at_ms > due_ms:
                break
            (poll.items if isinstance(article, Item) else poll.bad).append(article)  # type: ignore[arg-type]
            self._played = place
            self._advance()
        if self._played is not None:
            poll.cursor = msgspec.json.encode(self._played).decode()
        poll.ended = self._next is None
        poll.wait_s = self._wait_s()
        return poll

    def _place(self, cursor: str | None) -> "_Place | None":
        if cursor is None:
            return None
        try:
            return msgspec.json.decode(cursor, type=_Place)
        except msgspec.DecodeError:
            # Beginning anew over what the registry holds would not do: it has forgotten how a long file
            # began, and would tell that again under other ids.
            raise SourceError(
                f"{self._path}: cannot tell from {cursor[:60]!r} which row was last; delete "
                f"{self._sorting.parent / 'file*.sqlite'}, and all of it is sent again, as it was"
            ) from None

    def _advance(self) -> None:
        assert self._rows is not None
        self._next = next(self._rows, None)

    def _due_ms(self) -> int | None:
        """Observed time that the replay has reached; None when there is no waiting."""
        if self._speed == 0 or self._next is None:
            return None
        if self._origin is None:
            self._origin = (self._clock(), self._next[0].at_ms)
        began_s, first_ms = self._origin
        return first_ms + int((self._clock() - began_s + LOOK_S / 2) * 1000 * self._speed)

    def _wait_s(self) -> float:
        if self._speed == 0 or self._next is None or self._origin is None:
            return 0.0
        began_s, first_ms = self._origin
        return max(LOOK_S, began_s + (self._next[0].at_ms - first_ms) / 1000 / self._speed - self._clock())

    def _sorted(self, after: "_Place | None") -> Iterator[tuple["_Place", Item | Bad]]:
        """What follows `after` by observed time, rows of the same time in the file's order."""
        self._sorting.parent.mkdir(parents=True, exist_ok=True)
        self._sorting.unlink(missing_ok=True)
        try:
            # Looks run in threads, but never two at once.
            with closing(sqlite3.connect(self._sorting, isolation_level=None, check_same_thread=False)) as db:
                # A scratch file: it need not survive anything.
                db.execute("PRAGMA journal_mode=OFF")
                db.execute("PRAGMA synchronous=OFF")
                db.execute("CREATE TABLE rows (at_ms INTEGER, row INTEGER, kind TEXT, article BLOB)")
                db.execute("BEGIN")
                db.executemany("INSERT INTO rows VALUES (?, ?, ?, ?)", self._read())
                db.execute("COMMIT")
                db.execute("CREATE INDEX by_time ON rows (at_ms, row)")
                (count,) = db.execute("SELECT count(*) FROM rows").fetchone()
                if not count:
                    raise SourceError(f"{self._path}: holds no news")
                logger.info("{}: {:,} rows", self._path, count)
                found = db.execute(
                    "SELECT at_ms, row, kind, article FROM rows WHERE (at_ms, row) > (?, ?) "
                    "ORDER BY at_ms, row",
                    (-1, -1) if after is None else (after.at_ms, after.row),
                )
                for at_ms, row, kind, article in found:
                    yield _Place(at_ms, row), _decode(kind, article)
        except sqlite3.Error as error:
            raise SourceError(f"{self._sorting}: cannot sort the news there ({error})") from error
        finally:
            self._sorting.unlink(missing_ok=True)

    def _read(self) -> Iterator[tuple[int, int, str, bytes]]:
        missing = set(self._reader.required)
        named: set[str] = set()
        for row in read_rows(self._path, self._max_bytes):
            if missing and row.cells is not None:
                named |= row.cells.keys()
                missing -= named
            if row.number == 0:
                self._check_columns(missing, named)
                continue
            try:
                article = self._reader.read(row, self._now_ms())
            except WrongUnitError as error:
                raise SourceError(
                    f"{self._path}: row {row.number}: {error}; multiply seconds by 1000"
                ) from None
            if article is None:
                self._empty += 1
            elif isinstance(article, Item):
                assert article.observed_at_ms is not None
                yield article.observed_at_ms, row.number, "item", msgspec.json.encode(article)
            else:
                reason = (article.error.reason, article.error.detail)
                # Refused rows come first: they have no time.
                yield 0, row.number, "bad", msgspec.json.encode((article.raw, *reason))
        if named:
            # Lines of JSON may leave fields out, but a field that none of them has is named wrong.
            self._check_columns(missing, named)

    def _check_columns(self, missing: set[str], named: set[str]) -> None:
        if missing:
            raise SourceError(
                f"{self._path}: no column {', '.join(sorted(missing))}; there are "
                f"{', '.join(sorted(named))[:300]}; set NEWS_FILE_COLUMNS, like title=Title,published=Date"
            )

    def close(self) -> None:
        """Remove the scratch file; a look that is under way keeps it open until it is done."""
        self._sorting.unlink(missing_ok=True)


def _decode(kind: str, article: bytes) -> Item | Bad:
    if kind == "item":
        return msgspec.json.decode(article, type=Item)
    raw, reason, detail = msgspec.json.decode(article, type=tuple[bytes, str, str])
    return Bad(None, raw, ContractError(reason, detail))


def file_identity(settings: NewsSettings) -> str:
    """What the registry of a replay is about: another file, or other columns, begin anew."""
    assert settings.file_path is not None
    path = Path(settings.file_path).absolute()
    check_path(path)
    at = path.stat()
    told = f"{settings.file_source} {settings.file_delay_s:g} {settings.repeat_window_h:g}"
    return f"file {path} {at.st_size} {at.st_mtime_ns} {','.join(settings.file_columns)} {told}"


def open_source(
    settings: NewsSettings,
    fetcher: Fetcher,  # noqa: ARG001
    now_ms: Callable[[], int],
) -> Sequence[Source]:
    """The file that the settings name. Raises `SourceError`."""
    return [FileSource(settings, now_ms)]
