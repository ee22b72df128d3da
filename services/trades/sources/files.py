"""Recordings on disk: which files there are, and their text in blocks of whole lines."""

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from services.common.errors import SourceError

CSV_ENDINGS = (".csv", ".csv.gz")
FRAME_ENDINGS = (".ndjson", ".ndjson.gz")
BLOCK_BYTES = 65_536
#: A paced replay reads little at a time, since reading delays what is due meanwhile.
PACED_BLOCK_BYTES = 16_384
#: No trade and no frame is longer; a decompression bomb without line ends is.
MAX_LINE_BYTES = 8_000_000


@dataclass(slots=True)
class Columns:
    """Trades of one pair as columns of equal length; `ids` None: they are still to be numbered.

    `times` never falls and says when a trade is due in a replay; `events` are the trades' own times.
    """

    ids: list[int] | None
    sides: list[str]
    prices: list[float]
    quantities: list[float]
    events: list[int]
    times: list[int]

    def part(self, start: int, end: int | None = None) -> "Columns":
        """Rows from `start` to before `end`."""
        cut = slice(start, end)
        events = self.events[cut]
        return Columns(
            None if self.ids is None else self.ids[cut],
            self.sides[cut],
            self.prices[cut],
            self.quantities[cut],
            events,
            events if self.times is self.events else self.times[cut],
        )


#: Trades of a stretch of a file, by pair, and the last time in it.
type Block = tuple[dict[str, Columns], int]


def find_recordings(path: Path) -> list[Path]:
    """The recordings that `path` names: itself or those in it. Raises `SourceError`."""
    endings = CSV_ENDINGS + FRAME_ENDINGS
    if path.is_dir():
        found = sorted(item for item in path.iterdir() if item.name.endswith(endings))
        if not found:
            raise SourceError(f"{path}: no {', '.join(endings)} in this folder")
        if len({item.name.endswith(CSV_ENDINGS) for item in found}) > 1:
            raise SourceError(f"{path}: holds both CSV and frame recordings; keep them apart")
        return found
    if not path.is_file():
        raise SourceError(f"{path}: does not exist; set TRADES_REPLAY_PATH to a file or folder")
    if not path.name.endswith(endings):
        raise SourceError(f"{path}: of unknown kind; expected {', '.join(endings)}")
    return [path]


class TextFile:
    """A file of lines, plain or gzipped, read in blocks that end with a line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.total_bytes = path.stat().st_size
        #: How many of them were read; for a gzipped file, compressed ones.
        self.read_bytes = 0

    def blocks(self, block_bytes: int = BLOCK_BYTES) -> Iterator[tuple[int, bytes]]:
        """Number of the first line of a block, and the block. Raises `SourceError`."""
        line = 1
        rest = b""
        try:
            with self.path.open("rb") as raw:
                reader = cast(IO[bytes], gzip.GzipFile(fileobj=raw)) if self._is_gzip else raw
                while chunk := reader.read(block_bytes):
                    self.read_bytes = raw.tell()
                    end = chunk.rfind(b"\n") + 1
                    if end:
                        block = rest + chunk[:end]
                        rest = chunk[end:]
                        yield line, block
                        line += block.count(b"\n")
                    else:
                        rest += chunk
                    if len(rest) > MAX_LINE_BYTES:
                        raise SourceError(
                            f"{self.path}:{line}: a line of more than {MAX_LINE_BYTES} bytes; "
                            "this is no recording of trades"
                        )
        except EOFError as error:
            raise SourceError(
                f"{self.path}: the gzip file ends early (near line {line}); copy it again"
            ) from error
        except (OSError, zlib.error) as error:
            raise SourceError(f"{self.path}: cannot be read near line {line}: {error}") from error
        self.read_bytes = self.total_bytes
        if rest:
            yield line, rest + b"\n"

    @property
    def _is_gzip(self) -> bool:
        return self.path.name.endswith(".gz")
