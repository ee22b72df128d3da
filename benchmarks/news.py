"""Figures of the news pipeline: headlines a second of each engine, signals a second through the services."""

import csv
import os
import time
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.measure import BEGIN_MS, Bench, Row, Table, fill, peak_mib
from services.common.messages import encode
from services.common.metrics import Metrics
from services.common.news import News
from services.common.topics import ensure_topics
from services.demo.progress import total
from services.news_signals.coin_list import load_coins
from services.news_signals.coins import CoinFinder
from services.news_signals.engines import build_engine
from services.news_signals.engines.contract import OVERALL, EngineContext, Story
from services.news_signals.settings import NewsSignalsSettings
from tests.news_signals.llm.support import FakeFallback, fake_llm, settings_for

HEADLINES = Path("services/news_signals/training/data/natural_test.csv")
HEADLINES_PER_S = 500.0


def titles() -> list[str]:
    """Headlines as they come, 4 to 20 words."""
    with HEADLINES.open(encoding="utf-8", newline="") as file:
        return [row["title"] for row in csv.DictReader(file)]


def no_fallback() -> Any:
    """The embedded engine cannot fail."""
    raise AssertionError("the embedded engine falls back to nothing")


def bench_engines(table: Table, scale: float) -> None:
    """Each engine on one thread, and what finding the coins costs beside it."""
    table.title("news_signals engines: headlines/s on one thread, each headline once")
    count = max(100, int(750 * scale))
    chosen = titles()[:count]
    finder = CoinFinder(load_coins())
    best = _best(lambda: [finder.find(title) for title in chosen])
    table.add(Row("finding the coins", count / best, "headlines/s"))
    context = EngineContext(NewsSignalsSettings.load({}), Metrics(), Path(), no_fallback)
    whole = [Story(title, "", (OVERALL,)) for title in chosen]
    found = [(title, finder.find(title)) for title in chosen]
    coins = [Story(title, "", one.coins or (OVERALL,), one.mentions) for title, one in found]

    def score(stories: list[Story]) -> float:
        # A new engine each time: it remembers the texts that it has seen.
        engine = build_engine("embedded", context)
        engine.score([Story("warm up", "", (OVERALL,))])
        begun = time.perf_counter()
        engine.score(stories)
        return time.perf_counter() - begun

    elapsed = min(score(whole) for _ in range(3))
    table.add(Row("embedded, headlines as a whole", count / elapsed, "headlines/s", HEADLINES_PER_S))
    elapsed = min(score(coins) for _ in range(3))
    opinions = sum(len(story.coins) for story in coins)
    note = f"{opinions / elapsed:,.0f} opinions/s"
    table.add(Row("embedded, one opinion for each coin", count / elapsed, "headlines/s", note=note))
    _bench_llm(table, coins)


def _bench_llm(table: Table, stories: list[Story]) -> None:
    """What the LLM engine costs beside its provider, which is a server here that answers at once."""
    with fake_llm() as llm, TemporaryDirectory() as folder:
        settings = settings_for(llm.url, daily_tokens=1_000_000_000)
        fallback = FakeFallback()
        context = EngineContext(settings, Metrics(), Path(folder), lambda: fallback)
        engine = build_engine("llm", context)
        try:
            begun = time.perf_counter()
            engine.score(stories)
            elapsed = time.perf_counter() - begun
            begun = time.perf_counter()
            engine.score(stories)
            again = time.perf_counter() - begun
        finally:
            engine.close()
        if fallback.scored:
            raise RuntimeError(f"{len(fallback.scored)} stories fell back: the figure is not the engine's")
        note = f"{len(llm.asked)} requests to a local server that answers at once"
        table.add(Row("llm, one opinion for each coin", len(stories) / elapsed, "headlines/s", note=note))
        table.add(Row("llm, from its cache", len(stories) / again, "headlines/s"))


def _best(work: Callable[[], object]) -> float:
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return min(times)


def bench_signals(table: Table, scale: float) -> None:
    """Stories through news_signals and features into the store."""
    table.title("news → store: stories on the topic, news_signals and features, one partition")
    count = max(200, int(4_000 * scale))
    with Bench() as bench:
        ensure_topics(bench.settings, ("news",))
        fill(bench.settings, "news", ((s.story_id.encode(), encode([s]), 1) for s in _stories(count)))
        store = {"STORE_PATH": str(bench.folder / "features.sqlite")}
        signals = bench.cluster.start("news_signals", {})
        features = bench.cluster.start("features", store)
        bench.cluster.wait_until_up()
        began: float | None = None
        while True:
            bench.cluster.check()
            metrics = signals.metrics()
            done, sent = total(metrics, "stories_total"), total(metrics, "signals_total")
            if began is None and done:
                began, at_first = time.monotonic(), done
            if done >= count and total(features.metrics(), "rows_in_total") >= sent:
                break
            time.sleep(0.2)
        elapsed = time.monotonic() - (began or 0.0)
        note = f"{sent / elapsed:,.0f} signals/s; {sent:,} signals stored"
        table.add(Row("stories through both services", (count - at_first) / elapsed, "stories/s", note=note))
        for service in (signals, features):
            table.add(
                Row(f"  peak memory, {service.name}", peak_mib(service), "MiB", 300.0, higher_is_better=False)
            )


def _stories(count: int) -> list[News]:
    """Headlines as stories, a minute apart; from the second time on with a number, so that none is known."""
    made = []
    chosen = titles()
    for number, title in enumerate(islice(cycle(chosen), count)):
        at_ms = BEGIN_MS + number * 60_000
        text = title if number < len(chosen) else f"{title} ({number})"
        made.append(News(f"s{number}", "bench", text, "", None, (), at_ms, at_ms))
    return made


def bench_news(table: Table, scale: float) -> None:
    """Engines, then the pipeline."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    bench_engines(table, scale)
    bench_signals(table, scale)
