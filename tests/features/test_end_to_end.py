"""The service as a process on the embedded broker: ta messages in, features over HTTP out."""

import json
import os
import re
import signal as signals
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from confluent_kafka import Consumer, Producer

from services.common.broker import EMBEDDED_ENV, EmbeddedBroker, free_port
from services.common.messages import batch_headers, encode, series_key
from services.common.settings import BrokerSettings
from services.common.topics import HOUR_MS, ensure_topics
from services.features import open_store
from services.features.groups import TA
from services.features.stores.sqlite_reader import SqliteReader
from tests.features.rows import MINUTE, T0, make_store, signal, ta_row, tuples

ROOT = Path(__file__).parents[2]
WAIT_S = 40.0


def until[T](ask: Callable[[], T | None], process: subprocess.Popen[Any]) -> T:
    """The first answer of `ask` that is something, while the process lives."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the service ended with code {process.returncode}"
        try:
            answer = ask()
        except requests.ConnectionError:
            answer = None
        if answer is not None:
            return answer
        time.sleep(0.05)
    raise AssertionError(f"no answer within {WAIT_S:.0f} s")


def dead_letters(broker: EmbeddedBroker, count: int) -> list[dict[str, Any]]:
    consumer = Consumer(
        {
            "bootstrap.servers": broker.address,
            "group.id": "test",
            "auto.offset.reset": "earliest",
            "session.timeout.ms": 2000,
            "heartbeat.interval.ms": 300,
        }
    )
    consumer.subscribe(["dead_letters"])
    letters: list[dict[str, Any]] = []
    deadline = time.monotonic() + WAIT_S
    while len(letters) < count and time.monotonic() < deadline:
        message = consumer.poll(0.2)
        if message is not None and not message.error():
            letters += json.loads(message.value() or b"[]")
    consumer.close()
    return letters


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def send(
    broker: EmbeddedBroker, rows: list[Any] | bytes | None, key: bytes | None, topic: str = "ta"
) -> None:
    producer = Producer({"bootstrap.servers": broker.address, "batch.num.messages": 1})
    value = rows if isinstance(rows, bytes) or rows is None else encode(rows)
    headers: Any = batch_headers(time.time_ns() // 1_000_000)
    producer.produce(topic, value=value, key=key, headers=headers)
    assert producer.flush(20) == 0


@pytest.mark.timeout(170)
def test_ta_messages_become_features_and_sigterm_ends_with_code_0(tmp_path: Path) -> None:
    store_path = tmp_path / "store" / "features.sqlite"
    port = free_port()
    with EmbeddedBroker() as broker:
        kafka = {**EMBEDDED_ENV, "KAFKA_BROKERS": broker.address}
        ensure_topics(BrokerSettings.load(environ=kafka), ("ta", "news_signals", "dead_letters"))
        env = {
            **os.environ,
            **kafka,
            "FEATURES_STORE_PATH": str(store_path),
            "FEATURES_STATE_DIR": str(tmp_path / "state"),
            "FEATURES_HTTP_PORT": str(port),
            "FEATURES_COMMIT_INTERVAL_S": "0.2",
        }
        key = series_key("kraken", "BTC/USD")
        send(broker, [ta_row(i, rsi_14=float(i)) for i in range(50)], key)
        send(broker, b"no json", key)
        send(broker, None, key)
        send(broker, [ta_row(0)], None)
        # News of the time of the candles, and what nobody can have seen yet.
        send(broker, [signal(30 * MINUTE, "old", 0.5)], b"BTC", "news_signals")
        send(broker, [signal(now_ms() + HOUR_MS - T0, "future")], b"BTC", "news_signals")
        for start in range(2):
            log = tmp_path / f"log{start}"
            with log.open("w") as errors:
                process = subprocess.Popen(
                    [sys.executable, "-m", "services.features.main"], env=env, stderr=errors, cwd=ROOT
                )
            try:
                check_over_http(f"http://127.0.0.1:{port}", process, broker, key, 50 + start)
                if start == 0:
                    check_news_over_http(f"http://127.0.0.1:{port}", process, broker)
                process.send_signal(signals.SIGTERM)
                asked_at = time.monotonic()
                assert process.wait(timeout=20) == 0, log.read_text()
                assert time.monotonic() - asked_at < 10
            finally:
                process.kill()
                process.wait()
            assert "Traceback" not in log.read_text()
        letters = dead_letters(broker, 3)
    assert sorted(letter["reason"] for letter in letters) == ["bad_json", "future_event", "null_key"]
    with open_store(store_path) as store:
        closes = store.history("BTC/USD", "1m", columns=["rsi_14"])
        assert closes["rsi_14"].to_pylist() == [float(i) for i in range(52)]
        names = ["rsi_14", "news_count_15m", "sentiment_mean_15m"]
        training = store.training_set("BTC/USD", "1m", features=names)
        # The candles that end from minute 30 until before minute 45.
        assert training["rsi_14"].to_pylist() == [float(i) for i in range(29, 44)]
        assert set(training["sentiment_mean_15m"].to_pylist()) == {0.5}


def check_news_over_http(url: str, process: subprocess.Popen[Any], broker: EmbeddedBroker) -> None:
    """News can be asked for, and what only time changes changes without a message."""
    # It leaves the window of 15 minutes soon, when it has long been stored.
    fresh_ms = now_ms() - 15 * MINUTE + 3_000
    send(broker, [signal(fresh_ms - T0, "fresh", coin="ETH")], b"ETH", "news_signals")

    def emptied() -> dict[str, Any] | None:
        answer = requests.get(f"{url}/features/sentiment/latest", params={"coin": "ETH"}, timeout=10)
        vector = answer.json()
        left = answer.status_code == 200 and vector["event_time_ms"] == fresh_ms + 15 * MINUTE
        return vector if left else None

    vector = until(emptied, process)
    assert (vector["features"]["news_count_15m"], vector["features"]["sentiment_mean_15m"]) == (0, None)
    assert vector["features"]["news_count_1h"] >= 1
    known = requests.get(f"{url}/features/news_signals/latest", timeout=10).json()["vectors"]
    assert [(v["coin"], v["features"]["story_id"]) for v in known] == [("BTC", "old"), ("ETH", "fresh")]
    stored_ms = known[1]["features"]["ingested_at_ms"]
    assert stored_ms < vector["event_time_ms"] <= vector["features"]["ingested_at_ms"]
    query = {"pair": "BTC/USD", "timeframe": "1m"}
    combined = requests.get(f"{url}/features/combined/latest", params=query, timeout=10).json()
    assert combined["features"]["news_count_1h"] == 1


def check_over_http(
    url: str, process: subprocess.Popen[Any], broker: EmbeddedBroker, key: bytes, count: int
) -> None:
    """There are `count` rows; one more that is sent now can be asked for, and has been measured."""

    def rows() -> int | None:
        query = {"pair": "BTC/USD", "timeframe": "1m", "columns": "rsi_14"}
        answer = requests.get(f"{url}/features/ta/history", params=query, timeout=10)
        return answer.json()["count"] if answer.status_code == 200 else None

    def latest() -> dict[str, Any] | None:
        query = {"pair": "BTC/USD", "timeframe": "1m"}
        vector = requests.get(f"{url}/features/ta/latest", params=query, timeout=10).json()
        return vector if vector["features"]["rsi_14"] == count else None

    def ready() -> bool | None:
        return requests.get(f"{url}/health/ready", timeout=10).status_code == 200 or None

    assert until(rows, process) == count
    send(broker, [ta_row(count, rsi_14=float(count))], key)
    assert until(latest, process)["stale"] is True
    assert until(ready, process)
    metrics = requests.get(f"{url}/metrics", timeout=10).text
    measured = re.search(r"^frame_to_row_seconds_count (\S+)", metrics, re.MULTILINE)
    assert measured is not None
    assert float(measured[1]) >= 1
    info = requests.get(f"{url}/info", timeout=10).json()
    assert info["settings"]["service"]["store"] == "sqlite"


@pytest.mark.timeout(120)
def test_the_service_rolls_old_rows_and_serves_them_as_before(tmp_path: Path) -> None:
    store_path = tmp_path / "features.sqlite"
    with make_store(store_path) as store:
        store.write(TA, tuples(ta_row(i, rsi_14=float(i)) for i in range(200)))
    port = free_port()
    with EmbeddedBroker() as broker:
        env = {
            **os.environ,
            **EMBEDDED_ENV,
            "KAFKA_BROKERS": broker.address,
            "FEATURES_STORE_PATH": str(store_path),
            "FEATURES_STATE_DIR": str(tmp_path / "state"),
            "FEATURES_HTTP_PORT": str(port),
            "FEATURES_KEEP_DAYS": "30",
        }
        log = tmp_path / "log"
        with log.open("w") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "services.features.main"], env=env, stderr=errors, cwd=ROOT
            )
        url = f"http://127.0.0.1:{port}"

        def rolled() -> bool | None:
            text = requests.get(f"{url}/metrics", timeout=10).text
            return re.search(r"^last_roll_timestamp_seconds [1-9]", text, re.MULTILINE) is not None or None

        try:
            assert until(rolled, process)
            query = {"pair": "BTC/USD", "timeframe": "1m", "columns": "rsi_14"}
            answer = requests.get(f"{url}/features/ta/history", params=query, timeout=10).json()
            assert [row["rsi_14"] for row in answer["rows"]] == [float(i) for i in range(200)]
            process.send_signal(signals.SIGTERM)
            assert process.wait(timeout=20) == 0, log.read_text()
        finally:
            process.kill()
            process.wait()
    with SqliteReader(store_path) as reader:
        assert reader.sql("SELECT count(*) FROM ta")[1] == [(1,)]
        assert reader.history("BTC/USD", "1m").num_rows == 200
