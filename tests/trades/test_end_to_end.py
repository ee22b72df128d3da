"""The whole process against the embedded broker: what is on the topic counts."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import Consumer, TopicPartition
from websockets.sync.server import ServerConnection

from services.common.broker import EMBEDDED_ENV, EmbeddedBroker
from services.common.messages import DeadLetter, Trade, header
from tests.trades.support import (
    T0_MS,
    SocketServer,
    kraken_ack,
    kraken_frame,
    kraken_pages,
    kraken_row,
    kraken_snapshot,
    rest_server,
    socket_server,
    wait_until,
)


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as running:
        yield running


class Topic:
    """Reads a topic from its beginning."""

    def __init__(self, broker: EmbeddedBroker, name: str) -> None:
        config = {"bootstrap.servers": broker.address, "group.id": "test", "fetch.wait.max.ms": 5}
        self._consumer = Consumer(config | {"enable.auto.commit": False})
        self._consumer.assign([TopicPartition(name, partition, 0) for partition in (0, 1)])
        #: (key, rows as bytes, timestamp, headers)
        self.messages: list[tuple[bytes, bytes, int, list[tuple[str, bytes]]]] = []

    def read(self) -> list[tuple[bytes, bytes, int, list[tuple[str, bytes]]]]:
        for message in self._consumer.consume(500, 0.05):
            if not message.error():
                self.messages.append(
                    (message.key(), message.value(), message.timestamp()[1], message.headers() or [])
                )
        return self.messages

    def trades(self) -> list[Trade]:
        self.read()
        return [
            row for _, value, _, _ in self.messages for row in msgspec.json.decode(value, type=list[Trade])
        ]

    def ids(self) -> list[int]:
        return [row.trade_id for row in self.trades()]

    def close(self) -> None:
        self._consumer.close()


def start(broker: EmbeddedBroker, state: Path, suffix: str, **values: str) -> subprocess.Popen[str]:
    environ = {f"TRADES_{name.upper()}": value for name, value in values.items()}
    own = {name: value for name, value in os.environ.items() if not name.startswith(("TRADES_", "KAFKA_"))}
    environ |= own | EMBEDDED_ENV
    environ |= {"KAFKA_BROKERS": broker.address, "KAFKA_TOPIC_SUFFIX": suffix, "TRADES_STATE_DIR": str(state)}
    return subprocess.Popen(
        [sys.executable, "-m", "services.trades.main"],
        env=environ,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], timeout_s: float = 30) -> tuple[int, str]:
    _, errors = process.communicate(timeout=timeout_s)
    return process.returncode, errors


def test_a_replay_killed_at_any_time_ends_with_every_trade_on_the_topic(
    broker: EmbeddedBroker, tmp_path: Path
) -> None:
    rows = 60_000
    path = tmp_path / "BTC-USD.csv"
    body = "".join(f"{T0_MS + i},{'buy' if i % 2 else 'sell'},100.5,0.25\n" for i in range(rows))
    path.write_text("time_ms,side,price,quantity\n" + body)
    options = {
        "source": "replay",
        "exchange": "simulated",
        "replay_path": str(path),
        # About two seconds, so that the kill comes in the middle and after a save.
        "replay_speed": "25",
    }
    progress = tmp_path / "state" / "trades" / "simulated_killed.replay.json"
    first = start(broker, tmp_path / "state", "_killed", **options)
    wait_until(lambda: progress.exists() or first.poll() is not None, "a first save", 30)
    first.kill()
    first.communicate()
    assert first.returncode == -signal.SIGKILL
    topic = Topic(broker, "trades_killed")
    code, errors = finish(start(broker, tmp_path / "state", "_killed", **(options | {"replay_speed": "0"})))
    assert code == 0, errors
    wait_until(lambda: rows in topic.ids(), "the last trade", 20)
    ids = topic.ids()
    topic.close()
    assert set(ids) == set(range(1, rows + 1))
    # It went on from its progress instead of from the beginning.
    assert "goes on after trade" in errors
    assert len(ids) < 2 * rows
    # Each run is in order; the restart repeats a little.
    assert sum(later <= earlier for earlier, later in pairwise(ids)) <= 1
    key, _, timestamp_ms, headers = topic.messages[0]
    assert key == b"simulated:BTC/USD"
    received = header(headers, "received_at_ms")
    assert received is not None
    assert received == str(timestamp_ms)
    assert abs(timestamp_ms - time.time() * 1000) < 120_000
    assert topic.messages[-1][1:3] == (b"[]", T0_MS + rows - 1)
    # Complete: nothing is left to resume.
    assert not progress.exists()


def test_a_live_feed_killed_and_restarted_misses_nothing(broker: EmbeddedBroker, tmp_path: Path) -> None:
    def play(server: SocketServer, connection: ServerConnection, number: int) -> None:
        kraken_ack(connection)
        base = 1 if number == 1 else 5000
        connection.send(kraken_snapshot(base, base + 1))
        if number == 1:
            connection.send("garbage")
        # A trade every few ms, until the process is killed or has enough.
        for trade_id in range(base + 2, base + 202):
            connection.send(kraken_frame(kraken_row(trade_id)))
            server.stopping.wait(0.005)
        server.hold(connection)

    with rest_server(kraken_pages(range(1, 5002))) as rest, socket_server(play) as server:
        options = {
            "pairs": "BTC/USD",
            "ws_url": server.url,
            "rest_url": rest.url,
            "rest_interval_s": "0.01",
            "heartbeat_s": "0.1",
        }
        progress = tmp_path / "trades" / "kraken_live.json"
        first = start(broker, tmp_path, "_live", **options)
        wait_until(lambda: progress.exists() or first.poll() is not None, "a first save", 30)
        first.kill()
        first.communicate()
        topic = Topic(broker, "trades_live")
        second = start(broker, tmp_path, "_live", **options)
        wait_until(lambda: 5201 in topic.ids(), "the trades after the gap", 30)
        wait_until(lambda: topic.read()[-1][1] == b"[]", "heartbeats after the last trade", 10)
        began = time.monotonic()
        second.terminate()
        code, errors = finish(second)
    assert code == 0, errors
    assert time.monotonic() - began < 4
    assert set(topic.ids()) >= set(range(1, 5202))
    # The first message of all says where coverage begins.
    assert topic.messages[0][1] == b"[]"
    assert topic.messages[0][2] == T0_MS + 10
    topic.close()
    dead = Topic(broker, "dead_letters_live")
    wait_until(lambda: dead.read(), "the dead letter", 10)
    (letter,) = msgspec.json.decode(dead.messages[0][1], type=list[DeadLetter])
    assert (letter.topic, letter.partition, letter.offset) == ("trades_live", -1, -1)
    assert (letter.reason, letter.value, letter.service) == ("bad_json", b"garbage", "trades")
    dead.close()
    assert json.loads(progress.read_text())["pairs"]["BTC/USD"]["trade_id"] == 5201


def test_a_refused_pair_ends_the_process_with_a_clear_message(broker: EmbeddedBroker, tmp_path: Path) -> None:
    def play(server: SocketServer, connection: ServerConnection, number: int) -> None:
        connection.recv(timeout=5)
        refusal = {"error": "Currency pair not supported BTC/USD", "success": False}
        connection.send(json.dumps(refusal | {"method": "subscribe", "symbol": "BTC/USD"}))
        server.hold(connection)

    with socket_server(play) as server:
        process = start(broker, tmp_path, "_refused", pairs="BTC/USD", ws_url=server.url)
        code, errors = finish(process)
    assert code == 2
    assert "SourceError: kraken refused BTC/USD: Currency pair not supported BTC/USD" in errors
    assert "Traceback" not in errors


def test_wrong_settings_end_the_process_with_code_2(broker: EmbeddedBroker, tmp_path: Path) -> None:
    code, errors = finish(start(broker, tmp_path, "", pairs="BTC-USD", replay_spede="1"))
    assert code == 2
    assert "write it like BTC/USD" in errors
    assert "did you mean TRADES_REPLAY_SPEED" in errors
