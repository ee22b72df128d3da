"""The indicators: equal to TA-Lib on the whole history, whatever the batching, restarts, corrections."""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
import talib
from hypothesis import given, settings
from hypothesis import strategies as st

from services.common.columns import INDICATOR_NAMES
from services.common.messages import Candle
from services.ta.engine import Computed, Engine
from services.ta.history import CHUNK_BYTES, KEPT, Histories
from services.ta.indicators import TABLE, choose, compute

KEY = b"simulated:BTC/USD"
ENGINE = Engine(TABLE)


class MemoryState(dict[str, bytes]):
    written = 0

    def get_bytes(self, key: str) -> bytes | None:
        return self.get(key)

    def set_bytes(self, key: str, value: bytes) -> None:
        self.written += len(value)
        self[key] = value


def market(count: int, seed: int = 7, volatility: float = 1e-3) -> list[Candle]:
    """Random candles, one in ten of them empty and flat."""
    random = np.random.default_rng(seed)
    candles = []
    close = 60_000.0
    for index in range(count):
        empty = random.random() < 0.1
        start_ms = 1_699_833_600_000 + index * 60_000
        opened = close
        if not empty:
            close = round(opened * float(np.exp(random.normal(0, volatility))), 1)
        wick = 0.0 if empty else abs(float(random.normal(0, 5)))
        volume = 0.0 if empty else float(random.exponential(3))
        candles.append(
            Candle(
                "simulated", "BTC/USD", "1m", start_ms, start_ms + 60_000, opened,
                max(opened, close) + wick, min(opened, close) - wick, close, volume,
                None if empty else close, volume * float(random.random()), 0 if empty else 5, True, 0,
            )
        )  # fmt: skip
    return candles


def feed(batches: Sequence[Sequence[Candle]], *, restart_every: int = 0) -> dict[int, Any]:
    """The last row of every candle, in a store that upserts."""
    state, histories = MemoryState(), Histories()
    rows: dict[int, Any] = {}
    for number, batch in enumerate(batches):
        if restart_every and number % restart_every == 0:
            histories = Histories()
        history = histories.get(KEY, "1m", state)
        done = ENGINE.apply(history, batch)
        history.save(state, "1m")
        rows |= {row.start_ms: row for row in done.rows}
    return rows


def cut(candles: Sequence[Candle], sizes: Sequence[int]) -> list[Sequence[Candle]]:
    batches: list[Sequence[Candle]] = []
    begin = turn = 0
    while begin < len(candles):
        size = sizes[turn % len(sizes)]
        batches.append(candles[begin : begin + size])
        begin, turn = begin + size, turn + 1
    return batches


def whole_history(candles: Sequence[Candle]) -> dict[str, Any]:
    names = ("open", "high", "low", "close", "volume", "buy_volume")
    columns = {n: np.array([getattr(c, n) for c in candles], dtype=float) for n in names}
    values = np.full((len(INDICATOR_NAMES), len(candles)), np.nan)
    compute(TABLE, columns, values)
    return dict(zip(INDICATOR_NAMES, values, strict=True))


@pytest.mark.parametrize("volatility", [1e-4, 1e-3, 1e-2])
def test_indicators_equal_talib_on_the_whole_history_and_are_null_until_warm(volatility: float) -> None:
    candles = market(4 * KEPT, volatility=volatility)
    rows = list(feed(cut(candles, [1, 700, 13])).values())
    for name, values in whole_history(candles).items():
        ours = [getattr(row, name) for row in rows]
        assert [value is None for value in ours] == np.isnan(values).tolist(), name
        # Where a value should be 0, TA-Lib's running sums leave the rounding of what they held before.
        residue = 1e-12 * float(np.nanmax(np.abs(values)))
        want = [None if np.isnan(v) else pytest.approx(v, rel=1e-9, abs=residue) for v in values]
        assert ours == want, name


def test_values_are_talibs_own() -> None:
    candles = market(2 * KEPT)
    rows = list(feed([candles]).values())
    close = np.array([c.close for c in candles])
    assert rows[-1].rsi_28 == pytest.approx(talib.RSI(close, 28)[-1], rel=1e-9)
    assert rows[-1].ema_28 == pytest.approx(talib.EMA(close, 28)[-1], rel=1e-9)
    high, low = np.array([c.high for c in candles]), np.array([c.low for c in candles])
    assert rows[-1].ichimoku_base == (max(high[-26:]) + min(low[-26:])) / 2
    assert rows[-1].adx_14 == pytest.approx(talib.ADX(high, low, close, 14)[-1], rel=1e-9)
    returns = np.diff(np.log(close[-21:]))
    assert rows[-1].realized_vol_20 == pytest.approx(float(np.sqrt((returns**2).sum())), rel=1e-9)
    assert rows[-1].log_return_5 == pytest.approx(float(np.log(close[-1] / close[-6])), rel=1e-9)


