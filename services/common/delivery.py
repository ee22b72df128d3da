"""A producer for what is sent at other times than when a step ends; a failed delivery ends the process.

Steps of a stream send their outputs through the engine. Sources of trades and news, and engines that score in
batches, send through this instead, and repeat after a restart what they did not see delivered.
"""

from collections.abc import Callable, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from services.common.errors import BrokerUnavailableError, MessageTooLargeError, ServiceError
from services.common.quix import Application, ConnectionConfig, KafkaBrokerUnavailableError
from services.common.runner import Context
from services.common.topics import producer_config

#: Brokers may be away for this long; messages wait in the producer's queue.
BROKERS_DOWN_S = 120.0


def _nothing() -> None:
    pass


def undelivered(error: KafkaError) -> ServiceError:
    """What is to be raised when a message was not delivered: it says what to do."""
    if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
        return MessageTooLargeError(
            "a message is too large for the producer or its topic: set KAFKA_MAX_MESSAGE_BYTES in all "
            "services to what the topics take (their max.message.bytes)"
        )
    return BrokerUnavailableError(f"a message was not delivered: {error.str()}")


class Delivery:
    """Quix's producer. All methods raise `BrokerUnavailableError` once a message was not delivered, or
    `MessageTooLargeError` when that was why.

    `on_delivered` and `on_failed` are called for each message, inside `send`, `poll` or `flush`.
    """

    def __init__(
        self,
        context: Context,
        on_delivered: Callable[[], None] = _nothing,
        on_failed: Callable[[], None] = _nothing,
    ) -> None:
        application = Application(
            broker_address=ConnectionConfig.from_librdkafka_dict(context.broker.client_config()),
            producer_extra_config=producer_config(context.broker),
            loglevel=None,
        )
        self._producer = application.get_producer()
        self._health = context.health
        self._on_delivered = on_delivered
        self._on_failed = on_failed
        self._failure: KafkaError | None = None

    def send(
        self,
        topic: str,
        key: bytes,
        value: bytes,
        *,
        headers: Sequence[tuple[str, bytes]],
        timestamp_ms: int,
        done: Callable[[], None] = _nothing,
    ) -> None:
        """Hand over one message; `done` is called when it is delivered. Waits while the queue is full."""

        def on_delivery(error: KafkaError | None, _message: Any) -> None:
            if error is not None:
                self._failure = self._failure or error
                self._on_failed()
                return
            self._on_delivered()
            done()

        while True:
            try:
                self._producer.produce(
                    topic,
                    value=value,
                    key=key,
                    headers=list(headers),
                    timestamp=timestamp_ms,
                    buffer_error_max_tries=1,
                    on_delivery=on_delivery,
                )
            except BufferError:
                # What fills the queue must wait.
                self._producer.poll(0.1)
                self._check()
                self._health.tick()
            except KafkaException as error:
                # Refused before it is sent.
                raise undelivered(error.args[0]) from error
            else:
                break
        self._check()

    def poll(self) -> None:
        """Serve delivery reports."""
        self._producer.poll(0)
        self._check()

    def flush(self, within_s: float) -> None:
        """Wait until everything is delivered."""
        waiting = self._producer.flush(within_s)
        self._check()
        if waiting:
            raise BrokerUnavailableError(f"{waiting} messages were not delivered in {within_s:.0f} s")

    def _check(self) -> None:
        if self._failure is not None:
            error = undelivered(self._failure)
            self._health.require("publish", str(error))
            raise error
        try:
            self._producer.raise_if_broker_unavailable(BROKERS_DOWN_S)
        except KafkaBrokerUnavailableError as error:
            raise BrokerUnavailableError(str(error)) from error
