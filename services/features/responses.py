"""The shapes of the HTTP answers, for OpenAPI and its readers. Pure."""

from typing import Any

from pydantic import BaseModel, Field

type Value = float | int | bool | str | None


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
    """The newest feature vector of a series."""

    group: str = Field(examples=["ta"])
    exchange: str = Field(examples=["kraken"])
    pair: str = Field(examples=["BTC/USD"])
    timeframe: str = Field(examples=["1m"])
    end_ms: int = Field(description="Event time, UTC epoch ms", examples=[1767225600000])
    end_time: str = Field(examples=["2026-01-01T00:00:00.000Z"])
    closed: bool = Field(description="False for an update of a candle that is still open")
    age_s: float = Field(description="Seconds since the event time; 0 while the candle is open")
    stale: bool = Field(description="Whether a newer row should have been here long ago")
    features: dict[str, Value] = Field(
        description="Every other column; null where it is not defined (yet)",
        examples=[{"close": 97123.5, "rsi_14": 55.1, "sma_28": None}],
    )


class Vectors(BaseModel):
    """The newest feature vector of each series that fits."""

    vectors: list[Vector]


class History(BaseModel):
    """Closed rows of one series, oldest first."""

    group: str = Field(examples=["ta"])
    pair: str = Field(examples=["BTC/USD"])
    timeframe: str = Field(examples=["1m"])
    count: int = Field(examples=[1])
    next_from: int | None = Field(
        description="`from` of the next page when `limit` cut this one", examples=[1767225660000]
    )
    rows: list[dict[str, Value]] = Field(
        examples=[[{"end_ms": 1767225600000, "close": 97123.5, "rsi_14": 55.1}]]
    )


class Problem(BaseModel):
    """Why there is no answer."""

    detail: str | list[Any] = Field(examples=["unknown pair DOGE/USD; known: BTC/USD, ETH/USD"])
