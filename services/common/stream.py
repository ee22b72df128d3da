"""The one place where our batches meet Quix Streams: application, state, commits.

A service gives a *step*: key, value and state in, messages out. Around it stands a guard (`guard.py`), which
sends what breaks the contract to the dead letters.
"""

from collections.abc import Callable
from time import time_ns
from typing import Any

from loguru import logger

from services.common.delivery import undelivered
from services.common.ended import EndedSeries, Position
from services.common.guard import Guard, Output
from services.common.health import read_statistics
from services.common.history import begins, ending
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
from services.common.step import Message, Step
from services.common.topics import committed_offsets, ensure_topics, producer_config, topic_config

STATISTICS_INTERVAL_MS = 2_000


class _OutputSerializer(Serializer):
    def __call__(self, value: Output, ctx: SerializationContext) -> bytes:  # noqa: ARG002
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
        self._group = settings.consumer_group or f"{context.service}{broker.topic_suffix}"
        self.app = Application(
            broker_address=ConnectionConfig.from_librdkafka_dict(broker.client_config()),
            consumer_group=self._group,
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
        self._series = EndedSeries(state_dir / f"ends{broker.topic_suffix}.json", broker.history_run)
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
        guarded = Guard(self._context, source, destination or "store", step, self._on_history)
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
        at = message_context()
        if end is not None and self._series.end(
            message.key, end, Position(at.topic, at.partition, at.offset)
        ):
            logger.info("all {} series of the historical run have ended", end.series)
            self.app.stop()

    def _committed(self, partitions: set[tuple[str, int]]) -> dict[tuple[str, int], int]:
        return committed_offsets(self._context.broker, self._group, partitions)

    def run(self) -> None:
        """Process until SIGTERM, SIGINT or an error.

        Raises `BrokerUnavailableError` or `MessageTooLargeError` when an output cannot be delivered.
        """
        if self._series.restore(self._committed):
            logger.info("all series of the historical run had ended before this start")
            return
        try:
            self.app.run()
        except KafkaProducerDeliveryError as error:
            raise undelivered(error.error) from error
