"""The scripted demo: history at full speed, then minutes as if they were live, then what came of it."""

import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.common.columns import INDICATOR_NAMES
from services.common.timeframes import TIMEFRAMES
from services.demo import plot, scenario, summary
from services.demo.live import start_consumers
from services.demo.market import EXCHANGE
from services.demo.processes import Cluster, DemoError, Service
from services.demo.progress import Progress, latency_counts, quantile_s, total
from services.demo.stored import Counts, candles_in, short, signals_in
from services.features import open_store

STUCK_AFTER_S = 60.0


@dataclass(frozen=True, slots=True)
class Expected:
    """What the store must hold in the end."""

    candles: Counts
    signals: Counter[str]

    @property
    def rows(self) -> int:
        """All of it."""
        return sum(self.candles.values()) + self.signals.total()

    def missing(self, store: Path) -> list[str]:
        """Which series of the store have another number of rows."""
        signals = signals_in(store)
        return [
            *summary.missing(self.candles, candles_in(store)),
            *(
                f"signals of {coin}: {signals[coin]}, expected {count}"
                for coin, count in sorted(self.signals.items())
                if signals[coin] != count
            ),
        ]


def run_replay(cluster: Cluster, folder: Path) -> int:
    """Run the demo; raises `DemoError` unless every row that must be there is there."""
    began = time.monotonic()
    out = sys.stdout.write
    out(
        "Crypto Price Predictor: trades → candles → ta → features ← news_signals ← news, "
        "on an embedded broker\n"
    )
    progress = Progress()
    store_path = folder / "features.sqlite"
    with tempfile.TemporaryDirectory() as scratch:
        kraken = scenario.kraken_hour(Path(scratch))
        history, live = scenario.synthetic(Path(scratch))
        old_news, live_news = scenario.headlines(Path(scratch))
        features = start_consumers(cluster, folder)
        cluster.wait_until_up()
        progress.show(f"started: {', '.join(service.name for service in cluster.services)}", last=True)
        first = Expected(kraken.candles | history.candles, old_news.signals)
        runs = [
            start_trades(cluster, kraken, 0),
            start_trades(cluster, history, 0),
            start_news(cluster, old_news, 0),
        ]
        wait_for_rows(cluster, features, first, store_path, progress, runs)
        progress.show(
            f"history stored: {kraken.trades:,} trades of a real Kraken hour, "
            f"{history.trades:,} synthetic ones, {old_news.articles} articles",
            last=True,
        )
        bulk_s = time.monotonic() - began
        everything = Expected(first.candles | live.candles, first.signals + live_news.signals)
        runs = [
            start_trades(cluster, live, scenario.LIVE_SPEED),
            start_news(cluster, live_news, scenario.LIVE_SPEED),
        ]
        before = wait_for_rows(cluster, features, everything, store_path, progress, runs)
        after = latency_counts(features)
    dead = sum(
        total(service.metrics(), "dead_letters_total")
        for service in cluster.services
        if service.process.poll() is None
    )
    cluster.stop()
    picture = folder / "features.png"
    p50, p99 = quantile_s(before, after, 0.50), quantile_s(before, after, 0.99)
    trades = kraken.trades + history.trades + live.trades
    articles = old_news.articles + live_news.articles
    counts = candles_in(store_path)
    out(
        f"\n  {trades:,} trades in, {sum(counts.values()):,} candles with {len(INDICATOR_NAMES)} indicators "
        "each stored\n"
    )
    out(
        f"  {articles} articles in, {signals_in(store_path).total()} signals of "
        f"{len(everything.signals)} coins stored; "
    )
    out(f"{dead} dead letters; history in {bulk_s:.0f} s\n")
    if p50 is not None and p99 is not None:
        out(
            f"  live-like stretch ({2 * scenario.LIVE_RATE} trades/s): from the trade that closes a candle "
            f"to its feature row readable: p50 {p50 * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms\n"
        )
    out(f"\n{read_back(store_path, picture)}\n\n")
    out(f"{summary.ways_to_query(short(store_path), short(picture))}\n\n")
    wrong = everything.missing(store_path)
    if wrong:
        raise DemoError("rows are missing from the store:\n  " + "\n  ".join(wrong))
    out(f"  every row is there; done in {time.monotonic() - began:.0f} s\n")
    return 0


