"""Settings of the trades service (``TRADES_…``)."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from services.common.messages import EXCHANGE_PATTERN
from services.common.settings import Names, ServiceSettings, TimeSetting, check_pairs, split_list
from services.trades.exchanges import REGISTRY


class TradesSettings(ServiceSettings):
    """Where trades come from and how hard to try to miss none."""

    model_config = SettingsConfigDict(env_prefix="TRADES_")

    source: Literal["live", "replay", "historical"] = Field(
        "live",
        description="live: the exchange's WebSocket; replay: a recording; historical: SINCE to UNTIL",
    )
    exchange: str = Field(
        "kraken",
        pattern=EXCHANGE_PATTERN,
        description="kraken, coinbase or binance; a CSV replay may use any name",
    )
    pairs: Names = Field(
        (), description="Pairs, written BTC/USD; a replay without them takes all that it finds"
    )
    ws_url: str | None = Field(
        None, pattern=r"^wss?://", description="WebSocket address; the exchange's own if unset"
    )
    rest_url: str | None = Field(
        None, pattern=r"^https?://", description="REST address; the exchange's own if unset"
    )
    heartbeat_s: float = Field(1.0, gt=0, le=60, description="Pause between a pair's heartbeats")
    heartbeat_delay_ms: int = Field(
        1000,
        ge=0,
        le=60_000,
        description="How far a heartbeat stays behind the last frame, for trades on their way",
    )
    max_frame_bytes: int = Field(
        4_000_000, ge=1_000, le=100_000_000, description="A larger frame ends the connection"
    )
    connect_timeout_s: float = Field(10.0, gt=0, le=60, description="Time to connect")
    ack_timeout_s: float = Field(
        10.0, gt=0, le=120, description="Time for the exchange to confirm every pair"
    )
    socket_silence_s: float = Field(
        5.0, gt=0, le=300, description="Without any frame for this long the connection is dead"
    )
    pair_silence_s: float = Field(
        600.0, gt=0, description="Without trades for this long a pair is checked through REST"
    )
    snapshot_wait_s: float = Field(
        5.0, gt=0, le=60, description="Wait for the snapshot after a confirmed subscription"
    )
    backoff_min_s: float = Field(1.0, gt=0, le=60, description="First wait before reconnecting")
    backoff_max_s: float = Field(60.0, gt=0, le=3600, description="Longest wait before reconnecting")
    max_connects: int = Field(100, ge=2, le=1000, description="Most connection attempts in ten minutes")
    gap_fill_timeout_s: float = Field(
        300.0, gt=0, description="A gap that takes longer to fetch is recorded and left open"
    )
    gap_buffer_rows: int = Field(
        200_000, ge=1, description="Most trades of a pair that wait while a gap is filled"
    )
    rest_interval_s: float = Field(
        1.0, gt=0, le=60, description="Pause between two REST requests about the same pair"
    )
    replay_path: Path | None = Field(
        None, description="Recording, or folder of them: .csv, .ndjson, each also .gz"
    )
    replay_speed: float = Field(
        0.0, ge=0, le=1_000_000, description="Replay: 0 as fast as possible, 1 as it was, 60 …"
    )
    replay_until: TimeSetting | None = Field(
        None, description="Replay: the recording is complete up to this ISO time or epoch ms"
    )
    history: Literal["rest", "archive"] = Field(
        "rest", description="Historical: rest asks the exchange; archive reads the files it offers"
    )
    since: TimeSetting | None = Field(
        None,
        description="Historical, and live at its first start: begin with this ISO time or epoch ms",
    )
    until: TimeSetting | None = Field(
        None, description="Historical: end before this ISO time or epoch ms; now if unset"
    )
    archive_path: Path | None = Field(
        None, description="Historical: archive file or folder, plain, gzip or zip"
    )
    batch_rows: int = Field(
        5000, ge=1, le=20_000, description="Historical and replay at speed 0: trades in a message"
    )

    @field_validator("pairs", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return split_list(value)

    @field_validator("pairs")
    @classmethod
    def _pairs(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return check_pairs(value) if value else value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.source == "historical":
            self._check_history()
        elif self.source == "live":
            if self.exchange not in REGISTRY:
                known = ", ".join(REGISTRY)
                raise ValueError(f"TRADES_EXCHANGE: {self.exchange!r} has no live feed; known: {known}")
            if not self.pairs:
                raise ValueError("TRADES_PAIRS: name at least one pair, like BTC/USD")
            if self.since is not None and (why := REGISTRY[self.exchange].no_history) is not None:
                raise ValueError(f"TRADES_SINCE: {why}")
        elif self.replay_path is None:
            raise ValueError("TRADES_REPLAY_PATH: a replay needs a file or a folder")
        if self.source == "replay" and self.since is not None:
            raise ValueError("TRADES_SINCE: a replay begins where its recording does")
        if self.backoff_max_s < self.backoff_min_s:
            raise ValueError("TRADES_BACKOFF_MAX_S is less than TRADES_BACKOFF_MIN_S")
        return self

    def _check_history(self) -> None:
        if self.history == "rest":
            if self.since is None:
                raise ValueError("TRADES_SINCE: say where to begin, like 2024-01-01")
            if self.exchange not in REGISTRY:
                raise ValueError(
                    f"TRADES_EXCHANGE: {self.exchange!r} has no REST history; known: {', '.join(REGISTRY)}"
                )
            if (why := REGISTRY[self.exchange].no_history) is not None:
                raise ValueError(f"TRADES_EXCHANGE: {why}")
            if not self.pairs:
                raise ValueError("TRADES_PAIRS: name at least one pair, like BTC/USD")
        elif self.archive_path is None:
            raise ValueError("TRADES_ARCHIVE_PATH: an archive needs a file or a folder")
        if self.since is not None and self.until is not None and self.since >= self.until:
            raise ValueError("TRADES_UNTIL: must be after TRADES_SINCE")
