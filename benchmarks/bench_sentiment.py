"""What sentiment costs: signals through the features step into the store, and joins when they are read.

`python -m benchmarks.bench_sentiment [--signals N] [--rows N] [--folder DIR]`. Messages are of one coin;
figures are wall time of this process.
"""

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.bench_store import START_MS, NoState, make_rows
from services.common.health import Health
from services.common.messages import batch_headers
from services.common.metrics import Metrics
from services.common.news import NewsSignal
from services.common.step import Message
from services.features.groups import GROUPS, SENTIMENT, TA
from services.features.joins import joined_names
from services.features.measures import Measures
from services.features.sentiment import SentimentWriter
from services.features.steps import NewsStep
from services.features.stores.sqlite import SqliteStore

DAY_MS = 86_400_000
PER_DAY = 200


def make_signals(count: int, per_day: int = PER_DAY) -> list[NewsSignal]:
    """Signals of BTC in order of time, `per_day` a day at random times."""
    rng = random.Random(count)
    times = sorted(START_MS + rng.randrange(count * DAY_MS // per_day) for _ in range(count))
    return [make_signal(rng, at_ms, f"s{i}") for i, at_ms in enumerate(times)]


def make_signal(rng: random.Random, at_ms: int, story: str) -> NewsSignal:
    parts = [rng.random() + 0.01 for _ in range(3)]
    p_pos, p_neu, p_neg = (part / sum(parts) for part in parts)
    return NewsSignal(
        story_id=story,
        coin="BTC",
        score=p_pos - p_neg,
        p_pos=p_pos,
        p_neu=p_neu,
        p_neg=p_neg,
        signal=rng.choice((-1, 0, 1)),
        confidence=max(p_pos, p_neu, p_neg),
        relevance=rng.random(),
        novelty=0.75 ** rng.randrange(3),
        engine="bench",
        model_version="1",
        published_at_ms=at_ms,
        observed_at_ms=at_ms,
        scored_at_ms=at_ms,
    )


def open_store(path: Path) -> SqliteStore:
    store = SqliteStore(path)
    for group in GROUPS.values():
        store.ensure_group(group)
    return store


def count(store: SqliteStore) -> int:
    found: int = store.sql("SELECT count(*) FROM sentiment")[1][0][0]
    return found


def bench_step(path: Path, signals: list[NewsSignal], batch: int, *, live: bool) -> None:
    """`live`: each batch comes when it was observed and time goes on; else all of it is long past."""
    now_ms = signals[-1].observed_at_ms + 2 * DAY_MS
    with open_store(path) as store:
        writer = SentimentWriter(store, lambda: now_ms)
        step = NewsStep(writer, Measures(Metrics(), Health(60)), lambda: now_ms)
        latencies = []
        for at in range(0, len(signals), batch):
            part = signals[at : at + batch]
            message = Message(b"BTC", msgspec.json.encode(part), 0, batch_headers(now_ms))
            begun = time.perf_counter()
            if live:
                now_ms = part[-1].observed_at_ms
                writer.catch_up()
            step(message, NoState())
            latencies.append(time.perf_counter() - begun)
        cuts = statistics.quantiles(latencies, n=100) if len(latencies) > 1 else latencies * 99
        rate = len(signals) / sum(latencies)
        print(
            f"{'live' if live else 'past'}, {batch:6d} signals a batch: {rate:8.0f} signals/s, a message "
            f"p50 {cuts[49] * 1e3:.2f} ms, p99 {cuts[98] * 1e3:.2f} ms; {count(store)} rows"
        )


def timed(name: str, ask: Callable[[], Any], times: int = 1) -> None:
    begun = time.perf_counter()
    for _ in range(times):
        ask()
    print(f"{name}: {(time.perf_counter() - begun) / times:.4f} s")


def bench_reads(path: Path, rows: int) -> None:
    with open_store(path) as store:
        made = [msgspec.structs.astuple(row) for row in make_rows("BTC/USD", rows)]
        for begin in range(0, rows, 1_000):
            store.write(TA, made[begin : begin + 1_000])
        signals = make_signals(max(1, rows * 60_000 * PER_DAY // DAY_MS))
        SentimentWriter(store, lambda: signals[-1].observed_at_ms + DAY_MS).write("BTC", signals)
        # The first Arrow array of a process imports pandas where that is installed: 1 s.
        store.history("BTC/USD", "1m", limit=1)
        print(f"{rows} rows of ta, {len(signals)} signals, {count(store)} rows of sentiment")
        every = [*TA.features, *joined_names(SENTIMENT)]
        timed("training_set, ta alone", lambda: store.training_set("BTC/USD", "1m", features=TA.features))
        timed(
            f"training_set, all {len(every)} features",
            lambda: store.training_set("BTC/USD", "1m", features=every, dropna=False),
        )
        timed("training_set, by default", lambda: store.training_set("BTC/USD", "1m"))
        timed("latest", lambda: store.latest("BTC/USD", "1m"), 200)
        timed("vector", lambda: store.vector("BTC/USD", "1m"), 200)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--signals", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, help="where to put the stores; a temporary one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        signals = make_signals(arguments.signals)
        for batch in (1, 100, len(signals)):
            bench_step(folder / f"past{batch}", signals[: 2_000 * batch], batch, live=False)
        bench_step(folder / "live", signals[:2_000], 1, live=True)
        dense = make_signals(arguments.signals, per_day=20 * PER_DAY)
        bench_step(folder / "dense", dense, len(dense), live=False)
        bench_reads(folder / "read", arguments.rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
