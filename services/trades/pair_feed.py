"""One pair between socket, REST and bus: which trades go out now, and which ids must be fetched. Pure.

A pair is *filling* while missing trades are fetched: its live trades wait, so that what goes out is
always in id order. It is *synced* when we know that nothing was missed since the last connect.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from services.common.messages import Trade
from services.trades.exchanges.contract import Gap
from services.trades.ids import IdSequence

#: A trade that the exchange says it made may still be on its way for this long.
CLAIM_GRACE_S = 2.0


@dataclass(frozen=True, slots=True)
class Lost:
    """Ids, both ends included, that no source gave us; `last_id` None: it is unknown how many."""

    first_id: int
    last_id: int | None
    why: str


@dataclass(slots=True)
class Outcome:
    """What the caller has to do after one step, in this order."""

    #: Send a first heartbeat with this time: what we cover begins here.
    start_ms: int | None = None
    publish: list[Trade] = field(default_factory=list)
    fill: Gap | None = None
    lost: list[Lost] = field(default_factory=list)
    duplicates: int = 0
    #: How many trades of a REST page were new.
    filled: int = 0


class PairFeed:
    """State of one pair; `last_id` and `last_ms` are where an earlier run ended."""

    def __init__(
        self,
        pair: str,
        last_id: int | None,
        last_ms: int,
        *,
        has_snapshot: bool,
        buffer_rows: int,
        snapshot_wait_s: float,
    ) -> None:
        self.pair = pair
        self.synced = False
        #: Counts fills, so that what a fill given up still sends is not taken for a later one's.
        self.fill_number = 0
        #: Trades that the present fill, or the last one, has brought.
        self.fetched_rows = 0
        self._ids = IdSequence(last_id)
        self._last_ms = last_ms
        self._started = last_id is not None
        self._has_snapshot = has_snapshot
        self._buffer_rows = buffer_rows
        self._snapshot_wait_s = snapshot_wait_s
        self._gap: Gap | None = None
        self._gap_is_of_this_connection = False
        self._buffer: dict[int, Trade] = {}
        self._fetched_to = -1
        self._acked: tuple[int, float] | None = None
        self._claim: tuple[int, float] | None = None

    @property
    def last_id(self) -> int | None:
        """Id of the last trade that is done with."""
        return self._ids.last_id

    @property
    def is_filling(self) -> bool:
        """Whether missing trades are being fetched."""
        return self._gap is not None

    @property
    def acked(self) -> bool:
        """Whether the exchange confirmed this connection's subscription."""
        return self._acked is not None

    def may_heartbeat(self) -> bool:
        """Whether we know of every trade that the exchange has sent."""
        return self._started and self.synced and self._gap is None and self._claim is None

    def on_connect(self) -> None:
        """A new connection was opened: what happened meanwhile is unknown."""
        self.synced = False
        self._acked = None
        self._claim = None
        self._gap_is_of_this_connection = False

    def on_ack(self, now_ms: int, now_s: float) -> Outcome:
        """The subscription stands."""
        if self._acked is not None:
            return Outcome()
        self._acked = (now_ms, now_s)
        return Outcome() if self._has_snapshot else self._resync()

    def on_trades(self, trades: list[Trade]) -> Outcome:
        """Trades of a frame, snapshot or not."""
        if not trades:
            return Outcome()
        outcome = Outcome()
        if not self._started:
            self._started = True
            first_ms = min(trade.event_time_ms for trade in trades)
            outcome.start_ms = first_ms
        # Whatever was missed since the last connect lies before these ids, where a hole shows.
        self.synced = True
        if self._gap is None:
            return self._take(trades, outcome)
        outcome.duplicates = self._keep(trades)
        if len(self._buffer) > self._buffer_rows:
            return self._end_fill(outcome, f"more than {self._buffer_rows} trades waited", give_up=True)
        return outcome

    def on_claim(self, trade_id: int, now_s: float) -> None:
        """The exchange says that `trade_id` is the pair's latest trade."""
        if self.last_id is not None and trade_id > self.last_id and self._claim is None:
            self._claim = (trade_id, now_s)

    def on_tick(self, now_s: float) -> Outcome:
        """Time passes: a snapshot that does not come, a claimed trade that does not arrive."""
        if self._gap is not None:
            return Outcome()
        if self._claim is not None:
            claimed, at = self._claim
            if self.last_id is not None and self.last_id >= claimed:
                self._claim = None
            elif now_s - at > CLAIM_GRACE_S:
                self._claim = None
                return self._fill(claimed)
        if self._acked is not None and not self.synced and now_s - self._acked[1] > self._snapshot_wait_s:
            return self._resync()
        return Outcome()

    def verify(self) -> Outcome:
        """Ask REST whether trades were missed, as when a pair is suspiciously quiet."""
        if self._gap is not None or self.last_id is None:
            return Outcome()
        return self._fill(None)

    def on_page(self, fill_number: int, trades: list[Trade]) -> Outcome:
        """Trades that REST gave; those that continue the sequence go out at once."""
        outcome = Outcome()
        if self._gap is None or fill_number != self.fill_number:
            return outcome
        self._fetched_to = max([self._fetched_to, *(trade.trade_id for trade in trades)])
        outcome.filled = len(trades) - self._keep(trades)
        self.fetched_rows += outcome.filled
        self._drain(outcome)
        if len(self._buffer) > self._buffer_rows:
            return self._end_fill(outcome, f"more than {self._buffer_rows} trades waited", give_up=True)
        return outcome

    def on_fill_end(self, fill_number: int, error: str | None) -> Outcome:
        """REST has no more, or gave up because of `error`."""
        if self._gap is None or fill_number != self.fill_number:
            return Outcome()
        return self._end_fill(Outcome(), error)

    def _resync(self) -> Outcome:
        if self._gap is not None:
            return Outcome()
        if self.last_id is not None:
            return self._fill(None)
        self.synced = True
        if self._started or self._acked is None:
            return Outcome()
        self._started = True
        return Outcome(start_ms=self._acked[0])

    def _fill(self, last_id: int | None) -> Outcome:
        assert self.last_id is not None
        self._gap = Gap(self.pair, self.last_id + 1, last_id, self._last_ms)
        self._gap_is_of_this_connection = self._acked is not None
        self._fetched_to = -1
        self.fetched_rows = 0
        self.fill_number += 1
        return Outcome(fill=self._gap)

    def _take(self, trades: Iterable[Trade], outcome: Outcome) -> Outcome:
        accepted = self._ids.accept(trades)
        self._add(outcome, accepted.fresh)
        outcome.duplicates += accepted.duplicates
        if accepted.held:
            outcome.fill = self._fill(accepted.held[0].trade_id - 1).fill
            self._buffer = {trade.trade_id: trade for trade in accepted.held}
        return outcome

    def _add(self, outcome: Outcome, fresh: list[Trade]) -> None:
        if fresh:
            outcome.publish += fresh
            # Pages by time begin here, so it must not go back.
            self._last_ms = max(self._last_ms, fresh[-1].event_time_ms)

    def _keep(self, trades: list[Trade]) -> int:
        """Put trades into the buffer; returns how many were known already."""
        before = len(self._buffer)
        last = self.last_id
        for trade in trades:
            if last is None or trade.trade_id > last:
                self._buffer.setdefault(trade.trade_id, trade)
        return len(trades) - (len(self._buffer) - before)

    def _drain(self, outcome: Outcome) -> None:
        """Move what continues the sequence out of the buffer."""
        if self._ids.last_id is None or self._ids.last_id + 1 not in self._buffer:
            return
        accepted = self._ids.accept(self._buffer.values())
        self._add(outcome, accepted.fresh)
        self._buffer = {trade.trade_id: trade for trade in accepted.held}

    def _end_fill(self, outcome: Outcome, error: str | None, *, give_up: bool = False) -> Outcome:
        """Write off what the fill should have given and did not; later holes are a new gap."""
        gap, self._gap = self._gap, None
        assert gap is not None
        why = error or "the exchange's history lacks them"
        written_off = gap.last_id if gap.last_id is not None else self._fetched_to
        if error is not None and gap.last_id is None and self._buffer:
            written_off = max(written_off, min(self._buffer) - 1)
        if error is not None and gap.last_id is None and not self._buffer:
            outcome.lost.append(Lost((self.last_id or 0) + 1, None, why))
        self.synced = self.synced or self._gap_is_of_this_connection
        while True:
            self._drain(outcome)
            assert self.last_id is not None
            hole_end = min(self._buffer) - 1 if self._buffer else written_off
            if not give_up and hole_end > written_off:
                hole_end = written_off
            if hole_end <= self.last_id:
                break
            outcome.lost.append(Lost(self.last_id + 1, hole_end, why))
            self._ids.skip_to(hole_end)
        if self._buffer:
            rest, self._buffer = self._buffer, {}
            return self._take(rest.values(), outcome)
        if not self.synced and self._acked is not None and not self._has_snapshot:
            outcome.fill = self._resync().fill
        return outcome
