"""The downloaded files of pairs: which there are, and what one holds."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.common.errors import SourceError
from services.common.messages import MAX_CLOCK_SKEW_MS
from services.common.symbols import pair_of_stem
from services.common.text_files import PEEK_BYTES, Location, TextFile, locate
from services.trades.history.formats import KrakenParser, has_header, parser_for
from services.trades.sources.csv_file import CsvFile
from services.trades.sources.files import CSV_ENDINGS, Columns


@dataclass(slots=True)
class First:
    """The first trade of a file."""

    time_ms: int
    trade_id: int | None


class ArchiveFile(TextFile):
    """One file of one pair."""

    def __init__(self, location: Location, pair: str, now_ms: Callable[[], int]) -> None:
        super().__init__(location)
        self.pair = pair
        self.estimates_sides = False
        self._now_ms = now_ms

    def read(self, block_bytes: int | None = None) -> Iterator[Columns]:
        """Columns of trades in the file's order. Raises `SourceError` with file, line and remedy."""
        size = () if block_bytes is None else (block_bytes,)
        parser = None
        for line, text in self.texts(*size):
            if parser is None:
                head, _, rest = text.partition("\n")
                parser = parser_for(str(self.location), head, self.pair)
                if parser is None:
                    yield from self._recording(*size)
                    return
                self.estimates_sides = isinstance(parser, KrakenParser)
                if has_header(head):
                    text, line = rest, line + 1
            if text:
                by_pair, _ = parser.parse(text, line, self._now_ms() + MAX_CLOCK_SKEW_MS)
                yield from by_pair.values()

    def _recording(self, *size: int) -> Iterator[Columns]:
        file = CsvFile(self.location)
        for by_pair, _ in file.read(self.pair, self._now_ms, *size):
            self.read_bytes = file.read_bytes
            if by_pair.keys() - {self.pair}:
                raise SourceError(f"{self.location}: holds more than one pair; use TRADES_SOURCE=replay")
            yield from by_pair.values()

    def first(self) -> First | None:
        """The first trade, None when there is none."""
        for columns in ArchiveFile(self.location, self.pair, self._now_ms).read(PEEK_BYTES):
            return First(columns.times[0], None if columns.ids is None else columns.ids[0])
        return None


def archive_files(
    path: Path, pairs: Sequence[str], now_ms: Callable[[], int]
) -> dict[str, list[ArchiveFile]]:
    """The files under `path` by pair; `pairs` chooses. Raises `SourceError` when a pair has none."""
    locations = locate(path, CSV_ENDINGS)
    found: dict[str, list[ArchiveFile]] = {}
    # Whoever names one file and one pair knows what is in it, unless its name says otherwise.
    alone = path.is_file() and len(locations) == 1 and len(pairs) == 1
    for location in locations:
        pair = pair_of_stem(location.stem, pairs)
        if pair is None and alone:
            pair = pairs[0]
            if (named := pair_of_stem(location.stem, ())) is not None:
                raise SourceError(
                    f"{location}: is of {named} by its name, and {pair} is asked for; ask for {named}, or "
                    "rename the file if its name is wrong"
                )
        if pair is not None:
            found.setdefault(pair, []).append(ArchiveFile(location, pair, now_ms))
    lacking = [pair for pair in pairs if pair not in found]
    if lacking or not found:
        names = ", ".join(location.name for location in locations[:5]) + (" …" if len(locations) > 5 else "")
        what = f"no file of {', '.join(lacking)}" if lacking else "no file whose name says its pair"
        raise SourceError(
            f"{path}: {what}; there are {names}. Names like XBTUSD.csv or BTC-USD.csv are known"
        )
    return {pair: found[pair] for pair in pairs} if pairs else dict(sorted(found.items()))
