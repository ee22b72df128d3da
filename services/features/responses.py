"""The shapes of the HTTP answers, for OpenAPI and its readers. Pure."""

from typing import Any

from pydantic import BaseModel, Field

type Value = float | int | bool | str | None

_PAIR = Field(examples=["BTC/USD"])
_TIMEFRAME = Field(examples=["1m"])
_COIN = Field(examples=["BTC"])
_NEXT_FROM = Field(description="`from` of the next page when `limit` cut this one", examples=[1767225660000])


class ColumnInfo(BaseModel):
    """One column of a feature group."""

    name: str = Field(examples=["rsi_14"])
    kind: str = Field(examples=["float"])
    unit: str = Field(examples=["percent"])
    description: str = Field(examples=["Relative strength index over 14"])
    nullable: bool


class GroupInfo(BaseModel):
    """One feature group."""

    name: str = Field(examples=["ta"])
    version: int = Field(examples=[1])
    description: str
    key: list[str] = Field(examples=[["exchange", "pair", "timeframe"]])
    event_time: str = Field(examples=["end_ms"])
    columns: list[ColumnInfo]


class Groups(BaseModel):
    """All feature groups."""

    groups: list[GroupInfo]


class Vector(BaseModel):
    """The newest feature vector of a pair."""

    group: str = Field(examples=["ta"])
    exchange: str = Field(examples=["kraken"])
    pair: str = _PAIR
    timeframe: str = _TIMEFRAME
    end_ms: int = Field(description="Event time, UTC epoch ms", examples=[1767225600000])
    end_time: str = Field(examples=["2026-01-01T00:00:00.000Z"])
    closed: bool = Field(description="False for an update of a candle that is still open")
    age_s: float = Field(description="Seconds since the event time; 0 while the candle is open")
    stale: bool = Field(
        description="Whether the row ended two intervals and FEATURES_STALE_GRACE_S ago, so that a newer one "
        "is missing. Of a combined vector it judges the candle: whether news still comes nobody can tell"
    )
    features: dict[str, Value] = Field(
        description="Every other column; null where it is not defined (yet)",
        examples=[{"close": 97123.5, "rsi_14": 55.1, "sma_28": None}],
    )


class Vectors(BaseModel):
    """The newest feature vector of each series that fits."""

    vectors: list[Vector]


class CoinVector(BaseModel):
    """The newest row of a coin in `news_signals` or `sentiment`."""

    group: str = Field(examples=["sentiment"])
    coin: str = _COIN
    event_time_ms: int = Field(description="`observed_at_ms` or `as_of_ms`", examples=[1767225600000])
    event_time: str = Field(examples=["2026-01-01T00:00:00.000Z"])
    age_s: float = Field(description="Seconds since the event time")
    stale: bool | None = Field(
        description="Whether the newest sentiment counts news in a window that it must have left since; "
        "null for news_signals, since nobody knows when news comes"
    )
    features: dict[str, Value] = Field(
        description="Every other column, with `seconds_since_news` as of now for sentiment; a window "
        "without news has a count of 0 and is null otherwise",
        examples=[{"news_count_1h": 3, "sentiment_mean_1h": 0.31, "sentiment_mean_15m": None}],
    )


class CoinVectors(BaseModel):
    """The newest row of each coin that fits."""

    vectors: list[CoinVector]


class History(BaseModel):
    """Closed rows of one series, oldest first."""

    group: str = Field(examples=["ta"])
    pair: str = _PAIR
    timeframe: str = _TIMEFRAME
    count: int = Field(examples=[1])
    next_from: int | None = _NEXT_FROM
    rows: list[dict[str, Value]] = Field(
        examples=[[{"end_ms": 1767225600000, "close": 97123.5, "rsi_14": 55.1}]]
    )


class CoinHistory(BaseModel):
    """Rows of one coin, oldest first."""

    group: str = Field(examples=["news_signals"])
    coin: str = _COIN
    count: int = Field(examples=[1])
    next_from: int | None = _NEXT_FROM
    next_after: str | None = Field(
        description="`after` of the next page when that one begins amid signals of one time",
        examples=["b5c1e0"],
    )
    rows: list[dict[str, Value]] = Field(
        examples=[[{"observed_at_ms": 1767225600000, "story_id": "b5c1e0", "score": 0.42}]]
    )


class Problem(BaseModel):
    """Why there is no answer."""

    detail: str | list[Any] = Field(examples=["unknown pair DOGE/USD; known: BTC/USD, ETH/USD"])
