"""The candles of a list of trades, by Polars, to hold ours against."""

from collections.abc import Sequence
from typing import Any

import polars as pl

from services.common.messages import Trade
from services.common.timeframes import floor_ms


def polars_candles(trades: Sequence[Trade], timeframe: str) -> dict[int, dict[str, Any]]:
    """Candles with at least one trade, by start."""
    frame = pl.DataFrame(
        {
            "start_ms": [floor_ms(trade.event_time_ms, timeframe) for trade in trades],
            "time": [trade.event_time_ms for trade in trades],
            "id": [trade.trade_id for trade in trades],
            "price": [trade.price for trade in trades],
            "quantity": [trade.quantity for trade in trades],
            "buy": [trade.side == "buy" for trade in trades],
        }
    )
    candles = (
        frame.sort("time", "id")
        .group_by("start_ms", maintain_order=True)
        .agg(
            open=pl.col("price").first(),
            high=pl.col("price").max(),
            low=pl.col("price").min(),
            close=pl.col("price").last(),
            volume=pl.col("quantity").sum(),
            buy_volume=pl.col("quantity").filter(pl.col("buy")).sum(),
            vwap=(pl.col("price") * pl.col("quantity")).sum() / pl.col("quantity").sum(),
            trade_count=pl.len(),
        )
    )
    return {row["start_ms"]: row for row in candles.iter_rows(named=True)}
