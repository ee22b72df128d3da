"""The indicators: one declarative table, computed with TA-Lib over whole arrays. Pure.

Each entry names its output columns (of `services.common.columns`), a function, its inputs and its
parameters. To add one: a line here and a column there; a test holds the two together.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from inspect import unwrap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.common.columns import INDICATOR_NAMES
from services.common.imports import absent

with absent("pandas", "polars"):
    # It would wrap its functions for theirs; they are given arrays here.
    import talib

type Array = NDArray[np.float64]

#: What an indicator may read of the candles.
INPUTS = ("open", "high", "low", "close", "volume", "buy_volume")


@dataclass(frozen=True, slots=True)
class Indicator:
    """One function over candle columns: arrays of length n in, one array of length n per output."""

    outputs: tuple[str, ...]
    function: Callable[..., Any]
    inputs: tuple[str, ...]
    parameters: Mapping[str, int] = field(default_factory=dict)
    #: Whether a value depends on all candles before it, fading, rather than on a window of them.
    recursive: bool = False


def _plain(function: Callable[..., Any]) -> Any:
    """The function inside the wrapper that lets TA-Lib accept data frames, which costs as much as it."""
    return unwrap(function)


_midprice = _plain(talib.MIDPRICE)


def _ichimoku_span_a(high: Array, low: Array) -> Array:
    """Mean of the 9 and the 26 mid-ranges."""
    mean: Array = (_midprice(high, low, 9) + _midprice(high, low, 26)) / 2
    return mean


def _log_return(close: Array, periods: int) -> Array:
    """ln(close[i] / close[i - periods]); NaN in the first `periods` places."""
    out = np.full_like(close, np.nan)
    out[periods:] = np.log(close[periods:] / close[:-periods])
    return out


def _window_sum(values: Array, periods: int) -> Array:
    """Sum of each value and the `periods - 1` before it; NaN where there are fewer.

    Sums of 1, 2, 4 … values put together, so that each depends on its window alone: a running total
    would drift, and fall below zero for squares.
    """
    out = np.full_like(values, np.nan)
    count = len(values) - periods + 1
    if count <= 0:
        return out
    doubled, width, done = values, 1, 0
    total: Array | None = None
    while True:
        if periods & width:
            part = doubled[done : done + count]
            total = part if total is None else total + part
            done += width
        if done == periods:
            out[periods - 1 :] = total
            return out
        doubled = doubled[:-width] + doubled[width:]
        width *= 2


def _realized_volatility(close: Array, periods: int) -> Array:
    """Root of the sum of the last `periods` squared log returns."""
    return np.sqrt(_window_sum(_log_return(close, 1) ** 2, periods))


def _flow_imbalance(volume: Array, buy_volume: Array, periods: int) -> Array:
    """(buys - sells) / volume of the last `periods` candles, -1 to 1; NaN where nothing traded."""
    traded = _window_sum(volume, periods) if periods > 1 else volume
    bought = _window_sum(buy_volume, periods) if periods > 1 else buy_volume
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(traded > 0, (2 * bought - traded) / traded, np.nan)


HLC = ("high", "low", "close")
CLOSE = ("close",)

#: The one running total; `engine` carries it from batch to batch.
OBV = Indicator(("obv",), _plain(talib.OBV), ("close", "volume"))

TABLE: tuple[Indicator, ...] = (
    *(Indicator((f"rsi_{n}",), _plain(talib.RSI), CLOSE, {"timeperiod": n}, True) for n in (9, 14, 21, 28)),
    Indicator(
        ("macd", "macd_signal", "macd_hist"),
        _plain(talib.MACD),
        CLOSE,
        {"fastperiod": 12, "slowperiod": 26, "signalperiod": 9},
        recursive=True,
    ),
    Indicator(
        ("bb_upper", "bb_middle", "bb_lower"),
        _plain(talib.BBANDS),
        CLOSE,
        {"timeperiod": 20, "nbdevup": 2, "nbdevdn": 2},
    ),
    Indicator(
        ("stochrsi_k", "stochrsi_d"),
        _plain(talib.STOCHRSI),
        CLOSE,
        {"timeperiod": 14, "fastk_period": 5, "fastd_period": 3},
        recursive=True,
    ),
    Indicator(("adx_14",), _plain(talib.ADX), HLC, {"timeperiod": 14}, True),
    Indicator(("mfi_14",), _plain(talib.MFI), (*HLC, "volume"), {"timeperiod": 14}),
    Indicator(("atr_14",), _plain(talib.ATR), HLC, {"timeperiod": 14}, True),
    Indicator(("roc_6",), _plain(talib.ROC), CLOSE, {"timeperiod": 6}),
    *(Indicator((f"sma_{n}",), _plain(talib.SMA), CLOSE, {"timeperiod": n}) for n in (7, 14, 21, 28)),
    *(Indicator((f"ema_{n}",), _plain(talib.EMA), CLOSE, {"timeperiod": n}, True) for n in (7, 14, 21, 28)),
    Indicator(("volume_ema_10",), _plain(talib.EMA), ("volume",), {"timeperiod": 10}, True),
    OBV,
    Indicator(("ichimoku_conversion",), _plain(talib.MIDPRICE), ("high", "low"), {"timeperiod": 9}),
    Indicator(("ichimoku_base",), _plain(talib.MIDPRICE), ("high", "low"), {"timeperiod": 26}),
    Indicator(("ichimoku_span_a",), _ichimoku_span_a, ("high", "low")),
    Indicator(("ichimoku_span_b",), _plain(talib.MIDPRICE), ("high", "low"), {"timeperiod": 52}),
    Indicator(
        ("stoch_k", "stoch_d"),
        _plain(talib.STOCH),
        HLC,
        {"fastk_period": 14, "slowk_period": 3, "slowd_period": 3},
    ),
    Indicator(("cci_20",), _plain(talib.CCI), HLC, {"timeperiod": 20}),
    Indicator(("willr_14",), _plain(talib.WILLR), HLC, {"timeperiod": 14}),
    # TA-Lib returns the down line first.
    Indicator(("aroon_down_14", "aroon_up_14"), _plain(talib.AROON), ("high", "low"), {"timeperiod": 14}),
    Indicator(("trix_15",), _plain(talib.TRIX), CLOSE, {"timeperiod": 15}, True),
    *(Indicator((f"log_return_{n}",), _log_return, CLOSE, {"periods": n}) for n in (1, 5, 20)),
    Indicator(("realized_vol_20",), _realized_volatility, CLOSE, {"periods": 20}),
    Indicator(("flow_imbalance_1",), _flow_imbalance, ("volume", "buy_volume"), {"periods": 1}),
    Indicator(("flow_imbalance_14",), _flow_imbalance, ("volume", "buy_volume"), {"periods": 14}),
)


def choose(names: tuple[str, ...]) -> tuple[Indicator, ...]:
    """The indicators that make the columns `names`. Raises `ValueError` naming unknown ones."""
    unknown = sorted(set(names) - set(INDICATOR_NAMES))
    if unknown:
        raise ValueError(f"unknown indicator {', '.join(unknown)}; known: {', '.join(INDICATOR_NAMES)}")
    return tuple(indicator for indicator in TABLE if set(indicator.outputs) & set(names))


def compute(indicators: tuple[Indicator, ...], columns: Mapping[str, Array], out: Array) -> None:
    """Write the indicators' last values over n candles into their rows of `out`.

    `columns` holds contiguous arrays of length n for `INPUTS`; `out` has the shape
    (len(INDICATOR_NAMES), m) with m up to n. NaN until warm; rows of other indicators stay as they are.
    """
    kept = out.shape[1]
    for indicator in indicators:
        results = indicator.function(*[columns[name] for name in indicator.inputs], **indicator.parameters)
        if len(indicator.outputs) == 1:
            out[POSITION[indicator.outputs[0]]] = results[-kept:]
        else:
            for name, values in zip(indicator.outputs, results, strict=True):
                out[POSITION[name]] = values[-kept:]


#: Row of each indicator column in what `compute` writes.
POSITION = {name: position for position, name in enumerate(INDICATOR_NAMES)}
