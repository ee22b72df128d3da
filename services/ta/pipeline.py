"""candles → ta: decode a batch, add it to the series' history, send the rows with indicators."""

from typing import Any

import msgspec

from services.common.errors import ContractError
from services.common.history import begins
from services.common.messages import Candle, candles_pass, check_candle, decode_rows, encode, row_decoder
from services.common.metrics import Metrics
from services.common.runner import Context
from services.common.step import Message, State, StepResult
from services.common.stream import Stream
from services.common.timeframes import TIMEFRAMES
from services.ta.engine import Engine
from services.ta.history import Histories
from services.ta.indicators import choose
from services.ta.settings import TaSettings

#: A message holds at most this many rows; they are three times as long as candles.
MAX_ROWS = 1_000


class TaStep:
    """The step of the ta service."""

    def __init__(self, engine: Engine, metrics: Metrics) -> None:
        self._engine = engine
        self._histories = Histories()
        self._last_event = metrics.last_event
        self._duplicates = metrics.counter("duplicate_candles_total", "Candles known before, ignored")
        self._corrections = metrics.counter("corrections_total", "Candles replaced by a later revision")
        self._gaps = metrics.counter("candle_gaps_total", "Candles that do not follow the one before")
        self._state_bytes = metrics.counter("state_written_bytes_total", "Bytes of state written")

    def __call__(self, message: Message, state: State) -> StepResult:
        """Rows for the candles of `message`, which are all of one timeframe."""
        if begins(message.value, message.headers):
            self._histories.forget(message.key, TIMEFRAMES, state)
            return StepResult()
        candles, indexes, result = _decode(message)
        if not candles:
            return result
        timeframe = candles[0].timeframe
        if any(candle.timeframe != timeframe for candle in candles):
            raise ContractError("mixed_series", "a message holds candles of one timeframe")
        history = self._histories.get(message.key, timeframe, state)
        done = self._engine.apply(history, candles)
        self._state_bytes.inc(history.save(state, timeframe))
        result.rows_in = len(candles)
        result.rows_out = len(done.rows)
        for index, error in done.refused:
            result.refused.append((indexes[index], encode([candles[index]]), error))
        for begin in range(0, len(done.rows), MAX_ROWS):
            result.outputs.append(encode(done.rows[begin : begin + MAX_ROWS]))
        self._duplicates.inc(done.duplicates)
        self._corrections.inc(done.corrections)
        self._gaps.inc(done.gaps)
        self._last_event.labels(candles[0].exchange).set(candles[-1].end_ms / 1000)
        return result


def _decode(message: Message) -> tuple[list[Any], list[int] | range, StepResult]:
    """The good candles, the index in the message of each, and a result that refuses the others."""
    try:
        candles = row_decoder(Candle, message.key).decode(message.value)
        if not candles_pass(candles):
            for candle in candles:
                check_candle(candle)
    except (msgspec.DecodeError, UnicodeDecodeError, ContractError):
        good, refused = decode_rows(Candle, message.key, message.value, check_candle)
        bad = {index for index, _, _ in refused}
        indexes = [i for i in range(len(good) + len(bad)) if i not in bad]
        return good, indexes, StepResult(refused=refused)
    return candles, range(len(candles)), StepResult()


def build_pipeline(settings: TaSettings, context: Context) -> Stream:
    """The ta service: `candles` in, `ta` out."""
    stream = Stream(settings, context, ("candles", "ta"))
    step = TaStep(Engine(choose(settings.indicators)), context.metrics)
    stream.add_step("candles", step, destination="ta")
    return stream