def start_trades(cluster: Cluster, play: scenario.Play, speed: float) -> Service:
    """A trades service that replays `play` and ends."""
    settings = {
        "EXCHANGE": play.exchange,
        "SOURCE": "replay",
        "PAIRS": ",".join(sorted({pair for _, pair, _ in play.candles})),
        "REPLAY_PATH": str(play.folder),
        "REPLAY_SPEED": str(speed),
        "REPLAY_UNTIL": str(play.until_ms),
    }
    return cluster.start("trades", settings, f"trades-{play.exchange}-{play.folder.name}")


def start_news(cluster: Cluster, play: scenario.NewsPlay, speed: float) -> Service:
    """A news service that replays `play` and ends."""
    settings = {
        "SOURCES": "file",
        "FILE_PATH": str(play.path),
        "FILE_SPEED": str(speed),
        "FILE_COLUMNS": "published=published_at,observed=observed_at",
    }
    return cluster.start("news", settings, f"news-{play.path.stem}")


def wait_for_rows(
    cluster: Cluster,
    features: Service,
    expected: Expected,
    store: Path,
    progress: Progress,
    runs: list[Service],
) -> dict[float, float]:
    """Wait until the store holds what must come of `runs` and those before, and they have ended.

    Returns the latency counts of the moment when rows of these runs began to arrive, so that the start
    of a trades process, which connects to the broker, is not taken for latency.
    """
    have, moved_at = -1, time.monotonic()
    at_start = total(features.metrics(), "rows_out_total")
    # The candles at a seam close with the first trades that come after it.
    seam = len(expected.candles)
    counts: dict[float, float] | None = None
    while True:
        cluster.check()
        now_have = total(features.metrics(), "rows_out_total")
        if counts is None and now_have > at_start + seam:
            counts = latency_counts(features)
        if now_have >= expected.rows and not expected.missing(store):
            break
        if now_have != have:
            have, moved_at = now_have, time.monotonic()
        elif time.monotonic() - moved_at > STUCK_AFTER_S:
            problems = "\n  ".join(expected.missing(store))
            raise DemoError(
                f"no new rows for {STUCK_AFTER_S:.0f} s; logs are in {store.parent}\n  {problems}"
            )
        progress.show(f"{have:,} of {expected.rows:,} rows stored ({min(1, have / expected.rows):.0%})")
        time.sleep(0.25)
    for run in runs:
        run.process.wait(timeout=30)
        run.check()
    return counts or {}


def read_back(path: Path, picture: Path) -> str:
    """Tables of what the store holds and its newest vectors; draws the picture."""
    with open_store(path) as store:
        latest = store.latest_all()
        order = {timeframe: place for place, timeframe in enumerate(TIMEFRAMES)}
        shown = [row for row in latest if row["timeframe"] in ("1m", "1h", "1d")]
        shown.sort(key=lambda row: (row["exchange"], row["pair"], order[row["timeframe"]]))
        warm: dict[Any, int] = {
            (row["exchange"], row["pair"], row["timeframe"]): sum(row[n] is not None for n in INDICATOR_NAMES)
            for row in latest
        }
        table = store.vector_history("BTC/USD", "1h", exchange="simulated", limit=240, newest=True)
        since = table["end_ms"][0].as_py()
        signals = store.history(group="news_signals", coin="BTC", start=since)
        plot.plot_features(table, signals, "simulated BTC/USD, 1h, and invented news", picture)
        # The newest rows are of a day after the last news, when all windows are empty again.
        end_ms = max(row["end_ms"] for row in latest if row["exchange"] == EXCHANGE)
        coins = [
            row
            for coin in signals_in(path)
            for row in store.history(
                group="sentiment", coin=coin, end=end_ms, limit=1, newest=True
            ).to_pylist()
        ]
        return "\n\n".join(
            [
                summary.counts_table(candles_in(path), warm),
                summary.newest_table(shown),
                summary.sentiment_table(coins, signals_in(path)),
            ]
        )
