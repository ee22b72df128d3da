"""Text files on disk, plain, gzipped or packed in a zip, read in blocks of whole lines.

Nothing is ever unpacked to disk, and what is unpacked in memory is bounded: a line, the ratio of a packed
file to what it holds, and the number of files in a zip.
"""

import gzip
import lzma
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from services.common.errors import SourceError

BLOCK_BYTES = 65_536
#: No row is longer; a decompression bomb without line ends is.
MAX_LINE_BYTES = 8_000_000
#: Rows of trades pack to a tenth or so of their size; a bomb to less than a thousandth.
MAX_RATIO = 200
#: So little is unpacked in any case.
RATIO_COUNTS_FROM_BYTES = 10_000_000
MAX_MEMBERS = 50_000
PEEK_BYTES = 4_096
_BLANK_LINES = re.compile(r"(?:[^\S\n]*\n)+")


@dataclass(frozen=True, slots=True)
class Location:
    """A file, or a member of a zip file."""

    path: Path
    member: str | None = None

    @property
    def name(self) -> str:
        """Its own name, without folders."""
        return self.path.name if self.member is None else self.member.rsplit("/", 1)[-1]

    @property
    def stem(self) -> str:
        """Its name without ``.csv``, ``.gz`` and the like."""
        return self.name.partition(".")[0]

    def __str__(self) -> str:
        return str(self.path) if self.member is None else f"{self.path}:{self.member}"


def locate(path: Path, endings: Sequence[str]) -> list[Location]:
    """The text files that `path`, a file or folder, names: itself, those in it, those in zip files of it.

    Without hidden ones, and without what macOS packs beside each file under its name. Raises `SourceError`
    when there is none, or a zip file is not to be trusted.
    """
    known = ", ".join((*endings, ".zip"))
    if path.is_dir():
        found = [
            location
            for item in sorted(path.rglob("*"))
            if item.name.lower().endswith((*endings, ".zip"))
            and not _is_hidden(item.relative_to(path).parts)
            and item.is_file()
            for location in _within(item, endings)
        ]
        if not found:
            raise SourceError(f"{path}: no {known} in this folder")
        return found
    if not path.is_file():
        raise SourceError(f"{path}: does not exist; name a file or folder")
    if not path.name.lower().endswith((*endings, ".zip")):
        raise SourceError(f"{path}: of unknown kind; expected {known}")
    return _within(path, endings)


def _is_hidden(parts: Sequence[str]) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)


def _within(path: Path, endings: Sequence[str]) -> list[Location]:
    if not path.name.lower().endswith(".zip"):
        return [Location(path)]
    try:
        with zipfile.ZipFile(path) as packed:
            members = packed.infolist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise SourceError(f"{path}: cannot be read as a zip file ({error}); copy it again") from error
    if len(members) > MAX_MEMBERS:
        raise SourceError(f"{path}: holds {len(members)} files, more than {MAX_MEMBERS}; this is no archive")
    found = []
    for member in members:
        if member.is_dir() or not member.filename.lower().endswith(tuple(endings)):
            continue
        # We never write them to disk, but nobody who packs honestly names them so.
        if member.filename.startswith("/") or ".." in member.filename.replace("\\", "/").split("/"):
            raise SourceError(f"{path}: the name {member.filename[:80]!r} leads out of the archive")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise SourceError(f"{path}: {member.filename[:80]!r} is a link, no file")
        if member.flag_bits & 1:
            raise SourceError(f"{path}: {member.filename[:80]!r} is encrypted; unpack it first")
        if not _is_hidden(member.filename.replace("\\", "/").split("/")):
            found.append(Location(path, member.filename))
    if not found:
        raise SourceError(f"{path}: no {', '.join(endings)} in this archive")
    return found


class TextFile:
    """A file of lines, read in blocks that end with a line."""

    def __init__(self, location: Location | Path) -> None:
        self.location = Location(location) if isinstance(location, Path) else location
        self.path = self.location.path
        self.total_bytes = self._packed_bytes()
        #: How many of them were read; for a packed file, packed ones.
        self.read_bytes = 0

    def _packed_bytes(self) -> int:
        if self.location.member is None:
            return self.path.stat().st_size
        with zipfile.ZipFile(self.path) as packed:
            return packed.getinfo(self.location.member).compress_size

    def blocks(self, block_bytes: int = BLOCK_BYTES) -> Iterator[tuple[int, bytes]]:
        """Number of the first line of a block, and the block. Raises `SourceError`."""
        line = 1
        rest = b""
        unpacked = 0
        try:
            with self._open() as (reader, raw):
                while chunk := reader.read(block_bytes):
                    self.read_bytes = raw.tell()
                    unpacked += len(chunk)
                    self._refuse_bomb(unpacked)
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
                            f"{self.location}:{line}: a line of more than {MAX_LINE_BYTES} bytes; "
                            "this is no recording of trades"
                        )
        except EOFError as error:
            raise SourceError(
                f"{self.location}: the packed file ends early (near line {line}); copy it again"
            ) from error
        except (OSError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError) as error:
            raise SourceError(f"{self.location}: cannot be read near line {line}: {error}") from error
        self.read_bytes = self.total_bytes
        if rest:
            yield line, rest + b"\n"

    def texts(self, block_bytes: int = BLOCK_BYTES) -> Iterator[tuple[int, str]]:
        """The same as text with plain line ends, without a byte order mark and blank lines at the beginning.

        Raises `SourceError`.
        """
        begun = False
        for line, block in self.blocks(block_bytes):
            try:
                text = block.decode("utf-8-sig" if line == 1 else "utf-8")
            except UnicodeDecodeError as error:
                bad = line + block[: error.start].count(b"\n")
                raise SourceError(f"{self.location}:{bad}: no UTF-8 text; is this a CSV file?") from error
            text = text.replace("\r\n", "\n") if "\r" in text else text
            if not begun:
                blank = _BLANK_LINES.match(text)
                if blank is not None:
                    text, line = text[blank.end() :], line + blank[0].count("\n")
                begun = bool(text)
            if text:
                yield line, text

    def first_line(self) -> str | None:
        """The first line that is not blank, None when there is none. Raises `SourceError`."""
        for _, text in self.texts(PEEK_BYTES):
            return text.partition("\n")[0]
        return None

    @contextmanager
    def _open(self) -> Iterator[tuple[IO[bytes], Any]]:
        """What to read from, and what tells how far it is."""
        with self.path.open("rb") as raw:
            if self.location.member is None:
                packed = self.location.name.lower().endswith(".gz")
                yield (cast(IO[bytes], gzip.GzipFile(fileobj=raw)) if packed else raw), raw
                return
            with zipfile.ZipFile(raw) as files, files.open(self.location.member) as member:
                reader: IO[bytes] = member
                if self.location.name.lower().endswith(".gz"):
                    reader = cast(IO[bytes], gzip.GzipFile(fileobj=member))
                yield reader, _PackedPosition(raw, raw.tell())

    def _refuse_bomb(self, unpacked: int) -> None:
        if unpacked > RATIO_COUNTS_FROM_BYTES and unpacked > MAX_RATIO * max(1, self.read_bytes):
            raise SourceError(
                f"{self.location}: unpacks to more than {MAX_RATIO} times its size; this is no recording"
            )


class _PackedPosition:
    """How many bytes of a member of a zip file have been read, for one that nothing else reads."""

    def __init__(self, raw: IO[bytes], start: int) -> None:
        self._raw = raw
        self._start = start

    def tell(self) -> int:
        return max(0, self._raw.tell() - self._start)
