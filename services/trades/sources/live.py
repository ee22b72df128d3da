"""The live source: one loop in the main thread that owns the clock, the pairs and the connection.

The connection and the gap fills run in threads and report through one queue, so that nothing they do
can hang this loop. `Venue` holds the pairs, `LiveSource` the connection.
"""

import queue
import random
import threading
from collections.abc import Callable
from time import monotonic

from loguru import logger

from services.common.backoff import STABLE_S, Backoff
from services.common.errors import SourceError
from services.common.health import Health
from services.trades.connection import Closed, Connection, Crashed, FillEnd, FillPage, Frame, Item, Opened
from services.trades.counters import TradeMetrics
from services.trades.exchanges.contract import Exchange, Refused, Status
from services.trades.filler import Filler, FillLimits
from services.trades.progress import Progress
from services.trades.publisher import Publisher
from services.trades.rest import Fetch
from services.trades.settings import TradesSettings
from services.trades.venue import Venue
from services.trades.watchdogs import PairWatch, SocketWatch

TICK_S = 0.1
INBOX_ITEMS = 10_000
#: How many items are handled before the clock is looked at again.
BURST_ITEMS = 500


class LiveSource:
    """Keeps a connection open until `stop` is set. Raises `SourceError`, `BrokerUnavailableError`."""

    def __init__(
        self,
        settings: TradesSettings,
        exchange: Exchange,
        publisher: Publisher,
        progress: Progress,
        health: Health,
        metrics: TradeMetrics,
        fetch: Fetch,
        now_ms: Callable[[], int],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._settings = settings
        self._exchange = exchange
        self._publisher = publisher
        self._progress = progress
        self._health = health
        self._metrics = metrics
        self._now_ms = now_ms
        self._clock = clock
        self._inbox: queue.Queue[Item] = queue.Queue(INBOX_ITEMS)
        limits = FillLimits(settings.gap_fill_timeout_s, settings.rest_interval_s)
        self._filler = Filler(exchange, fetch, limits, self._inbox)
        self._venue = Venue(settings, exchange, publisher, self._filler, metrics, progress.positions)
        self._backoff = Backoff(
            settings.backoff_min_s, settings.backoff_max_s, settings.max_connects, random.random
        )
        self._socket_watch = SocketWatch(settings.socket_silence_s)
        self._pair_watch = PairWatch(settings.pair_silence_s)
        self._connection: Connection | None = None
        self._connections = 0
        self._connect_at = clock()
        self._opened_at: float | None = None
        #: Whether every pair was confirmed once: from then on a refusal is an incident, not an error.
        self._was_subscribed = False

    def run(self, stop: threading.Event) -> None:
        """Receive, fill and publish until told to stop."""
        self._health.require("socket", "not connected yet")
        try:
            while not stop.is_set():
                self._tick()
                self._handle_waiting()
        finally:
            self._filler.stop()
            if self._connection is not None:
                self._connection.close(wait_s=0.5)
        self._publisher.flush()
        self._progress.save()

    def _handle_waiting(self) -> None:
        """Wait for one item, then take what else is there."""
        try:
            item = self._inbox.get(timeout=TICK_S)
            for _ in range(BURST_ITEMS):
                self._handle(item)
                item = self._inbox.get_nowait()
            self._handle(item)
        except queue.Empty:
            pass

    def _handle(self, item: Item) -> None:
        if isinstance(item, FillPage):
            self._venue.on_page(item, self._now_ms())
        elif isinstance(item, FillEnd):
            if self._venue.on_fill_end(item, self._now_ms()):
                self._disconnect(f"{item.gap.pair} was acked but sent nothing, and trades were missed")
        elif isinstance(item, Crashed):
            raise item.error
        elif self._connection is None or item.number != self._connection.number:
            # What a connection that was given up still had to say.
            return
        elif isinstance(item, Frame):
            self._on_frame(item)
        elif isinstance(item, Opened):
            self._opened_at = self._clock()
            self._socket_watch.reset(self._opened_at)
            logger.info("connected to {}", self._settings.ws_url or self._exchange.ws_url)
        elif isinstance(item, Closed):
            self._disconnect(item.why)

    def _on_frame(self, frame: Frame) -> None:
        now_s = self._clock()
        self._socket_watch.seen(now_s)
        self._venue.last_frame_ms = frame.received_at_ms
        self._health.input_arrived()
        if frame.data is None:
            return
        self._metrics.frames.inc()
        for event in self._exchange.parse_frame(frame.data, frame.received_at_ms):
            if isinstance(event, Refused):
                self._on_refused(event)
            elif isinstance(event, Status):
                logger.info("{} says: {}", self._exchange.name, event.text)
                if event.reconnect:
                    self._disconnect(event.text)
            else:
                pair = self._venue.on_event(event, frame.received_at_ms, now_s)
                if pair is not None:
                    self._pair_watch.seen(pair, now_s)
        if not self._was_subscribed and self._venue.all_acked:
            self._was_subscribed = True
        if self._connection is not None and self._venue.all_acked:
            self._health.require("socket", None)

    def _on_refused(self, event: Refused) -> None:
        what = event.pair or "a subscription"
        if not self._was_subscribed and not event.transient:
            raise SourceError(f"{self._exchange.name} refused {what}: {event.reason}; check TRADES_PAIRS")
        self._disconnect(f"{what} refused: {event.reason}")

    def _disconnect(self, why: str) -> None:
        if self._connection is None:
            return
        self._connection.close()
        self._connection = None
        self._opened_at = None
        now_s = self._clock()
        self._connect_at = self._backoff.next_attempt_s(now_s)
        self._health.require("socket", f"not connected: {why}")
        self._venue.connected = False
        logger.warning("disconnected: {}; next attempt in {:.1f} s", why, self._connect_at - now_s)

    def _connect(self, now_s: float) -> None:
        self._connections += 1
        if self._connections > 1:
            self._metrics.reconnects.inc()
        self._backoff.attempt(now_s)
        self._venue.on_connect()
        self._opened_at = None
        self._connect_at = now_s
        self._connection = Connection(
            self._connections,
            self._settings.ws_url or self._exchange.ws_url,
            self._exchange.subscribe_frames(),
            self._inbox,
            max_frame_bytes=self._settings.max_frame_bytes,
            connect_timeout_s=self._settings.connect_timeout_s,
            ping_every_s=self._settings.socket_silence_s / 3,
            now_ms=self._now_ms,
        )
        self._pair_watch.reset(self._settings.pairs, now_s)
        self._connection.start()

    def _tick(self) -> None:
        now_s = self._clock()
        self._health.tick()
        self._publisher.poll()
        self._progress.save_if_due()
        if self._connection is None:
            if now_s >= self._connect_at:
                self._connect(now_s)
        elif self._opened_at is None:
            # The handshake has a time-out for each read; this one is for the whole.
            if now_s - self._connect_at > 2 * self._settings.connect_timeout_s:
                self._disconnect("no connection in time")
        else:
            self._watch(now_s, self._opened_at)
        self._venue.tick(now_s, self._now_ms())

    def _watch(self, now_s: float, opened_at: float) -> None:
        if self._socket_watch.is_silent(now_s):
            self._disconnect(f"no frame for {self._settings.socket_silence_s:g} s")
        elif not self._venue.all_acked:
            if now_s - opened_at > self._settings.ack_timeout_s:
                missing = ", ".join(self._venue.not_acked())
                if not self._was_subscribed:
                    raise SourceError(
                        f"{self._exchange.name} did not confirm {missing} within "
                        f"{self._settings.ack_timeout_s:g} s; check TRADES_PAIRS"
                    )
                self._disconnect(f"{missing} not confirmed")
        else:
            if now_s - opened_at > STABLE_S:
                self._backoff.succeeded()
            for pair in self._pair_watch.quiet(now_s):
                self._venue.verify(pair, self._now_ms())
