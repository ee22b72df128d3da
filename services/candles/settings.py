"""Settings of the candles service (``CANDLES_…``)."""

from typing import Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from services.candles.series import Rules
from services.common.settings import Names, ServiceSettings, check_timeframes, split_list
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

    @field_validator("timeframes", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return split_list(value)

    @field_validator("timeframes")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return check_timeframes(value)

    @model_validator(mode="after")
    def _horizon_exceeds_grace(self) -> Self:
        if self.correction_horizon_s * 1000 <= self.grace_ms:
            raise ValueError("CANDLES_CORRECTION_HORIZON_S must be longer than CANDLES_GRACE_MS")
        return self

    def rules(self) -> Rules:
        """The same, as the core takes it."""
        return Rules(self.grace_ms, int(self.correction_horizon_s * 1000), self.update_every_ms)
