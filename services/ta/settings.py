"""Settings of the ta service (``TA_…``)."""

from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

from services.common.columns import INDICATOR_NAMES
from services.common.settings import Names, ServiceSettings, split_list
from services.ta.indicators import choose


class TaSettings(ServiceSettings):
    """What the ta service can be told."""

    model_config = SettingsConfigDict(env_prefix="TA_")

    indicators: Names = Field(
        INDICATOR_NAMES,
        description="Indicator columns to compute, comma-separated; the others stay null",
    )

    @field_validator("indicators", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return split_list(value)

    @field_validator("indicators")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        choose(value)
        return value
