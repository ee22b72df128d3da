"""Candles of one series in, the same candles with indicators out, whatever the batching. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from services.common.columns import INDICATOR_NAMES
from services.common.errors import ContractError
from services.common.messages import TaRow
from services.ta.history import (
    BLOCK,
    COLUMNS,
    INTEGERS,
    WARM,
    WINDOW_BLOCK,
    WINDOW_WARM,
    Array,
    History,
)
from services.ta.indicators import INPUTS, OBV, POSITION, Indicator, compute

_WIDTH = len(INDICATOR_NAMES)
#: Columns of the history that a row repeats, in the order of the contract.
_CARRIED = tuple(name for name in COLUMNS if name not in ("obv", "revision"))


@dataclass(slots=True)
class Computed:
    """What a batch brought about: rows to send, and rows (index in the batch) that are refused."""

    rows: list[Any] = field(default_factory=list)
    refused: list[tuple[int, ContractError]] = field(default_factory=list)
    duplicates: int = 0
    corrections: int = 0
    gaps: int = 0


class Engine:
    """Computes the chosen indicators over histories."""

    def __init__(self, indicators: tuple[Indicator, ...]) -> None:
        self._with_obv = OBV in indicators
        recursive = tuple(i for i in indicators if i.recursive)
        windowed = tuple(i for i in indicators if not i.recursive and i is not OBV)
        #: Indicators, how many candles they see before a block, and how long a block is.
        self._passes = ((recursive, WARM, BLOCK), (windowed, WINDOW_WARM, WINDOW_BLOCK))

    def apply(self, history: History, candles: Sequence[Any]) -> Computed:
        """Add the candles of one series, in the order in which they came, to its history.

        A candle that is known already is ignored; one with a later revision replaces it, and its row
        and all later ones are computed again. An open candle is computed and not kept.
        """
        done = Computed()
        if not candles:
            return done
        labels = (candles[0].exchange, candles[0].pair, candles[0].timeframe)
        newest = int(history.column("end_ms", history.count - 1, history.count)[0]) if history.count else 0
        run: list[Any] = []
        for index, candle in enumerate(candles):
            if candle.closed and candle.start_ms >= newest:
                done.gaps += newest not in (0, candle.start_ms)
                run.append(candle)
                newest = candle.end_ms
                continue
            self._append(history, run, labels, done)
            run = []
            if candle.closed:
                self._correct(history, index, candle, labels, done)
            elif candle.start_ms >= newest:
                self._provisional(history, candle, labels, done)
            # An open candle older than the newest closed one says nothing any more.
        self._append(history, run, labels, done)
        return done

    def _append(self, history: History, run: list[Any], labels: Any, done: Computed) -> None:
        for begin in range(0, len(run), BLOCK):
            rows = _to_rows(run[begin : begin + BLOCK])
            first = history.count
            history.append(rows)
            done.rows += self._rows(history, first, history.count, labels)

    def _correct(self, history: History, index: int, candle: Any, labels: Any, done: Computed) -> None:
        place = history.find(candle.start_ms)
        if place is None or _window_start(place) < history.first:
            error = ContractError("too_old", f"no history for a candle at {candle.start_ms}")
            done.refused.append((index, error))
            return
        if candle.revision <= history.column("revision", place, place + 1)[0]:
            done.duplicates += 1
            return
        history.replace(place, _to_rows([candle])[0])
        done.corrections += 1
        done.rows += self._rows(history, place, history.count, labels)

    def _provisional(self, history: History, candle: Any, labels: Any, done: Computed) -> None:
        history.append(_to_rows([candle]))
        rows = self._rows(history, history.count - 1, history.count, labels)
        history.drop_last()
        done.rows += [msgspec.structs.replace(row, closed=False) for row in rows]

    def _rows(self, history: History, begin: int, end: int, labels: Any) -> list[Any]:
        """Rows of the candles `begin` … `end` - 1."""
        values = np.full((_WIDTH, end - begin), np.nan)
        for indicators, warm, block in self._passes:
            at = begin
            while at < end:
                stop = min(end, (at // block + 1) * block)
                window = max(0, at // block * block - warm)
                columns = {name: history.column(name, window, stop) for name in INPUTS}
                compute(indicators, columns, values[:, at - begin : stop - begin])
                at = stop
        obv = _continue_obv(history, begin, end)
        if self._with_obv:
            values[POSITION["obv"]] = obv
        return _build(history, values.T, begin, end, labels)


def _window_start(index: int) -> int:
    """Where the longest arrays begin that the candle `index` is computed over."""
    return max(0, index // BLOCK * BLOCK - WARM)


def _continue_obv(history: History, begin: int, end: int) -> Array:
    """On-balance volume of the candles `begin` … `end` - 1, kept in the history.

    TA-Lib begins with the first volume; with the total so far in its place it goes on from there.
    """
    start = max(0, begin - 1)
    volume = history.column("volume", start, end).copy()
    if begin:
        volume[0] = history.column("obv", start, begin)[0]
    obv: Array = OBV.function(history.column("close", start, end), volume)[begin - start :]
    history.column("obv", begin, end)[:] = obv
    history.touch(begin)
    return obv


def _build(history: History, values: Array, begin: int, stop: int, labels: Any) -> list[Any]:
    missing = np.isnan(values)
    if missing.any():
        # Null until warm: a 0 in place of an undefined value poisons a model.
        boxed = values.astype(object)
        boxed[missing] = None
        indicators = boxed.tolist()
    else:
        indicators = values.tolist()
    columns: dict[str, list[Any]] = {}
    for name in COLUMNS:
        column = history.column(name, begin, stop)
        columns[name] = column.astype(np.int64).tolist() if name in INTEGERS else column.tolist()
    counts = columns["trade_count"]
    columns["vwap"] = [v if n else None for v, n in zip(columns["vwap"], counts, strict=True)]
    carried = zip(*(columns[name] for name in _CARRIED), strict=True)
    return [
        TaRow(*labels, *candle, True, revision, *row)
        for candle, revision, row in zip(carried, columns["revision"], indicators, strict=True)
    ]


def _to_rows(candles: Sequence[Any]) -> Array:
    """Candles as an array of shape (n, len(COLUMNS)); a missing vwap is NaN."""
    return np.array(
        [
            (
                c.start_ms, c.end_ms, c.open, c.high, c.low, c.close, c.volume,
                np.nan if c.vwap is None else c.vwap, c.buy_volume, c.trade_count, c.revision, 0.0,
            )
            for c in candles
        ],
        dtype=np.float64,
    )  # fmt: skip
