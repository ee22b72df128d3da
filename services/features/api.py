"""The HTTP face of the feature store: groups, latest vectors, history. Read-only."""

from collections.abc import Callable
from functools import cache
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Query, Response

from services.features.answers import coin_vector, json_answer, page_answer, pair_vector
from services.features.questions import (
    PAGE_RESPONSES,
    RESPONSES,
    Accept,
    AfterOrNone,
    CoinOrNone,
    Columns,
    ExchangeOrNone,
    FormatOrNone,
    GroupName,
    Pair,
    PairOrNone,
    Since,
    Timeframe,
    TimeframeOrNone,
    Until,
    chosen_format,
    key_check,
    listed,
    only_known_parameters,
    problems,
    range_of,
)
from services.features.responses import (
    CoinHistory,
    CoinVector,
    CoinVectors,
    Groups,
    History,
    Vector,
    Vectors,
)
from services.features.stores.contract import Reader


def build_router(
    open_reader: Callable[[], Reader],
    *,
    api_key: str | None,
    max_rows: int,
    stale_grace_s: float,
    clock_ms: Callable[[], int],
) -> APIRouter:
    """The routes under ``/features``; `open_reader` is called at the first request."""
    router = APIRouter(
        prefix="/features",
        tags=["features"],
        dependencies=[Depends(key_check(api_key)), Depends(only_known_parameters)],
        responses=RESPONSES,
    )
    store = cache(open_reader)
    limits = Query(ge=1, le=max_rows)
    few = min(1_000, max_rows)

    @router.get("/groups", summary="The feature groups and their columns")
    def groups() -> Groups:
        with problems():
            found = store().groups()
        described = [
            {
                "name": group.name,
                "version": group.version,
                "description": group.description,
                "key": list(group.key),
                "event_time": group.event_time,
                "columns": [
                    {name: getattr(column, name) for name in column.__slots__} for column in group.stored
                ],
            }
            for group in found.values()
        ]
        return Groups.model_validate({"groups": described})

    # Before `/{group}`, which would take it for the name of a group.
    @router.get(
        "/combined/latest",
        summary="The newest `ta` vector of a series with the sentiment of its base coin at that time",
        response_model=Vector | Vectors,
    )
    def combined_latest(
        pair: PairOrNone = None, timeframe: TimeframeOrNone = None, exchange: ExchangeOrNone = None
    ) -> Response:
        now = clock_ms()
        with problems():
            if pair is not None and timeframe is not None:
                row = store().vector(pair, timeframe, exchange, now=now)
                if row is None:
                    raise HTTPException(404, f"{pair} {timeframe} has no rows yet")
                return json_answer(pair_vector("combined", row, now, stale_grace_s))
            rows = store().vectors(pair, timeframe, exchange, now=now)
        return json_answer({"vectors": [pair_vector("combined", row, now, stale_grace_s) for row in rows]})

    @router.get(
        "/combined/history",
        summary="Closed rows of a series with the sentiment of its base coin at each row's end",
        response_model=History,
        responses=PAGE_RESPONSES,
    )
    def combined_history(
        pair: Pair,
        timeframe: Timeframe,
        exchange: ExchangeOrNone = None,
        since: Since = None,
        until: Until = None,
        limit: Annotated[int, limits] = few,
        columns: Columns = None,
        format: FormatOrNone = None,  # noqa: A002
        accept: Accept = None,
    ) -> Response:
        chosen = chosen_format(format, accept)
        with problems():
            # A page is a page of one series, so an ambiguous one must be told apart first.
            store().latest(pair, timeframe, exchange)
            first, last = range_of(since, until)
            table = store().vector_history(
                pair, timeframe, first, last, listed(columns), exchange, limit=limit + 1
            )
        head = {"group": "combined", "pair": pair, "timeframe": timeframe}
        return page_answer(table, limit, "end_ms", (), head, chosen)

    @router.get(
        "/{group}/latest",
        summary="The newest vector of a series; of all that fit without `pair`, `timeframe` or `coin`",
        response_model=Vector | Vectors | CoinVector | CoinVectors,
    )
    def latest(
        group: GroupName,
        pair: PairOrNone = None,
        timeframe: TimeframeOrNone = None,
        exchange: ExchangeOrNone = None,
        coin: CoinOrNone = None,
    ) -> Response:
        now = clock_ms()
        with problems():
            one = coin is not None or (pair is not None and timeframe is not None)
            if one:
                row = store().latest(pair, timeframe, exchange, group, coin=coin)
                if row is None:
                    raise HTTPException(404, f"{coin or f'{pair} {timeframe}'} has no rows yet")
                rows = [row]
            else:
                rows = store().latest_all(pair, timeframe, exchange, group, coin=coin)
            found = store().groups()[group]
        vectors = [
            coin_vector(found, row, now, stale_grace_s)
            if "coin" in found.key
            else pair_vector(group, row, now, stale_grace_s)
            for row in rows
        ]
        return json_answer(vectors[0] if one else {"vectors": vectors})

    @router.get(
        "/{group}/history",
        summary="Closed rows of a series, oldest first, as JSON, Parquet, Arrow or CSV",
        description="`pair` and `timeframe` for ta, `coin` for the groups of news.",
        response_model=History | CoinHistory,
        responses=PAGE_RESPONSES,
    )
    def history(
        group: GroupName,
        pair: PairOrNone = None,
        timeframe: TimeframeOrNone = None,
        exchange: ExchangeOrNone = None,
        coin: CoinOrNone = None,
        since: Since = None,
        until: Until = None,
        after: AfterOrNone = None,
        limit: Annotated[int, limits] = few,
        columns: Columns = None,
        format: FormatOrNone = None,  # noqa: A002
        accept: Accept = None,
    ) -> Response:
        chosen = chosen_format(format, accept)
        with problems():
            # A page is a page of one series, so an ambiguous one must be told apart first.
            store().latest(pair, timeframe, exchange, group, coin=coin)
            first, last = range_of(since, until)
            table = store().history(
                *(pair, timeframe, first, last, listed(columns), exchange),
                limit=limit + 1,
                group=group,
                coin=coin,
                after=after,
            )
            found = store().groups()[group]
        series = {"pair": pair, "timeframe": timeframe, "coin": coin}
        head = {"group": group, **{name: value for name, value in series.items() if value is not None}}
        return page_answer(table, limit, found.event_time, found.within, head, chosen)

    return router
