"""Files of news: CSV and NDJSON, plain or gzipped, as rows of named cells; nothing is believed of them."""

import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import msgspec

from services.common.errors import SourceError

CSV_ENDINGS = (".csv", ".csv.gz")
NDJSON_ENDINGS = (".ndjson", ".ndjson.gz", ".jsonl", ".jsonl.gz")
#: No article is longer; a bomb, or a quotation mark without its partner, is.
MAX_ROW_BYTES = 8_000_000
#: Text packs to a tenth; what unpacks to more than this many times its size is a bomb.
MAX_RATIO = 200
#: From this size on the ratio is looked at.
RATIO_FROM_BYTES = 10_000_000


class Row(NamedTuple):
    """One row; `cells` None where it is none, `raw` what there is instead and `problem` what is wrong with
    it. Row 0 is a CSV's header."""

    number: int
    cells: dict[str, Any] | None
    raw: bytes = b""
    problem: str = ""


def read_rows(path: Path, max_bytes: int) -> Iterator[Row]:
    """The rows of a file in its order. Raises `SourceError` with file, row and remedy."""
    number = 0
    try:
        with path.open("rb") as packed:
            source = _Capped(path, packed, max_bytes)
            rows = _csv_rows if path.name.endswith(CSV_ENDINGS) else _ndjson_rows
            for row in rows(path, source):
                number = row.number
                yield row
    except EOFError as error:
        raise SourceError(f"{path}: the gzip file ends early (after row {number}); copy it again") from error
    except csv.Error as error:
        raise SourceError(
            f"{path}: row {number + 1} cannot be read ({error}); is a quotation mark left open?"
        ) from error
    except (OSError, zlib.error) as error:
        raise SourceError(f"{path}: cannot be read after row {number}: {error}") from error


def check_path(path: Path) -> None:
    """Raises `SourceError` unless there is a file of a kind that we read."""
    if not path.is_file():
        raise SourceError(f"{path}: no such file; set NEWS_FILE_PATH")
    if not path.name.endswith(CSV_ENDINGS + NDJSON_ENDINGS):
        raise SourceError(f"{path}: of unknown kind; expected {', '.join(CSV_ENDINGS + NDJSON_ENDINGS)}")


class _Capped(io.RawIOBase):
    """The unpacked bytes of a file; more than allowed, or too many for their packed size, is an error."""

    def __init__(self, path: Path, packed: IO[bytes], max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._packed_bytes = path.stat().st_size
        self._is_gzip = path.name.endswith(".gz")
        self._source = cast(IO[bytes], gzip.GzipFile(fileobj=packed)) if self._is_gzip else packed
        self._read_bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._source.read(len(buffer))
        buffer[: len(data)] = data
        self._read_bytes += len(data)
        if self._read_bytes > self._max_bytes:
            raise SourceError(
                f"{self._path}: holds more than {self._max_bytes} bytes; split it, or raise "
                "NEWS_FILE_MAX_BYTES"
            )
        if (
            self._is_gzip
            and self._read_bytes > RATIO_FROM_BYTES
            and self._read_bytes > MAX_RATIO * self._packed_bytes
        ):
            raise SourceError(
                f"{self._path}: unpacks to more than {MAX_RATIO} times its size; this is no file of news"
            )
        return len(data)


def _csv_rows(path: Path, source: io.RawIOBase) -> Iterator[Row]:
    # Bytes that are no UTF-8 come through as such, so that their row alone is refused.
    text = io.TextIOWrapper(
        io.BufferedReader(source, 65_536), "utf-8-sig", errors="surrogateescape", newline=""
    )
    # The limit is the module's; nothing else here reads CSV.
    csv.field_size_limit(MAX_ROW_BYTES)
    reader = csv.reader(text)
    header = next(reader, None)
    if header is None:
        raise SourceError(f"{path}: is empty; expected a header with title and published")
    names = [name.strip() for name in header]
    yield Row(0, dict.fromkeys(names))
    for number, cells in enumerate(reader, start=1):
        if not cells:
            continue
        if len(cells) != len(names):
            raw = ",".join(cells).encode("utf-8", "surrogateescape")
            yield Row(number, None, raw, f"has {len(cells)} cells, but the header has {len(names)}")
        else:
            yield Row(number, dict(zip(names, cells, strict=True)))


def _ndjson_rows(path: Path, source: io.RawIOBase) -> Iterator[Row]:
    lines = io.BufferedReader(source, 65_536)
    number = 0
    while line := lines.readline(MAX_ROW_BYTES):
        number += 1
        if len(line) == MAX_ROW_BYTES and not line.endswith(b"\n"):
            raise SourceError(f"{path}:{number}: a line of more than {MAX_ROW_BYTES} bytes")
        line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        if not line.strip():
            continue
        try:
            cells = msgspec.json.decode(line, type=dict[str, Any])
        except msgspec.ValidationError:
            problem = 'is no JSON object; write {"title": …, "published": …}'
            yield Row(number, None, line.strip(), problem)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            yield Row(number, None, line.strip(), f"is no JSON ({error})")
        else:
            yield Row(number, cells)
