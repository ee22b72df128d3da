"""The spool of one pair: every page is on disk before it is sent, so that no kill costs a download.

``STATE_DIR/trades/history/<exchange>/<BASE-QUOTE>/<since_ms>/`` holds

- ``trades.csv.gz``: the trades in id order, as a recording that TRADES_SOURCE=replay takes; one gzip member
  for each page. Prices and quantities are written so that the same doubles come out.
- ``cursor.json``: how many bytes of it are valid, and where the walk goes on. Replaced in one step after
  the trades are safe; what a kill leaves behind the valid bytes is cut off at the next start.
"""

import fcntl
import gzip
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import IO, cast

import msgspec

from services.common.errors import SourceError
from services.common.history_report import Missing
from services.common.messages import Side, Trade
from services.trades.history.walk import Known

HEADER = "time_ms,side,price,quantity,trade_id\n"
_SIDES: dict[str, Side] = {"buy": "buy", "sell": "sell"}


class Cursor(msgspec.Struct):
    """What ``cursor.json`` holds."""

    known: Known
    spool_bytes: int = 0
    trades: int = 0
    first_id: int | None = None
    first_ms: int | None = None
    missing: list[Missing] = []


def spool_folder(state_dir: Path, exchange: str, pair: str, since_ms: int) -> Path:
    """Where the spool of a pair's history since a time is."""
    return state_dir / "trades" / "history" / exchange / pair.replace("/", "-") / str(since_ms)


class Spool:
    """Appends pages and reads them back. Raises `SourceError` on damage, saying what to delete."""

    def __init__(self, folder: Path, exchange: str, pair: str, since_ms: int) -> None:
        self.folder = folder
        self._exchange = exchange
        self._pair = pair
        self._path = folder / "trades.csv.gz"
        self._cursor_path = folder / "cursor.json"
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = (folder / "lock").open("wb")
        try:
            # It falls with the process, however that ends.
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise SourceError(f"{folder} is in use: another process fetches the same history") from error
        try:
            self.cursor = self._load(since_ms)
            self._cut()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let another process have it."""
        self._lock.close()

    def _load(self, since_ms: int) -> Cursor:
        try:
            cursor = msgspec.json.decode(self._cursor_path.read_bytes(), type=Cursor)
            if cursor.known.cursor is not None:
                int(cursor.known.cursor)
        except FileNotFoundError:
            return Cursor(Known(since_ms))
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError, OSError) as error:
            raise self._damaged(f"{self._cursor_path} cannot be read ({error})") from error
        return cursor

    def _cut(self) -> None:
        """Cut off what an earlier run wrote without getting to say that it is valid."""
        valid = self.cursor.spool_bytes
        size = self._path.stat().st_size if self._path.exists() else 0
        if size < valid:
            raise self._damaged(f"{self._path} has {size} of {valid} bytes")
        if size > valid:
            with self._path.open("r+b") as file:
                file.truncate(valid)
                os.fsync(file.fileno())

    def _damaged(self, what: str) -> SourceError:
        return SourceError(f"{what}: delete the folder {self.folder} and it is downloaded again")

    def append(self, trades: Sequence[Trade], missing: Sequence[Missing], known: Known) -> None:
        """Keep a page's trades, and then where the walk stands after it."""
        before = self.cursor
        spool_bytes = before.spool_bytes
        if trades:
            lines = "".join(
                f"{t.event_time_ms},{t.side},{t.price!r},{t.quantity!r},{t.trade_id}\n" for t in trades
            )
            text = lines if spool_bytes else HEADER + lines
            member = gzip.compress(text.encode(), compresslevel=6, mtime=0)
            with self._path.open("ab") as file:
                file.write(member)
                file.flush()
                os.fsync(file.fileno())
            spool_bytes += len(member)
        first = trades[0] if trades and before.first_id is None else None
        after = Cursor(
            # As it is now: the walk goes on with its own.
            msgspec.structs.replace(known),
            spool_bytes,
            before.trades + len(trades),
            first.trade_id if first else before.first_id,
            first.event_time_ms if first else before.first_ms,
            [*before.missing, *missing],
        )
        if after != before:
            self._save(after)
            self.cursor = after

    def _save(self, cursor: Cursor) -> None:
        temporary = self._cursor_path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            file.write(msgspec.json.encode(cursor))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._cursor_path)

    def read(self, now_ms: Callable[[], int]) -> "Spooled":
        """What is valid now; more may be appended while it is read."""
        return Spooled(self.cursor, self._trades(self.cursor, now_ms))

    def _trades(self, cursor: Cursor, now_ms: Callable[[], int]) -> Iterator[Trade]:
        count = 0
        if not cursor.spool_bytes:
            return
        try:
            with self._path.open("rb") as raw:
                valid = cast(IO[bytes], _Beginning(raw, cursor.spool_bytes))
                with TextIOWrapper(gzip.GzipFile(fileobj=valid), encoding="ascii") as lines:
                    if lines.readline() != HEADER:
                        raise ValueError("another header")
                    for line in lines:
                        time_ms, side, price, quantity, trade_id = line.split(",")
                        yield Trade(
                            self._exchange,
                            self._pair,
                            int(trade_id),
                            _SIDES[side],
                            float(price),
                            float(quantity),
                            int(time_ms),
                            now_ms(),
                        )
                        count += 1
        except (OSError, EOFError, zlib.error, ValueError, KeyError) as error:
            raise self._damaged(f"{self._path} cannot be read ({error})") from error
        if count != cursor.trades:
            raise self._damaged(f"{self._path} holds {count} of {cursor.trades} trades")


@dataclass(frozen=True, slots=True)
class Spooled:
    """What a spool held at some time: `trades` are read from the file as they are taken, received then."""

    cursor: Cursor
    trades: Iterator[Trade]


class _Beginning:
    """The first bytes of a file that grows."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self._left = size

    def read(self, size: int = -1) -> bytes:
        """At most what is left."""
        data = self._file.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(data)
        return data
