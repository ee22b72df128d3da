"""The features service as a process: messages in, rows for Hopsworks out, and no secret in its log."""

import os
import signal as signals
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from confluent_kafka import Producer

from services.common.broker import EMBEDDED_ENV, EmbeddedBroker, free_port
from services.common.messages import batch_headers, encode, series_key
from services.common.settings import BrokerSettings
from services.common.topics import ensure_topics
from services.features.groups import NEWS_SIGNALS, SENTIMENT, TA, FeatureGroup
from tests.features.rows import MINUTE, signal, ta_row
from tests.hopsworks.conftest import environment
from tests.hopsworks.model import Model, read_topic
from tests.hopsworks.stub import API_KEY, CERTIFICATE_PASSWORD, Fault, Stub

ROOT = Path(__file__).parents[2]
WAIT_S = 60.0


def until(holds: Callable[[], bool], process: subprocess.Popen[Any]) -> None:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the service ended with code {process.returncode}"
        try:
            if holds():
                return
        except requests.ConnectionError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"not within {WAIT_S:.0f} s")


class Service:
    """The service and what it is told; each start logs into the same file."""

    def __init__(self, stub: Stub, broker: EmbeddedBroker, ca_file: Path, folder: Path) -> None:
        self._broker = broker
        self._log = folder / "log"
        self._port = free_port()
        kafka = {**EMBEDDED_ENV, "KAFKA_BROKERS": broker.address, "KAFKA_TOPIC_SUFFIX": f"_{stub.port}"}
        self._kafka = BrokerSettings.load(environ=kafka)
        ensure_topics(self._kafka, ("ta", "news_signals", "dead_letters"))
        self._environment = os.environ | kafka | environment(stub, ca_file, folder)
        self._environment |= {
            "FEATURES_HTTP_PORT": str(self._port),
            "FEATURES_COMMIT_INTERVAL_S": "0.2",
            "FEATURES_LOG_LEVEL": "TRACE",
            "FEATURES_HOPSWORKS_TIMEOUT_S": "2",
        }

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[Any]]:
        command = [sys.executable, "-W", "ignore", "-m", "services.features.main"]
        with self._log.open("a") as log:
            process = subprocess.Popen(command, env=self._environment, stdout=log, stderr=log, cwd=ROOT)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def send(self, topic: str, key: bytes, rows: list[Any]) -> None:
        producer = Producer({"bootstrap.servers": self._broker.address, "batch.num.messages": 1})
        headers: Any = batch_headers(time.time_ns() // 1_000_000)
        producer.produce(self._kafka.topic(topic), value=encode(rows), key=key, headers=headers)
        assert producer.flush(20) == 0

    def get(self, path: str, **query: str) -> requests.Response:
        return requests.get(f"http://127.0.0.1:{self._port}{path}", params=query, timeout=10)

    def log(self) -> str:
        return self._log.read_text()


@pytest.mark.timeout(170)
def test_messages_become_rows_in_hopsworks_and_a_failure_ends_the_service_and_loses_none(
    stub: Stub, broker: EmbeddedBroker, certificates: tuple[Path, Path], tmp_path: Path
) -> None:
    service = Service(stub, broker, certificates[0], tmp_path)
    key = series_key("kraken", "BTC/USD")

    def arrived(group: FeatureGroup) -> int:
        return len(Model(group, read_topic(stub, group)).offline)

    service.send("ta", key, [ta_row(i, rsi_14=float(i)) for i in range(20)])
    service.send("news_signals", b"BTC", [signal(10 * MINUTE, "old", 0.5)])
    with service.running() as process:
        until(lambda: service.get("/health/ready").status_code == 200, process)
        # A signal enters four windows at once and leaves them one by one.
        until(lambda: (arrived(TA), arrived(NEWS_SIGNALS), arrived(SENTIMENT)) == (20, 1, 5), process)
        # Its HTTP face answers from the working copy.
        vector = service.get("/features/combined/latest", pair="BTC/USD", timeframe="1m").json()
        assert (vector["features"]["rsi_14"], vector["features"]["news_count_15m"]) == (19.0, 1)
        assert service.get("/info").json()["settings"]["service"]["hopsworks_api_key"] == "*" * 10
        stub.faults.append(Fault("kafka_connector", 500))
        service.send("ta", key, [ta_row(20)])
        assert process.wait(WAIT_S) == 1
    assert "cannot send rows: Hopsworks at 127.0.0.1" in service.log()
    assert arrived(TA) == 20
    stub.faults[:] = [Fault("getProjectInfo", 401)]
    with service.running() as process:
        assert process.wait(WAIT_S) == 1
    assert "refused the API key; set FEATURES_HOPSWORKS_API_KEY" in service.log()
    stub.faults.clear()
    with service.running() as process:
        until(lambda: arrived(TA) == 21, process)
        process.send_signal(signals.SIGTERM)
        assert process.wait(20) == 0
    assert [*(tmp_path / "state" / "hopsworks").glob("*")] == [], "certificates are for the running service"
    text = service.log()
    assert "Traceback" not in text
    for secret in (API_KEY, CERTIFICATE_PASSWORD, "SECRETPARTOFTHEKEY"):
        assert secret not in text
