"""CSV rows of trades as columns. Pure.

Whole columns are converted and checked at once; only when a check fails are the block's rows read one
by one, to find the line to complain about or to accept an unusual but right notation.
"""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from math import isfinite
from operator import itemgetter

from services.common.errors import SourceError
from services.common.messages import MAX_TIME_MS, PAIR_PATTERN
from services.trades.exchanges.contract import MAX_TRADE_ID
from services.trades.sources.files import Block, Columns

# In 1973 nobody traded crypto: a smaller number is in another unit.
MIN_TIME_MS = 100_000_000_000
_PAIR = re.compile(PAIR_PATTERN)
_SIDES = {"buy", "sell"}


@dataclass(frozen=True, slots=True)
class Layout:
    """Positions of the columns in rows of `width` cells; None for one that is not there."""

    width: int
    time: int
    price: int
    quantity: int
    side: int | None = None
    trade_id: int | None = None
    pair: int | None = None


class Parser:
    """Reads blocks of one file; a subclass says how its format writes times and sides.

    `name` is of the file, for errors; `pair` that of a file without a pair column.
    """

    #: What to tell somebody whose times are in another unit.
    time_remedy = "write milliseconds, not seconds"

    def __init__(self, name: str, layout: Layout, pair: str | None) -> None:
        self._name = name
        self._layout = layout
        self._pair = pair
        self._last_ms = 0
        self._known_pairs: set[str] = set()

    # --- what formats differ in ---

    def _to_times(self, cells: Sequence[str]) -> list[int]:
        """Epoch ms. Raises `ValueError`."""
        return list(map(int, cells))

    def _to_sides(self, cells: Sequence[str], prices: Sequence[float]) -> Sequence[str] | None:  # noqa: ARG002
        """``buy`` or ``sell`` of each row; None when they have to be looked at one by one."""
        return cells if set(cells) <= _SIDES else None

    def _time_of(self, text: str, line: int) -> int:
        """Epoch ms of one cell. Raises `SourceError`."""
        return self._integer(text, line, "time_ms")

    def _side_of(self, text: str, line: int) -> str:
        """The side that one cell says. Raises `SourceError`."""
        side = text.strip().lower()
        if side not in _SIDES:
            raise self._refusal(line, f"side {side[:20]!r}", "write buy or sell, the taker's side")
        return side

    # --- what they share ---

    def parse(self, text: str, line: int, latest_ms: int) -> Block:
        """Trades of whole lines, the first one of which is `line`. Raises `SourceError`."""
        cells = text[:-1].replace("\n", ",").split(",")
        at, width = self._layout, self._layout.width
        # int() and float() read 1_000; nobody else does.
        if len(cells) != width * text.count("\n") or "_" in text:
            return self._slow(text, line, latest_ms)
        try:
            times = self._to_times(cells[at.time :: width])
            prices = list(map(float, cells[at.price :: width]))
            quantities = list(map(float, cells[at.quantity :: width]))
            ids = None if at.trade_id is None else list(map(int, cells[at.trade_id :: width]))
        except (ValueError, OverflowError):
            return self._slow(text, line, latest_ms)
        pairs = None if at.pair is None else cells[at.pair :: width]
        # A sum is finite only when every summand is.
        ok = (
            min(prices) > 0
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
        sides = self._to_sides([] if at.side is None else cells[at.side :: width], prices) if ok else None
        if sides is None:
            return self._slow(text, line, latest_ms)
        return self._finish(pairs, ids, list(sides), prices, quantities, times)

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
        at = self._layout
        pairs: list[str] = []
        ids: list[int] = []
        sides: list[str] = []
        prices: list[float] = []
        quantities: list[float] = []
        times: list[int] = []
        last_ms = self._last_ms
        for number, cells in self._rows(text, line):
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != at.width:
                raise self._refusal(number, f"{len(cells)} fields instead of {at.width}", "repair the line")
            last_ms = self._check_time(self._time_of(cells[at.time], number), last_ms, latest_ms, number)
            times.append(last_ms)
            if at.side is not None:
                sides.append(self._side_of(cells[at.side], number))
            prices.append(self._positive(cells[at.price], number, "price"))
            quantities.append(self._positive(cells[at.quantity], number, "quantity"))
            if at.trade_id is not None:
                trade_id = self._integer(cells[at.trade_id], number, "trade_id")
                if not 0 <= trade_id <= MAX_TRADE_ID:
                    raise self._refusal(number, f"trade_id {trade_id}", "write the exchange's own number")
                ids.append(trade_id)
            if at.pair is not None:
                pair = cells[at.pair].strip()
                if not _PAIR.match(pair):
                    raise self._refusal(number, f"pair {pair[:40]!r}", "write it like BTC/USD")
                pairs.append(pair)
        if not times:
            return {}, self._last_ms
        if at.side is None:
            sides = list(self._to_sides([], prices) or ())
        return self._finish(
            pairs if at.pair is not None else None,
            ids if at.trade_id is not None else None,
            sides,
            prices,
            quantities,
            times,
        )

    def _rows(self, text: str, line: int) -> Iterator[tuple[int, list[str]]]:
        rows = csv.reader(text.splitlines())
        for number in count(line):
            try:
                yield number, next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                raise self._refusal(number, str(error), "repair the line") from error

    def _check_time(self, time_ms: int, last_ms: int, latest_ms: int, line: int) -> int:
        if 0 < time_ms < MIN_TIME_MS:
            raise self._refusal(line, f"time_ms {time_ms}", self.time_remedy)
        if time_ms <= 0 or time_ms > min(latest_ms, MAX_TIME_MS):
            raise self._refusal(line, f"time_ms {time_ms} lies in the future or before 1970", "repair it")
        if time_ms < last_ms:
            raise self._refusal(line, f"time_ms {time_ms} after {last_ms}", "sort the file by time_ms")
        return time_ms

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
        return SourceError(f"{self._name}:{line}: {what}; {remedy}")
