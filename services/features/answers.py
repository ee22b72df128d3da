"""Rows of the store as HTTP answers: newest vectors and pages of history. No store, no clock."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pyarrow as pa
from fastapi import Response

from services.features.formats import Format, render_table
from services.features.groups import FeatureGroup
from services.features.joins import LAST_NEWS, default_names, seconds_since
from services.features.news_columns import SECONDS_SINCE_NEWS
from services.features.times import iso
from services.features.windows import expected_until_ms


def json_answer(content: Any) -> Response:
    """JSON without FastAPI's validation, which takes longer than reading the rows."""
    return Response(msgspec.json.encode(content), media_type="application/json")


def pair_vector(group: str, row: Mapping[str, Any], now_ms: int, stale_grace_s: float) -> dict[str, Any]:
    """`responses.Vector` of a row of `ta`, with or without sentiment."""
    end_ms: int = row["end_ms"]
    age_ms = max(0, now_ms - end_ms)
    interval_ms = end_ms - row["start_ms"]
    outside = ("exchange", "pair", "timeframe", "end_ms", "closed")
    return {
        "group": group,
        **{name: row[name] for name in outside},
        "end_time": iso(end_ms),
        "age_s": age_ms / 1000,
        "stale": age_ms > 2 * interval_ms + stale_grace_s * 1000,
        "features": {name: value for name, value in row.items() if name not in outside},
    }


def coin_vector(
    group: FeatureGroup, row: Mapping[str, Any], now_ms: int, stale_grace_s: float
) -> dict[str, Any]:
    """`responses.CoinVector` of a row of a group that is keyed by coin."""
    at_ms: int = row[group.event_time]
    features = {name: value for name, value in row.items() if name not in (*group.key, group.event_time)}
    stale = None
    if LAST_NEWS in row:
        features[SECONDS_SINCE_NEWS.name] = seconds_since(row[LAST_NEWS], max(now_ms, at_ms))
        until_ms = expected_until_ms(row[LAST_NEWS], [row[name] for name in default_names(group)])
        stale = until_ms is not None and now_ms > until_ms + stale_grace_s * 1000
    return {
        "group": group.name,
        **{name: row[name] for name in group.key},
        "event_time_ms": at_ms,
        "event_time": iso(at_ms),
        "age_s": max(0, now_ms - at_ms) / 1000,
        "stale": stale,
        "features": features,
    }


def page_answer(
    table: pa.Table,
    limit: int,
    event_time: str,
    within: Sequence[str],
    head: Mapping[str, Any],
    chosen: Format,
) -> Response:
    """The first `limit` rows of a history, and where the next page begins when there are more.

    A page may end amid rows of one time, which `within` tells apart; the next then begins behind its
    last one.
    """
    following: dict[str, Any] = {"next_from": None} | ({"next_after": None} if within else {})
    if table.num_rows > limit:
        time: Any = table[event_time]
        following["next_from"] = time[limit].as_py()
        if within and time[limit - 1].as_py() == following["next_from"]:
            following["next_after"] = table[within[0]][limit - 1].as_py()
    table = table.slice(0, limit)
    if chosen == "json":
        return json_answer({**head, "count": table.num_rows, **following, "rows": table.to_pylist()})
    content, media_type = render_table(table, chosen)
    headers = {
        "X-" + name.replace("_", "-").title(): str(value)
        for name, value in following.items()
        if value is not None
    }
    return Response(content, media_type=media_type, headers=headers)
