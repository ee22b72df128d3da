"""The real services as processes: good and bad messages in, candles, rows and dead letters out."""

import json
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from services.common.broker import EmbeddedBroker
from services.common.messages import Candle, DeadLetter, Trade, batch_headers, encode
from services.common.timeframes import MINUTE_MS
from services.demo.processes import Cluster, Service
from tests.common.support import KEY, Bus, wait_until

CANARIES = {"KAFKA_SASL_PASSWORD": "canary-kafka-4711", "KAFKA_SASL_USERNAME": "somebody"}
API_KEY = "canary-features-4711"
NAMES = ("candles", "ta", "features")
NOW_MS = time.time_ns() // 1_000_000
START_MS = (NOW_MS // MINUTE_MS - 10) * MINUTE_MS
HEADERS = batch_headers(NOW_MS)
BAD_TRADES: list[tuple[bytes, bytes | None, str]] = [
    (b"\xff\xfe", KEY, "bad_json"),
    (b'[{"exchange":', KEY, "bad_json"),
    (b"{}", KEY, "bad_json"),
    (b"[]", None, "null_key"),
    (b"[]", b"kraken", "bad_key"),
]


def trade(trade_id: int, time_ms: int) -> Trade:
    return Trade("kraken", "BTC/USD", trade_id, "buy", 100.0 + trade_id, 1.0, time_ms, NOW_MS)


def candle(minute: int, **changes: Any) -> bytes:
    start_ms = START_MS - (1000 - minute) * MINUTE_MS
    end_ms = start_ms + MINUTE_MS
    prices = (10.0, 12.0, 9.0, 11.0)
    row = Candle("kraken", "ETH/USD", "1m", start_ms, end_ms, *prices, 2.0, 10.5, 0.5, 3, True, 0)
    return json.dumps([msgspec.to_builtins(row) | changes]).encode()


@dataclass
class Told:
    """What the services said before and after their input, and how they ended."""

    before: dict[str, tuple[int, dict[str, Any]]] = field(default_factory=dict)
    live: dict[str, int] = field(default_factory=dict)
    metrics: dict[str, str] = field(default_factory=dict)
    info: dict[str, dict[str, Any]] = field(default_factory=dict)
    answers: list[str] = field(default_factory=list)
    candles: list[Any] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)
    codes: dict[str, int] = field(default_factory=dict)
    stopped_after_s: float = 0.0
    logs: dict[str, str] = field(default_factory=dict)


def ask(service: Service, path: str) -> requests.Response:
    return requests.get(service.url + path, timeout=10)


def ready(service: Service) -> bool:
    return ask(service, "/health/ready").status_code == 200


def send(bus: Bus) -> None:
    for value, key, _ in BAD_TRADES:
        bus.send("trades", value, key, headers=HEADERS)
    bus.send("trades", None, headers=HEADERS)
    bus.send("trades", encode([trade(1, START_MS)]), headers=[("schema_version", b"99")])
    bus.send("trades", encode([trade(1, START_MS)]), b"kraken:ETH/USD", headers=HEADERS)
    more = msgspec.to_builtins(trade(2, START_MS + 1)) | {"liquidity": "maker"}
    bus.send("trades", json.dumps([more]).encode(), headers=HEADERS)
    bus.send("trades", encode([trade(3, START_MS + 30_000), trade(4, START_MS + 70_000)]), headers=HEADERS)
    eth = b"kraken:ETH/USD"
    bus.send("candles", candle(0), eth, headers=HEADERS)
    bus.send("candles", candle(1, low=13.0), eth, headers=HEADERS)
    bus.send("candles", candle(1, start_ms=START_MS + 1), eth, headers=HEADERS)
    bus.send("candles", candle(1), KEY, headers=HEADERS)


@pytest.fixture(scope="module")
def told(broker: EmbeddedBroker, tmp_path_factory: pytest.TempPathFactory) -> Told:
    folder = tmp_path_factory.mktemp("services")
    bus = Bus(broker.address)
    cluster = Cluster(folder, {**bus.env, **CANARIES})
    told = Told()
    try:
        start(cluster, folder)
        for service in cluster.services:
            answer = ask(service, "/health/ready")
            told.before[service.name] = (answer.status_code, answer.json())
        send(bus)
        for service in cluster.services:
            wait_until(partial(ready, service), f"{service.name} to be ready")
        wait_until(
            lambda: cluster.services[2].metrics().get('rows_out_total{destination="store"}', 0) >= 2, "rows"
        )
        told.letters = [letter for _, letter in bus.letters(10)]
        told.candles = [
            row
            for record in bus.read("candles", 5)
            if record.key == KEY and record.value is not None
            for row in json.loads(record.value)
        ]
        for service in cluster.services:
            told.live[service.name] = ask(service, "/health/live").status_code
            told.metrics[service.name] = ask(service, "/metrics").text
            told.info[service.name] = ask(service, "/info").json()
            told.answers += [ask(service, path).text for path in ("/info", "/metrics", "/openapi.json", "/x")]
        told.answers.append(ask(cluster.services[2], "/features/ta/latest?pair=BTC/USD&timeframe=1m").text)
        stop(cluster, told)
    finally:
        cluster.stop()
    return told


