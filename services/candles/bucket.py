"""One interval's running aggregate, and how trades and smaller intervals become one. Pure.

The result must not depend on the order in which trades come or on how they are cut into batches, to
the last bit. So the first and last price go by (time, id), and every sum is kept as two doubles: its
rounded value and what the rounding lost. Python's `sum` (3.12 on) and `math.sumprod` accumulate with
compensation, so that a second pass that starts at minus the first one's result yields that rest.
"""

from collections.abc import Iterable, Sequence
from math import sumprod
from typing import Any

import msgspec

from services.common.messages import Candle


class Bucket(msgspec.Struct, array_like=True, gc=False):
    """Aggregate of the trades of one interval; `count` 0 is an empty one, flat at the last close."""

    start_ms: int
    end_ms: int
    count: int
    open: float
    open_at: int
    open_id: int
    high: float
    low: float
    close: float
    close_at: int
    close_id: int
    volume: float
    volume_rest: float
    buy: float
    buy_rest: float
    #: Sum of price times quantity, in quote currency.
    quote: float
    quote_rest: float
    #: Trades that came after the interval had closed.
    revision: int = 0
    emitted: bool = False


def exact_sum(values: Sequence[float]) -> tuple[float, float]:
    """Sum of `values` as two doubles, good to about 100 bits."""
    total = sum(values)
    return total, sum(values, -total)


def of_trades(trades: Sequence[Any], prices: list[float], start_ms: int, end_ms: int) -> Bucket:
    """Aggregate trades of one interval that are sorted by (event time, id)."""
    first, last = trades[0], trades[-1]
    if len(trades) == 1:
        price, quantity = first.price, first.quantity
        quote = price * quantity
        at, trade_id = first.event_time_ms, first.trade_id
        buy = quantity if first.side == "buy" else 0.0
        rest = sumprod((price, quote), (quantity, -1.0))
        return Bucket(
            start_ms, end_ms, 1, price, at, trade_id, price, price, price, at, trade_id,
            quantity, 0.0, buy, 0.0, quote, rest,
        )  # fmt: skip
    quantities = [trade.quantity for trade in trades]
    bought = [trade.quantity for trade in trades if trade.side == "buy"]
    volume = sum(quantities)
    buy = sum(bought, 0.0)
    quote = sumprod(prices, quantities)
    quote_rest = sumprod([*prices, quote], [*quantities, -1.0])
    return Bucket(
        start_ms,
        end_ms,
        len(trades),
        first.price,
        first.event_time_ms,
        first.trade_id,
        max(prices),
        min(prices),
        last.price,
        last.event_time_ms,
        last.trade_id,
        volume,
        sum(quantities, -volume),
        buy,
        sum(bought, -buy),
        quote,
        quote_rest,
    )


def merge(parts: Sequence[Bucket], start_ms: int, end_ms: int) -> Bucket:
    """One bucket of all the trades in `parts`, which are not empty buckets, in any order."""
    first = min(parts, key=lambda part: (part.open_at, part.open_id))
    last = max(parts, key=lambda part: (part.close_at, part.close_id))
    volume, volume_rest = exact_sum([x for part in parts for x in (part.volume, part.volume_rest)])
    buy, buy_rest = exact_sum([x for part in parts for x in (part.buy, part.buy_rest)])
    quote, quote_rest = exact_sum([x for part in parts for x in (part.quote, part.quote_rest)])
    return Bucket(
        start_ms,
        end_ms,
        sum([part.count for part in parts]),
        first.open,
        first.open_at,
        first.open_id,
        max([part.high for part in parts]),
        min([part.low for part in parts]),
        last.close,
        last.close_at,
        last.close_id,
        volume,
        volume_rest,
        buy,
        buy_rest,
        quote,
        quote_rest,
    )


def absorb(bucket: Bucket, part: Bucket) -> None:
    """Add the trades of `part` to those of `bucket`, in place; neither is empty."""
    bucket.count += part.count
    if part.open_at < bucket.open_at or (part.open_at == bucket.open_at and part.open_id < bucket.open_id):
        bucket.open, bucket.open_at, bucket.open_id = part.open, part.open_at, part.open_id
    if part.close_at > bucket.close_at or (
        part.close_at == bucket.close_at and part.close_id > bucket.close_id
    ):
        bucket.close, bucket.close_at, bucket.close_id = part.close, part.close_at, part.close_id
    if part.high > bucket.high:
        bucket.high = part.high
    if part.low < bucket.low:
        bucket.low = part.low
    bucket.volume, bucket.volume_rest = _add(bucket.volume, bucket.volume_rest, part.volume, part.volume_rest)
    bucket.buy, bucket.buy_rest = _add(bucket.buy, bucket.buy_rest, part.buy, part.buy_rest)
    bucket.quote, bucket.quote_rest = _add(bucket.quote, bucket.quote_rest, part.quote, part.quote_rest)


def _add(a: float, a_rest: float, b: float, b_rest: float) -> tuple[float, float]:
    """Sum of two numbers of two doubles each (Knuth's two-sum; Dekker 1971)."""
    total = a + b
    shift = total - a
    rest = (a - (total - shift)) + (b - shift) + (a_rest + b_rest)
    high = total + rest
    return high, rest - (high - total)


def empty(start_ms: int, end_ms: int, price: float) -> Bucket:
    """An interval without trades, flat at `price`."""
    return Bucket(start_ms, end_ms, 0, price, 0, 0, price, price, price, 0, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def to_candles(
    buckets: Iterable[Bucket], exchange: str, pair: str, timeframe: Any, closed: bool
) -> list[Candle]:
    """The rows for `buckets`, in their order."""
    return [
        Candle(
            exchange, pair, timeframe, b.start_ms, b.end_ms, b.open, b.high, b.low, b.close, b.volume,
            b.quote / b.volume if b.count else None, b.buy, b.count, closed, b.revision,
        )
        for b in buckets
    ]  # fmt: skip
