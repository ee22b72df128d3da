"""What stands around a step: counting, refusing, and freshness. No bad message stops the stream."""

from collections.abc import Callable, Iterable
from time import time, time_ns
from typing import Any, NamedTuple

from services.common.batches import split_batch
from services.common.dead_letters import dead_letter
from services.common.errors import ContractError
from services.common.history import EMPTY, HISTORY_HEADER
from services.common.messages import SCHEMA_HEADER, Headers, check_version, header
from services.common.quix import message_context
from services.common.refusals import Refusals
from services.common.runner import Context
from services.common.step import Message, Step
from services.common.topics import batch_bytes


class Output(NamedTuple):
    """A message to send."""

    topic: str
    key: bytes
    value: bytes


class Guard:
    """Runs `step` on the messages of the topic `source`.

    Its methods have the signatures that Quix Streams asks of functions with metadata.
    """

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
        self._refusals = Refusals(metrics.dead_letters)
        self._last_message = metrics.last_message

    def has_value(self, value: bytes | None, _key: Any, _timestamp: int, _headers: Headers) -> bool:
        """Whether there is anything to work on; counts what has no value."""
        if value is None:
            self._nulls.inc()
        return value is not None

    def run_stateful(
        self, value: bytes, key: bytes, timestamp: int, headers: Headers, state: Any
    ) -> list[Output]:
        """What comes of a message, dead letters included. `state` is that of its key."""
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
                outputs.append(Output(self._destination, key, EMPTY))
        return outputs

    def run(self, value: bytes, key: bytes, timestamp: int, headers: Headers) -> list[Output]:
        """As `run_stateful`, for a step that keeps nothing."""
        return self.run_stateful(value, key, timestamp, headers, None)

    def refuse_keyless(self, value: bytes, _key: None, timestamp: int, headers: Headers) -> Iterable[Output]:
        """The dead letter of a message without a key."""
        error = ContractError("null_key", "a message needs a key")
        return [self._refuse(error, Message(b"", value, timestamp, headers))]

    def _messages_of(self, key: bytes, batch: bytes) -> Iterable[Output]:
        for part in split_batch(batch, self._max_bytes):
            if len(part) <= self._max_bytes:
                yield Output(self._destination, key, part)
            else:
                yield self._set_aside(key, part)

    def _set_aside(self, key: bytes, value: bytes) -> Output:
        """A row of ours that no message holds. It never was a message, so nothing sends it again."""
        limit = self._broker.max_message_bytes
        error = ContractError("too_large", f"a row of {len(value)} bytes; KAFKA_MAX_MESSAGE_BYTES is {limit}")
        topic = self._broker.topic(self._destination)
        self._refusals.note(f"for {topic}", error)
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
        return Output("dead_letters", letter_key, letter)

    def _refuse(
        self,
        error: ContractError,
        message: Message,
        row: int | None = None,
        raw: bytes | None = None,
    ) -> Output:
        at = message_context()
        self._refusals.note(f"{at.topic}[{at.partition}]@{at.offset}", error)
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
        return Output("dead_letters", key, value)
