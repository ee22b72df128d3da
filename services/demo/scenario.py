"""What the demo plays: a real hour of Kraken, a synthetic market and its news, then a live-like stretch."""

import csv
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from services.common.timeframes import DAY_MS, MINUTE_MS, TIMEFRAMES, Timeframe, floor_ms, next_ms
from services.demo.market import EXCHANGE, simulate, write_csv
from services.news_signals.coin_list import load_coins
from services.news_signals.coins import CoinFinder

SAMPLE = Path(__file__).parent / "data" / "BTC-USD-kraken-2019-07-01T00.csv.gz"
SAMPLE_TRADES = 2_672
HEADLINES = Path(__file__).parent / "data" / "headlines.csv"
HOUR_MS = 3_600_000
SAMPLE_BEGIN_MS = 1_561_939_200_000

# 2024-01-01, a Monday: every timeframe begins there.
HISTORY_BEGIN_MS = 1_704_067_200_000
HISTORY_DAYS = {"BTC/USD": 121, "ETH/USD": 14}
LIVE_MINUTES = 20
#: How fast the live-like stretch runs: its twenty minutes take twenty seconds.
LIVE_SPEED = 60.0
#: Trades a second of each pair on the wall clock in that stretch.
LIVE_RATE = 100
START_PRICES = {"BTC/USD": 42_000.0, "ETH/USD": 2_300.0}
#: Replays say that they are complete this long after their last interval, so that it closes.
AFTER_MS = 10_000


@dataclass(frozen=True, slots=True)
class Play:
    """Files of trades for one run of the trades service, and the candles that must come of them."""

    exchange: str
    folder: Path
    trades: int
    #: Closed candles by (exchange, pair, timeframe).
    candles: dict[tuple[str, str, str], int]
    until_ms: int


def candles_between(first_ms: int, until_ms: int, timeframe: Timeframe) -> int:
    """Number of intervals from the one that begins at `first_ms` on that end by `until_ms`."""
    count, end_ms = 0, next_ms(first_ms, timeframe)
    while end_ms <= until_ms:
        count, end_ms = count + 1, next_ms(end_ms, timeframe)
    return count


def kraken_hour(folder: Path) -> Play:
    """The recorded hour, as it is."""
    target = folder / "kraken"
    target.mkdir(parents=True)
    shutil.copy(SAMPLE, target / "BTC-USD.csv.gz")
    end_ms = SAMPLE_BEGIN_MS + HOUR_MS
    candles: dict[tuple[str, str, str], int] = {
        ("kraken", "BTC/USD", timeframe): candles_between(SAMPLE_BEGIN_MS, end_ms, timeframe)
        for timeframe in TIMEFRAMES
        if timeframe in ("1m", "5m", "15m", "30m", "1h")
    }
    return Play("kraken", target, SAMPLE_TRADES, candles, end_ms + AFTER_MS)


def synthetic(folder: Path) -> tuple[Play, Play]:
    """Months of history to be replayed at once, and the minutes after it to be replayed as if live."""
    history, live = folder / "history", folder / "live"
    history.mkdir(parents=True)
    live.mkdir(parents=True)
    last_ms = HISTORY_BEGIN_MS + max(HISTORY_DAYS.values()) * DAY_MS
    end_ms = last_ms + LIVE_MINUTES * MINUTE_MS
    counts = [0, 0]
    candles: tuple[dict[tuple[str, str, str], int], dict[tuple[str, str, str], int]] = ({}, {})
    for seed, (pair, days) in enumerate(HISTORY_DAYS.items()):
        begin_ms = last_ms - days * DAY_MS
        spans = [(days * DAY_MS, 1 / 30), (LIVE_MINUTES * MINUTE_MS, LIVE_RATE / LIVE_SPEED)]
        market = simulate(pair, begin_ms, spans, START_PRICES[pair], seed)
        next_id = 1
        edges = ((history, begin_ms, last_ms), (live, last_ms, end_ms))
        for index, (target, from_ms, to_ms) in enumerate(edges):
            part = market.between(from_ms, to_ms)
            counts[index] += len(part.times_ms)
            next_id = write_csv(part, target / f"{pair.replace('/', '-')}.csv", next_id)
        for timeframe in TIMEFRAMES:
            # The candles at the seam close with the trades that come after it.
            for index, until_ms in enumerate((last_ms - 1, end_ms)):
                # A week or a month that the market begins in the middle of counts from its start.
                first_ms = floor_ms(begin_ms, timeframe)
                count = candles_between(first_ms, until_ms, timeframe)
                if count:
                    candles[index][EXCHANGE, pair, timeframe] = count
    return (
        Play(EXCHANGE, history, counts[0], candles[0], last_ms),
        Play(EXCHANGE, live, counts[1], candles[1], end_ms + AFTER_MS),
    )


@dataclass(frozen=True, slots=True)
class NewsPlay:
    """A file of articles for one run of the news service, and what must come of it."""

    path: Path
    articles: int
    #: Signals by coin.
    signals: Counter[str]


def headlines(folder: Path) -> tuple[NewsPlay, NewsPlay]:
    """The news of the synthetic market: that of its history, and that of its live-like stretch."""
    with HEADLINES.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    last_ms = HISTORY_BEGIN_MS + max(HISTORY_DAYS.values()) * DAY_MS
    parts: tuple[list[dict[str, str]], list[dict[str, str]]] = ([], [])
    for row in rows:
        observed_ms = datetime.fromisoformat(row["observed_at"]).timestamp() * 1000
        parts[observed_ms >= last_ms].append(row)
    return _news_play(parts[0], folder / "news.csv"), _news_play(parts[1], folder / "live-news.csv")


def _news_play(rows: Sequence[dict[str, str]], path: Path) -> NewsPlay:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    finder = CoinFinder(load_coins())
    signals: Counter[str] = Counter()
    for row in rows:
        signals.update(finder.find(row["title"], row["body"], row["coins"].split()).coins)
    return NewsPlay(path, len(rows), signals)
