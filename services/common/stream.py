"""The one place where our batches meet Quix Streams: application, batch step, dead letters.

A service gives a *step*: key, value and state in, messages out. Around it this module counts, refuses
what breaks the contract and routes it to the dead letters, so that no bad message stops the stream.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from time import time, time_ns
from typing import Any, NamedTuple, Protocol

from loguru import logger

from services.common.batches import split_batch
from services.common.dead_letters import dead_letter
from services.common.delivery import undelivered
from services.common.ended import EndedSeries
from services.common.errors import ContractError
from services.common.health import read_statistics
from services.common.history import EMPTY, HISTORY_HEADER, begins, ending
from services.common.messages import SCHEMA_HEADER, Headers, check_version, header
from services.common.quix import (
    Application,
    BaseSink,
    ConnectionConfig,
    KafkaProducerDeliveryError,
    SerializationContext,
    Serializer,
    StreamingDataFrame,
    Topic,
    TopicConfig,
    message_context,
)
from services.common.runner import Context
from services.common.settings import ServiceSettings
from services.common.state import claim_folder
from services.common.topics import batch_bytes, ensure_topics, topic_config
from services.common.topics import producer_config as producer_config

STATISTICS_INTERVAL_MS = 2_000


class State(Protocol):
    """What a step may keep for its key between messages."""

    def get_bytes(self, key: str) -> bytes | None:
        """Value of `key`, or None."""

    def set_bytes(self, key: str, value: bytes) -> None:
        """Set the value of `key`."""


class Message(NamedTuple):
    """One message as a step sees it. `timestamp_ms` is its Kafka timestamp."""

    key: bytes
    value: bytes
    timestamp_ms: int
    headers: Headers


@dataclass(slots=True)
class StepResult:
    """What became of one message."""

    #: Batches to send, in order, to the step's output topic under the same key; large ones are split.
    outputs: list[bytes] = field(default_factory=list)
    #: Key and batch of what is to be sent under keys of its own.
    keyed_outputs: list[tuple[bytes, bytes]] = field(default_factory=list)
    #: Refused rows: index in the batch, bytes of a batch with that row alone, why.
    refused: list[tuple[int, bytes, ContractError]] = field(default_factory=list)
    rows_in: int = 0
    rows_out: int = 0


#: A step validates before it touches the state; a `ContractError` refuses the whole message.
type Step = Callable[[Message, State], StepResult]


class _Output(NamedTuple):
    topic: str
    key: bytes
    value: bytes


class _OutputSerializer(Serializer):
    def __call__(self, value: _Output, ctx: SerializationContext) -> bytes:  # noqa: ARG002
        return value.value


class _FlushSink(BaseSink):
    """Makes the engine flush a store before it commits offsets."""

    def __init__(self, flush: Callable[[], None]) -> None:
        super().__init__(on_client_connect_success=lambda: None)
        self._flush = flush

    def add(self, *_: Any, **__: Any) -> None:
        """Rows were stored by the step already."""

    def flush(self) -> None:
        self._flush()


class Stream:
    """A Quix application with our settings. Raises `BrokerUnavailableError`, `TopicError`."""

    def __init__(self, settings: ServiceSettings, context: Context, topics: tuple[str, ...]) -> None:
        self._context = context
        broker = context.broker
        ensure_topics(broker, (*topics, "dead_letters"))
        consumer: dict[str, Any] = {
            # Consumers of many small messages are capped at the default of a second (Quix: 100 ms).
            "fetch.queue.backoff.ms": 10,
            "queued.max.messages.kbytes": 16_384,
            "fetch.message.max.bytes": broker.max_message_bytes,
            "statistics.interval.ms": STATISTICS_INTERVAL_MS,
            "stats_cb": self._read_statistics,
        }
        if broker.embedded:
            consumer |= {
                "session.timeout.ms": 3_000,
                "heartbeat.interval.ms": 300,
                # It wakes a waiting fetch only when the wait runs out, so a long wait is latency. But it
                # looks through its whole log for every fetch and gives up when the wait is over: too
                # short a one finds nothing any more (5 ms from 20,000 messages on, 20 ms from 50,000).
                "fetch.wait.max.ms": 20,
            }
        if broker.fetch_wait_ms is not None:
            consumer["fetch.wait.max.ms"] = broker.fetch_wait_ms
        state_dir = claim_folder(settings.state_dir / context.service)
        self.app = Application(
            broker_address=ConnectionConfig.from_librdkafka_dict(broker.client_config()),
            consumer_group=settings.consumer_group or f"{context.service}{broker.topic_suffix}",
            auto_offset_reset="earliest",
            commit_interval=settings.commit_interval_s,
            consumer_extra_config=consumer,
            producer_extra_config=producer_config(broker),
            state_dir=state_dir,
            loglevel=None,
            auto_recover_from_source_offset_out_of_range=False,
            max_partition_buffer_size=100,
            consumer_poll_timeout=0.5,
        )
        self._topics = {name: self._topic(name) for name in (*topics, "dead_letters")}
        self._on_tick: list[Callable[[], None]] = []
        self._series = EndedSeries(state_dir / f"ended{broker.topic_suffix}.json", broker.history_run)
        context.health.require("partitions", "none assigned yet")

    def _topic(self, name: str) -> Topic:
        broker = self._context.broker
        return self.app.topic(
            broker.topic(name),
            value_deserializer="bytes",
            key_deserializer="bytes",
            value_serializer=_OutputSerializer(),
            key_serializer="bytes",
            config=TopicConfig(
                num_partitions=broker.partitions,
                replication_factor=broker.replication_factor,
                extra_config=topic_config(name, broker),
            ),
        )

    def _read_statistics(self, text: str) -> None:
        for (topic, partition), lag in read_statistics(text, self._context.health).items():
            self._context.metrics.lag.labels(topic, str(partition)).set(lag)
        for callback in self._on_tick:
            callback()

    def on_tick(self, callback: Callable[[], None]) -> None:
        """Call `callback` in the main thread every two seconds, whether messages come or not.

        librdkafka's statistics are what comes so regularly. What it raises ends the stream.
        """
        self._on_tick.append(callback)

    def add_step(
        self,
        source: str,
        step: Step,
        *,
        destination: str | None = None,
        stateful: bool = True,
        flush: Callable[[], None] | None = None,
    ) -> None:
        """Run `step` on every message of the topic `source`; its outputs go to `destination`.

        `flush` is called before offsets are committed.
        """
        guarded = _Guard(self._context, source, destination or "store", step, self._on_history)
        messages: StreamingDataFrame = self.app.dataframe(self._topics[source])
        messages = messages.filter(guarded.has_value, metadata=True)
        # State hangs on the key, so a message without one must not get as far.
        keyed = messages.filter(lambda _v, key, _t, _h: key is not None, metadata=True)
        keyless = messages.filter(lambda _v, key, _t, _h: key is None, metadata=True)
        if stateful:
            outputs = keyed.apply(guarded.run_stateful, stateful=True, expand=True, metadata=True)
        else:
            outputs = keyed.apply(guarded.run, expand=True, metadata=True)
        refused = keyless.apply(guarded.refuse_keyless, expand=True, metadata=True)
        for stream in (outputs, refused):
            stream = stream.set_headers(
                lambda output, _k, _t, headers: [] if output.topic == "dead_letters" else headers
            )
            # A heartbeat of a replay is stamped with its own time, perhaps years ago. What comes of it
            # must not be: brokers delete by timestamp.
            stream = stream.set_timestamp(lambda _o, _k, _t, _h: time_ns() // 1_000_000)
            stream.to_topic(
                lambda output, _k, _t, _h: self._topics[output.topic], key=lambda output: output.key
            )
        if flush is not None:
            keyed.sink(_FlushSink(flush))

    def _on_history(self, message: Message) -> None:
        """Stop when the last series of a historical run has ended."""
        if begins(message.value, message.headers):
            self._series.begin(message.key)
            return
        end = ending(message.value, message.headers)
        if end is not None and self._series.end(message.key, end):
            logger.info("all {} series of the historical run have ended", end.series)
            self.app.stop()

    def run(self) -> None:
        """Process until SIGTERM, SIGINT or an error.

        Raises `BrokerUnavailableError` or `MessageTooLargeError` when an output cannot be delivered.
        """
        try:
            self.app.run()
        except KafkaProducerDeliveryError as error:
            raise undelivered(error.error) from error


class _Guard:
    """What stands around a step: counting, refusing, and freshness."""

    def __init__(
        self,
        context: Context,
        source: str,
        destination: str,
        step: Step,
        on_history: Callable[[Message], None],
    ) -> None:
        self._service = context.service
        self._on_history = on_history
        self._broker = context.broker
        self._max_bytes = batch_bytes(context.broker)
        self._source = source
        self._destination = destination
        self._step = step
        self._health = context.health
        metrics = context.metrics
        self._nulls = metrics.null_values.labels(source)
        self._messages = metrics.messages.labels(source)
        self._rows_in = metrics.rows_in.labels(source)
        self._rows_out = metrics.rows_out.labels(destination)
        self._heartbeats = metrics.heartbeats.labels(source)
        self._dead = metrics.dead_letters
        self._last_message = metrics.last_message

    def has_value(self, value: bytes | None, _key: Any, _timestamp: int, _headers: Headers) -> bool:
        if value is None:
            self._nulls.inc()
        return value is not None

    def run_stateful(
        self, value: bytes, key: bytes, timestamp: int, headers: Headers, state: Any
    ) -> list[_Output]:
        message = Message(key, value, timestamp, headers)
        try:
            check_version(headers)
            result = self._step(message, state)
        except ContractError as error:
            return [self._refuse(error, message)]
        self._messages.inc()
        if result.rows_in:
            self._rows_in.inc(result.rows_in)
        else:
            self._heartbeats.inc()
        if result.rows_out:
            self._rows_out.inc(result.rows_out)
        self._last_message.set(time())
        self._health.input_arrived()
        batches = [*((key, output) for output in result.outputs), *result.keyed_outputs]
        outputs = [output for batch in batches for output in self._messages_of(*batch)]
        outputs += [self._refuse(error, message, row, raw) for row, raw, error in result.refused]
        if value == EMPTY and header(headers, HISTORY_HEADER) is not None:
            self._on_history(message)
            if self._destination != "store":
                outputs.append(_Output(self._destination, key, EMPTY))
        return outputs

    def run(self, value: bytes, key: bytes, timestamp: int, headers: Headers) -> list[_Output]:
        return self.run_stateful(value, key, timestamp, headers, None)

    def refuse_keyless(self, value: bytes, _key: None, timestamp: int, headers: Headers) -> Iterable[_Output]:
        error = ContractError("null_key", "a message needs a key")
        return [self._refuse(error, Message(b"", value, timestamp, headers))]

    def _messages_of(self, key: bytes, batch: bytes) -> Iterable[_Output]:
        for part in split_batch(batch, self._max_bytes):
            if len(part) <= self._max_bytes:
                yield _Output(self._destination, key, part)
            else:
                yield self._set_aside(key, part)

    def _set_aside(self, key: bytes, value: bytes) -> _Output:
        """A row of ours that no message holds. It never was a message, so nothing sends it again."""
        limit = self._broker.max_message_bytes
        error = ContractError("too_large", f"a row of {len(value)} bytes; KAFKA_MAX_MESSAGE_BYTES is {limit}")
        topic = self._broker.topic(self._destination)
        self._dead.labels(error.reason).inc()
        logger.warning("dead letter for {}: {}", topic, error)
        letter_key, letter = dead_letter(
            error,
            service=self._service,
            topic=topic,
            partition=-1,
            offset=-1,
            key=key,
            value=value,
            timestamp_ms=time_ns() // 1_000_000,
            max_bytes=limit,
        )
        return _Output("dead_letters", letter_key, letter)

    def _refuse(
        self,
        error: ContractError,
        message: Message,
        row: int | None = None,
        raw: bytes | None = None,
    ) -> _Output:
        at = message_context()
        self._dead.labels(error.reason).inc()
        logger.warning("dead letter {}[{}]@{}: {}", at.topic, at.partition, at.offset, error)
        key, value = dead_letter(
            error,
            service=self._service,
            topic=at.topic,
            partition=at.partition,
            offset=at.offset,
            row=row,
            key=message.key or None,
            value=message.value if raw is None else raw,
            timestamp_ms=message.timestamp_ms,
            schema_version=header(message.headers, SCHEMA_HEADER),
            max_bytes=self._broker.max_message_bytes,
        )
        return _Output("dead_letters", key, value)
