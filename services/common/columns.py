"""What every column of the `ta` contract means: name, unit, description. Pure.

The `ta` service computes exactly these indicators (a test holds its table to this list) and the
`features` service describes them in the feature store's registry, so the catalogue is part of the
contract between the two.
"""

from dataclasses import dataclass
from typing import Literal

#: `quote` is the pair's second currency, `base` its first; `ratio` has no unit.
Unit = Literal["quote", "base", "ratio", "percent", "count", "ms", "s", "none", "score"]
Kind = Literal["text", "int", "float", "bool"]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a contract or feature group."""

    name: str
    kind: Kind
    unit: Unit
    description: str
    nullable: bool = False


def _indicator(name: str, unit: Unit, description: str) -> Column:
    return Column(name, "float", unit, description, nullable=True)


CANDLE_COLUMNS: tuple[Column, ...] = (
    Column("exchange", "text", "none", "Exchange the trades come from"),
    Column("pair", "text", "none", "Market, base/quote"),
    Column("timeframe", "text", "none", "Length of the candle"),
    Column("start_ms", "int", "ms", "Start of the interval, inclusive, UTC epoch"),
    Column("end_ms", "int", "ms", "End of the interval, exclusive, UTC epoch; the event time"),
    Column("open", "float", "quote", "Price of the first trade; the last close if there was none"),
    Column("high", "float", "quote", "Highest price"),
    Column("low", "float", "quote", "Lowest price"),
    Column("close", "float", "quote", "Price of the last trade"),
    Column("volume", "float", "base", "Traded quantity"),
    Column(
        "vwap",
        "float",
        "quote",
        "Volume-weighted average price; null without trades",
        nullable=True,
    ),
    Column("buy_volume", "float", "base", "Quantity bought by takers"),
    Column("trade_count", "int", "count", "Number of trades"),
    Column("closed", "bool", "none", "False for an update of a candle that is still open"),
    Column("revision", "int", "count", "Trades that came after the candle had closed"),
)

INDICATOR_COLUMNS: tuple[Column, ...] = (
    *(_indicator(f"rsi_{n}", "percent", f"Relative strength index over {n}") for n in (9, 14, 21, 28)),
    _indicator("macd", "quote", "MACD line, EMA 12 minus EMA 26 of close"),
    _indicator("macd_signal", "quote", "EMA 9 of the MACD line"),
    _indicator("macd_hist", "quote", "MACD line minus its signal"),
    _indicator("bb_upper", "quote", "Upper Bollinger band, SMA 20 plus 2 deviations"),
    _indicator("bb_middle", "quote", "Middle Bollinger band, SMA 20"),
    _indicator("bb_lower", "quote", "Lower Bollinger band, SMA 20 minus 2 deviations"),
    _indicator("stochrsi_k", "percent", "Stochastic RSI 14, fast %K over 5"),
    _indicator("stochrsi_d", "percent", "Stochastic RSI 14, SMA 3 of %K"),
    _indicator("adx_14", "percent", "Average directional index over 14"),
    _indicator("mfi_14", "percent", "Money flow index over 14"),
    _indicator("atr_14", "quote", "Average true range over 14"),
    _indicator("roc_6", "percent", "Rate of change of close over 6"),
    *(_indicator(f"sma_{n}", "quote", f"Simple moving average of close over {n}") for n in (7, 14, 21, 28)),
    *(
        _indicator(f"ema_{n}", "quote", f"Exponential moving average of close over {n}")
        for n in (7, 14, 21, 28)
    ),
    _indicator("volume_ema_10", "base", "Exponential moving average of volume over 10"),
    _indicator("obv", "base", "On-balance volume since the series began"),
    _indicator("ichimoku_conversion", "quote", "Mid-range of the last 9 candles (tenkan-sen)"),
    _indicator("ichimoku_base", "quote", "Mid-range of the last 26 candles (kijun-sen)"),
    _indicator("ichimoku_span_a", "quote", "Mean of conversion and base as of this candle, not shifted"),
    _indicator("ichimoku_span_b", "quote", "Mid-range of the last 52 candles as of this one, not shifted"),
    _indicator("stoch_k", "percent", "Stochastic oscillator 14, slow %K over 3"),
    _indicator("stoch_d", "percent", "Stochastic oscillator, SMA 3 of slow %K"),
    _indicator("cci_20", "ratio", "Commodity channel index over 20"),
    _indicator("willr_14", "percent", "Williams %R over 14"),
    _indicator("aroon_up_14", "percent", "Aroon up over 14"),
    _indicator("aroon_down_14", "percent", "Aroon down over 14"),
    _indicator("trix_15", "percent", "One-candle rate of change of a triple EMA 15 of close"),
    *(
        _indicator(f"log_return_{n}", "ratio", f"Natural log of close over the close {n} candles ago")
        for n in (1, 5, 20)
    ),
    _indicator("realized_vol_20", "ratio", "Root of the sum of the last 20 squared log returns"),
    _indicator("flow_imbalance_1", "ratio", "Taker buys minus sells over volume, of this candle"),
    _indicator("flow_imbalance_14", "ratio", "Taker buys minus sells over volume, of the last 14 candles"),
)

TA_COLUMNS: tuple[Column, ...] = CANDLE_COLUMNS + INDICATOR_COLUMNS
INDICATOR_NAMES: tuple[str, ...] = tuple(column.name for column in INDICATOR_COLUMNS)
