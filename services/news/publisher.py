"""The way out: messages that are written down already, to the bus. The seam that tests replace."""

from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Protocol

from quixstreams import Application
from quixstreams.kafka import ConnectionConfig
from quixstreams.kafka.exceptions import KafkaBrokerUnavailableError

from services.common.errors import BrokerUnavailableError
from services.common.messages import batch_headers
from services.common.runner import Context
from services.common.stream import producer_config
from services.news.registry import Outgoing

#: Brokers may be away for this long; messages wait in the producer's queue.
BROKERS_DOWN_S = 120.0
FLUSH_S = 30.0
#: A message that waits longer than this makes the service not ready.
SLOW_S = 5.0


class Publisher(Protocol):
    """Where messages go; those of a story keep their order."""

    def send(self, messages: Sequence[Outgoing]) -> None:
        """Hand over messages. Raises `BrokerUnavailableError`."""

    def poll(self) -> list[int]:
        """Ids of the messages that were delivered since. Raises `BrokerUnavailableError`."""

    def flush(self) -> list[int]:
        """Wait until everything is delivered, then as `poll`. Raises `BrokerUnavailableError`."""


class KafkaPublisher:
    """Quix's producer; a failed delivery ends the process, which then sends it again."""

    def __init__(self, context: Context, now_ms: Callable[[], int]) -> None:
        broker = context.broker
        application = Application(
            broker_address=ConnectionConfig.from_librdkafka_dict(broker.client_config()),
            producer_extra_config=producer_config(broker),
            loglevel=None,
        )
        self._producer = application.get_producer()
        self._topic = broker.topic
        self._now_ms = now_ms
        self._health = context.health
        self._rows_out = context.metrics.rows_out.labels("news")
        self._failure: str | None = None
        self._delivered: list[int] = []
        self._waiting = 0
        self._moved_at = monotonic()

    def send(self, messages: Sequence[Outgoing]) -> None:
        """Produce each, stamped with now: by observed time retention would delete an old file's news."""
        for message in messages:

            def on_delivery(error: Any, _message: Any, number: int = message.id) -> None:
                self._waiting -= 1
                self._moved_at = monotonic()
                if error is not None:
                    self._failure = self._failure or str(error)
                else:
                    self._delivered.append(number)

            if not self._waiting:
                self._moved_at = monotonic()
            self._produce(message, on_delivery)
            self._waiting += 1
            if message.topic == "news":
                self._rows_out.inc()
        self._check()

    def _produce(self, message: Outgoing, on_delivery: Any) -> None:
        while True:
            try:
                self._producer.produce(
                    self._topic(message.topic),
                    value=message.value,
                    key=message.key,
                    headers=batch_headers(message.received_at_ms),
                    timestamp=self._now_ms(),
                    buffer_error_max_tries=1,
                    on_delivery=on_delivery,
                )
            except BufferError:
                # The queue is full: what fills it must wait.
                self._producer.poll(0.1)
                self._check()
                self._health.tick()
            else:
                return

    def poll(self) -> list[int]:
        """Serve delivery reports."""
        self._producer.poll(0)
        self._check()
        return self._take()

    def flush(self) -> list[int]:
        """Wait until everything is delivered."""
        waiting = self._producer.flush(FLUSH_S)
        self._check()
        if waiting:
            raise BrokerUnavailableError(f"{waiting} messages were not delivered in {FLUSH_S:.0f} s")
        return self._take()

    def _take(self) -> list[int]:
        delivered, self._delivered = self._delivered, []
        return delivered

    def _check(self) -> None:
        if self._failure is not None:
            self._health.require("publish", self._failure)
            raise BrokerUnavailableError(f"a message was not delivered: {self._failure}")
        try:
            self._producer.raise_if_broker_unavailable(BROKERS_DOWN_S)
        except KafkaBrokerUnavailableError as error:
            raise BrokerUnavailableError(str(error)) from error
        slow = self._waiting > 0 and monotonic() - self._moved_at > SLOW_S
        self._health.require("publish", f"{self._waiting} messages wait for the broker" if slow else None)
