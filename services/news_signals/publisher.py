"""The way out: signals to the bus, by coin. The seam that tests replace."""

from collections.abc import Sequence
from typing import Protocol

from services.common.delivery import Delivery
from services.common.messages import SCHEMA_HEADER, SCHEMA_VERSION, batch_headers, encode
from services.common.news import NewsSignal
from services.common.runner import Context
from services.common.topics import batch_bytes

#: No signal's JSON is longer, so that rows can be counted instead of bytes.
MAX_ROW_BYTES = 1_500
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
        self._delivery = Delivery(context)
        self._topic = broker.topic("news_signals")
        self._max_rows = max(1, batch_bytes(broker) // MAX_ROW_BYTES)
        self._rows_out = context.metrics.rows_out.labels("news_signals")

    def signals(self, coin: str, rows: Sequence[NewsSignal], received_at_ms: int | None, now_ms: int) -> None:
        """Send a batch of one coin, in as many messages as their size limit asks for."""
        if received_at_ms is None:
            headers = [(SCHEMA_HEADER, str(SCHEMA_VERSION).encode())]
        else:
            headers = batch_headers(received_at_ms)
        for start in range(0, len(rows), self._max_rows):
            part = rows[start : start + self._max_rows]
            self._delivery.send(
                self._topic, coin.encode(), encode(part), headers=headers, timestamp_ms=now_ms
            )
            self._delivery.poll()
            self._rows_out.inc(len(part))

    def flush(self) -> None:
        """Wait until everything is delivered."""
        self._delivery.flush(FLUSH_S)
