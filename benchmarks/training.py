"""100,000 training rows of all features from SQLite, beside plain pandas on the same file."""

import sqlite3
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from benchmarks.bench_store import START_MS, make_rows
from benchmarks.measure import Row, Table
from services.common.news import NewsSignal
from services.features import open_store
from services.features.groups import GROUPS, SENTIMENT, TA
from services.features.joins import joined_names
from services.features.sentiment import SentimentWriter
from services.features.stores.sqlite import SqliteStore

FEATURES = [*TA.features, *joined_names(SENTIMENT)]
SIGNALS_EVERY_MS = 1_800_000


def bench_training(table: Table, scale: float) -> None:
    """`training_set` of one series with sentiment as of each row, and what pandas takes for the same."""
    count = max(1_000, int(100_000 * scale))
    table.title(f"training set: {count:,} rows × {len(FEATURES)} features from an SQLite file")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "features.sqlite")
        fill(path, count)
        ours, our_wall, our_cpu = timed(lambda: ask(path))
        plain, wall, cpu = timed(lambda: plain_pandas(path))
    agree = plain[FEATURES].to_numpy(float), ours.select(FEATURES).to_pandas().to_numpy(float)
    assert np.array_equal(*agree, equal_nan=True)
    table.add(Row("training_set", our_wall, "s", 2.0, higher_is_better=False, note=f"CPU {our_cpu:.2f} s"))
    table.add(Row("pandas read_sql + merge_asof", wall, "s", note=f"CPU {cpu:.2f} s; the same values"))


def fill(path: Path, count: int) -> None:
    """A store with minutes of one pair and a signal every half hour."""
    with SqliteStore(path) as store:
        for group in GROUPS.values():
            store.ensure_group(group)
        rows = [msgspec.structs.astuple(row) for row in make_rows("BTC/USD", count)]
        for begin in range(0, count, 1_000):
            store.write(TA, rows[begin : begin + 1_000])
        end_ms = START_MS + count * 60_000
        signals = [
            NewsSignal(*(f"s{at}", "BTC", 0.5, 0.6, 0.3, 0.1, 1, 0.6, 1.0, 1.0, "b", "1"), at, at, at)
            for at in range(START_MS, end_ms, SIGNALS_EVERY_MS)
        ]
        SentimentWriter(store, lambda: end_ms).write("BTC", signals)


def timed[T](work: Callable[[], T]) -> tuple[T, float, float]:
    """The answer, and the least wall and CPU seconds of five times; the first only warms up."""
    spent = []
    for _ in range(6):
        wall, cpu = time.perf_counter(), time.process_time()
        answer = work()
        spent.append((time.perf_counter() - wall, time.process_time() - cpu))
    return answer, min(wall for wall, _ in spent[1:]), min(cpu for _, cpu in spent[1:])


def ask(path: Path) -> Any:
    """What a data scientist writes."""
    with open_store(path) as store:
        return store.training_set("BTC/USD", "1m", features=FEATURES, dropna=False)


def plain_pandas(path: Path) -> Any:
    """What a data scientist would write without it."""
    own = ", ".join(["end_ms", *TA.features])
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        candles = pd.read_sql(
            f"SELECT {own} FROM ta WHERE exchange = 'kraken' AND pair = 'BTC/USD' AND timeframe = '1m' "
            "ORDER BY end_ms",
            connection,
        )
        news = pd.read_sql("SELECT * FROM sentiment WHERE coin = 'BTC' ORDER BY as_of_ms", connection)
    frame = pd.merge_asof(candles, news, left_on="end_ms", right_on="as_of_ms")
    counts = [name for name in SENTIMENT.features if name not in SENTIMENT.sparse]
    frame[counts] = frame[counts].fillna(0)
    frame["seconds_since_news"] = (frame["end_ms"] - frame["last_news_at_ms"]) / 1000
    frame["label"] = np.log(frame["close"].shift(-1) / frame["close"])
    return frame
