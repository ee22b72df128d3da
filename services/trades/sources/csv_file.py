"""CSV recordings: ``time_ms,side,price,quantity`` and optionally ``trade_id`` and ``pair``.

Whole columns are converted and checked at once; only when a check fails are the block's rows read one
by one, to find the line to complain about or to accept an unusual but right notation.
"""

import csv
import re
from collections.abc import Callable, Iterator
from math import isfinite
from operator import itemgetter

from services.common.errors import SourceError
from services.common.messages import MAX_CLOCK_SKEW_MS, MAX_TIME_MS, PAIR_PATTERN
from services.trades.exchanges.contract import MAX_TRADE_ID
from services.trades.sources.files import BLOCK_BYTES, Block, Columns, TextFile

REQUIRED = ("time_ms", "side", "price", "quantity")
OPTIONAL = ("trade_id", "pair")
# In 1973 nobody traded crypto: a smaller number is in seconds.
MIN_TIME_MS = 100_000_000_000
_FILE_PAIR = re.compile(r"^([A-Z0-9]{1,20})-([A-Z0-9]{1,20})(?![A-Za-z0-9])")
_PAIR = re.compile(PAIR_PATTERN)
_SIDES = {"buy", "sell"}


def pair_of_name(name: str) -> str | None:
    """``BTC-USD-2024.csv`` is of BTC/USD."""
    match = _FILE_PAIR.match(name)
    return f"{match[1]}/{match[2]}" if match else None


class CsvFile(TextFile):
    """One CSV recording; `pair` is that of a file without a pair column."""

    def read(
        self, pair: str | None, now_ms: Callable[[], int], block_bytes: int = BLOCK_BYTES
    ) -> Iterator[Block]:
        """Blocks of trades in the file's order. Raises `SourceError` with file, line and remedy."""
        parser: _Parser | None = None
        for line, block in self.blocks(block_bytes):
            try:
                text = block.decode("utf-8-sig" if line == 1 else "utf-8")
            except UnicodeDecodeError as error:
                bad = line + block[: error.start].count(b"\n")
                raise SourceError(f"{self.path}:{bad}: no UTF-8 text; is this a CSV file?") from error
            if "\r" in text:
                text = text.replace("\r\n", "\n")
            if parser is None:
                head, _, text = text.partition("\n")
                parser = _Parser(str(self.path), head, pair)
                line += 1
            if text:
                yield parser.parse(text, line, now_ms() + MAX_CLOCK_SKEW_MS)
        if parser is None:
            raise SourceError(f"{self.path}: is empty; expected a header {','.join(REQUIRED)}")

    def first_ms(self, pair: str | None, now_ms: Callable[[], int]) -> int | None:
        """Time of the first trade, None when there is none."""
        for by_pair, _ in CsvFile(self.path).read(pair, now_ms, 4096):
            for columns in by_pair.values():
                return min(columns.times[0] for columns in by_pair.values() if columns.times)
        return None


