"""trades → candles: decode a batch, apply it to the pair's candles, send what closed."""

import time
from collections.abc import Callable
from typing import Any

import msgspec

from services.candles.archive import ArchivePipeline
from services.candles.bucket import to_candles
from services.candles.series import Applied, PairCandles, Rules
from services.candles.settings import CandlesSettings
from services.common.errors import ContractError
from services.common.history import EMPTY, begins, ending, pauses
from services.common.messages import (
    MAX_CLOCK_SKEW_MS,
    Trade,
    check_trade,
    decode_rows,
    encode,
    row_decoder,
    split_key,
)
from services.common.metrics import Metrics
from services.common.runner import Context
from services.common.step import Message, State, StepResult
from services.common.stream import Stream

HEARTBEAT = EMPTY
STATE_KEY = "candles"
#: A message holds at most this many candles, so that a long gap does not exceed the message size.
MAX_ROWS = 2_000


def now_ms() -> int:
    """Wall-clock time in epoch milliseconds."""
    return time.time_ns() // 1_000_000


class CandlesStep:
    """The step of the candles service."""

    def __init__(
        self,
        rules: Rules,
        timeframes: tuple[str, ...],
        metrics: Metrics,
        clock_ms: Callable[[], int] = now_ms,
    ) -> None:
        self._rules = rules
        self._timeframes = timeframes
        self._clock_ms = clock_ms
        self._late = metrics.counter("late_trades_total", "Trades beyond the correction horizon")
        self._duplicates = metrics.counter("duplicate_trades_total", "Trades seen before, ignored")
        self._corrections = metrics.counter("corrections_total", "Trades that corrected a closed candle")
        self._partial = metrics.counter(
            "partial_candles_total", "Candles not sent since watching began in the middle of them"
        )
        self._last_event = metrics.last_event

    def __call__(self, message: Message, state: State) -> StepResult:
        """Candles that `message` closes or corrects. Raises `ContractError` before touching state."""
        exchange, pair = split_key(message.key)
        limit_ms = self._clock_ms() + MAX_CLOCK_SKEW_MS
        result = StepResult()
        anew = begins(message.value, message.headers)
        candles = PairCandles(self._rules, None if anew else state.get_bytes(STATE_KEY))
        if message.value == HEARTBEAT:
            if message.timestamp_ms > limit_ms:
                raise ContractError("future_event", f"heartbeat stamped {message.timestamp_ms}")
            # Before a hole, as at the end, nothing comes late any more.
            at = message.value, message.headers
            final = ending(*at) is not None or pauses(*at)
            applied = candles.heartbeat(message.timestamp_ms, final=final)
        else:
            trades, indexes, times = self._decode(message, limit_ms, result)
            if not trades:
                return result
            applied = candles.trades(trades, times)
            result.rows_in = len(trades)
            for index, error in applied.late:
                origin = index if indexes is None else indexes[index]
                result.refused.append((origin, encode([trades[index]]), error))
            self._last_event.labels(exchange).set(trades[-1].event_time_ms / 1000)
        state.set_bytes(STATE_KEY, candles.dump())
        self._count(applied)
        self._send(applied, exchange, pair, result)
        return result

    def _decode(
        self, message: Message, limit_ms: int, result: StepResult
    ) -> tuple[list[Any], list[int] | None, list[int] | None]:
        """The good trades; the index in the message of each when some were refused; their times."""
        try:
            trades = row_decoder(Trade, message.key).decode(message.value)
        except (msgspec.DecodeError, UnicodeDecodeError):
            trades = []
        if trades:
            times = [trade.event_time_ms for trade in trades]
            # The whole columns at once: no trade is stamped ahead of any receipt, or of now.
            oldest_receipt: int = min([trade.received_at_ms for trade in trades])
            if max(times) <= min(oldest_receipt + MAX_CLOCK_SKEW_MS, limit_ms):
                return trades, None, times

        def check(trade: Any) -> None:
            check_trade(trade)
            if trade.event_time_ms > limit_ms:
                raise ContractError("future_event", f"event at {trade.event_time_ms}, after now")

        good, refused = decode_rows(Trade, message.key, message.value, check)
        result.refused += refused
        bad = {index for index, _, _ in refused}
        return good, [i for i in range(len(good) + len(bad)) if i not in bad], None

    def _send(self, applied: Applied, exchange: str, pair: str, result: StepResult) -> None:
        for timeframe in self._timeframes:
            buckets = applied.closed.get(timeframe, [])
            for begin in range(0, len(buckets), MAX_ROWS):
                rows = to_candles(buckets[begin : begin + MAX_ROWS], exchange, pair, timeframe, True)
                result.outputs.append(encode(rows))
                result.rows_out += len(rows)
            update = applied.updates.get(timeframe)
            if update is not None:
                result.outputs.append(encode(to_candles([update], exchange, pair, timeframe, False)))
                result.rows_out += 1

    def _count(self, applied: Applied) -> None:
        self._late.inc(len(applied.late))
        self._duplicates.inc(applied.duplicates)
        self._corrections.inc(applied.corrections)
        self._partial.inc(applied.partial)


def build_pipeline(settings: CandlesSettings, context: Context) -> Stream | ArchivePipeline:
    """The candles service: `trades` or files in, `candles` out."""
    if settings.source == "archive":
        return ArchivePipeline(settings, context, now_ms)
    stream = Stream(settings, context, ("trades", "candles"))
    step = CandlesStep(settings.rules(), settings.timeframes, context.metrics)
    stream.add_step("trades", step, destination="candles")
    return stream
