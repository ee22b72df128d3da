"""The way out: messages that are written down already, to the bus. The seam that tests replace."""

from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic
from typing import Protocol

from services.common.delivery import Delivery
from services.common.messages import batch_headers
from services.common.runner import Context
from services.news.registry import Outgoing

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
        self._delivery = Delivery(context, self._moved, self._moved)
        self._topic = context.broker.topic
        self._now_ms = now_ms
        self._health = context.health
        self._rows_out = context.metrics.rows_out.labels("news")
        self._delivered: list[int] = []
        self._waiting = 0
        self._moved_at = monotonic()

    def send(self, messages: Sequence[Outgoing]) -> None:
        """Produce each, stamped with now: by observed time retention would delete an old file's news."""
        for message in messages:
            if not self._waiting:
                self._moved_at = monotonic()
            self._waiting += 1
            self._delivery.send(
                self._topic(message.topic),
                message.key,
                message.value,
                headers=batch_headers(message.received_at_ms),
                timestamp_ms=self._now_ms(),
                done=partial(self._delivered.append, message.id),
            )
            if message.topic == "news":
                self._rows_out.inc()
        self._report()

    def poll(self) -> list[int]:
        """Serve delivery reports."""
        self._delivery.poll()
        return self._take()

    def flush(self) -> list[int]:
        """Wait until everything is delivered."""
        self._delivery.flush(FLUSH_S)
        return self._take()

    def _take(self) -> list[int]:
        self._report()
        delivered = self._delivered.copy()
        self._delivered.clear()
        return delivered

    def _moved(self) -> None:
        self._waiting -= 1
        self._moved_at = monotonic()

    def _report(self) -> None:
        slow = self._waiting > 0 and monotonic() - self._moved_at > SLOW_S
        self._health.require("publish", f"{self._waiting} messages wait for the broker" if slow else None)
