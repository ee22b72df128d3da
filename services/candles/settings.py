"""Settings of the candles service (``CANDLES_…``)."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from services.candles.series import Rules
from services.common.messages import EXCHANGE_PATTERN
from services.common.settings import (
    Names,
    ServiceSettings,
    TimeSetting,
    check_pairs,
    check_timeframes,
    split_list,
)
from services.common.timeframes import TIMEFRAMES


class CandlesSettings(ServiceSettings):
    """What the candles service can be told."""

    model_config = SettingsConfigDict(env_prefix="CANDLES_")

    timeframes: Names = Field(TIMEFRAMES, description="Timeframes to emit, comma-separated")
    grace_ms: int = Field(
        2_000, ge=0, le=60_000, description="How long after its end an interval still takes trades"
    )
    correction_horizon_s: float = Field(
        300.0,
        gt=0,
        le=86_400,
        description="Trades this late correct a closed candle; later ones are dead",
    )
    update_every_ms: int = Field(
        0, ge=0, description="Send open candles at most this often; 0 sends closed ones only"
    )

    source: Literal["trades", "archive"] = Field(
        "trades", description="trades: the topic; archive: candles that Kraken offers for download (OHLCVT)"
    )
    archive_path: Path | None = Field(
        None, description="Archive: file or folder of XBTUSD_1.csv …, plain, gzip or zip"
    )
    exchange: str = Field("kraken", pattern=EXCHANGE_PATTERN, description="Archive: whose candles these are")
    pairs: Names = Field((), description="Archive: pairs like BTC/USD, comma-separated; all if unset")
    since: TimeSetting | None = Field(None, description="Archive: begin with this ISO time or epoch ms")
    until: TimeSetting | None = Field(None, description="Archive: end before this ISO time or epoch ms")

    @field_validator("timeframes", "pairs", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return split_list(value)

    @field_validator("timeframes")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return check_timeframes(value)

    @field_validator("pairs")
    @classmethod
    def _pairs(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return check_pairs(value) if value else value

    @model_validator(mode="after")
    def _archive_is_named(self) -> Self:
        if self.source == "archive" and self.archive_path is None:
            raise ValueError("CANDLES_ARCHIVE_PATH: an archive needs a file or a folder")
        if self.since is not None and self.until is not None and self.since >= self.until:
            raise ValueError("CANDLES_UNTIL: must be after CANDLES_SINCE")
        return self

    @model_validator(mode="after")
    def _horizon_exceeds_grace(self) -> Self:
        if self.correction_horizon_s * 1000 <= self.grace_ms:
            raise ValueError("CANDLES_CORRECTION_HORIZON_S must be longer than CANDLES_GRACE_MS")
        return self

    def rules(self) -> Rules:
        """The same, as the core takes it."""
        return Rules(self.grace_ms, int(self.correction_horizon_s * 1000), self.update_every_ms)
