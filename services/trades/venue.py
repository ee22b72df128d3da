"""The pairs of one exchange: routes events to their feeds and does what the feeds decide."""

from collections.abc import Mapping

from loguru import logger

from services.common.messages import Trade
from services.trades.connection import FillEnd, FillPage
from services.trades.counters import TradeMetrics
from services.trades.exchanges.contract import (
    Ack,
    Alive,
    Bad,
    Event,
    Exchange,
    Ignored,
    Trades,
)
from services.trades.filler import Filler
from services.trades.heartbeats import DeliveryDelay
from services.trades.pair_feed import Lost, Outcome, PairFeed
from services.trades.progress import Position
from services.trades.publisher import Publisher
from services.trades.settings import TradesSettings

#: So many trades at most go into one message after a gap.
MESSAGE_ROWS = 1000


class Venue:
    """Feeds, heartbeats and the record of what was lost."""

    def __init__(
        self,
        settings: TradesSettings,
        exchange: Exchange,
        publisher: Publisher,
        filler: Filler,
        metrics: TradeMetrics,
        positions: Mapping[str, Position],
    ) -> None:
        self._settings = settings
        self._exchange = exchange
        self._publisher = publisher
        self._filler = filler
        self._metrics = metrics
        self._delay = DeliveryDelay(settings.heartbeat_delay_ms)
        self._heartbeat_at = 0.0
        self._last_heartbeat_ms: dict[str, int] = {}
        self._verifying: set[str] = set()
        self._feeds: dict[str, PairFeed] = {}
        self.connected = False
        #: When the last frame of any kind came.
        self.last_frame_ms = 0
        for pair in settings.pairs:
            known = positions.get(pair)
            self._feeds[pair] = PairFeed(
                pair,
                known.trade_id if known else None,
                known.event_time_ms if known else 0,
                has_snapshot=exchange.has_snapshot,
                buffer_rows=settings.gap_buffer_rows,
                snapshot_wait_s=settings.snapshot_wait_s,
            )
            if known:
                logger.info("{} goes on after trade {}", pair, known.trade_id)

    @property
    def all_acked(self) -> bool:
        """Whether the exchange has confirmed every pair on this connection."""
        return all(feed.acked for feed in self._feeds.values())

    def not_acked(self) -> list[str]:
        """The pairs that it has not confirmed."""
        return [pair for pair, feed in self._feeds.items() if not feed.acked]

    def on_connect(self) -> None:
        """A new connection is being opened."""
        self.connected = True
        # Until it delivers, it proves nothing about the present.
        self.last_frame_ms = 0
        self._verifying.clear()
        for feed in self._feeds.values():
            feed.on_connect()

    def on_event(self, event: Event, received_at_ms: int, now_s: float) -> str | None:
        """Handle one event of a frame; returns the pair that it brought trades of."""
        if isinstance(event, Trades):
            feed = self._feeds[event.pair]
            outcome = feed.on_trades(event.trades)
            duplicates, outcome.duplicates = outcome.duplicates, 0
            if event.is_snapshot:
                self._metrics.ignored.labels("snapshot_overlap").inc(duplicates)
            else:
                self._metrics.duplicates.inc(duplicates)
                self._delay.observe(event.trades[-1].event_time_ms, received_at_ms)
            self._apply(feed, outcome, received_at_ms)
            return event.pair
        if isinstance(event, Ack):
            feed = self._feeds[event.pair]
            self._apply(feed, feed.on_ack(received_at_ms, now_s), received_at_ms)
        elif isinstance(event, Alive):
            for pair, trade_id in event.last_trade_ids:
                self._feeds[pair].on_claim(trade_id, now_s)
        elif isinstance(event, Ignored):
            self._metrics.ignored.labels(event.reason).inc()
        elif isinstance(event, Bad):
            self._publisher.dead_letter(event, received_at_ms)
        return None

    def on_page(self, item: FillPage, now_ms: int) -> None:
        """A REST page came."""
        for bad in item.page.bad:
            self._publisher.dead_letter(bad, now_ms)
        feed = self._feeds[item.pair]
        self._apply(feed, feed.on_page(item.fill_number, item.page.trades), now_ms)

    def on_fill_end(self, item: FillEnd, now_ms: int) -> bool:
        """A fill is over; True when it shows that the socket withheld a pair's trades."""
        feed = self._feeds[item.gap.pair]
        if not feed.is_filling or item.fill_number != feed.fill_number:
            return False
        verified = item.gap.pair in self._verifying
        self._verifying.discard(item.gap.pair)
        # The quiet pair was not quiet.
        withheld = verified and feed.fetched_rows > 0
        self._apply(feed, feed.on_fill_end(item.fill_number, item.error), now_ms)
        return withheld

    def verify(self, pair: str, now_ms: int) -> None:
        """Ask REST whether a quiet pair has traded."""
        feed = self._feeds[pair]
        if not feed.is_filling:
            logger.info("{} has been quiet; asking REST whether trades were missed", pair)
            outcome = feed.verify()
            if outcome.fill is not None:
                self._verifying.add(pair)
            self._apply(feed, outcome, now_ms)

    def tick(self, now_s: float, now_ms: int) -> None:
        """Time passes: late snapshots, claims, heartbeats."""
        for feed in self._feeds.values():
            outcome = feed.on_tick(now_s)
            if outcome.fill is not None or outcome.start_ms is not None:
                self._apply(feed, outcome, now_ms)
        if now_s < self._heartbeat_at:
            return
        self._heartbeat_at = now_s + self._settings.heartbeat_s
        is_alive = now_ms - self.last_frame_ms <= self._settings.socket_silence_s * 1000
        if not (self.connected and self.last_frame_ms and is_alive):
            return
        known_until_ms = self._delay.known_until_ms(self.last_frame_ms)
        for feed in self._feeds.values():
            if feed.may_heartbeat():
                self._heartbeat(feed.pair, known_until_ms, now_ms)

    def _heartbeat(self, pair: str, known_until_ms: int, now_ms: int) -> None:
        if known_until_ms > self._last_heartbeat_ms.get(pair, 0):
            self._last_heartbeat_ms[pair] = known_until_ms
            self._publisher.heartbeat(pair, known_until_ms, now_ms)

    def _apply(self, feed: PairFeed, outcome: Outcome, now_ms: int) -> None:
        pair = feed.pair
        if outcome.start_ms is not None:
            self._heartbeat(pair, outcome.start_ms, now_ms)
        if outcome.filled:
            self._metrics.filled.labels(pair).inc(outcome.filled)
        for start in range(0, len(outcome.publish), MESSAGE_ROWS):
            rows: list[Trade] = outcome.publish[start : start + MESSAGE_ROWS]
            self._publisher.trades(pair, rows, rows[-1].received_at_ms)
        for lost in outcome.lost:
            self._record(pair, lost)
        if outcome.fill is not None:
            gap = outcome.fill
            logger.info("{}: filling from trade {} to {}", pair, gap.first_id, gap.last_id or "now")
            self._filler.start(gap, feed.fill_number)

    def _record(self, pair: str, lost: Lost) -> None:
        self._metrics.gaps.labels(pair).inc()
        if lost.last_id is None:
            logger.warning(
                "gap in {} {}: trades from {} on may be missing, an unknown number: {}",
                self._exchange.name,
                pair,
                lost.first_id,
                lost.why,
            )
            return
        count = lost.last_id - lost.first_id + 1
        self._metrics.missing.labels(pair).inc(count)
        logger.warning(
            "gap in {} {}: trades {} to {} ({}) are missing: {}",
            self._exchange.name,
            pair,
            lost.first_id,
            lost.last_id,
            count,
            lost.why,
        )
