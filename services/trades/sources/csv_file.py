"""CSV recordings: ``time_ms,side,price,quantity`` and optionally ``trade_id`` and ``pair``."""

from collections.abc import Callable, Iterator

from services.common.errors import SourceError
from services.common.messages import MAX_CLOCK_SKEW_MS
from services.common.text_files import BLOCK_BYTES, TextFile
from services.trades.sources.csv_parser import Layout, Parser
from services.trades.sources.files import Block

REQUIRED = ("time_ms", "side", "price", "quantity")
OPTIONAL = ("trade_id", "pair")


class CsvFile(TextFile):
    """One CSV recording; `pair` is that of a file without a pair column."""

    def read(
        self, pair: str | None, now_ms: Callable[[], int], block_bytes: int = BLOCK_BYTES
    ) -> Iterator[Block]:
        """Blocks of trades in the file's order. Raises `SourceError` with file, line and remedy."""
        parser: Parser | None = None
        for line, text in self.texts(block_bytes):
            if parser is None:
                head, _, text = text.partition("\n")
                parser = Parser(str(self.location), self._layout(head, pair), pair)
                line += 1
            if text:
                yield parser.parse(text, line, now_ms() + MAX_CLOCK_SKEW_MS)
        if parser is None:
            raise SourceError(f"{self.location}: is empty; expected a header {','.join(REQUIRED)}")

    def first_ms(self, pair: str | None, now_ms: Callable[[], int]) -> int | None:
        """Time of the first trade, None when there is none."""
        for by_pair, _ in CsvFile(self.location).read(pair, now_ms, 4096):
            for columns in by_pair.values():
                return min(columns.times[0] for columns in by_pair.values() if columns.times)
        return None

    def _layout(self, header: str, pair: str | None) -> Layout:
        names = [name.strip().strip('"').lower() for name in header.split(",")]
        missing = [name for name in REQUIRED if name not in names]
        if missing:
            raise SourceError(
                f"{self.location}:1: no column {', '.join(missing)}; the header must name "
                f"{','.join(REQUIRED)} and may name {','.join(OPTIONAL)}"
            )
        time, side, price, quantity = (names.index(name) for name in REQUIRED)
        trade_id, pair_column = (names.index(name) if name in names else None for name in OPTIONAL)
        if pair_column is None and pair is None:
            raise SourceError(
                f"{self.location}: which pair is this? set TRADES_PAIRS to one pair, name the file like "
                "BTC-USD.csv, or add a column pair"
            )
        return Layout(len(names), time, price, quantity, side, trade_id, pair_column)
