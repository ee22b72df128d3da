"""What a store holds of a stretch of time: rows, holes and a checksum of each series."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from services.common.errors import UnknownSeriesError
from services.common.history_report import HistoryReport
from services.common.timeframes import FIXED_MS, TIMEFRAMES, next_ms
from services.features.stores.contract import Reader

PAGE_ROWS = 20_000
#: When a row was written says nothing of what is in it.
LEFT_OUT = ("ingested_at_ms",)


@dataclass(frozen=True, slots=True)
class Coverage:
    """One series of `ta`. `gaps` counts intervals that are missing between its first and its last row."""

    exchange: str
    pair: str
    timeframe: str
    rows: int
    first_end_ms: int
    last_end_ms: int
    gaps: int
    #: Of all columns but the time of writing, the same for the same rows.
    checksum: str


def coverage(
    store: Reader, exchange: str, pairs: Sequence[str], since_ms: int, until_ms: int
) -> list[Coverage]:
    """What `store` holds of `pairs` with ends in ``(since_ms, until_ms]``, without series that are empty."""
    found = (
        series_coverage(store, exchange, pair, timeframe, since_ms, until_ms)
        for pair in pairs
        for timeframe in TIMEFRAMES
    )
    return [one for one in found if one is not None]


def have_earlier(store: Reader, report: HistoryReport) -> list[str]:
    """Those pairs of a run of which the store has rows from before the run's series began."""
    return [
        pair.pair
        for pair in report.pairs
        if any(
            _has_earlier(store, report.exchange, pair.pair, timeframe, pair.first_ms or report.since_ms)
            for timeframe in TIMEFRAMES
        )
    ]


def _has_earlier(store: Reader, exchange: str, pair: str, timeframe: str, begin_ms: int) -> bool:
    try:
        return store.history(pair, timeframe, end=begin_ms, exchange=exchange, limit=1).num_rows > 0
    except UnknownSeriesError:
        return False


def series_coverage(
    store: Reader, exchange: str, pair: str, timeframe: str, since_ms: int, until_ms: int
) -> Coverage | None:
    """The same of one series."""
    digest = hashlib.sha256()
    rows = gaps = 0
    first_ms = last_ms = 0
    start_ms = since_ms + 1
    while True:
        try:
            page = store.history(pair, timeframe, start_ms, until_ms, exchange=exchange, limit=PAGE_ROWS)
        except UnknownSeriesError:
            return None
        if page.num_rows == 0:
            break
        ends: list[Any] = page["end_ms"].to_pylist()
        for end_ms in ends:
            if rows == 0:
                first_ms = end_ms
            else:
                gaps += _missing(last_ms, end_ms, timeframe)
            last_ms = end_ms
            rows += 1
        _digest(digest, page)
        if page.num_rows < PAGE_ROWS:
            break
        start_ms = last_ms + 1
    if rows == 0:
        return None
    return Coverage(exchange, pair, timeframe, rows, first_ms, last_ms, gaps, digest.hexdigest()[:16])


def _missing(last_ms: int, end_ms: int, timeframe: str) -> int:
    if timeframe in FIXED_MS:
        return (end_ms - last_ms) // FIXED_MS[timeframe] - 1
    missing = 0
    while (last_ms := next_ms(last_ms, timeframe)) < end_ms:
        missing += 1
    return missing


def _digest(digest: "hashlib._Hash", page: pa.Table) -> None:
    for name in page.column_names:
        if name in LEFT_OUT:
            continue
        column = page[name].combine_chunks()
        digest.update(name.encode())
        digest.update(np.packbits(column.is_valid().to_numpy(zero_copy_only=False)).tobytes())
        if pa.types.is_string(column.type):
            digest.update("\n".join(map(str, column.to_pylist())).encode())
        else:
            filled = column.fill_null(False) if pa.types.is_boolean(column.type) else column.fill_null(0)
            digest.update(filled.to_numpy(zero_copy_only=False).tobytes())
