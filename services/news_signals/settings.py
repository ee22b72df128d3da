"""Settings of the news_signals service (``NEWS_SIGNALS_…``)."""

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.news_signals.llm_settings import LlmSettings


class NewsSignalsSettings(LlmSettings):
    """Which engine scores, which coins are looked for, and how much is scored at once."""

    model_config = SettingsConfigDict(env_prefix="NEWS_SIGNALS_")

    commit_interval_s: float = Field(
        0.25,
        gt=0,
        le=60,
        description="How often progress is committed; also the longest that a lone story waits to be scored",
    )
    stale_after_s: float = Field(
        21_600.0, gt=0, description="Without input for this long the service reports not ready"
    )
    engine: Literal["embedded", "llm"] = Field(
        "embedded", description="What scores: the model shipped with the code, or a language model"
    )
    coins_path: Path | None = Field(
        None, description="CSV with coins of your own: new ones, and ones that replace ours line by line"
    )
    coins_replace: bool = Field(False, description="That file is the whole list; ours is not used")
    batch: int = Field(16, ge=1, le=500, description="Most stories that are scored at once")
