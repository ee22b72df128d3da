"""Settings of the LLM engine (``NEWS_SIGNALS_LLM_…``); they count when ``NEWS_SIGNALS_ENGINE=llm``.

The providers' usual variables (``OPENAI_API_KEY``, ``ANTHROPIC_API_KEY``) are not read: a key that lies in
the environment for something else must not begin to cost money here.
"""

from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from services.common.settings import ServiceSettings


class LlmSettings(ServiceSettings):
    """Which model is asked, how patiently, and what it may cost."""

    model_config = SettingsConfigDict(env_prefix="NEWS_SIGNALS_")

    llm_model: str | None = Field(
        None,
        min_length=1,
        max_length=80,
        pattern=r"^[\x21-\x7e]+$",
        description="anthropic:…, openai:…, ollama:…; with a base URL any name the endpoint knows",
    )
    llm_api_key: SecretStr | None = Field(
        None,
        min_length=1,
        description="Key for the model's provider; OPENAI_API_KEY and the like are not read",
    )
    llm_base_url: str | None = Field(
        None,
        pattern=r"^https?://[\x21-\x7e]+$",
        description="Address of an OpenAI-compatible endpoint, or of a proxy for Anthropic",
    )
    llm_output: Literal["auto", "tool", "json", "prompt"] = Field(
        "auto", description="How an answer is typed: forced tool call, JSON schema, or words; auto knows"
    )
    llm_batch: int = Field(8, ge=1, le=20, description="Stories in one request")
    llm_concurrency: int = Field(2, ge=1, le=16, description="Requests at once")
    llm_timeout_s: float = Field(12.0, gt=0, le=25, description="Time for one request")
    llm_deadline_s: float = Field(
        20.0,
        gt=0,
        le=25,
        description="Time for one round of stories with all retries; after 30 s the service counts as dead",
    )
    llm_retries: int = Field(
        2, ge=0, le=5, description="How often a failed request or an invalid answer is tried again"
    )
    llm_max_output_tokens: int = Field(
        4_000, ge=200, le=20_000, description="Longest answer; more for a model that reasons"
    )
    llm_daily_tokens: int = Field(
        1_000_000,
        ge=1,
        le=10**12,
        description="Most tokens in a UTC day, in and out; then the fallback answers",
    )
    llm_daily_usd: float | None = Field(
        None, gt=0, le=1_000_000, description="Most US dollars in a UTC day; needs both prices"
    )
    llm_input_usd: float | None = Field(
        None, ge=0, le=10_000, description="Price of a million input tokens in US dollars"
    )
    llm_output_usd: float | None = Field(
        None, ge=0, le=10_000, description="Price of a million output tokens in US dollars"
    )
    llm_cache_path: Path | None = Field(
        None, description="File of remembered answers, on a local disk; in the state folder if unset"
    )
    llm_cache_rows: int = Field(
        200_000, ge=1, le=10_000_000, description="Most answers remembered, about 300 bytes each"
    )
    llm_cache_days: float = Field(30.0, gt=0, le=3650, description="How long an answer is remembered")
    llm_breaker_failures: int = Field(
        5, ge=1, le=1000, description="Failures in a row after which the model is left alone"
    )
    llm_breaker_s: float = Field(
        60.0, gt=0, le=86_400, description="How long it is left alone before one request probes it"
    )

    @field_validator("llm_base_url")
    @classmethod
    def _plain_address(cls, value: str | None) -> str | None:
        # The address is shown in the log and in /info.
        if value is not None:
            parts = urlsplit(value)
            if "@" in parts.netloc or parts.query or parts.fragment:
                raise ValueError("name host and path only; the key belongs in NEWS_SIGNALS_LLM_API_KEY")
            if not parts.hostname:
                raise ValueError("write an address like http://localhost:8000/v1")
        return value

    @model_validator(mode="after")
    def _prices_for_the_cap(self) -> Self:
        if self.llm_daily_usd is not None and (self.llm_input_usd is None or self.llm_output_usd is None):
            raise ValueError(
                "NEWS_SIGNALS_LLM_DAILY_USD: a cost cap needs the prices NEWS_SIGNALS_LLM_INPUT_USD "
                "and NEWS_SIGNALS_LLM_OUTPUT_USD of the model"
            )
        return self
