"""What can be asked over HTTP, and what a question that has no answer gets."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from fastapi import Depends, Header, HTTPException, Path, Query, Request
from fastapi.security import APIKeyHeader

from services.common.errors import QueryError, StoreError, UnknownSeriesError
from services.common.messages import EXCHANGE_PATTERN, PAIR_PATTERN
from services.common.news import COIN_PATTERN, STORY_ID_PATTERN
from services.features.formats import Format, choose_format
from services.features.responses import Problem
from services.features.times import to_ms

GroupName = Annotated[str, Path(pattern=r"^[a-z][a-z0-9_]{0,40}$", examples=["ta"])]
Pair = Annotated[str, Query(pattern=PAIR_PATTERN, examples=["BTC/USD"])]
PairOrNone = Annotated[str | None, Query(pattern=PAIR_PATTERN, examples=["BTC/USD"])]
_TIMEFRAME = r"^[0-9]{1,3}[a-zA-Z]$"
Timeframe = Annotated[str, Query(pattern=_TIMEFRAME, examples=["1m"])]
TimeframeOrNone = Annotated[str | None, Query(pattern=_TIMEFRAME, examples=["1m"])]
ExchangeOrNone = Annotated[str | None, Query(pattern=EXCHANGE_PATTERN, examples=["kraken"])]
CoinOrNone = Annotated[str | None, Query(pattern=COIN_PATTERN, examples=["BTC"])]
AfterOrNone = Annotated[
    str | None,
    Query(pattern=STORY_ID_PATTERN, description="`next_after` of the page before", examples=["b5c1e0"]),
]
_TIME_TEXT = "Epoch milliseconds or ISO 8601, inclusive; UTC unless it says otherwise"
Since = Annotated[str | None, Query(alias="from", max_length=40, description=_TIME_TEXT)]
Until = Annotated[str | None, Query(alias="to", max_length=40, description=_TIME_TEXT)]
Columns = Annotated[
    str | None,
    Query(pattern=r"^[a-z0-9_]{1,60}(,[a-z0-9_]{1,60}){0,199}$", examples=["close,rsi_14,macd"]),
]
FormatOrNone = Annotated[
    Literal["json", "parquet", "arrow", "csv"] | None, Query(description="Wins over the header Accept")
]
Accept = Annotated[str | None, Header()]

RESPONSES: dict[int | str, dict[str, Any]] = {
    401: {"model": Problem, "description": "X-API-Key is missing or wrong"},
    404: {"model": Problem, "description": "No such group, pair, timeframe, exchange or coin"},
    422: {"model": Problem, "description": "A parameter is malformed, missing or out of range"},
    503: {"model": Problem, "description": "The store cannot be read"},
}
PAGE_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "In formats other than JSON, the headers X-Next-From and X-Next-After are the "
        "`from` and `after` of the next page",
        "content": {
            "application/vnd.apache.parquet": {},
            "application/vnd.apache.arrow.stream": {},
            "text/csv": {},
        },
    },
    406: {"model": Problem, "description": "No format that Accept asks for"},
}


@contextmanager
def problems() -> Iterator[None]:
    """Errors of the store as HTTP statuses."""
    try:
        yield
    except UnknownSeriesError as error:
        raise HTTPException(404, str(error)) from error
    except QueryError as error:
        raise HTTPException(422, str(error)) from error
    except StoreError as error:
        raise HTTPException(503, str(error)) from error


def key_check(api_key: str | None) -> Callable[[str | None], None]:
    """A dependency that refuses requests without the key, if there is one."""
    header = APIKeyHeader(name="X-API-Key", auto_error=False, description="FEATURES_API_KEY")

    def check(given: Annotated[str | None, Depends(header)]) -> None:
        if api_key is None:
            return
        # Comparing takes the same time wherever the two differ.
        if given is None or not secrets.compare_digest(given.encode(), api_key.encode()):
            raise HTTPException(401, "send the API key in the header X-API-Key")

    return check


def only_known_parameters(request: Request) -> None:
    """A dependency that refuses parameters that the route does not have and would silently ignore."""
    known = [field.alias for field in request.scope["route"].dependant.query_params]
    unknown = [name for name in dict.fromkeys(request.query_params) if name not in known]
    if unknown:
        has = f"known: {', '.join(known)}" if known else "there are none here"
        raise HTTPException(422, f"unknown parameter {', '.join(unknown)[:100]}; {has}")


def chosen_format(asked: Format | None, accept: str | None) -> Format:
    """The format asked for in the query, else by the header."""
    chosen: Format | None = asked or choose_format(accept)
    if chosen is None:
        raise HTTPException(406, "there is JSON, Parquet, Arrow and CSV; see format=")
    return chosen


def listed(columns: str | None) -> list[str] | None:
    """``a,b`` as a list."""
    return None if columns is None else columns.split(",")


def range_of(since: str | None, until: str | None) -> tuple[int | None, int | None]:
    """Epoch milliseconds of the ends of a range, which may be open. Raises `QueryError`."""
    return None if since is None else to_ms(since, up=True), None if until is None else to_ms(until)