LONG_MARKET = market(2 * KEPT + 333)
LONG_ROWS = feed([LONG_MARKET])


@given(
    st.lists(st.sampled_from([1, 2, 7, 100, 255, 256, 257, 1_000]), min_size=1, max_size=6),
    st.integers(0, 9),
)
@settings(max_examples=15, deadline=None)
def test_any_batching_and_restarts_give_the_same_bits(sizes: list[int], restart_every: int) -> None:
    # Many batches of one candle are slow and prove nothing more at the beginning of the series.
    batches = [
        LONG_MARKET[:KEPT],
        *cut(LONG_MARKET[KEPT:], [size for size in sizes if size > 1] or [97]),
    ]
    batches += [[candle] for candle in LONG_MARKET[-40:]]
    assert feed(batches, restart_every=restart_every) == LONG_ROWS


@given(
    st.lists(st.tuples(st.integers(0, 200), st.integers(1, 3)), min_size=1, max_size=6),
    st.lists(st.integers(1, 90), min_size=1, max_size=4),
)
@settings(max_examples=15, deadline=None)
def test_corrections_end_in_the_rows_of_the_corrected_market(
    changes: list[tuple[int, int]], sizes: list[int]
) -> None:
    candles = market(1_500)
    corrected = list(candles)
    stream: list[Candle] = list(candles)
    for back, revision in changes:
        index = 1_499 - back
        changed = msgspec.structs.replace(
            corrected[index],
            close=corrected[index].low,
            volume=corrected[index].volume + 1.5,
            revision=corrected[index].revision + revision,
        )
        corrected[index] = changed
        stream.append(changed)
    assert feed([stream[:1_200], *cut(stream[1_200:], sizes)], restart_every=2) == feed([corrected])


def test_a_correction_sends_its_own_row_and_all_later_ones() -> None:
    candles = market(900)
    state, histories = MemoryState(), Histories()
    history = histories.get(KEY, "1m", state)
    ENGINE.apply(history, candles)
    changed = msgspec.structs.replace(candles[890], volume=99.0, revision=1)
    done = ENGINE.apply(history, [changed])
    assert [row.start_ms for row in done.rows] == [c.start_ms for c in candles[890:]]
    assert [row.revision for row in done.rows] == [1] + [0] * 9
    assert done.corrections == 1
    again = ENGINE.apply(history, [changed])
    assert (again.rows, again.duplicates) == ([], 1)


def test_a_candle_from_before_the_history_is_refused() -> None:
    candles = market(2 * KEPT)
    history = Histories().get(KEY, "1m", MemoryState())
    ENGINE.apply(history, candles)
    old = msgspec.structs.replace(candles[10], revision=1)
    done: Computed = ENGINE.apply(history, [old])
    assert [(index, error.reason) for index, error in done.refused] == [(0, "too_old")]


def test_an_open_candle_is_computed_and_leaves_no_trace() -> None:
    candles = market(300)
    state, histories = MemoryState(), Histories()
    history = histories.get(KEY, "1m", state)
    ENGINE.apply(history, candles[:299])
    history.save(state, "1m")
    before = dict(state)
    opened = msgspec.structs.replace(candles[299], closed=False)
    (row,) = ENGINE.apply(history, [opened]).rows
    history.save(state, "1m")
    assert row.closed is False
    assert state == before
    (closed,) = ENGINE.apply(history, candles[299:]).rows
    assert msgspec.structs.replace(row, closed=True) == closed


def test_the_state_written_per_candle_is_bounded() -> None:
    candles = market(2_000)
    state, histories = MemoryState(), Histories()
    most = 0
    for candle in candles:
        history = histories.get(KEY, "1m", state)
        ENGINE.apply(history, [candle])
        most = max(most, history.save(state, "1m"))
    assert most <= CHUNK_BYTES + 16 == 792
    assert state.written / len(candles) < 470


def test_only_the_chosen_indicators_are_computed() -> None:
    chosen = Engine(choose(("rsi_14", "macd")))
    history = Histories().get(KEY, "1m", MemoryState())
    row = chosen.apply(history, market(100)).rows[-1]
    assert row.rsi_14 is not None
    assert row.macd is not None
    assert row.sma_7 is None
    assert row.obv is None
    with pytest.raises(ValueError, match="unknown indicator rsi_99; known: rsi_9"):
        choose(("rsi_99",))


def test_the_table_makes_every_column_of_the_contract_once() -> None:
    made = [name for indicator in TABLE for name in indicator.outputs]
    assert sorted(made) == sorted(INDICATOR_NAMES)