class _Parser:
    def __init__(self, path: str, header: str, pair: str | None) -> None:
        self._path = path
        self._pair = pair
        names = [name.strip().strip('"').lower() for name in header.split(",")]
        missing = [name for name in REQUIRED if name not in names]
        if missing:
            raise SourceError(
                f"{path}:1: no column {', '.join(missing)}; the header must name "
                f"{','.join(REQUIRED)} and may name {','.join(OPTIONAL)}"
            )
        self._width = len(names)
        self._time, self._side, self._price, self._quantity = (names.index(name) for name in REQUIRED)
        self._id, self._pair_column = (names.index(name) if name in names else None for name in OPTIONAL)
        if self._pair_column is None and pair is None:
            raise SourceError(
                f"{path}: which pair is this? set TRADES_PAIRS to one pair, name the file like "
                "BTC-USD.csv, or add a column pair"
            )
        self._last_ms = 0
        self._known_pairs: set[str] = set()

    def parse(self, text: str, line: int, latest_ms: int) -> Block:
        cells = text[:-1].replace("\n", ",").split(",")
        width = self._width
        # int() and float() read 1_000; nobody else does.
        if len(cells) != width * text.count("\n") or "_" in text:
            return self._slow(text, line, latest_ms)
        try:
            times = list(map(int, cells[self._time :: width]))
            prices = list(map(float, cells[self._price :: width]))
            quantities = list(map(float, cells[self._quantity :: width]))
            ids = None if self._id is None else list(map(int, cells[self._id :: width]))
        except ValueError:
            return self._slow(text, line, latest_ms)
        sides = cells[self._side :: width]
        pairs = None if self._pair_column is None else cells[self._pair_column :: width]
        # A sum is finite only when every summand is.
        ok = (
            set(sides) <= _SIDES
            and min(prices) > 0
            and min(quantities) > 0
            and isfinite(sum(prices))
            and isfinite(sum(quantities))
            and times[0] >= self._last_ms
            and times[0] >= MIN_TIME_MS
            and times[-1] <= min(latest_ms, MAX_TIME_MS)
            and times == sorted(times)
            and (ids is None or (min(ids) >= 0 and max(ids) <= MAX_TRADE_ID))
            and (pairs is None or self._are_pairs(set(pairs)))
        )
        if not ok:
            return self._slow(text, line, latest_ms)
        return self._finish(pairs, ids, sides, prices, quantities, times)

    def _are_pairs(self, pairs: set[str]) -> bool:
        new = pairs - self._known_pairs
        if not all(_PAIR.match(pair) for pair in new):
            return False
        self._known_pairs |= new
        return True

    def _finish(
        self,
        pairs: list[str] | None,
        ids: list[int] | None,
        sides: list[str],
        prices: list[float],
        quantities: list[float],
        times: list[int],
    ) -> Block:
        self._last_ms = times[-1]
        if pairs is None or pairs.count(pairs[0]) == len(pairs):
            pair = self._pair if pairs is None else pairs[0]
            assert pair is not None
            return {pair: Columns(ids, sides, prices, quantities, times, times)}, times[-1]
        rows_of: dict[str, list[int]] = {}
        for row, pair in enumerate(pairs):
            rows_of.setdefault(pair, []).append(row)
        by_pair: dict[str, Columns] = {}
        for pair, rows in rows_of.items():
            # With one index itemgetter gives the item itself, so that one is repeated and cut.
            pick = itemgetter(*rows) if len(rows) > 1 else itemgetter(rows[0], rows[0])
            count = len(rows)
            events = list(pick(times))[:count]
            by_pair[pair] = Columns(
                None if ids is None else list(pick(ids))[:count],
                list(pick(sides))[:count],
                list(pick(prices))[:count],
                list(pick(quantities))[:count],
                events,
                events,
            )
        return by_pair, times[-1]

    def _slow(self, text: str, line: int, latest_ms: int) -> Block:
        pairs: list[str] = []
        ids: list[int] = []
        sides: list[str] = []
        prices: list[float] = []
        quantities: list[float] = []
        times: list[int] = []
        last_ms = self._last_ms
        for number, cells in enumerate(csv.reader(text.splitlines()), start=line):
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != self._width:
                raise self._refusal(
                    number, f"{len(cells)} fields instead of {self._width}", "repair the line"
                )
            time_ms = self._integer(cells[self._time], number, "time_ms")
            if 0 < time_ms < MIN_TIME_MS:
                raise self._refusal(number, f"time_ms {time_ms}", "write milliseconds, not seconds")
            if time_ms <= 0 or time_ms > min(latest_ms, MAX_TIME_MS):
                raise self._refusal(
                    number, f"time_ms {time_ms} lies in the future or before 1970", "repair it"
                )
            if time_ms < last_ms:
                raise self._refusal(number, f"time_ms {time_ms} after {last_ms}", "sort the file by time_ms")
            last_ms = time_ms
            side = cells[self._side].strip().lower()
            if side not in _SIDES:
                raise self._refusal(number, f"side {side[:20]!r}", "write buy or sell, the taker's side")
            times.append(time_ms)
            sides.append(side)
            prices.append(self._positive(cells[self._price], number, "price"))
            quantities.append(self._positive(cells[self._quantity], number, "quantity"))
            if self._id is not None:
                trade_id = self._integer(cells[self._id], number, "trade_id")
                if not 0 <= trade_id <= MAX_TRADE_ID:
                    raise self._refusal(number, f"trade_id {trade_id}", "write the exchange's own number")
                ids.append(trade_id)
            if self._pair_column is not None:
                pair = cells[self._pair_column].strip()
                if not _PAIR.match(pair):
                    raise self._refusal(number, f"pair {pair[:40]!r}", "write it like BTC/USD")
                pairs.append(pair)
        if not times:
            return {}, self._last_ms
        return self._finish(
            pairs if self._pair_column is not None else None,
            ids if self._id is not None else None,
            sides,
            prices,
            quantities,
            times,
        )

    def _integer(self, text: str, line: int, name: str) -> int:
        if re.fullmatch(r"\s*\d{1,19}\s*", text, re.ASCII):
            return int(text)
        raise self._refusal(line, f"{name} {text[:40]!r}", "write a whole number")

    def _positive(self, text: str, line: int, name: str) -> float:
        if re.fullmatch(r"\s*\+?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?\s*", text, re.ASCII):
            value = float(text)
            if value > 0 and isfinite(value):
                return value
        raise self._refusal(line, f"{name} {text[:40]!r}", "write a number greater than 0")

    def _refusal(self, line: int, what: str, remedy: str) -> SourceError:
        return SourceError(f"{self._path}:{line}: {what}; {remedy}")
