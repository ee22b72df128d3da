"""Tables of Hopsworks as the answers of `contract.Reader`. Pure."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from services.common.errors import QueryError, UnknownSeriesError
from services.features.arrow import arrow_schema
from services.features.asked import Asked
from services.features.groups import SENTIMENT, FeatureGroup
from services.features.joins import LAST_NEWS
from services.features.news_columns import SECONDS_SINCE_NEWS
from services.features.stores.sqlite_select import Span

#: Values wanted of key columns; a column that is not named may have any.
type Wanted = dict[str, list[str]]


def wanted_keys(asked: Asked, group: FeatureGroup) -> Wanted:
    """The values asked for of the group's key. Raises `QueryError`."""
    return {name: values for name, values in asked.filters(group).items() if values is not None}


def fitting(rows: Sequence[dict[str, Any]], wanted: Wanted) -> list[dict[str, Any]]:
    """The newest rows of the series asked for. Raises `UnknownSeriesError` for a value that no series has."""
    found = list(rows)
    for name, values in wanted.items():
        known = sorted({row[name] for row in found})
        unknown = [value for value in values if value not in known]
        if unknown:
            raise UnknownSeriesError(
                f"unknown {name} {', '.join(unknown)[:100]}; known: {', '.join(known) or 'none yet'}"
            )
        found = [row for row in found if row[name] in values]
    return found


def lacks_a_value(table: pa.Table, wanted: Wanted) -> bool:
    """Whether something that was asked for is in none of the rows."""
    return any(not {*values} <= {*pc.unique(table[name]).to_pylist()} for name, values in wanted.items())


def only(rows: Sequence[dict[str, Any]], pair: str | None) -> dict[str, Any] | None:
    """The one row, or None. Raises `QueryError` where there are several."""
    if len(rows) > 1:
        names = ", ".join(str(row["exchange"]) for row in rows)
        raise QueryError(f"{pair} is on several exchanges; name one of {names}")
    return rows[0] if rows else None


def limited(table: pa.Table, group: FeatureGroup, span: Span) -> pa.Table:
    """What `limit`, `newest` and `after` leave of rows that are ordered by key, time and `within`."""
    if span.after is not None:
        if not group.within:
            raise QueryError("`after` goes on with a page of one coin's news_signals, and nothing else")
        time: Any = table[group.event_time]
        within: Any = table[group.within[0]]
        behind: Any = pc.or_(
            pc.greater(time, pa.scalar(span.start_ms)), pc.greater(within, pa.scalar(span.after))
        )
        table = table.filter(behind)
    if span.limit is None:
        return table
    if not span.newest:
        return table.slice(0, span.limit)
    series: list[Any] = list(zip(*(table[name].to_pylist() for name in group.key), strict=True))
    # A row stays when the one `limit` places further on is of another series.
    ahead = [*series[span.limit :], *[None] * min(span.limit, len(series))]
    kept = [place for place, (own, other) in enumerate(zip(series, ahead, strict=True)) if own != other]
    return table.take(pa.array(kept, pa.int64()))


def with_added(table: pa.Table, own: Sequence[str], added: Sequence[str]) -> pa.Table:
    """The columns `own` of joined rows, and `added` of `joins.joined_names`, filled as everywhere.

    Before a coin's first signal nothing joins: its counts are 0 then, and the rest null.
    """
    result = table.select(list(own))
    values: Any
    for name in added:
        if name == SECONDS_SINCE_NEWS.name:
            column = SECONDS_SINCE_NEWS
            age_ms: Any = pc.subtract(table["end_ms"], table[LAST_NEWS])
            values = pc.divide(pc.cast(age_ms, pa.float64()), 1000.0)
        else:
            column = SENTIMENT.columns[SENTIMENT.index(name)]
            values = table[name]
            if name not in SENTIMENT.sparse:
                values = pc.fill_null(values, 0)
        result = result.append_column(arrow_schema([column]).field(0), values)
    return result
