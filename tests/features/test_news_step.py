"""The step for news: what each bad input gets, and what is measured."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from services.common.errors import ContractError, StoreError
from services.common.health import Health
from services.common.messages import TaRow, batch_headers
from services.common.metrics import Metrics
from services.common.step import Message, StepResult
from services.features.groups import TA
from services.features.measures import Measures
from services.features.sentiment import SentimentWriter
from services.features.steps import FeaturesStep, NewsStep
from services.features.stores.sqlite import SqliteStore
from tests.features.rows import MINUTE, T0, signal, ta_row
from tests.features.test_step import NoState

NOW = T0 + 10 * MINUTE
type Run = Callable[[Any], StepResult]


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def make_step(store: SqliteStore, metrics: Metrics, health: Health) -> NewsStep:
    writer = SentimentWriter(store, lambda: NOW)
    return NewsStep(writer, Measures(metrics, health), lambda: NOW)


@pytest.fixture
def step(store: SqliteStore, metrics: Metrics) -> Run:
    made = make_step(store, metrics, Health(60))
    return lambda rows: made(message(rows), NoState())


def message(rows: Any, key: bytes = b"BTC", received_ms: int = NOW - 1_500) -> Message:
    value = rows if isinstance(rows, bytes) else msgspec.json.encode(rows)
    return Message(key, value, T0, batch_headers(received_ms))


def stories(store: SqliteStore) -> list[Any]:
    return [story for (story,) in store.sql("SELECT story_id FROM news_signals ORDER BY 1")[1]]


def test_signals_and_their_sentiment_can_be_read_at_once(step: Run, store: SqliteStore) -> None:
    result = step([signal(0, "a", 0.5), signal(MINUTE, "b", -0.5)])
    assert (result.rows_in, result.rows_out, result.refused, result.outputs) == (2, 2, [], [])
    assert stories(store) == ["a", "b"]
    newest = store.latest(group="sentiment", coin="BTC")
    assert newest is not None
    assert (newest["as_of_ms"], newest["news_count_15m"], newest["sentiment_mean_15m"]) == (T0 + MINUTE, 2, 0)


def test_an_empty_batch_is_nothing_to_write(step: Run, store: SqliteStore) -> None:
    assert step(b"[]") == StepResult()
    assert stories(store) == []


@pytest.mark.parametrize("value", [b"\xff\xfe", b"", b"{}", b"[1, 2", b"null"])
def test_what_is_no_json_array_is_refused_whole(step: Run, value: bytes) -> None:
    with pytest.raises(ContractError) as refused:
        step(value)
    assert refused.value.reason == "bad_json"


@pytest.mark.parametrize("key", [b"", b"btc", b"kraken:BTC/USD", b"\xff", b"BTC'; DROP"])
def test_a_key_that_names_no_coin_is_refused(store: SqliteStore, metrics: Metrics, key: bytes) -> None:
    with pytest.raises(ContractError) as refused:
        make_step(store, metrics, Health(60))(message(b"[]", key), NoState())
    assert refused.value.reason == "bad_key"


def broken(**values: Any) -> bytes:
    return msgspec.json.encode(msgspec.to_builtins(signal(0, "bad")) | values)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (broken(coin="ETH"), "bad_row"),
        (broken(score=1.5), "bad_row"),
        (broken(novelty=0.0), "bad_row"),
        (broken(signal=2), "bad_row"),
        (broken(story_id="a b"), "bad_row"),
        (broken(observed_at_ms=None), "bad_row"),
        (broken(p_neu=0.9), "bad_probabilities"),
        (broken(score=-0.5), "bad_score"),
        (broken(scored_at_ms=T0 - 1), "bad_times"),
        (broken(observed_at_ms=NOW + 5_001, scored_at_ms=NOW + 6_000), "future_event"),
        (b"7", "bad_row"),
    ],
)
def test_a_bad_signal_is_refused_alone_and_the_others_are_stored(
    step: Run, store: SqliteStore, raw: bytes, reason: str
) -> None:
    good, last = (msgspec.json.encode(signal(0, story)) for story in ("a", "z"))
    result = step(b"[" + b",".join((good, raw, last)) + b"]")
    assert [(index, value, error.reason) for index, value, error in result.refused] == [
        (1, b"[" + raw + b"]", reason)
    ]
    assert stories(store) == ["a", "z"]
    assert result.rows_in == 2


def test_a_bad_signal_beside_one_from_the_future_keeps_its_own_reason(step: Run, store: SqliteStore) -> None:
    future = broken(observed_at_ms=NOW + 9_000, scored_at_ms=NOW + 9_000)
    result = step(b"[" + b",".join((broken(p_neu=0.9), future, msgspec.json.encode(signal(0)))) + b"]")
    reasons = [(index, error.reason) for index, _, error in result.refused]
    assert reasons == [(0, "bad_probabilities"), (1, "future_event")]
    assert stories(store) == ["s"]


def test_a_signal_within_the_skew_of_clocks_is_stored(step: Run, store: SqliteStore) -> None:
    assert step([signal(10 * MINUTE + 5_000, "near")]).refused == []
    assert stories(store) == ["near"]


def test_latency_runs_from_the_receipt_of_the_story_to_its_sentiment(step: Run, metrics: Metrics) -> None:
    step([signal(0)])
    value = metrics.registry.get_sample_value
    assert value("news_to_row_seconds_sum") == pytest.approx(1.5)
    assert value("frame_to_row_seconds_count") == 0
    assert value("store_write_seconds_count") == 1
    assert value("last_write_success_timestamp_seconds") == NOW / 1000
    assert value("last_news_timestamp_seconds") == T0 / 1000


def test_a_store_that_fails_ends_the_stream_and_is_not_ready(store: SqliteStore, metrics: Metrics) -> None:
    health = Health(60)
    step = make_step(store, metrics, health)
    store._writer.execute("DROP TABLE sentiment_1_online")
    with pytest.raises(StoreError):
        step(message([signal(0)]), NoState())
    assert any("store" in reason for reason in health.not_ready())
    assert stories(store) == []


def test_a_row_of_ta_is_not_there_before_the_sentiment_of_its_end(
    store: SqliteStore, metrics: Metrics
) -> None:
    now = T0
    writer = SentimentWriter(store, lambda: now)
    writer.write("BTC", [signal(0)])
    ta = FeaturesStep(TA, TaRow, store, metrics, Health(60), lambda: now, before=writer.catch_up)
    # The clock's next tick is not awaited: 16 minutes on, the window of 15 is empty.
    now = T0 + 16 * MINUTE
    ta(message([ta_row(15)], b"kraken:BTC/USD"), NoState())
    vector = store.vector("BTC/USD", "1m")
    assert vector is not None
    assert (vector["news_count_15m"], vector["news_count_1h"]) == (0, 1)
    assert vector["seconds_since_news"] == 960.0
