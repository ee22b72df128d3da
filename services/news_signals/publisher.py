"""The way out: signals to the bus, by coin. The seam that tests replace."""

from collections.abc import Sequence
from typing import Any, Protocol

from quixstreams import Application
from quixstreams.kafka import ConnectionConfig
from quixstreams.kafka.exceptions import KafkaBrokerUnavailableError

from services.common.errors import BrokerUnavailableError
from services.common.messages import SCHEMA_HEADER, SCHEMA_VERSION, batch_headers, encode
from services.common.news import NewsSignal
from services.common.runner import Context
from services.common.stream import producer_config

#: No signal's JSON is longer, so that rows can be counted instead of bytes.
MAX_ROW_BYTES = 1_500
#: Brokers may be away for this long; signals wait in the producer's queue.
BROKERS_DOWN_S = 120.0
#: Shorter than the silence after which the main loop counts as dead.
FLUSH_S = 25.0


class Publisher(Protocol):
    """Where signals go; those of a coin keep their order."""

    def signals(self, coin: str, rows: Sequence[NewsSignal], received_at_ms: int | None, now_ms: int) -> None:
        """Send a batch of one coin."""

    def flush(self) -> None:
        """Wait until everything is delivered. Raises `BrokerUnavailableError`."""


class KafkaPublisher:
    """A producer of our own: signals are sent when a batch is full or offsets are due, not when a step ends.

    A failed delivery ends the process, which then repeats its stories from the committed offset.
    """

    def __init__(self, context: Context) -> None:
        broker = context.broker
        application = Application(
            broker_address=ConnectionConfig.from_librdkafka_dict(broker.client_config()),
            producer_extra_config=producer_config(broker),
            loglevel=None,
        )
        self._producer = application.get_producer()
        self._topic = broker.topic("news_signals")
        self._max_rows = max(1, broker.max_message_bytes // MAX_ROW_BYTES)
        self._rows_out = context.metrics.rows_out.labels("news_signals")
        self._health = context.health
        self._failure: str | None = None

    def signals(self, coin: str, rows: Sequence[NewsSignal], received_at_ms: int | None, now_ms: int) -> None:
        """Send a batch of one coin, in as many messages as their size limit asks for."""
        if received_at_ms is None:
            headers = [(SCHEMA_HEADER, str(SCHEMA_VERSION).encode())]
        else:
            headers = batch_headers(received_at_ms)
        for start in range(0, len(rows), self._max_rows):
            part = rows[start : start + self._max_rows]
            self._produce(coin.encode(), encode(part), headers, now_ms)
            self._rows_out.inc(len(part))

    def flush(self) -> None:
        """Wait until everything is delivered."""
        waiting = self._producer.flush(FLUSH_S)
        self._check()
        if waiting:
            raise BrokerUnavailableError(f"{waiting} messages were not delivered in {FLUSH_S:.0f} s")

    def _produce(self, key: bytes, value: bytes, headers: list[tuple[str, bytes]], now_ms: int) -> None:
        while True:
            try:
                self._producer.produce(
                    self._topic,
                    value=value,
                    key=key,
                    headers=headers,
                    timestamp=now_ms,
                    buffer_error_max_tries=1,
                    on_delivery=self._on_delivery,
                )
            except BufferError:
                # The queue is full: what fills it must wait.
                self._producer.poll(0.1)
                self._check()
                self._health.tick()
            else:
                break
        self._producer.poll(0)
        self._check()

    def _on_delivery(self, error: Any, _message: Any) -> None:
        if error is not None:
            self._failure = self._failure or str(error)

    def _check(self) -> None:
        if self._failure is not None:
            raise BrokerUnavailableError(f"a message was not delivered: {self._failure}")
        try:
            self._producer.raise_if_broker_unavailable(BROKERS_DOWN_S)
        except KafkaBrokerUnavailableError as error:
            raise BrokerUnavailableError(str(error)) from error
