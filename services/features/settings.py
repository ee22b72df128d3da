"""Settings of the features service (``FEATURES_…``)."""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from services.common.settings import ServiceSettings


class FeaturesSettings(ServiceSettings):
    """Where the features go and how they are served."""

    model_config = SettingsConfigDict(env_prefix="FEATURES_")

    store: Literal["sqlite"] = Field("sqlite", description="Which feature store to write")
    store_path: Path = Field(
        Path("store/features.sqlite"), description="File of the SQLite store; on a local disk"
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
