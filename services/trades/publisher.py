"""The way out: trades, heartbeats and dead letters to the bus. The seam that tests replace."""

from collections.abc import Sequence
from typing import Any, Protocol

from loguru import logger
from quixstreams import Application
from quixstreams.kafka import ConnectionConfig
from quixstreams.kafka.exceptions import KafkaBrokerUnavailableError

from services.common.dead_letters import dead_letter
from services.common.errors import BrokerUnavailableError, ContractError
from services.common.messages import Trade, batch_headers, encode, series_key
from services.common.runner import Context
from services.common.stream import producer_config
from services.trades.exchanges.contract import Bad
from services.trades.progress import Progress

#: No trade's JSON is longer, so that rows can be counted instead of bytes.
MAX_ROW_BYTES = 300
#: Brokers may be away for this long; the exchange's trades wait in the producer's queue.
BROKERS_DOWN_S = 120.0
FLUSH_S = 30.0


class Publisher(Protocol):
    """Where sources send what they have; messages of a pair keep their order."""

    def trades(self, pair: str, rows: Sequence[Trade], received_at_ms: int) -> None:
        """Send a batch of one pair."""

    def heartbeat(self, pair: str, known_until_ms: int, now_ms: int) -> None:
        """Say that nothing more traded up to `known_until_ms`."""

    def dead_letter(self, bad: Bad, now_ms: int) -> None:
        """Put a refused frame or row aside."""

    def poll(self) -> None:
        """Serve delivery reports. Raises `BrokerUnavailableError` when a message failed."""

    def flush(self) -> None:
        """Wait until everything is delivered. Raises `BrokerUnavailableError`."""


class KafkaPublisher:
    """Quix's producer; a failed delivery ends the process, which then repeats it from its progress."""

    def __init__(self, context: Context, exchange: str, progress: Progress) -> None:
        broker = context.broker
        application = Application(
            broker_address=ConnectionConfig.from_librdkafka_dict(broker.client_config()),
            producer_extra_config=producer_config(broker),
            loglevel=None,
        )
        self._producer = application.get_producer()
        self._topic = broker.topic("trades")
        self._dead_topic = broker.topic("dead_letters")
        self._exchange = exchange
        self._service = context.service
        self._health = context.health
        self._progress = progress
        self._max_rows = max(1, broker.max_message_bytes // MAX_ROW_BYTES - 1)
        self._failure: str | None = None
        self._delivered = False
        self._rows_out = context.metrics.rows_out.labels("trades")
        self._dead = context.metrics.dead_letters
        self._last_event = context.metrics.last_event.labels(exchange)
        self._health.require("publish", "nothing delivered yet")

    def trades(self, pair: str, rows: Sequence[Trade], received_at_ms: int) -> None:
        """Send a batch of one pair, in as many messages as their size limit asks for."""
        for start in range(0, len(rows), self._max_rows):
            part = rows[start : start + self._max_rows]
            last = part[-1]
            confirm = self._progress.sent(pair, last.trade_id, last.event_time_ms)

            def delivered(error: Any, message: Any, confirm: Any = confirm) -> None:
                self._on_delivery(error, message)
                if error is None:
                    confirm()

            # The message's own time is its receipt: by event time, retention would delete replays.
            self._produce(series_key(self._exchange, pair), encode(part), received_at_ms, delivered)
            self._rows_out.inc(len(part))
            self._last_event.set(last.event_time_ms / 1000)

    def heartbeat(self, pair: str, known_until_ms: int, now_ms: int) -> None:
        """Send an empty batch whose message time is `known_until_ms`."""
        key = series_key(self._exchange, pair)
        self._produce(key, b"[]", known_until_ms, self._on_delivery, now_ms)

    def dead_letter(self, bad: Bad, now_ms: int) -> None:
        """Send the raw bytes to the dead letters, with why they were refused."""
        self._dead.labels(bad.error.reason).inc()
        logger.warning("dead letter from {}: {}", self._exchange, bad.error)
        key, value = dead_letter(
            ContractError(bad.error.reason, bad.error.detail),
            service=self._service,
            topic=self._topic,
            partition=-1,
            offset=-1,
            key=series_key(self._exchange, bad.pair) if bad.pair else None,
            value=bad.raw,
            timestamp_ms=now_ms,
        )
        self._produce(key, value, now_ms, self._on_delivery, topic=self._dead_topic)

    def poll(self) -> None:
        """Serve delivery reports."""
        self._producer.poll(0)
        self._check()

    def flush(self) -> None:
        """Wait until everything is delivered."""
        waiting = self._producer.flush(FLUSH_S)
        self._check()
        if waiting:
            raise BrokerUnavailableError(f"{waiting} messages were not delivered in {FLUSH_S:.0f} s")

    def _produce(
        self,
        key: bytes,
        value: bytes,
        timestamp_ms: int,
        on_delivery: Any,
        received_at_ms: int | None = None,
        topic: str | None = None,
    ) -> None:
        received = timestamp_ms if received_at_ms is None else received_at_ms
        while True:
            try:
                self._producer.produce(
                    topic or self._topic,
                    value=value,
                    key=key,
                    headers=batch_headers(received),
                    timestamp=timestamp_ms,
                    buffer_error_max_tries=1,
                    on_delivery=on_delivery,
                )
            except BufferError:
                # The queue is full: what fills it must wait.
                self._producer.poll(0.1)
                self._check()
                self._health.tick()
            else:
                break
        self._check()

    def _on_delivery(self, error: Any, _message: Any) -> None:
        if error is not None:
            self._failure = self._failure or str(error)
            self._progress.failed()
        elif not self._delivered:
            self._delivered = True
            self._health.require("publish", None)

    def _check(self) -> None:
        if self._failure is not None:
            self._health.require("publish", self._failure)
            raise BrokerUnavailableError(f"a message was not delivered: {self._failure}")
        try:
            self._producer.raise_if_broker_unavailable(BROKERS_DOWN_S)
        except KafkaBrokerUnavailableError as error:
            raise BrokerUnavailableError(str(error)) from error