def start(cluster: Cluster, folder: Path) -> None:
    cluster.start("candles", {"LOG_LEVEL": "debug"})
    cluster.start("ta", {"LOG_LEVEL": "debug", "LOG_FORMAT": "json"})
    cluster.start("features", {"STORE_PATH": str(folder / "store.sqlite"), "API_KEY": API_KEY})
    cluster.wait_until_up()


def stop(cluster: Cluster, told: Told) -> None:
    began = time.monotonic()
    for service in cluster.services:
        service.process.terminate()
    for service in cluster.services:
        told.codes[service.name] = service.process.wait(timeout=30)
        told.logs[service.name] = service.log.read_text()
    told.stopped_after_s = time.monotonic() - began


def value(told: Told, service: str, name: str, **labels: str) -> float:
    samples = [
        sample.value
        for family in text_string_to_metric_families(told.metrics[service])
        for sample in family.samples
        if sample.name == name and sample.labels == labels
    ]
    return samples[0] if samples else 0.0


def test_before_any_input_a_service_is_not_ready_and_says_why(told: Told) -> None:
    for name in NAMES:
        status, body = told.before[name]
        assert (status, body["ok"]) == (503, False)
        assert "no input yet" in body["reasons"]


def test_with_input_a_service_is_live_and_ready(told: Told) -> None:
    assert told.live == dict.fromkeys(NAMES, 200)  # that they are ready was waited for


def test_each_bad_message_of_the_table_becomes_a_dead_letter(told: Told) -> None:
    expected = Counter(("trades", reason) for _, _, reason in BAD_TRADES)
    expected += Counter({("trades", "unknown_version"): 1, ("trades", "bad_row"): 1})
    expected += Counter(
        {("candles", "bad_prices"): 1, ("candles", "unaligned"): 1, ("candles", "bad_row"): 1}
    )
    assert Counter((letter.topic, letter.reason) for letter in told.letters) == expected
    assert {letter.service for letter in told.letters} == {"candles", "ta"}
    assert {letter.value for letter in told.letters} >= {bad for bad, _, _ in BAD_TRADES}


def test_good_messages_around_them_become_candles(told: Told) -> None:
    first = next(row for row in told.candles if row["exchange"] == "kraken" and row["pair"] == "BTC/USD")
    # The trade with an unknown field and the one of the next message; the fourth closed the candle.
    assert (first["start_ms"], first["trade_count"]) == (START_MS, 2)
    assert (first["open"], first["close"]) == (102.0, 103.0)


def test_metrics_are_prometheus_text_with_our_counters(told: Told) -> None:
    assert value(told, "candles", "messages_processed_total", topic="trades") == 3
    assert value(told, "candles", "rows_in_total", topic="trades") == 3
    assert value(told, "candles", "null_values_total", topic="trades") == 1
    assert value(told, "candles", "dead_letters_total", reason="bad_json") == 3
    assert value(told, "candles", "last_event_timestamp_seconds", exchange="kraken") > NOW_MS / 1000 - 3600
    assert value(told, "ta", "dead_letters_total", reason="unaligned") == 1
    assert value(told, "features", "rows_out_total", destination="store") >= 2
    assert value(told, "features", "process_resident_memory_bytes") > 0


def test_info_says_the_settings_without_the_secrets(told: Told) -> None:
    assert told.info["ta"]["settings"]["kafka"]["sasl_password"] == "**********"
    assert told.info["features"]["settings"]["service"]["api_key"] == "**********"
    assert told.info["candles"]["settings"]["service"]["grace_ms"] == 2000


def test_no_secret_is_said_anywhere(told: Told) -> None:
    for text in (*told.answers, *told.logs.values()):
        assert "canary" not in text


def test_sigterm_ends_each_service_with_code_0_in_time(told: Told) -> None:
    assert told.codes == dict.fromkeys(NAMES, 0)
    assert told.stopped_after_s < 10


def test_logs_in_json_are_one_object_a_line(told: Told) -> None:
    lines = [json.loads(line) for line in told.logs["ta"].splitlines()]
    assert {line["service"] for line in lines} == {"ta"}
    assert lines[-1]["message"] == "stopped"
