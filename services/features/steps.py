"""The steps of the features service: decode a batch, check its rows, write them, say how long they took."""

import time
from collections.abc import Callable
from typing import Any

import msgspec

from services.common.errors import ContractError, StoreError
from services.common.health import Health
from services.common.messages import (
    MAX_CLOCK_SKEW_MS,
    candles_pass,
    check_candle,
    decode_rows,
    received_at_ms,
    row_decoder,
    split_key,
)
from services.common.metrics import Metrics
from services.common.news import NewsSignal, check_signal, coin_of, decode_signals, signal_decoder
from services.common.step import Message, State, StepResult
from services.features.groups import FeatureGroup
from services.features.measures import Measures
from services.features.sentiment import SentimentWriter
from services.features.stores.contract import Store


def now_ms() -> int:
    """Wall-clock time in epoch milliseconds."""
    return time.time_ns() // 1_000_000


class FeaturesStep:
    """`ta` → store: rows of one feature group, as they are.

    `before` is called before each write; what it writes can be read when the rows can.
    """

    def __init__(
        self,
        group: FeatureGroup,
        row: Any,
        store: Store,
        metrics: Metrics,
        health: Health,
        clock_ms: Callable[[], int] = now_ms,
        *,
        measures: Measures | None = None,
        before: Callable[[], None] = lambda: None,
    ) -> None:
        self._group = group
        self._row = row
        self._store = store
        self._measures = Measures(metrics, health) if measures is None else measures
        self._clock_ms = clock_ms
        self._before = before

    def __call__(self, message: Message, state: State) -> StepResult:  # noqa: ARG002
        """Store the good rows of `message`. Raises `ContractError`, `StoreError`."""
        exchange, _ = split_key(message.key)
        result = StepResult()
        rows = self._decode(message, result)
        if not rows:
            return result
        try:
            self._before()
            begun = time.perf_counter()
            self._store.write(self._group, [msgspec.structs.astuple(row) for row in rows])
        except StoreError as error:
            self._measures.failed(error)
            raise
        now = self._clock_ms()
        self._measures.wrote(begun, now)
        self._measures.last_event.labels(exchange).set(rows[-1].end_ms / 1000)
        received = received_at_ms(message.headers)
        if received is not None:
            self._measures.frame_to_row.observe(max(0, now - received) / 1000)
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


class NewsStep:
    """`news_signals` → store: the signals, and the sentiment of their coin."""

    def __init__(self, writer: SentimentWriter, measures: Measures, clock_ms: Callable[[], int]) -> None:
        self._writer = writer
        self._measures = measures
        self._clock_ms = clock_ms

    def __call__(self, message: Message, state: State) -> StepResult:  # noqa: ARG002
        """Store the good signals of `message`. Raises `ContractError`, `StoreError`."""
        coin = coin_of(message.key)
        result = StepResult()
        signals = self._decode(message, result)
        if not signals:
            return result
        begun = time.perf_counter()
        try:
            self._writer.write(coin, signals)
        except StoreError as error:
            self._measures.failed(error)
            raise
        now = self._clock_ms()
        self._measures.wrote(begun, now)
        self._measures.last_news.set(max(signal.observed_at_ms for signal in signals) / 1000)
        received = received_at_ms(message.headers)
        if received is not None:
            self._measures.news_to_row.observe(max(0, now - received) / 1000)
        result.rows_in = result.rows_out = len(signals)
        return result

    def _decode(self, message: Message, result: StepResult) -> list[Any]:
        limit_ms = self._clock_ms() + MAX_CLOCK_SKEW_MS

        def check(signal: Any) -> None:
            check_signal(signal)
            if signal.observed_at_ms > limit_ms:
                raise ContractError("future_event", f"observed at {signal.observed_at_ms}, after now")

        signals, refused = decode_signals(message.key, message.value)
        if any(signal.observed_at_ms > limit_ms for signal in signals):
            decoder = signal_decoder(message.key)
            signals, refused = decode_rows(NewsSignal, message.key, message.value, check, decoder)
        result.refused += refused
        return signals
