"""The HTTP face of the feature store: groups, latest vectors, history. Read-only."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends, Header, HTTPException, Path, Query, Response
from fastapi.security import APIKeyHeader

from services.common.errors import QueryError, StoreError, UnknownSeriesError
from services.common.messages import EXCHANGE_PATTERN, PAIR_PATTERN
from services.features.formats import Format, choose_format, render_table
from services.features.responses import Groups, History, Problem, Vector, Vectors
from services.features.stores.contract import Reader
from services.features.times import iso, to_ms

GroupName = Annotated[str, Path(pattern=r"^[a-z][a-z0-9_]{0,40}$", examples=["ta"])]
Pair = Annotated[str, Query(pattern=PAIR_PATTERN, examples=["BTC/USD"])]
PairOrNone = Annotated[str | None, Query(pattern=PAIR_PATTERN, examples=["BTC/USD"])]
_TIMEFRAME = r"^[0-9]{1,3}[a-zA-Z]$"
Timeframe = Annotated[str, Query(pattern=_TIMEFRAME, examples=["1m"])]
TimeframeOrNone = Annotated[str | None, Query(pattern=_TIMEFRAME, examples=["1m"])]
ExchangeOrNone = Annotated[str | None, Query(pattern=EXCHANGE_PATTERN, examples=["kraken"])]
_TIME_TEXT = "Epoch milliseconds or ISO 8601, inclusive; UTC unless it says otherwise"

_RESPONSES: dict[int | str, dict[str, Any]] = {
    401: {"model": Problem, "description": "X-API-Key is missing or wrong"},
    404: {"model": Problem, "description": "No such group, pair, timeframe or exchange"},
    422: {"model": Problem, "description": "A parameter is malformed or out of range"},
    503: {"model": Problem, "description": "The store cannot be read"},
}


@contextmanager
def _problems() -> Iterator[None]:
    """Errors of the store as HTTP statuses."""
    try:
        yield
    except UnknownSeriesError as error:
        raise HTTPException(404, str(error)) from error
    except QueryError as error:
        raise HTTPException(422, str(error)) from error
    except StoreError as error:
        raise HTTPException(503, str(error)) from error


def _key_check(api_key: str | None) -> Callable[[str | None], None]:
    header = APIKeyHeader(name="X-API-Key", auto_error=False, description="FEATURES_API_KEY")

    def check(given: Annotated[str | None, Depends(header)]) -> None:
        if api_key is None:
            return
        # Comparing takes the same time wherever the two differ.
        if given is None or not secrets.compare_digest(given.encode(), api_key.encode()):
            raise HTTPException(401, "send the API key in the header X-API-Key")

    return check


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
        dependencies=[Depends(_key_check(api_key))],
        responses=_RESPONSES,
    )
    store = cache(open_reader)

    @router.get("/groups", summary="The feature groups and their columns")
    def groups() -> Groups:
        with _problems():
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

    @router.get(
        "/{group}/latest",
        summary="The newest vector of a series; of all that fit without `pair` or `timeframe`",
        response_model=Vector | Vectors,
    )
    def latest(
        group: GroupName,
        pair: PairOrNone = None,
        timeframe: TimeframeOrNone = None,
        exchange: ExchangeOrNone = None,
    ) -> Response:
        now = clock_ms()
        with _problems():
            if pair is not None and timeframe is not None:
                row = store().latest(pair, timeframe, exchange, group)
                if row is None:
                    raise HTTPException(404, f"{pair} {timeframe} has no rows yet")
                return _json(_vector(group, row, now, stale_grace_s))
            rows = store().latest_all(pair, timeframe, exchange, group)
        return _json({"vectors": [_vector(group, row, now, stale_grace_s) for row in rows]})

    @router.get(
        "/{group}/history",
        summary="Closed rows of a series, oldest first, as JSON, Parquet, Arrow or CSV",
        response_model=History,
        responses={
            200: {
                "description": "In formats other than JSON, X-Next-From is the `from` of the next page",
                "content": {
                    "application/vnd.apache.parquet": {},
                    "application/vnd.apache.arrow.stream": {},
                    "text/csv": {},
                },
            },
            406: {"model": Problem, "description": "No format that Accept asks for"},
        },
    )
    def history(
        group: GroupName,
        pair: Pair,
        timeframe: Timeframe,
        exchange: ExchangeOrNone = None,
        since: Annotated[str | None, Query(alias="from", max_length=40, description=_TIME_TEXT)] = None,
        until: Annotated[str | None, Query(alias="to", max_length=40, description=_TIME_TEXT)] = None,
        limit: Annotated[int, Query(ge=1, le=max_rows)] = min(1_000, max_rows),
        columns: Annotated[
            str | None,
            Query(pattern=r"^[a-z0-9_]{1,60}(,[a-z0-9_]{1,60}){0,199}$", examples=["close,rsi_14,macd"]),
        ] = None,
        format: Annotated[  # noqa: A002
            Literal["json", "parquet", "arrow", "csv"] | None,
            Query(description="Wins over the header Accept"),
        ] = None,
        accept: Annotated[str | None, Header()] = None,
    ) -> Response:
        chosen: Format | None = format or choose_format(accept)
        if chosen is None:
            raise HTTPException(406, "there is JSON, Parquet, Arrow and CSV; see format=")
        with _problems():
            # A page is a page of one series, so an ambiguous one must be told apart first.
            store().latest(pair, timeframe, exchange, group)
            table = store().history(
                pair,
                timeframe,
                None if since is None else to_ms(since),
                None if until is None else to_ms(until),
                None if columns is None else columns.split(","),
                exchange,
                limit=limit + 1,
                group=group,
            )
            event_time = store().groups()[group].event_time
        next_from = table[event_time][limit].as_py() if table.num_rows > limit else None
        table = table.slice(0, limit)
        if chosen != "json":
            headers = {} if next_from is None else {"X-Next-From": str(next_from)}
            content, media_type = render_table(table, chosen)
            return Response(content, media_type=media_type, headers=headers)
        return _json(
            {
                "group": group,
                "pair": pair,
                "timeframe": timeframe,
                "count": table.num_rows,
                "next_from": next_from,
                "rows": table.to_pylist(),
            }
        )

    return router


def _vector(group: str, row: dict[str, Any], now_ms: int, stale_grace_s: float) -> dict[str, Any]:
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


def _json(content: Any) -> Response:
    # Validating thousands of our own rows takes longer than reading them.
    return Response(msgspec.json.encode(content), media_type="application/json")
