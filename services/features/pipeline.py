"""ta → store: decode a batch, check its rows, write them, and say how long they took to get here."""

import time
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import msgspec
from loguru import logger

from services.common.errors import ContractError, StoreError
from services.common.health import Health
from services.common.messages import (
    MAX_CLOCK_SKEW_MS,
    TaRow,
    candles_pass,
    check_candle,
    decode_rows,
    received_at_ms,
    row_decoder,
    split_key,
)
from services.common.metrics import Metrics
from services.common.runner import Context
from services.common.stream import Message, State, StepResult, Stream
from services.features.api import build_router
from services.features.groups import TA, FeatureGroup
from services.features.settings import FeaturesSettings
from services.features.stores import open_for_reading, open_for_writing
from services.features.stores.contract import Reader, Store

# Fine around the goal of 100 ms p50 and 300 ms p99, from 1 ms to a minute.
FRAME_TO_ROW_BUCKETS_S = (
    *(0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1),
    *(0.125, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0, 60.0),
)
WRITE_BUCKETS_S = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 10)


def now_ms() -> int:
    """Wall-clock time in epoch milliseconds."""
    return time.time_ns() // 1_000_000


class FeaturesStep:
    """The step of the features service: rows of one feature group into the store."""

    def __init__(
        self,
        group: FeatureGroup,
        row: Any,
        store: Store,
        metrics: Metrics,
        health: Health,
        clock_ms: Callable[[], int] = now_ms,
    ) -> None:
        self._group = group
        self._row = row
        self._store = store
        self._health = health
        self._clock_ms = clock_ms
        self._last_event = metrics.last_event
        self._frame_to_row = metrics.histogram(
            "frame_to_row_seconds",
            "From the frame of the exchange to the row that can be read",
            buckets=FRAME_TO_ROW_BUCKETS_S,
        )
        self._write_seconds = metrics.histogram(
            "store_write_seconds", "Time to write a batch to the store", buckets=WRITE_BUCKETS_S
        )
        self._last_write = metrics.gauge(
            "last_write_success_timestamp_seconds", "When the store last took a batch, Unix time"
        )

    def __call__(self, message: Message, state: State) -> StepResult:  # noqa: ARG002
        """Store the good rows of `message`. Raises `ContractError`, `StoreError`."""
        exchange, _ = split_key(message.key)
        result = StepResult()
        rows = self._decode(message, result)
        if not rows:
            return result
        begun = time.perf_counter()
        try:
            self._store.write(self._group, [msgspec.structs.astuple(row) for row in rows])
        except StoreError as error:
            # The process ends now and its offsets stay, so these rows come again.
            self._health.require("store", str(error))
            raise
        self._write_seconds.observe(time.perf_counter() - begun)
        now = self._clock_ms()
        self._last_write.set(now / 1000)
        self._last_event.labels(exchange).set(rows[-1].end_ms / 1000)
        received = received_at_ms(message.headers)
        if received is not None:
            self._frame_to_row.observe(max(0, now - received) / 1000)
        result.rows_in = result.rows_out = len(rows)
        return result

    def _decode(self, message: Message, result: StepResult) -> list[Any]:
        """The good rows; the others go to `result.refused`. Raises `ContractError`."""
        limit_ms = self._clock_ms() + MAX_CLOCK_SKEW_MS
        try:
            rows: list[Any] = row_decoder(self._row, message.key).decode(message.value)
        except (msgspec.DecodeError, UnicodeDecodeError):
            rows = []
        else:
            if plausible(rows, limit_ms):
                return rows

        def check(row: Any) -> None:
            check_candle(row)
            # Online rows never go back in time, so one from the future would stop them for good.
            if row.start_ms > limit_ms:
                raise ContractError("future_event", f"candle starts at {row.start_ms}, after now")

        rows, refused = decode_rows(self._row, message.key, message.value, check)
        result.refused += refused
        return rows


def plausible(rows: list[Any], limit_ms: int) -> bool:
    """Whether all rows pass `check_candle` and began by `limit_ms`; may say no to a good batch."""
    return candles_pass(rows) and all(row.start_ms <= limit_ms for row in rows)


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reached from this machine only."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class FeaturesPipeline:
    """The stream and the store that it writes."""

    def __init__(self, stream: Stream, store: Store) -> None:
        self._stream = stream
        self._store = store

    def run(self) -> None:
        """Run until told to stop, then close the store."""
        try:
            self._stream.run()
        finally:
            self._store.close()


def build_pipeline(settings: FeaturesSettings, context: Context) -> FeaturesPipeline:
    """The features service: `ta` in, the feature store out, and its HTTP face."""
    key = settings.api_key.get_secret_value() if settings.api_key is not None else None
    if key is None and not is_loopback(settings.http_host):
        logger.warning("/features is open to whoever reaches {}: set FEATURES_API_KEY", settings.http_host)
    stream = Stream(settings, context, ("ta",))
    context.health.require("store", "not open")
    store = open_for_writing(settings.store, settings.store_path, settings.store_synchronous)
    store.ensure_group(TA)
    context.health.require("store", None)
    step = FeaturesStep(TA, TaRow, store, context.metrics, context.health)
    stream.add_step("ta", step, stateful=False, flush=store.flush)

    def reader() -> Reader:
        return open_for_reading(settings.store, settings.store_path)

    context.routers.append(
        build_router(
            reader,
            api_key=key,
            max_rows=settings.max_rows,
            stale_grace_s=settings.stale_grace_s,
            clock_ms=now_ms,
        )
    )
    return FeaturesPipeline(stream, store)
