"""A message bus for one test, a way to run a stream until something holds, and waiting with a deadline."""

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from services.candles.settings import CandlesSettings
from services.common.broker import EMBEDDED_ENV
from services.common.health import Health
from services.common.messages import DeadLetter
from services.common.metrics import Metrics
from services.common.runner import Context
from services.common.settings import BrokerSettings
from services.common.step import Step
from services.common.stream import Stream
from services.common.topics import ensure_topics, producer_config

KEY = b"kraken:BTC/USD"
PARTITIONS = int(EMBEDDED_ENV["KAFKA_PARTITIONS"])
WAIT_S = 40.0


def wait_until[T](ask: Callable[[], T | None], what: str, timeout_s: float = WAIT_S) -> T:
    """The first answer of `ask` that is something."""
    deadline = time.monotonic() + timeout_s
    while not (answer := ask()):
        assert time.monotonic() < deadline, f"waited {timeout_s:.0f} s for {what}"
        time.sleep(0.03)
    return answer


def runs(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class Record(NamedTuple):
    """What a consumer reads."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    headers: dict[str, bytes]


class Bus:
    """The topics with one suffix."""

    def __init__(self, address: str, suffix: str = "", **environ: str) -> None:
        self.env = {**EMBEDDED_ENV, "KAFKA_BROKERS": address, "KAFKA_TOPIC_SUFFIX": suffix, **environ}
        self.settings = BrokerSettings.load(self.env)
        # Brokers are killed here, which librdkafka would say on our standard error.
        self._config = {**self.settings.client_config(), "log_level": 0}
        ensure_topics(self.settings, ("trades", "candles", "ta", "dead_letters"))
        self._producer = Producer(self._config | producer_config(self.settings))

    def send(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = KEY,
        *,
        headers: Sequence[tuple[str, bytes]] = (),
        partition: int = 0,
        timestamp_ms: int | None = None,
    ) -> None:
        """Produce one message and wait for its delivery."""
        self._producer.produce(
            self.settings.topic(topic),
            value=value,
            key=key,
            headers=list(headers),
            partition=partition,
            timestamp=time.time_ns() // 1_000_000 if timestamp_ms is None else timestamp_ms,
        )
        assert self._producer.flush(20) == 0

    def read(self, topic: str, at_least: int = 0) -> list[Record]:
        """Everything in a topic, once it is `at_least` so many messages, by partition and offset."""
        config = {**self._config, "group.id": "reader", "enable.partition.eof": True}
        consumer = Consumer({**config, "fetch.wait.max.ms": 20, "enable.auto.commit": False})
        full_name = self.settings.topic(topic)
        consumer.assign([TopicPartition(full_name, partition, 0) for partition in range(PARTITIONS)])
        found: list[Record] = []
        at_end: set[int] = set()
        deadline = time.monotonic() + WAIT_S
        while len(at_end) < PARTITIONS or len(found) < at_least:
            assert time.monotonic() < deadline, f"{len(found)} of {at_least} messages on {full_name}"
            message = consumer.poll(0.2)
            if message is None:
                continue
            error = message.error()
            if error is None:
                headers = {name: bytes(value or b"") for name, value in message.headers() or []}
                place = (message.partition(), message.offset(), message.key(), message.value())
                found.append(Record(*place, message.timestamp()[1], headers))
            elif error.code() == KafkaError._PARTITION_EOF:
                at_end.add(message.partition())
        consumer.close()
        return sorted(found, key=lambda record: record[:2])

    def letters(self, at_least: int = 0) -> list[tuple[bytes, DeadLetter]]:
        """Key and content of the dead letters."""
        records = self.read("dead_letters", at_least)
        decoded = [msgspec.json.decode(record.value or b"", type=list[DeadLetter]) for record in records]
        return [
            (record.key or b"", letter)
            for record, letters in zip(records, decoded, strict=True)
            for letter in letters
        ]

    def committed(self, group: str, topic: str, partition: int = 0) -> int:
        """The offset that a consumer group committed; negative if none."""
        consumer = Consumer({**self._config, "group.id": group})
        asked = [TopicPartition(self.settings.topic(topic), partition)]
        offset: int = consumer.committed(asked, timeout=10)[0].offset
        consumer.close()
        return offset


class Harness:
    """A stream from `trades` to `candles` with a step of the test's own, in the main thread."""

    def __init__(
        self,
        bus: Bus,
        folder: Path,
        step: Step,
        *,
        group: str = "g",
        stateful: bool = True,
        flush: Callable[[], None] | None = None,
    ) -> None:
        environ = {"CANDLES_STATE_DIR": str(folder), "CANDLES_COMMIT_INTERVAL_S": "0.1"}
        settings = CandlesSettings.load({**environ, "CANDLES_CONSUMER_GROUP": group})
        self.metrics = Metrics()
        self.health = Health(60)
        context = Context("test", bus.settings, self.health, self.metrics)
        self._stream = Stream(settings, context, ("trades", "candles"))
        self._stream.add_step("trades", step, destination="candles", stateful=stateful, flush=flush)

    def count(self, name: str, **labels: str) -> float:
        """The value of a metric, 0 where there is none."""
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    def has_processed(self, messages: int) -> bool:
        """Whether so many messages were good."""
        return self.count("messages_processed_total", topic="trades") == messages

    def run_until(self, condition: Callable[[], Any]) -> None:
        """Run the stream until `condition` holds; AssertionError when it does not in time."""
        finished = threading.Event()
        held = threading.Event()

        def watch() -> None:
            deadline = time.monotonic() + WAIT_S
            while not finished.wait(0.02) and time.monotonic() < deadline:
                if condition():
                    held.set()
                    break
            self._stream.app.stop()

        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            self._stream.run()
        finally:
            finished.set()
            watcher.join()
            for number, handler in handlers.items():
                signal.signal(number, handler)
        assert held.is_set(), f"the stream did not get there in {WAIT_S:.0f} s (pid {os.getpid()})"
