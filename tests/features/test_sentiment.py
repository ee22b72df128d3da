"""Sentiment in the store: whatever arrives however, in time or late, the rows are those of the signals."""

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.common.news import NewsSignal
from services.features.groups import NEWS_SIGNALS
from services.features.news_columns import NEWS_SIGNAL_COLUMNS
from services.features.sentiment import SentimentWriter
from services.features.stores.sqlite import SqliteStore
from services.features.windows import Observed, sentiment_rows
from tests.features.rows import MINUTE, T0, make_store, sentiment_contents, signal

HOUR = 60 * MINUTE
DAY = 24 * HOUR


class Clock:
    """The time after T0 that a test says it is."""

    def __init__(self, at_ms: int = 0) -> None:
        self.at_ms = at_ms

    def __call__(self) -> int:
        return T0 + self.at_ms


@pytest.fixture
def clock() -> Clock:
    return Clock(10 * DAY)


@pytest.fixture
def writer(store: SqliteStore, clock: Clock) -> SentimentWriter:
    return SentimentWriter(store, clock)


def as_of(store: SqliteStore, coin: str = "BTC") -> list[int]:
    """Times of a coin's rows in minutes after T0."""
    table = store.history(group="sentiment", coin=coin)
    times: list[Any] = table["as_of_ms"].to_pylist()
    return [(time - T0) // MINUTE for time in times]


def expected(signals: list[NewsSignal], now_ms: int) -> list[tuple[Any, ...]]:
    """The rows of a set of signals of one coin up to now, from all of them at once."""
    known = sorted(Observed(*(getattr(s, name) for name in Observed._fields)) for s in signals)
    rows = sentiment_rows(signals[0].coin, known, 0, now_ms)
    return [(*row, T0) for row in rows]


def test_the_columns_of_signals_are_those_of_the_contract() -> None:
    fields = {field.name for field in msgspec.structs.fields(NewsSignal)}
    assert {column.name for column in NEWS_SIGNAL_COLUMNS} == fields
    assert len(NEWS_SIGNAL_COLUMNS) == len(fields)
    kinds = {"str": "text", "int": "int", "float": "float"}
    for column in NEWS_SIGNAL_COLUMNS:
        assert kinds[type(getattr(signal(), column.name)).__name__] == column.kind


def test_signals_of_long_ago_have_all_their_rows_at_once(writer: Any, store: SqliteStore) -> None:
    writer.write("BTC", [signal(0, "a"), signal(30 * MINUTE, "b")])
    assert as_of(store) == [0, 15, 30, 45, 60, 90, 240, 270, 1440, 1470]
    newest = store.latest(group="sentiment", coin="BTC")
    assert newest is not None
    assert (newest["news_count_24h"], newest["sentiment_mean_24h"]) == (0, None)
    assert newest["last_news_at_ms"] == T0 + 30 * MINUTE
    stored = store.history(group="news_signals", coin="BTC").to_pylist()
    assert {name: stored[0][name] for name in stored[0] if name != "ingested_at_ms"} == (
        msgspec.to_builtins(signal(0, "a"))
    )


def test_rows_of_fresh_signals_come_when_their_time_has_come(
    writer: Any, store: SqliteStore, clock: Clock
) -> None:
    clock.at_ms = 1_000
    writer.write("BTC", [signal(0)])
    assert as_of(store) == [0]
    for minutes, known in ((14, [0]), (15, [0, 15]), (59, [0, 15]), (300, [0, 15, 60, 240])):
        clock.at_ms = minutes * MINUTE
        writer.catch_up()
        assert as_of(store) == known
    clock.at_ms = 2 * DAY
    writer.catch_up()
    assert as_of(store) == [0, 15, 60, 240, 1440]


def test_a_row_appears_at_its_millisecond_and_not_before(
    writer: Any, store: SqliteStore, clock: Clock
) -> None:
    clock.at_ms = 0
    writer.write("BTC", [signal(0)])
    clock.at_ms = 15 * MINUTE - 1
    writer.catch_up()
    assert as_of(store) == [0]
    clock.at_ms += 1
    writer.catch_up()
    assert as_of(store) == [0, 15]


def test_a_row_that_is_due_a_millisecond_after_the_last_is_not_forgotten(
    writer: Any, store: SqliteStore, clock: Clock
) -> None:
    clock.at_ms = 15 * MINUTE - 1
    writer.write("BTC", [signal(0)])
    clock.at_ms += 1
    writer.catch_up()
    assert as_of(store) == [0, 15]


def test_all_coins_catch_up_together(writer: Any, store: SqliteStore, clock: Clock) -> None:
    clock.at_ms = 20 * MINUTE
    writer.write("ETH", [signal(10 * MINUTE, coin="ETH")])
    writer.write("BTC", [signal(0)])
    writer.write("CRYPTO", [signal(20 * MINUTE, coin="CRYPTO")])
    clock.at_ms = 30 * MINUTE
    writer.catch_up()
    assert (as_of(store), as_of(store, "ETH"), as_of(store, "CRYPTO")) == ([0, 15], [10, 25], [20])


def test_nothing_is_written_when_nothing_is_due(store: SqliteStore, clock: Clock) -> None:
    writer = SentimentWriter(store, clock)
    writer.catch_up()
    clock.at_ms = 0
    writer.write("BTC", [signal(0)])
    store._writer.execute("DROP TABLE sentiment_1")
    writer.catch_up()
    clock.at_ms = 14 * MINUTE
    writer.catch_up()


def test_news_that_comes_before_a_tick_does_not_hide_what_time_made_due(
    writer: Any, store: SqliteStore, clock: Clock
) -> None:
    clock.at_ms = 0
    writer.write("BTC", [signal(0, "a")])
    clock.at_ms = 62 * MINUTE
    writer.write("BTC", [signal(62 * MINUTE, "b")])
    assert as_of(store) == [0, 15, 60, 62]


def test_a_restart_writes_the_rows_of_the_down_time(store: SqliteStore, clock: Clock) -> None:
    clock.at_ms = 0
    SentimentWriter(store, clock).write("BTC", [signal(0)])
    clock.at_ms = 5 * HOUR
    again = SentimentWriter(store, clock)
    again.catch_up()
    assert as_of(store) == [0, 15, 60, 240]
    clock.at_ms = DAY
    again.catch_up()
    assert as_of(store) == [0, 15, 60, 240, 1440]


def test_a_signal_of_the_next_seconds_waits_for_its_time_also_over_a_restart(
    store: SqliteStore, clock: Clock
) -> None:
    clock.at_ms = 0
    writer = SentimentWriter(store, clock)
    writer.write("BTC", [signal(4_000)])
    assert store.series("sentiment") == []
    again = SentimentWriter(store, clock)
    again.catch_up()
    assert store.series("sentiment") == []
    clock.at_ms = 4_000
    again.catch_up()
    assert store.latest(group="sentiment", coin="BTC")["as_of_ms"] == T0 + 4_000  # type: ignore[index]


@pytest.fixture
def other(store: SqliteStore, path: Path, clock: Clock) -> Iterator[SentimentWriter]:
    """The writer of a second replica on the same file."""
    with make_store(path) as opened:
        yield SentimentWriter(opened, clock)


def test_a_replica_that_takes_over_a_coin_writes_what_the_other_left_due(
    writer: Any, other: Any, store: SqliteStore, clock: Clock
) -> None:
    clock.at_ms = 0
    other.write("BTC", [signal(0)])
    clock.at_ms = 5 * HOUR
    writer.catch_up()
    assert as_of(store) == [0, 15, 60, 240]


def test_a_coin_that_comes_back_is_gone_on_with_where_the_other_replica_left_it(
    writer: Any, other: Any, store: SqliteStore, clock: Clock
) -> None:
    clock.at_ms = 0
    signals = [signal(0, "a", 0.5), signal(70 * MINUTE, "b", -0.5), signal(10 * MINUTE, "late", 0.9)]
    writer.write("BTC", signals[:1])
    clock.at_ms = 3 * HOUR
    other.write("BTC", signals[1:2])
    # This machine's clock is behind, so rows that the other wrote lie ahead of it.
    clock.at_ms = HOUR
    writer.write("BTC", signals[2:])
    assert store.history(group="sentiment", coin="BTC").to_pylist()[-1]["news_count_24h"] == 3
    clock.at_ms = 2 * DAY
    writer.catch_up()
    assert sentiment_contents(store)[2] == expected(signals, clock())


def test_two_replicas_that_write_one_coin_at_once_leave_the_rows_of_one(
    store: SqliteStore, path: Path, clock: Clock
) -> None:
    signals = [signal(i * 11 * MINUTE, f"s{i}", (i % 21 - 10) / 10) for i in range(80)]

    def write(own: list[NewsSignal]) -> None:
        with make_store(path) as opened:
            replica = SentimentWriter(opened, clock)
            for one in own:
                replica.write("BTC", [one])

    with ThreadPoolExecutor(2) as pool:
        # Both go through the same days, so each changes rows that the other writes too.
        for done in [pool.submit(write, signals[0::2]), pool.submit(write, signals[1::2])]:
            done.result()
    assert sentiment_contents(store)[2] == expected(signals, clock())


def test_a_clock_that_is_set_back_leaves_no_row_as_it_was_before_a_late_signal(
    writer: Any, store: SqliteStore, clock: Clock
) -> None:
    clock.at_ms = 2 * HOUR
    writer.write("BTC", [signal(0, "a", 0.5)])
    clock.at_ms = 30 * MINUTE
    writer.write("BTC", [signal(20 * MINUTE, "b", -0.5)])
    rows = store.history(group="sentiment", coin="BTC").to_pylist()
    assert rows[-1]["news_count_24h"] == 2
    assert as_of(store) == [0, 15, 20, 35, 60, 80]


def test_a_late_signal_changes_the_rows_of_the_24_hours_after_it_and_no_other(
    writer: Any, store: SqliteStore
) -> None:
    writer.write("BTC", [signal(hours * HOUR, f"s{hours}") for hours in (0, 20, 40, 60)])
    before = {row["as_of_ms"]: row for row in store.history(group="sentiment", coin="BTC").to_pylist()}
    writer.write("BTC", [signal(21 * HOUR, "late", -0.9)])
    after = {row["as_of_ms"]: row for row in store.history(group="sentiment", coin="BTC").to_pylist()}
    changed = [time for time in after if after[time] != before.get(time)]
    assert min(changed) == T0 + 21 * HOUR
    assert max(changed) == T0 + 45 * HOUR
    assert len(changed) == len([time for time in after if T0 + 21 * HOUR <= time <= T0 + 45 * HOUR])


def test_a_late_signal_replaces_the_online_row_that_it_changes_and_never_by_an_older_one(
    writer: Any, store: SqliteStore, clock: Clock
) -> None:
    clock.at_ms = HOUR
    writer.write("BTC", [signal(HOUR, "a", 0.5)])
    writer.write("BTC", [signal(50 * MINUTE, "b", -0.5)])
    newest = store.latest(group="sentiment", coin="BTC")
    assert newest is not None
    assert newest["as_of_ms"] == T0 + HOUR
    assert (newest["news_count_15m"], newest["sentiment_mean_15m"]) == (2, 0.0)
    (offline,) = store.history(group="sentiment", coin="BTC", limit=1, newest=True).to_pylist()
    assert newest == offline
    assert store.latest(group="news_signals", coin="BTC")["story_id"] == "a"  # type: ignore[index]


def test_a_signal_that_is_scored_again_replaces_the_first(writer: Any, store: SqliteStore) -> None:
    writer.write("BTC", [signal(0, "a", 0.5)])
    writer.write("BTC", [signal(0, "a", -0.5, engine="other")])
    (stored,) = store.history(group="news_signals", coin="BTC").to_pylist()
    assert (stored["score"], stored["engine"]) == (-0.5, "other")
    first = store.history(group="sentiment", coin="BTC").to_pylist()[0]
    assert (first["news_count_15m"], first["sentiment_mean_15m"]) == (1, -0.5)


def test_of_two_signals_with_one_name_in_a_batch_the_later_is_kept(writer: Any, store: SqliteStore) -> None:
    writer.write("BTC", [signal(0, "a", 0.5), signal(0, "a", -0.5)])
    assert store.history(group="news_signals", coin="BTC")["score"].to_pylist() == [-0.5]
    assert store.latest(group="news_signals", coin="BTC")["score"] == -0.5  # type: ignore[index]
    assert store.history(group="sentiment", coin="BTC")["sentiment_mean_15m"][0].as_py() == -0.5


def _signals() -> st.SearchStrategy[list[NewsSignal]]:
    """Signals of a coin or two over three days; their content follows from their name."""

    def make(coin: str, minutes: int, story: str) -> NewsSignal:
        score = ((minutes * 7 + ord(story) * 13) % 21 - 10) / 10
        return signal(minutes * MINUTE, story, score, coin=coin, relevance=0.1 + (minutes % 9) / 10)

    minutes = st.integers(0, 3 * 96).map(lambda i: i * 15) | st.integers(0, 3 * 1440)
    made = st.builds(make, st.sampled_from(["BTC", "ETH"]), minutes, st.sampled_from("abc"))
    return st.lists(made, min_size=1, max_size=12, unique_by=lambda s: (s.coin, s.observed_at_ms, s.story_id))


@contextmanager
def opened(clock: Callable[[], int]) -> Iterator[SqliteStore]:
    with tempfile.TemporaryDirectory() as folder, make_store(Path(folder, "store")) as store:
        yield store


@settings(max_examples=40, deadline=None)
@given(signals=_signals(), data=st.data())
def test_any_order_duplicates_batches_ticks_restarts_and_replicas_give_the_rows_of_the_set(
    signals: list[NewsSignal], data: Any
) -> None:
    """Signals arrive in any order once they are observed; time goes on between the batches."""
    arriving = data.draw(st.permutations(signals + data.draw(st.lists(st.sampled_from(signals), max_size=4))))
    clock = Clock()
    # The coins' partitions go to and fro between two replicas that share the file.
    with opened(clock) as store, make_store(store.path) as second:
        stores = [store, second]
        writers = [SentimentWriter(opened, clock) for opened in stores]
        at = 0
        while arriving:
            size = data.draw(st.integers(1, len(arriving)))
            batch, arriving = arriving[:size], arriving[size:]
            newest = max(s.observed_at_ms for s in batch) - T0
            clock.at_ms = max(clock.at_ms, newest - data.draw(st.sampled_from([0, 4_000])))
            clock.at_ms += data.draw(st.sampled_from([0, 1, 5 * MINUTE, 7 * HOUR]))
            at = data.draw(st.integers(0, 1))
            for coin in ("BTC", "ETH"):
                if of_coin := [s for s in batch if s.coin == coin]:
                    writers[at].write(coin, of_coin)
            if data.draw(st.booleans()):
                writers[at] = SentimentWriter(stores[at], clock)
            if data.draw(st.booleans()):
                writers[at].catch_up()
        clock.at_ms += data.draw(st.sampled_from([4_000, HOUR, 2 * DAY]))
        writers[data.draw(st.integers(0, 1))].catch_up()
        now_ms = clock()
        _, newest_signals, rows, newest_rows = sentiment_contents(store)
    by_coin = {coin: [s for s in signals if s.coin == coin] for coin in ("BTC", "ETH")}
    of_coins = [expected(known, now_ms) for known in by_coin.values() if known]
    assert rows == [row for of_coin in of_coins for row in of_coin]
    assert newest_rows == [of_coin[-1] for of_coin in of_coins]
    last = [max((s.observed_at_ms, s.story_id) for s in known) for known in by_coin.values() if known]
    time, story = NEWS_SIGNALS.index("observed_at_ms"), NEWS_SIGNALS.index("story_id")
    assert [(row[time], row[story]) for row in newest_signals] == last
