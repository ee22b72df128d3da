"""The files of trades that exchanges offer for download: which one is this, and how is it read. Pure.

- Kraken ("Downloadable historical market data"): ``XBTUSD.csv`` with ``unix seconds,price,volume``. No
  header, no ids, no sides; identical rows are distinct trades.
- Binance (data.binance.vision): ``BTCUSDT-trades-2024-01.csv`` with ``id,price,qty,quoteQty,time,
  isBuyerMaker,isBestMatch``. Times are milliseconds, from 2025 on microseconds.
- Our own recordings: ``time_ms,side,price,quantity`` with a header, see `services.trades.sources.csv_file`.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime

from services.common.errors import SourceError
from services.common.messages import MAX_TIME_MS
from services.common.timeframes import next_ms
from services.trades.sources.csv_parser import Layout, Parser

_KRAKEN = Layout(width=3, time=0, price=1, quantity=2)
_BINANCE = Layout(width=7, time=4, price=1, quantity=2, side=5, trade_id=0)
#: Its files have none; people who cut them up in a spreadsheet give them one.
_KRAKEN_HEADERS = {(time, "price", "volume") for time in ("time", "timestamp", "unixtime")}
_BOOLS = {"true", "false"}
_PERIOD = re.compile(r"-(\d{4})-(\d{2})(?:-(\d{2}))?$")
#: From here on a number of milliseconds is one of microseconds.
_MICROSECONDS_FROM = 100_000_000_000_000


class KrakenParser(Parser):
    """Takers' sides are estimated by the tick rule (Lee and Ready 1991): up is bought, down is sold."""

    def __init__(self, name: str, pair: str) -> None:
        super().__init__(name, _KRAKEN, pair)
        self._last_price = 0.0
        self._last_side = "buy"

    def _to_times(self, cells: Sequence[str]) -> list[int]:
        # Half a microsecond more, so that what a double cannot hold does not cost a millisecond.
        return [int(seconds * 1000 + 0.0005) for seconds in map(float, cells)]

    def _to_sides(self, cells: Sequence[str], prices: Sequence[float]) -> Sequence[str]:  # noqa: ARG002
        last, side = self._last_price, self._last_side
        sides = []
        for price in prices:
            if price > last:
                side = "buy"
            elif price < last:
                side = "sell"
            last = price
            sides.append(side)
        self._last_price, self._last_side = last, side
        return sides

    def _time_of(self, text: str, line: int) -> int:
        if not re.fullmatch(r"\s*\d{1,19}(\.\d{1,19})?\s*", text, re.ASCII):
            raise self._refusal(line, f"time {text[:40]!r}", "write unix seconds")
        seconds = float(text)
        if seconds * 1000 > MAX_TIME_MS:
            raise self._refusal(line, f"time {text.strip()[:40]}", "write seconds, not milliseconds")
        return int(seconds * 1000 + 0.0005)


class BinanceParser(Parser):
    """`isBuyerMaker` says that the taker sold."""

    def __init__(self, name: str, pair: str) -> None:
        super().__init__(name, _BINANCE, pair)

    def _to_times(self, cells: Sequence[str]) -> list[int]:
        times = list(map(int, cells))
        if max(times) < _MICROSECONDS_FROM:
            return times
        return [time // 1000 if time >= _MICROSECONDS_FROM else time for time in times]

    def _to_sides(self, cells: Sequence[str], prices: Sequence[float]) -> Sequence[str] | None:  # noqa: ARG002
        if not set(cells) <= {"True", "False"}:
            return None
        return ["sell" if cell == "True" else "buy" for cell in cells]

    def _time_of(self, text: str, line: int) -> int:
        time = self._integer(text, line, "time")
        return time // 1000 if time >= _MICROSECONDS_FROM else time

    def _side_of(self, text: str, line: int) -> str:
        cell = text.strip().lower()
        if cell not in _BOOLS:
            raise self._refusal(line, f"isBuyerMaker {text[:20]!r}", "write True or False")
        return "sell" if cell == "true" else "buy"


def parser_for(name: str, head: str, pair: str) -> Parser | None:
    """The parser of a file that begins with the line `head`; None for a recording of our own.

    Raises `SourceError` when the file holds something else than trades.
    """
    cells = [cell.strip().strip('"').lower() for cell in head.split(",")]
    if "time_ms" in cells:
        return None
    if _is_binance(cells):
        return BinanceParser(name, pair)
    if len(cells) == 3 and (not has_header(head) or tuple(cells) in _KRAKEN_HEADERS):
        return KrakenParser(name, pair)
    raise SourceError(f"{name}:1: {_what(cells)}")


def exchange_of(head: str) -> str | None:
    """The exchange whose file begins with the line `head`, None where its format does not say."""
    return "binance" if _is_binance([cell.strip().lower() for cell in head.split(",")]) else None


def _is_binance(cells: Sequence[str]) -> bool:
    return len(cells) == 7 and (cells[5] in _BOOLS or cells[5].replace("_", "") == "isbuyermaker")


def has_header(head: str) -> bool:
    """Whether the first line of an exchange's file names its columns."""
    return not re.match(r"\s*\"?[\d.]", head)


def _what(cells: Sequence[str]) -> str:
    if len(cells) == 8 and cells[6] in _BOOLS:
        return "aggTrades merge trades and number them otherwise; download the files called trades"
    if len(cells) == 12:
        return "these are candles of Binance (klines); download the files called trades"
    if len(cells) == 7:
        return (
            "these look like candles (OHLCVT of Kraken), which are read by CANDLES_SOURCE=archive, and not "
            "together with trades; make backfill chooses by itself"
        )
    return (
        f"{len(cells)} columns, of no known kind; expected Kraken's time,price,volume, Binance's trades, or "
        "a header time_ms,side,price,quantity"
    )


def period_of(stem: str) -> tuple[int, int] | None:
    """Beginning and end of the day or month that a file holds by its name; None where that does not say."""
    match = _PERIOD.search(stem)
    if match is None:
        return None
    try:
        begin = datetime(int(match[1]), int(match[2]), int(match[3] or 1), tzinfo=UTC)
    except ValueError:
        return None
    begin_ms = int(begin.timestamp() * 1000)
    return begin_ms, next_ms(begin_ms, "1d" if match[3] else "1M")
