"""`python -m services.features.query` prints the newest feature vectors, or the answer to SQL."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from services.common.errors import QueryError, ServiceError
from services.features.description import description_text
from services.features.groups import SENTIMENT
from services.features.joins import base_coin
from services.features.stores.location import parse_location
from services.features.stores.sqlite_reader import SqliteReader
from services.features.text import second, table_text

#: What a glance at a market needs; of these, the columns that hold something are shown.
SHOWN = ("rsi_14", "macd_hist", "bb_upper", "bb_lower", "adx_14", "atr_14", "sma_28", "ema_7")
SHOWN_SENTIMENT = tuple(
    f"{name}_{window}" for window in ("1h", "24h") for name in ("news_count", "sentiment_mean")
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Ask the store from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m services.features.query",
        description="Print the newest feature vector of each series and the newest sentiment of its coins, "
        "the newest rows of one series (--pair and --timeframe, with --exchange where several have the pair, "
        "or --coin), or the answer to SQL (tables: ta, news_signals, sentiment, and each with _online).",
    )
    parser.add_argument("--pair", help="like BTC/USD")
    parser.add_argument("--timeframe", help="like 1m")
    parser.add_argument("--exchange", help="like kraken")
    parser.add_argument("--coin", help="like BTC: its newest sentiment")
    parser.add_argument("--describe", metavar="GROUP", help="columns and series of a group, or of `all`")
    parser.add_argument("--limit", type=int, default=20, help="most rows to print (20)")
    parser.add_argument("--sql", help="a read-only query")
    parser.add_argument("--store", help="path of the store (FEATURES_STORE_PATH)")
    asked = parser.parse_args(arguments)
    below: list[str] = []
    try:
        with SqliteReader(store_path(asked.store)) as store:
            if asked.limit < 1:
                raise QueryError("--limit must be at least 1")
            if asked.sql is not None:
                # One more tells whether there are more; reading them all could take all memory.
                names, rows = store.sql(asked.sql, limit=asked.limit + 1)
                lines = table_text(names, rows[: asked.limit])
                if len(rows) > asked.limit:
                    lines.append("… and more rows; see --limit")
                left_out = 0
            elif asked.describe is not None:
                names = [*store.groups()] if asked.describe == "all" else [asked.describe]
                lines = [line for name in names for line in description_text(store.describe(name))]
                left_out = 0
            elif asked.coin is not None:
                if asked.pair or asked.timeframe or asked.exchange:
                    raise QueryError("--coin goes without --pair, --timeframe and --exchange")
                lines = sentiment_text(newest_sentiment(store, asked.coin, asked.limit))
                left_out = 0
            else:
                vectors = newest(store, asked.pair, asked.timeframe, asked.exchange, asked.limit)
                lines = vectors_text(vectors[: asked.limit])
                left_out = len(vectors) - asked.limit
                if (of_coins := sentiment_of(store, asked.pair)) and asked.timeframe is None:
                    below = ["", *sentiment_text(of_coins)]
    except ServiceError as error:
        sys.stderr.write(f"query: {' '.join(str(error).split())}\n")
        return 1
    if left_out > 0:
        lines.append(f"… {left_out} more; see --limit")
    sys.stdout.write("\n".join([*lines, *below]) + "\n")
    return 0


def store_path(given: str | None) -> Path:
    """Path of the SQLite store that a command is to use.

    Raises `SettingsError`, `QueryError`, `StoreError`.
    """
    if given is None:
        # Settings are read only when they are needed, so that a broken environment spares --store.
        from services.features.settings import FeaturesSettings

        return FeaturesSettings.load().store_path
    kind, path = parse_location(given)
    if kind != "sqlite":
        raise QueryError(f"this command reads SQLite stores, not {kind}")
    return path


def newest(
    store: SqliteReader, pair: str | None, timeframe: str | None, exchange: str | None, limit: int
) -> list[dict[str, Any]]:
    """The newest row of each series that fits; of one pair and timeframe, its newest closed rows.

    Raises `QueryError` where these are on several exchanges.
    """
    if pair is not None and timeframe is not None:
        # On several exchanges that is several series, of which `limit` would show the last one's rows.
        store.latest(pair, timeframe, exchange)
        table = store.history(pair, timeframe, exchange=exchange, limit=limit, newest=True)
        rows: list[dict[str, Any]] = table.to_pylist()
        return rows[::-1]
    return store.latest_all(pair, timeframe, exchange)


def newest_sentiment(store: SqliteReader, coin: str, limit: int) -> list[dict[str, Any]]:
    """The newest rows of a coin's sentiment, newest first."""
    table = store.history(group=SENTIMENT.name, coin=coin, limit=limit, newest=True)
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows[::-1]


def sentiment_of(store: SqliteReader, pair: str | None) -> list[dict[str, Any]]:
    """The newest sentiment of each coin, or of a pair's base coin; empty where there is none."""
    if SENTIMENT.name not in store.groups():
        return []
    rows = store.latest_all(group=SENTIMENT.name)
    return [row for row in rows if pair is None or row["coin"] == base_coin(pair)]


def sentiment_text(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Rows of sentiment as lines of an aligned table."""
    names = ["coin", "as of (UTC)", "last news (UTC)", *SHOWN_SENTIMENT]
    cells = [
        (
            row["coin"],
            *(second(row[name]) for name in ("as_of_ms", "last_news_at_ms")),
            *(row[name] for name in SHOWN_SENTIMENT),
        )
        for row in rows
    ]
    return table_text(names, cells)


def vectors_text(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Feature vectors as lines of an aligned table."""
    shown = [name for name in SHOWN if any(row.get(name) is not None for row in rows)]
    names = ["exchange", "pair", "timeframe", "end (UTC)", "", "close", *shown]
    cells = [
        (
            *(row["exchange"], row["pair"], row["timeframe"]),
            second(row["end_ms"]),
            "" if row["closed"] else "open",
            row["close"],
            *(row[name] for name in shown),
        )
        for row in rows
    ]
    return table_text(names, cells)


if __name__ == "__main__":
    sys.exit(main())
