"""Stories that wait to be scored, and what becomes of them: one signal for each story and coin.

Scoring in batches makes the engine many times faster, so stories wait here until a batch is full or offsets
are due. Nothing that waits can be lost:

- Quix calls `flush` (as a sink's) first of all when it commits, in `Checkpoint.commit`: before changelogs,
  the flush of its own producer and the offsets. When it raises, nothing is committed.
- A rebalance revokes all partitions (Quix fixes the ``range`` assignor) and commits before they are given
  up, with the same call, but in a thread that it waits for. When that fails or takes too long, offsets and
  state changes are dropped and the next owner does the stories again; ours may still be sent late. That is
  why there is a lock, and why a signal is the same whoever makes it, but for `scored_at_ms`.
- Partitions that were lost without notice are the same case: somebody else repeats their stories, with the
  novelty that the state has at the committed offset.
- A kill loses what waits, and nothing of it was committed: neither its offset nor the state that knows its
  telling. Repeated signals are upserts for whoever reads them: (coin, story, observed time) names a signal.
"""

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from services.common.health import Health
from services.common.metrics import Metrics
from services.common.news import News, NewsSignal
from services.news_signals.engines.contract import Engine, Opinion, Story
from services.news_signals.publisher import Publisher

SCORING_BUCKETS_S = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60)


def now_ms() -> int:
    """Wall-clock time in epoch milliseconds."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Pending:
    """A telling that waits: what the engine is asked, and what the signals get besides its answer.

    `relevance` holds each of the asked coins. `received_at_ms` is the header of the message it came with.
    """

    news: News
    asked: Story
    relevance: Mapping[str, float]
    novelty: float
    received_at_ms: int | None


class Scoring:
    """Collects stories and sends their signals."""

    def __init__(
        self,
        engine: Engine,
        publisher: Publisher,
        metrics: Metrics,
        health: Health,
        batch: int,
        clock_ms: Callable[[], int] = now_ms,
    ) -> None:
        self._engine = engine
        self._publisher = publisher
        self._health = health
        self._batch = batch
        self._clock_ms = clock_ms
        self._lock = threading.RLock()
        self._pending: list[Pending] = []
        self._signals = metrics.counter("signals_total", "Signals sent", "engine")
        self._seconds = metrics.histogram(
            "scoring_seconds", "Time in which the engine scored a batch", buckets=SCORING_BUCKETS_S
        )

    def add(self, pending: Pending) -> None:
        """Take a story; full batches are scored and sent at once."""
        with self._lock:
            self._pending.append(pending)
            while len(self._pending) >= self._batch:
                self._score_batch()

    def flush(self) -> None:
        """Score the rest and wait until all signals are delivered. Raises `BrokerUnavailableError`."""
        with self._lock:
            while self._pending:
                self._score_batch()
            self._publisher.flush()

    def _score_batch(self) -> None:
        stories = self._pending[: self._batch]
        begun = time.perf_counter()
        answers = self._engine.score([pending.asked for pending in stories])
        self._seconds.observe(time.perf_counter() - begun)
        # An LLM takes its time; this loop is not stuck.
        self._health.tick()
        now = self._clock_ms()
        by_coin: dict[str, list[NewsSignal]] = defaultdict(list)
        received: dict[str, int] = {}
        engines: Counter[str] = Counter()
        for pending, opinions in zip(stories, answers, strict=True):
            for coin, opinion in zip(pending.asked.coins, opinions, strict=True):
                by_coin[coin].append(signal_of(pending, coin, opinion, now))
                engines[opinion.engine] += 1
                if pending.received_at_ms is not None:
                    # The oldest: latency is measured from it, and must not look better than it is.
                    received[coin] = min(received.get(coin, pending.received_at_ms), pending.received_at_ms)
        for coin, signals in by_coin.items():
            self._publisher.signals(coin, signals, received.get(coin), now)
        for engine, count in engines.items():
            self._signals.labels(engine).inc(count)
        del self._pending[: self._batch]


def signal_of(pending: Pending, coin: str, opinion: Opinion, scored_at_ms: int) -> NewsSignal:
    """What a telling says of a coin. It is never scored before it was observed, whatever clocks say."""
    news = pending.news
    return NewsSignal(
        story_id=news.story_id,
        coin=coin,
        score=opinion.score,
        p_pos=opinion.p_pos,
        p_neu=opinion.p_neu,
        p_neg=opinion.p_neg,
        signal=opinion.signal,
        confidence=opinion.confidence,
        relevance=pending.relevance[coin],
        novelty=pending.novelty,
        engine=opinion.engine,
        model_version=opinion.model_version,
        published_at_ms=news.published_at_ms,
        observed_at_ms=news.observed_at_ms,
        scored_at_ms=max(scored_at_ms, news.observed_at_ms),
    )
