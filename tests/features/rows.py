"""Rows for the tests of the features service."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from services.common.messages import TaRow
from services.common.news import NewsSignal
from services.common.timeframes import next_ms
from services.features.groups import GROUPS, FeatureGroup
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


def signal(
    at_ms: int = 0,
    story: str = "s",
    score: float = 0.5,
    *,
    coin: str = "BTC",
    relevance: float = 1.0,
    novelty: float = 1.0,
    **values: Any,
) -> NewsSignal:
    """What a story that was observed `at_ms` after T0 says of a coin."""
    positive = max(score, 0.0)
    negative = max(-score, 0.0)
    fields: dict[str, Any] = {
        "story_id": story,
        "coin": coin,
        "score": score,
        "p_pos": positive,
        "p_neu": 1 - positive - negative,
        "p_neg": negative,
        "signal": (score > 0.2) - (score < -0.2),
        "confidence": max(positive, negative, 1 - positive - negative),
        "relevance": relevance,
        "novelty": novelty,
        "engine": "test",
        "model_version": "1",
        "published_at_ms": T0 + at_ms - 1_000,
        "observed_at_ms": T0 + at_ms,
        "scored_at_ms": T0 + at_ms + 20,
    }
    return NewsSignal(**(fields | values))


def make_store(path: Path, groups: Iterable[FeatureGroup] = tuple(GROUPS.values())) -> SqliteStore:
    store = SqliteStore(path, clock_ms=lambda: T0)
    for group in groups:
        store.ensure_group(group)
    return store


def sentiment_contents(store: SqliteStore) -> list[list[tuple[Any, ...]]]:
    """All rows of the groups of news and their online tables, in order."""
    return [
        store.sql(f"SELECT * FROM {table} ORDER BY {order}")[1]
        for table, order in (
            ("news_signals", "coin, observed_at_ms, story_id"),
            ("news_signals_online", "coin"),
            ("sentiment", "coin, as_of_ms"),
            ("sentiment_online", "coin"),
        )
    ]


def contents(store: SqliteStore) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """All rows of both tables, in order."""
    order = "ORDER BY exchange, pair, timeframe, end_ms"
    return (
        store.sql(f"SELECT * FROM ta {order}")[1],
        store.sql(f"SELECT * FROM ta_online {order}")[1],
    )
