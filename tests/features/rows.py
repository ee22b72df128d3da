"""Rows for the tests of the features service."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from services.common.messages import TaRow
from services.common.timeframes import next_ms
from services.features.groups import TA
from services.features.stores.sqlite import SqliteStore

#: Monday, 2024-01-01, the start of an interval of every timeframe.
T0 = 1_704_067_200_000
MINUTE = 60_000


def ta_row(
    at: int = 0,
    *,
    pair: str = "BTC/USD",
    timeframe: str = "1m",
    exchange: str = "kraken",
    close: float = 100.0,
    revision: int = 0,
    closed: bool = True,
    **values: Any,
) -> Any:
    """A row of the interval `at` places after T0; indicators are null unless given."""
    start = T0
    for _ in range(at):
        start = next_ms(start, timeframe)
    fields: dict[str, Any] = {
        "exchange": exchange,
        "pair": pair,
        "timeframe": timeframe,
        "start_ms": start,
        "end_ms": next_ms(start, timeframe),
        "open": 100.0,
        "high": max(close, 100.0) + 1,
        "low": min(close, 100.0) - 1,
        "close": close,
        "volume": 5.0,
        "vwap": 100.0,
        "buy_volume": 2.0,
        "trade_count": 3,
        "closed": closed,
        "revision": revision,
    }
    return TaRow(**(fields | values))


def tuples(rows: Iterable[Any]) -> list[tuple[Any, ...]]:
    return [msgspec.structs.astuple(row) for row in rows]


def make_store(path: Path) -> SqliteStore:
    store = SqliteStore(path, clock_ms=lambda: T0)
    store.ensure_group(TA)
    return store


def contents(store: SqliteStore) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """All rows of both tables, in order."""
    order = "ORDER BY exchange, pair, timeframe, end_ms"
    return (
        store.sql(f"SELECT * FROM ta {order}")[1],
        store.sql(f"SELECT * FROM ta_online {order}")[1],
    )
