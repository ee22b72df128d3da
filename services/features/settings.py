"""Settings of the features service (``FEATURES_…``)."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from services.features.hopsworks_settings import HopsworksSettings


class FeaturesSettings(HopsworksSettings):
    """Where the features go and how they are served."""

    model_config = SettingsConfigDict(env_prefix="FEATURES_")

    store: Literal["sqlite", "hopsworks"] = Field("sqlite", description="Which feature store to write")
    store_path: Path = Field(
        Path("store/features.sqlite"),
        description="File of the SQLite store, or of the working copy that fills Hopsworks; on a local disk",
    )
    store_synchronous: Literal["normal", "full"] = Field(
        "normal",
        description="When SQLite syncs to disk: before offset commits (normal), at each write (full)",
    )
    keep_days: int = Field(
        0,
        ge=0,
        le=36_500,
        description="Days of rows to keep in SQLite; older ones go into Parquet beside it; 0 keeps all",
    )
    api_key: SecretStr | None = Field(
        None,
        min_length=16,
        description="What clients of /features must send as X-API-Key; none if unset",
    )
    max_rows: int = Field(
        10_000, ge=1, le=1_000_000, description="Most rows that one history request returns"
    )
    stale_grace_s: float = Field(
        30.0,
        ge=0,
        description="A newest row is stale when it ended two intervals and this long ago",
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.store == "hopsworks" and (missing := self.missing_for_hopsworks()):
            raise ValueError(f"FEATURES_STORE=hopsworks needs {', '.join(missing)}")
        if self.store != "sqlite" and self.keep_days:
            # A store that keeps a file of that kind for purposes of its own looks after its rows itself.
            raise ValueError(
                "FEATURES_KEEP_DAYS is for FEATURES_STORE=sqlite; with hopsworks set "
                "FEATURES_HOPSWORKS_KEEP_DAYS, and FEATURES_KEEP_DAYS to 0"
            )
        return self
