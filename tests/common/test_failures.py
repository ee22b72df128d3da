"""A service that cannot run ends with a code and a message; one whose broker is gone does not pretend."""

import json
import os
import signal
import socket
from collections.abc import Iterator

import pytest
import requests

from services.common.broker import EmbeddedBroker
from services.common.messages import batch_headers
from services.demo.processes import Cluster, Service
from tests.common.support import Bus, runs, wait_until

ENDS_WITHIN_S = 40
SECRETS = {"KAFKA_SASL_PASSWORD": "canary-kafka-4711"}


@pytest.fixture(scope="module")
def widowed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EmbeddedBroker, Service]]:
    """A service and its own broker, which is to be killed."""
    with EmbeddedBroker() as broker:
        bus = Bus(broker.address)
        bus.send("trades", b"[]", headers=batch_headers(0))
        cluster = Cluster(tmp_path_factory.mktemp("widowed"), bus.env)
        yield broker, cluster.start("candles", {"LOG_FORMAT": "json"})
        cluster.stop()


@pytest.fixture(scope="module")
def failing(
    broker: EmbeddedBroker,
    widowed: tuple[EmbeddedBroker, Service],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, Service]]:
    """One service for each way to fail, started at once because each takes seconds to start."""
    bus = Bus(broker.address, "_fails")
    bus.send("trades", b"[]", headers=batch_headers(0))
    env = {**bus.env, **SECRETS}
    cases: dict[str, tuple[str, dict[str, str], dict[str, str], tuple[str, ...]]] = {
        "no broker": ("candles", {"KAFKA_BROKERS": "127.0.0.1:1", "KAFKA_CONNECT_TIMEOUT_S": "0.5"}, {}, ()),
        "partitions": ("ta", {"KAFKA_PARTITIONS": "3"}, {}, ()),
        "unknown": ("features", {"KAFKA_SASL_PASWORD": "canary-typo"}, {"API_KEY": "canary-short"}, ()),
        "port": ("ta", {}, {}, ()),
        "bug": ("candles", {}, {"LOG_FORMAT": "json"}, ("tests.common.raising_service",)),
    }
    clusters = []
    services = {}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for name, (service, kafka, settings, command) in cases.items():
            own = dict(settings)
            if name == "port":
                own["HTTP_PORT"] = str(taken.getsockname()[1])
            clusters.append(Cluster(tmp_path_factory.mktemp("fails"), {**env, **kafka}))
            services[name] = clusters[-1].start(service, own, command=command)
        yield services
        for cluster in clusters:
            cluster.stop()


def end_of(service: Service) -> tuple[int, str]:
    code = service.process.wait(timeout=ENDS_WITHIN_S)
    text = service.log.read_text()
    assert "canary" not in text
    return code, text


def test_without_a_broker_a_service_ends_and_says_how_to_start_one(failing: dict[str, Service]) -> None:
    code, text = end_of(failing["no broker"])
    assert code == 1
    assert "BrokerUnavailableError: no broker answers at 127.0.0.1:1; set KAFKA_BROKERS" in text
    assert "Traceback" not in text


def test_a_topic_with_other_partitions_ends_a_service_and_says_what_to_set(
    failing: dict[str, Service],
) -> None:
    code, text = end_of(failing["partitions"])
    assert code == 1
    assert "topic candles_fails has 2 partitions and KAFKA_PARTITIONS is 3; set it to 2" in text
    assert "Traceback" not in text


def test_wrong_settings_end_a_service_with_code_2_and_do_not_show_their_values(
    failing: dict[str, Service],
) -> None:
    code, text = end_of(failing["unknown"])
    assert code == 2
    assert "FEATURES_API_KEY: " in text
    assert "Traceback" not in text


def test_a_taken_http_port_ends_a_service_with_code_2(failing: dict[str, Service]) -> None:
    code, text = end_of(failing["port"])
    assert code == 2
    assert "cannot listen on 127.0.0.1:" in text
    assert "Address already in use" in text
    assert "Traceback" not in text


def test_a_bug_in_the_step_ends_the_service_with_its_traceback(failing: dict[str, Service]) -> None:
    code, text = end_of(failing["bug"])
    assert code == 1
    lines = [json.loads(line) for line in text.splitlines()]
    assert lines[-1]["level"] == "CRITICAL"
    assert lines[-1]["error"].startswith("RuntimeError('a bug in the step")
    assert "raising_service.py" in lines[-1]["traceback"]
    assert "stopped" not in [line["message"] for line in lines]


def reasons(service: Service) -> list[str]:
    """Why it is not ready; a service that does not answer yet says so too."""
    try:
        found: list[str] = requests.get(f"{service.url}/health/ready", timeout=10).json()["reasons"]
    except requests.ConnectionError:
        return ["no answer"]
    return found


def test_a_service_whose_broker_was_killed_says_so_and_still_ends_on_sigterm(
    widowed: tuple[EmbeddedBroker, Service],
) -> None:
    broker, service = widowed
    wait_until(lambda: not reasons(service), "readiness")
    pid = broker.pid
    os.kill(pid, signal.SIGKILL)
    broker.stop()
    assert not runs(pid)
    wait_until(lambda: "broker: cannot be reached" in reasons(service), "the service to notice", 20)
    assert requests.get(f"{service.url}/health/live", timeout=10).status_code == 200
    service.process.terminate()
    # It tries to commit first.
    assert service.process.wait(timeout=30) == 0, service.tail()
    for line in service.log.read_text().splitlines():
        json.loads(line)
