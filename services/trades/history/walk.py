"""Which page of a pair's history to ask for next, and what is known after each. Pure.

Trade ids of a pair follow each other, so they alone say whether a page continues what is known; the
exchange's cursor only says where to ask on. Three things can be wrong with it, and each is settled by
asking again rather than by trusting it:

- Ids jump: it is asked again from before the hole, a few times. What then still is not given is recorded
  as missing, and the walk goes on behind it.
- A page brings nothing new and its cursor stands still, like when more trades have one time than a page has
  rows: the cursor is pushed by 1, 2, 4 … until new trades come. When they do not continue the known ones,
  every cursor in between that could have them is tried by halving before they count as missing. When none
  come at all, and the page was full, it is recorded that there may be more.
- A page is empty: that is the end only when it is again after asking from before the last known trade, and
  only for what is older than `SETTLE_MS`, since an exchange's REST answers can lag.
"""

from dataclasses import dataclass, field

import msgspec

from services.common.errors import SourceError
from services.common.history_report import Missing
from services.common.messages import Trade
from services.trades.exchanges.contract import MAX_TRADE_ID, Bad, Exchange, Gap, Page, PageRequest
from services.trades.ids import IdSequence

#: Ids and times may swap places within this.
SWAP_MS = 1_000
#: A trade shows in REST at the latest so long after its time.
SETTLE_MS = 10_000
#: How often a hole is asked for again.
HOLE_TRIES = 3
#: A page of nothing else is no page of trades with a flaw: the exchange has changed its format.
UNREADABLE_ROWS = 10
#: Where a push of the cursor this large brings nothing, the exchange does not heed it. In ns, 13 days.
MAX_PUSH = 2**50
NOT_GIVEN = "the exchange does not give them"
UNPROVEN = "more may have traded at this one time than a page of the exchange holds"


class Known(msgspec.Struct):
    """What is known of a pair, and so where its walk goes on."""

    #: Every trade before this time is known, or recorded as missing.
    covered_ms: int
    #: The last trade in id order.
    last_id: int | None = None
    last_ms: int = 0
    #: That of the next page. As text, since nanoseconds do not fit what many JSON readers make of numbers.
    cursor: str | None = None
    #: The last trade when it was recorded that more at its time may be missing.
    unproven_id: int | None = None


@dataclass(slots=True)
class Step:
    """What one page brought."""

    #: New trades from `since_ms` on, in id order and without a hole but those in `missing`.
    trades: list[Trade] = field(default_factory=list)
    #: Rows that break the exchange's format, each once.
    bad: list[Bad] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)
    #: How often the same was asked for now; 0: something else comes next.
    tries: int = 0
    #: How long it takes until more can be known.
    pause_s: float = 0.0


