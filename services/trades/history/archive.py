"""The downloaded files of one pair as one run of trades."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.common.errors import SourceError
from services.common.history_report import Missing, time_text
from services.common.messages import MAX_CLOCK_SKEW_MS, Trade
from services.common.symbols import pair_of_stem
from services.common.text_files import Location, TextFile, locate
from services.trades.history.formats import KrakenParser, complete_until_ms, has_header, parser_for
from services.trades.sources.csv_file import CsvFile
from services.trades.sources.files import CSV_ENDINGS, Columns, to_trades
from services.trades.sources.timeline import Numbering

#: A pair may not trade for this long without its files being taken for incomplete.
QUIET_MS = 24 * 3_600_000
PEEK_BYTES = 4_096
TICK_RULE = (
    "the files of {} do not say who took: a trade above the last price counts as bought, one below as sold "
    "(tick rule), so buy_volume and flow_imbalance are estimates"
)
HOLE = "the files lack them"
ENDS = "the files end here"
BEGINS = "the files of {} begin at {} only; before that nothing is known of it"
NONE_ASKED = "{}: no trades of {} in the asked time; the files hold {} to {}"
#: From here on a quiet end is worth a note.
NOTED_QUIET_MS = 3_600_000
QUIET = "the files of {} end at {}; until {} it is taken for quiet"
OPEN = "the candles of {} end with its last trade at {}; say TRADES_UNTIL if its files are complete beyond"


@dataclass(slots=True)
class _First:
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

    def first(self) -> _First | None:
        """The first trade, None when there is none."""
        for columns in ArchiveFile(self.location, self.pair, self._now_ms).read(PEEK_BYTES):
            return _First(columns.times[0], None if columns.ids is None else columns.ids[0])
        return None


class PairArchive:
    """All files of one pair, the earliest first. Raises `SourceError` when they do not fit together."""

    def __init__(
        self, exchange: str, pair: str, files: Sequence[ArchiveFile], since_ms: int, until_ms: int | None
    ) -> None:
        self.pair = pair
        self._exchange = exchange
        self._since_ms = since_ms
        self._until_ms = until_ms
        firsts = [(first, file) for file in files if (first := file.first()) is not None]
        if not firsts:
            raise SourceError(f"{', '.join(str(file.location) for file in files)}: no trades of {pair}")
        if len({first.trade_id is None for first, _ in firsts}) > 1:
            raise SourceError(f"{pair}: some files have trade ids and some have not; keep one kind")
        firsts.sort(key=lambda item: (item[0].time_ms, item[0].trade_id or 0))
        self.first_ms = firsts[0][0].time_ms
        self._has_ids = firsts[0][0].trade_id is not None
        self._files = [file for _, file in firsts]
        self._last_id: int | None = None
        self._last_ms = 0
        #: What turned out to be missing, to be taken from here.
        self.missing: list[Missing] = []
        self.notes: list[str] = []
        if since_ms and self.first_ms - since_ms > QUIET_MS:
            self.notes.append(BEGINS.format(pair, time_text(self.first_ms)))

    @property
    def share(self) -> float:
        """How much of the files was read."""
        return sum(file.read_bytes for file in self._files) / max(1, sum(f.total_bytes for f in self._files))

    @property
    def estimates_sides(self) -> bool:
        """Whether the takers' sides are not in the files."""
        return any(file.estimates_sides for file in self._files)

    def batches(self, now_ms: Callable[[], int], batch_rows: int) -> Iterator[list[Trade]]:
        """Trades of the asked range by id, `batch_rows` at a time. Raises `SourceError`."""
        waiting: list[Trade] = []
        for columns in self._columns():
            waiting += to_trades(self._exchange, self.pair, columns, now_ms())
            begin = 0
            while len(waiting) - begin >= batch_rows:
                yield waiting[begin : begin + batch_rows]
                begin += batch_rows
            del waiting[:begin]
        if waiting:
            yield waiting

    def _columns(self) -> Iterator[Columns]:
        numbering = Numbering({})
        for file in self._files:
            begins = True
            for columns in file.read():
                if begins and not self._has_ids and self._last_ms:
                    self._check_seam(file, columns.times[0])
                begins = False
                self._last_ms = max(self._last_ms, columns.times[-1])
                if self._until_ms is not None and columns.times[0] >= self._until_ms:
                    return
                numbered = numbering.number(self.pair, [columns])
                wanted = self._within(numbered)
                if wanted.times:
                    self._note_holes(wanted)
                    yield wanted

    def _check_seam(self, file: ArchiveFile, first_ms: int) -> None:
        """Does a file without ids begin where the one before it ended?"""
        if first_ms < self._last_ms:
            raise SourceError(
                f"{file.location}: begins before the file ahead of it ends; without trade ids it "
                "cannot be told which trades are the same: keep only one of them"
            )
        if first_ms - self._last_ms > QUIET_MS and first_ms > self._since_ms:
            self.missing.append(Missing(HOLE, from_ms=self._last_ms, until_ms=first_ms))

    def _within(self, columns: Columns) -> Columns:
        """The rows of the asked range."""
        times = columns.times
        begin = 0 if not times or times[0] >= self._since_ms else bisect_left(times, self._since_ms)
        until_ms = self._until_ms
        end = None if until_ms is None or not times or times[-1] < until_ms else bisect_left(times, until_ms)
        return columns if begin == 0 and end is None else columns.part(begin, end)

    def _note_holes(self, columns: Columns) -> None:
        ids, last = columns.ids, self._last_id
        assert ids is not None
        self._last_id = ids[-1]
        if not self._has_ids:
            return
        if (last is None or ids[0] == last + 1) and ids[-1] - ids[0] == len(ids) - 1:
            return
        for trade_id in ids:
            if last is not None and trade_id != last + 1:
                self.missing.append(Missing(HOLE, last + 1, trade_id - 1))
            last = trade_id

    def end_ms(self, now_ms: int) -> int:
        """Up to when the pair's history is complete, once it has been read."""
        said = complete_until_ms(self._files[-1].location.stem)
        known_ms = min(max(self._last_ms, said or 0), now_ms)
        until_ms = known_ms if self._until_ms is None else min(self._until_ms, now_ms)
        if said is None and self._until_ms is None:
            self.notes.append(OPEN.format(self.pair, time_text(known_ms)))
        if until_ms <= known_ms:
            return until_ms
        # A name that says where its file ends leaves nothing to believe.
        if said is None and until_ms - known_ms <= QUIET_MS:
            if until_ms - known_ms > NOTED_QUIET_MS:
                self.notes.append(QUIET.format(self.pair, time_text(known_ms), time_text(until_ms)))
            return until_ms
        self.missing.append(Missing(ENDS, from_ms=known_ms, until_ms=until_ms))
        return known_ms

    def check_any(self) -> None:
        """Raise `SourceError` when, read to the end, nothing lay in the asked time."""
        if self._last_id is None:
            held = time_text(self.first_ms), time_text(self._last_ms)
            raise SourceError(NONE_ASKED.format(self._files[0].location, self.pair, *held))


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
