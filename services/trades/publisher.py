"""The way out: trades, heartbeats and dead letters to the bus. The seam that tests replace."""

from collections.abc import Sequence
from typing import Protocol
from uuid import uuid4

from services.common.dead_letters import dead_letter
from services.common.delivery import Delivery
from services.common.errors import ContractError
from services.common.history import EMPTY, begin_header, end_header, pause_header
from services.common.messages import Trade, batch_headers, encode, series_key
from services.common.refusals import Refusals
from services.common.runner import Context
from services.trades.exchanges.contract import Bad
from services.trades.progress import Progress

#: No trade's JSON is longer, so that rows can be counted instead of bytes.
MAX_ROW_BYTES = 300
FLUSH_S = 30.0


class Publisher(Protocol):
    """Where sources send what they have; messages of a pair keep their order."""

    def trades(self, pair: str, rows: Sequence[Trade], received_at_ms: int) -> None:
        """Send a batch of one pair."""

    def heartbeat(self, pair: str, known_until_ms: int, now_ms: int) -> None:
        """Say that nothing more traded up to `known_until_ms`."""

    def begin(self, pair: str, since_ms: int, now_ms: int) -> None:
        """Say that a pair's history begins, or begins anew, at `since_ms`."""

    def pause(self, pair: str, known_until_ms: int, now_ms: int) -> None:
        """Say that a pair's history is whole up to `known_until_ms`, and behind it something is missing."""

    def end(self, pair: str, known_until_ms: int, now_ms: int, series: int) -> None:
        """Say that a pair's history is complete up to `known_until_ms`; `series` pairs will say so."""

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
        self._delivery = Delivery(context, self._on_delivered, progress.failed)
        self._topic = broker.topic("trades")
        self._dead_topic = broker.topic("dead_letters")
        self._exchange = exchange
        self._service = context.service
        self._health = context.health
        self._progress = progress
        # A start that nobody named is a run of its own: it sends all ends.
        self._run = broker.history_run or uuid4().hex
        self._max_rows = max(1, broker.max_message_bytes // MAX_ROW_BYTES - 1)
        self._delivered = False
        self._rows_out = context.metrics.rows_out.labels("trades")
        self._refusals = Refusals(context.metrics.dead_letters)
        self._last_event = context.metrics.last_event.labels(exchange)
        self._health.require("publish", "nothing delivered yet")

    def trades(self, pair: str, rows: Sequence[Trade], received_at_ms: int) -> None:
        """Send a batch of one pair, in as many messages as their size limit asks for."""
        for start in range(0, len(rows), self._max_rows):
            part = rows[start : start + self._max_rows]
            last = part[-1]
            confirm = self._progress.sent(pair, last.trade_id, last.event_time_ms)

            # The message's own time is its receipt: by event time, retention would delete replays.
            self._delivery.send(
                self._topic,
                series_key(self._exchange, pair),
                encode(part),
                headers=batch_headers(received_at_ms),
                timestamp_ms=received_at_ms,
                done=confirm,
            )
            self._rows_out.inc(len(part))
            self._last_event.set(last.event_time_ms / 1000)

    def heartbeat(self, pair: str, known_until_ms: int, now_ms: int) -> None:
        """Send an empty batch whose message time is `known_until_ms`."""
        self._empty(pair, known_until_ms, batch_headers(now_ms))

    def begin(self, pair: str, since_ms: int, now_ms: int) -> None:
        """Send a first heartbeat, on which services forget what they know of the pair."""
        # To the client library a timestamp of 0 is none, and it would put now.
        self._empty(pair, max(1, since_ms), [*batch_headers(now_ms), begin_header()])

    def pause(self, pair: str, known_until_ms: int, now_ms: int) -> None:
        """Send a heartbeat behind which something is missing, up to the next `begin`."""
        self._empty(pair, known_until_ms, [*batch_headers(now_ms), pause_header()])

    def end(self, pair: str, known_until_ms: int, now_ms: int, series: int) -> None:
        """Send a last heartbeat, on which services stop when it is the last of all pairs."""
        ending = end_header(self._run, series)
        self._empty(pair, known_until_ms, [*batch_headers(now_ms), ending])

    def _empty(self, pair: str, time_ms: int, headers: list[tuple[str, bytes]]) -> None:
        key = series_key(self._exchange, pair)
        self._delivery.send(self._topic, key, EMPTY, headers=headers, timestamp_ms=time_ms)

    def dead_letter(self, bad: Bad, now_ms: int) -> None:
        """Send the raw bytes to the dead letters, with why they were refused."""
        self._refusals.note(f"from {self._exchange}", bad.error)
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
        self._delivery.send(self._dead_topic, key, value, headers=batch_headers(now_ms), timestamp_ms=now_ms)

    def poll(self) -> None:
        """Serve delivery reports."""
        self._delivery.poll()

    def flush(self) -> None:
        """Wait until everything is delivered."""
        self._delivery.flush(FLUSH_S)

    def _on_delivered(self) -> None:
        if not self._delivered:
            self._delivered = True
            self._health.require("publish", None)