class Walk:
    """A pair's way from `since_ms` to `until_ms`; `known` is where an earlier one stopped."""

    def __init__(self, exchange: Exchange, pair: str, since_ms: int, until_ms: int, known: Known) -> None:
        self.pair = pair
        #: Where it stands.
        self.known = msgspec.structs.replace(known)
        #: For fetching: the ids have no end.
        self.gap = Gap(pair, 0, MAX_TRADE_ID, since_ms)
        self._exchange = exchange
        self._since_ms = since_ms
        self._until_ms = until_ms
        self._ids = IdSequence(known.last_id)
        #: Trades behind a hole.
        self._held: list[Trade] = []
        self._tries = 0
        self._push: _Push | None = None
        self._asked_twice = False
        #: Whether a full page ended with the last known trade.
        self._was_full = False
        self._bad_rows: set[bytes] = set()
        #: What to ask for next.
        self.request = self._from_before()
        if known.cursor is not None:
            self.request = exchange.page_at(self.gap, int(known.cursor))

    @property
    def done(self) -> bool:
        """Whether everything up to `until_ms` is known."""
        return self.known.covered_ms >= self._until_ms

    def on_page(self, page: Page, asked_ms: int) -> Step:
        """Take the answer to `request`, asked at `asked_ms`, and choose the next one.

        Raises `SourceError` when the exchange can't be followed.
        """
        step = Step(bad=self._new_bad(page))
        last_id = self._ids.last_id
        goes_on = any(last_id is None or trade.trade_id > last_id for trade in page.trades)
        taken = self._take(page.trades, step)
        rows = bool(page.trades or page.bad)
        if taken and not self._held:
            self._go_on(page)
        elif not taken and rows and not goes_on:
            if not self._nothing_new(page):
                self._doubt(page, asked_ms, step)
        elif not taken and not rows and page.next and page.next.cursor > self.request.cursor:
            # It still looks for the beginning.
            self.request = page.next
        elif not self._too_far():
            self._doubt(page, asked_ms, step)
        return step

    def _from_before(self) -> PageRequest:
        """The request that shows the last known trade and what follows it."""
        if self.known.last_id is None:
            return self._exchange.first_page_since(self.gap)
        gap = Gap(self.pair, self.known.last_id + 1, MAX_TRADE_ID, self.known.last_ms)
        return self._exchange.first_page(gap)

    def _take(self, trades: list[Trade], step: Step) -> bool:
        """Whether some continue what is known, perhaps together with those that wait behind a hole."""
        accepted = self._ids.accept([*self._held, *trades])
        self._held = accepted.held
        if not accepted.fresh:
            return False
        known = self.known
        known.last_id, known.last_ms = accepted.fresh[-1].trade_id, accepted.fresh[-1].event_time_ms
        reached_ms = max(trade.event_time_ms for trade in accepted.fresh) - SWAP_MS
        known.covered_ms = max(known.covered_ms, reached_ms)
        self._tries = 0
        self._push = None
        self._asked_twice = self._was_full = False
        step.trades += [trade for trade in accepted.fresh if trade.event_time_ms >= self._since_ms]
        return True

    def _go_on(self, page: Page) -> None:
        self.request = page.next or self._from_before()
        self.known.cursor = str(self.request.cursor)

    def _nothing_new(self, page: Page) -> bool:
        """All rows are known; whether there is another cursor to try."""
        push = self._push
        if (push is None or push.high is None) and page.next and page.next.cursor > self.request.cursor:
            self.request, self._push = page.next, None
            return True
        if page.full and any(trade.trade_id == self.known.last_id for trade in page.trades):
            self._was_full = True
        if push is None:
            push = self._push = _Push(self.request.cursor)
        else:
            push.low = max(push.low, self.request.cursor)
        return self._try_push(push)

    def _too_far(self) -> bool:
        """The page lies behind what is next, or is empty; whether there is a cursor before it to try."""
        if self._push is None:
            return False
        self._push.high = self.request.cursor
        return self._try_push(self._push)

    def _try_push(self, push: "_Push") -> bool:
        cursor = push.next()
        if cursor is None:
            return False
        if cursor - push.low > MAX_PUSH:
            raise SourceError(f"{self._exchange.name}: {self.pair}: the exchange's cursor does not advance")
        self.request = self._exchange.page_at(self.gap, cursor)
        return True

    def _doubt(self, page: Page, asked_ms: int, step: Step) -> None:
        """It goes on with a hole or not at all; is that so?"""
        self._push = None
        if self._held:
            self._doubt_hole(page, step)
            return
        self.request = self._from_before()
        if not self._asked_twice:
            self._asked_twice = True
            return
        self._asked_twice = False
        known = self.known
        if self._was_full and known.unproven_id != known.last_id:
            known.unproven_id = known.last_id
            step.missing.append(Missing(UNPROVEN, from_ms=known.last_ms, until_ms=known.last_ms))
        known.covered_ms = max(known.covered_ms, asked_ms - SETTLE_MS)
        if not self.done:
            step.pause_s = (self._until_ms + SETTLE_MS - asked_ms) / 1000

    def _doubt_hole(self, page: Page, step: Step) -> None:
        self._tries += 1
        step.tries = self._tries
        if self._tries == 1 and page.next is not None:
            # Where ids and times swap places, the next page may have it.
            self.request = page.next
        elif self._tries <= HOLE_TRIES:
            self.request = self._from_before()
        else:
            self._give_up_hole(page, step)

    def _give_up_hole(self, page: Page, step: Step) -> None:
        first = self._held[0]
        last_id, last_ms = self.known.last_id, self.known.last_ms
        assert last_id is not None
        reasons = ", ".join(sorted({bad.error.reason for bad in page.bad}))
        why = f"{NOT_GIVEN} in a form that can be read ({reasons})" if reasons else NOT_GIVEN
        step.missing.append(Missing(why, last_id + 1, first.trade_id - 1, last_ms, first.event_time_ms))
        self._ids.skip_to(first.trade_id - 1)
        self._take([], step)
        if self._held:
            self._doubt_hole(page, step)
        else:
            step.tries = 0
            self._go_on(page)

    def _new_bad(self, page: Page) -> list[Bad]:
        if not page.trades and len(page.bad) >= UNREADABLE_ROWS:
            raise SourceError(
                f"{self._exchange.name}: {self.pair}: none of {len(page.bad)} trades can be read "
                f"({page.bad[0].error}); has the exchange changed its format?"
            )
        new = {bad.raw: bad for bad in page.bad if bad.raw not in self._bad_rows}
        # A page is asked for again and again, but only the latest matter.
        self._bad_rows = {bad.raw for bad in page.bad} | (self._bad_rows if self._tries else set())
        return list(new.values())


class _Push:
    """Looks for the cursor that is just enough, between one that is not and one that is too far."""

    def __init__(self, low: int) -> None:
        self.low = low
        self.high: int | None = None
        self._step = 1

    def next(self) -> int | None:
        """The cursor to try, None when there is none left."""
        if self.high is None:
            self._step *= 2
            return self.low + self._step // 2
        middle = (self.low + self.high) // 2
        return middle if middle > self.low else None
