"""A seeded synthetic market: trades of the exchange `simulated`, which no real series is mixed with."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

EXCHANGE = "simulated"
HEADER = "time_ms,side,price,quantity,trade_id\n"


@dataclass(frozen=True, slots=True)
class Market:
    """Trades of one pair, ascending by time; arrays of length n."""

    pair: str
    times_ms: NDArray[np.int64]
    prices: NDArray[np.float64]
    quantities: NDArray[np.float64]
    buys: NDArray[np.bool_]

    def between(self, begin_ms: int, end_ms: int) -> "Market":
        """The trades of ``[begin_ms, end_ms)``."""
        a, b = np.searchsorted(self.times_ms, [begin_ms, end_ms])
        return Market(self.pair, self.times_ms[a:b], self.prices[a:b], self.quantities[a:b], self.buys[a:b])


def simulate(pair: str, begin_ms: int, spans: list[tuple[int, float]], price: float, seed: int) -> Market:
    """A random walk with changing volatility and takers who lean with the move.

    `spans` lists (length in ms, mean trades a second), one after the other from `begin_ms` on. The
    same arguments give the same market on every machine.
    """
    random = np.random.default_rng(seed)
    times = []
    at = float(begin_ms)
    for length_ms, per_second in spans:
        count = int(length_ms / 1000 * per_second)
        times.append(at + np.sort(random.random(count)) * (length_ms - 1))
        at += length_ms
    times_ms = np.concatenate(times).astype(np.int64)
    count = len(times_ms)
    waits_s = np.diff(times_ms, prepend=begin_ms) / 1000
    # Volatility wanders around 60 % a year and swings with the time of day.
    slow = np.cumsum(random.normal(0, 0.02, count))
    level = 0.6 * np.exp(0.5 * np.sin(slow) + 0.3 * np.sin(times_ms / 86_400_000 * 2 * np.pi))
    sigma = level * np.sqrt(np.maximum(waits_s, 0.001) / 31_557_600)
    steps = random.normal(0, 1, count) * sigma
    prices = np.round(price * np.exp(np.cumsum(steps)), 2)
    quantities = np.round(random.exponential(0.05, count) + 1e-5, 8)
    buys = random.random(count) < 0.5 + 0.2 * np.tanh(steps / np.maximum(sigma, 1e-12))
    return Market(pair, times_ms, prices, quantities, buys)


def write_csv(market: Market, path: Path, first_id: int) -> int:
    """Write the trades as a replay reads them; returns the id after the last one."""
    rows = zip(
        market.times_ms.tolist(),
        market.buys.tolist(),
        market.prices.tolist(),
        market.quantities.tolist(),
        strict=True,
    )
    with path.open("w", encoding="ascii") as file:
        file.write(HEADER)
        file.writelines(
            f"{time_ms},{'buy' if buy else 'sell'},{price},{quantity:.8f},{trade_id}\n"
            for trade_id, (time_ms, buy, price, quantity) in enumerate(rows, start=first_id)
        )
    return first_id + len(market.times_ms)
