"""Sentiment beside the rows of pairs: what was known of a pair's base coin at the end of a candle. Pure.

The sentiment of a time is that of the coin's newest row at or before it. Before the first the counts are 0
and everything else is null, as in an empty window; only ``seconds_since_news`` tells the two apart.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from services.common.errors import QueryError
from services.features.arrow import arrow_schema
from services.features.groups import FeatureGroup
from services.features.news_columns import SECONDS_SINCE_NEWS

#: The column that the seconds since the newest signal are counted from.
LAST_NEWS = "last_news_at_ms"

#: Rows of one coin that hold at any time in a range, by time: coin, first and last time, columns.
type Load = Callable[[str, int, int, Sequence[str]], pa.Table]


#: Tickers that exchanges' pairs and archives still have, and the coin that news of it goes out under.
RENAMED = {"XBT": "BTC", "XDG": "DOGE", "MATIC": "POL", "RNDR": "RENDER", "FXS": "FRAX", "USTC": "UST"}


def base_coin(pair: str) -> str:
    """``BTC`` of ``BTC/USD``, ``POL`` of ``MATIC/USD``."""
    base = pair.partition("/")[0]
    return RENAMED.get(base, base)


def joined_names(sentiment: FeatureGroup) -> tuple[str, ...]:
    """The columns that sentiment adds to a row: its features and the seconds since the newest signal."""
    return (*sentiment.features, SECONDS_SINCE_NEWS.name)


def default_names(sentiment: FeatureGroup) -> list[str]:
    """Those of them that are never null: the counts."""
    return [name for name in sentiment.features if name not in sentiment.sparse]


def divide_names(
    names: Iterable[str], group: FeatureGroup, sentiment: FeatureGroup
) -> tuple[list[str], list[str]]:
    """Columns of the group, and those that sentiment adds. Raises `QueryError` that names all."""
    own, added, unknown = [], [], []
    for name in dict.fromkeys(names):
        if name in group.names:
            own.append(name)
        elif name in joined_names(sentiment):
            added.append(name)
        else:
            unknown.append(str(name))
    if unknown:
        known = ", ".join((*group.names, *joined_names(sentiment)))
        raise QueryError(f"unknown column {', '.join(unknown)[:100]}; known: {known}")
    return own, added


def known_at_ms(row: Mapping[str, Any], now_ms: int) -> int:
    """The time whose sentiment a row of `ta` gets: its end, which for an open candle has yet to come."""
    end_ms: int = row["end_ms"]
    return end_ms if row["closed"] else min(end_ms, now_ms)


def sentiment_values(
    sentiment: FeatureGroup, row: Mapping[str, Any] | None, time_ms: int
) -> dict[str, float | int | None]:
    """What sentiment adds to a row of `time_ms`; `row` is the one that holds then, None before the first."""
    if row is None:
        empty: dict[str, float | int | None] = dict.fromkeys(joined_names(sentiment))
        return empty | dict.fromkeys(default_names(sentiment), 0)
    values: dict[str, float | int | None] = {name: row[name] for name in sentiment.features}
    values[SECONDS_SINCE_NEWS.name] = seconds_since(row[LAST_NEWS], time_ms)
    return values


def seconds_since(last_news_at_ms: int, time_ms: int) -> float:
    """Seconds from the newest signal to a time."""
    return (time_ms - last_news_at_ms) / 1000


def with_sentiment(table: pa.Table, sentiment: FeatureGroup, names: Sequence[str], load: Load) -> pa.Table:
    """Append the columns `names` of `joined_names` to a history of `ta` as of each row's ``end_ms``.

    `table` is ordered by exchange, pair and ``end_ms``, and must have these columns.
    """
    kept = [name for name in names if name != SECONDS_SINCE_NEWS.name]
    columns = [SECONDS_SINCE_NEWS if n not in kept else sentiment.columns[sentiment.index(n)] for n in names]
    schema = arrow_schema(columns)
    needed = list(dict.fromkeys((sentiment.event_time, LAST_NEWS, *kept)))
    pieces = []
    begin = 0
    series: Any = zip(table["exchange"].to_pylist(), table["pair"].to_pylist(), strict=True)
    for (_, pair), run in groupby(series):
        length = sum(1 for _ in run)
        ends: Any = table["end_ms"].slice(begin, length)
        begin += length
        times: list[Any] = ends.to_pylist()
        rows = load(base_coin(pair), times[0], times[-1], needed)
        held: list[Any] = rows[sentiment.event_time].to_pylist()
        found: Any = rows.take(pa.array(newest_at(held, times), pa.int64()))
        arrays: list[Any] = []
        for name in names:
            if name not in kept:
                age_ms = pc.subtract(ends, found[LAST_NEWS])
                arrays.append(pc.divide(pc.cast(age_ms, pa.float64()), 1000.0))
            elif name in sentiment.sparse:
                arrays.append(found[name])
            else:
                arrays.append(pc.fill_null(found[name], 0))
        pieces.append(pa.Table.from_arrays(arrays, schema=schema))
    added = pa.concat_tables(pieces).combine_chunks() if pieces else schema.empty_table()
    for field in schema:
        table = table.append_column(field, added[field.name])
    return table


def newest_at(times: Sequence[int], asked: Sequence[int]) -> list[int | None]:
    """Place of the last of `times` at or before each of `asked`, None where there is none; both ascend."""
    places: list[int | None] = []
    place = -1
    for time in asked:
        while place + 1 < len(times) and times[place + 1] <= time:
            place += 1
        places.append(place if place >= 0 else None)
    return places
