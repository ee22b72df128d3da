"""The embedded broker comes and goes cleanly, and topics are made as they are described."""

import os
import signal
import socket
import subprocess
import sys
from typing import Any

import psutil
import pytest
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from services.common.broker import EMBEDDED_ENV, EmbeddedBroker, free_port
from services.common.errors import BrokerUnavailableError, TopicError
from services.common.settings import BrokerSettings
from services.common.topics import TOPICS, ensure_topics, letter_bytes, topic_config
from tests.common.support import runs, wait_until


def settings(broker: EmbeddedBroker, **environ: str) -> BrokerSettings:
    return BrokerSettings.load({**EMBEDDED_ENV, "KAFKA_BROKERS": broker.address, **environ})


def described(broker: EmbeddedBroker) -> dict[str, Any]:
    topics: dict[str, Any] = (
        AdminClient({"bootstrap.servers": broker.address, "log_level": 0}).list_topics(timeout=10).topics
    )
    return topics


def test_a_broker_answers_while_it_is_open_and_leaves_no_process() -> None:
    before = psutil.Process().children()
    with EmbeddedBroker() as broker:
        pid = broker.pid
        assert described(broker) == {}
        assert runs(pid)
    assert not runs(pid)
    assert psutil.Process().children() == before
    with pytest.raises(BrokerUnavailableError, match="not running"):
        _ = broker.pid
    broker.stop()


def test_it_ends_too_when_the_block_raises() -> None:
    broker = EmbeddedBroker()
    pid = 0

    def fail() -> None:
        nonlocal pid
        with broker:
            pid = broker.pid
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert pid
    assert not runs(pid)


def test_a_port_that_something_listens_on_is_a_clear_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(BrokerUnavailableError, match=f"port {port} is taken"), EmbeddedBroker(port):
            pass


def test_another_broker_on_the_port_is_not_taken_for_ours(broker: EmbeddedBroker) -> None:
    with pytest.raises(BrokerUnavailableError, match="is taken"), EmbeddedBroker(broker.port):
        pass
    assert described(broker) is not None


def test_a_port_goes_to_one_process_alone_as_long_as_that_lives_though_nothing_listens_there_yet() -> None:
    ask = (
        "import itertools, sys; from services.common import broker;"
        "broker._ports = itertools.count(7_000); print(broker.free_port(), flush=True); sys.stdin.read()"
    )

    def asked() -> tuple[subprocess.Popen[str], int]:
        process = subprocess.Popen(
            [sys.executable, "-c", ask], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        return process, int(process.stdout.readline())

    first, port = asked()
    second, other = asked()
    try:
        assert other > port
        first.kill()
        first.wait()
        third, again = asked()
        third.communicate()
        assert again == port
    finally:
        first.communicate()
        second.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_ends_on_a_signal_and_takes_the_broker_with_it(number: signal.Signals) -> None:
    command = [sys.executable, "-m", "services.common.broker", "--port", str(free_port())]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert "Ctrl-C ends it" in process.stderr.readline()
    (child,) = psutil.Process(process.pid).children()
    process.send_signal(number)
    assert process.wait(timeout=15) == 0
    assert process.stderr.read() == ""
    process.stderr.close()
    wait_until(lambda: not runs(child.pid), "the broker to end", 5)


def test_the_command_ends_on_sigterm_where_a_shell_made_it_ignore_ctrl_c() -> None:
    command = f"{sys.executable} -m services.common.broker --port {free_port()} & echo $!; wait $!; echo $?"
    shell = subprocess.Popen(
        ["bash", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert shell.stdout is not None
    assert shell.stderr is not None
    pid = int(shell.stdout.readline())
    assert "Ctrl-C ends it" in shell.stderr.readline()
    (child,) = psutil.Process(pid).children()
    os.kill(pid, signal.SIGTERM)
    try:
        assert shell.communicate(timeout=15) == ("0\n", "")
    finally:
        shell.kill()
        if runs(pid):
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not runs(child.pid), "the broker to end", 5)


def test_topics_get_our_partitions_and_an_explicit_retention(broker: EmbeddedBroker) -> None:
    ours = settings(broker, KAFKA_TOPIC_SUFFIX="_made")
    ensure_topics(ours, ("trades", "dead_letters"))
    found = described(broker)
    assert {name: len(at.partitions) for name, at in found.items() if name.endswith("_made")} == {
        "trades_made": 2,
        "dead_letters_made": 2,
    }
    admin = AdminClient({"bootstrap.servers": broker.address, "log_level": 0})
    resource = ConfigResource(ResourceType.TOPIC, "trades_made")
    config = admin.describe_configs([resource])[resource].result(timeout=10)
    expected = topic_config("trades", ours)
    assert {name: config[name].value for name in expected} == expected
    assert expected["retention.ms"] == str(2 * 3_600_000)


def test_the_retention_of_a_real_bus_is_that_of_the_topic() -> None:
    ours = BrokerSettings.load({})
    for name, spec in TOPICS.items():
        assert topic_config(name, ours)["retention.ms"] == str(spec.retention_ms)
    assert topic_config("dead_letters", ours)["max.message.bytes"] == str(letter_bytes(ours))
    assert topic_config("trades", ours)["max.message.bytes"] == str(ours.max_message_bytes)


def test_topics_that_are_there_are_left_as_they_are(broker: EmbeddedBroker) -> None:
    ours = settings(broker, KAFKA_TOPIC_SUFFIX="_twice")
    ensure_topics(ours, ("trades",))
    ensure_topics(ours, ("trades", "candles"))
    assert {"trades_twice", "candles_twice"} <= described(broker).keys()


def test_another_number_of_partitions_is_refused_with_what_to_do(broker: EmbeddedBroker) -> None:
    ensure_topics(settings(broker, KAFKA_TOPIC_SUFFIX="_other"), ("trades",))
    other = settings(broker, KAFKA_TOPIC_SUFFIX="_other", KAFKA_PARTITIONS="3")
    with pytest.raises(TopicError, match=r"has 2 partitions and KAFKA_PARTITIONS is 3; set it to 2"):
        ensure_topics(other, ("trades", "candles"))
    assert "candles_other" not in described(broker)


def test_no_broker_is_an_error_that_says_where_it_was_looked_for() -> None:
    nowhere = BrokerSettings.load({"KAFKA_BROKERS": "127.0.0.1:1", "KAFKA_CONNECT_TIMEOUT_S": "0.2"})
    with pytest.raises(
        BrokerUnavailableError, match=r"no broker answers at 127\.0\.0\.1:1; set KAFKA_BROKERS"
    ):
        ensure_topics(nowhere, ("trades",))
