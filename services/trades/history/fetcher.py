"""Fetches the history of one pair in a thread of its own: page by page, spooled before it is told."""

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from loguru import logger

from services.common.backoff import Backoff
from services.common.errors import SourceError, SourceUnavailableError
from services.common.health import Health
from services.common.history_report import Missing
from services.common.messages import Trade
from services.trades.connection import Crashed
from services.trades.exchanges.contract import Bad, Page
from services.trades.history.spool import Spool
from services.trades.history.walk import Walk
from services.trades.rest import PacedFetch

WAIT_LOG_EVERY_S = 30.0
#: An exchange that asks for more patience is asked again after this.
MAX_RETRY_AFTER_S = 3600.0


@dataclass(frozen=True, slots=True)
class Fetched:
    """A page, which is in the spool; `covered_ms` is how far the pair is known with it."""

    pair: str
    trades: list[Trade]
    bad: list[Bad]
    missing: list[Missing]
    covered_ms: int


@dataclass(frozen=True, slots=True)
class Ended:
    """No more comes of the pair: all is known, or `error` says why not."""

    pair: str
    error: SourceError | None = None


type Item = Fetched | Ended | Crashed


class Fetcher:
    """Walks until all is known, the exchange refuses for good, or `stopping` is set.

    What may pass is tried again for ever, as a history can take a night: `backoff` says when.
    """

    def __init__(
        self,
        walk: Walk,
        spool: Spool,
        fetch: PacedFetch,
        backoff: Backoff,
        inbox: "queue.Queue[Item]",
        stopping: threading.Event,
        health: Health,
        now_ms: Callable[[], int],
    ) -> None:
        self._walk = walk
        self._spool = spool
        self._fetch = fetch
        self._backoff = backoff
        self._inbox = inbox
        self._stopping = stopping
        self._health = health
        self._now_ms = now_ms
        self._logged_at = -WAIT_LOG_EVERY_S
        self._thread = threading.Thread(target=self._run, name=f"history-{walk.pair}", daemon=True)

    def start(self) -> None:
        """Begin; what comes of it is told through the inbox."""
        self._thread.start()

    def join(self, within_s: float) -> None:
        """Wait until the thread has ended; a request that is under way may keep it longer."""
        self._thread.join(within_s)

    def _run(self) -> None:
        pair = self._walk.pair
        try:
            while not self._walk.done and not self._stopping.is_set():
                self._next_page()
            self._put(Ended(pair))
        except SourceError as error:
            self._put(Ended(pair, error))
        except Exception as bug:
            self._put(Crashed(bug))

    def _next_page(self) -> None:
        walk = self._walk
        asked_ms = self._now_ms()
        page = self._ask()
        if page is None or self._stopping.is_set():
            # The spool may be another run's by now.
            return
        step = walk.on_page(page, asked_ms)
        self._spool.append(step.trades, step.missing, walk.known)
        self._put(Fetched(walk.pair, step.trades, step.bad, step.missing, walk.known.covered_ms))
        if step.tries:
            self._pause(f"trades after id {walk.known.last_id}, which it skipped", None)
        elif step.pause_s:
            logger.info("{}: waiting {:.1f} s for the last trades", walk.pair, step.pause_s)
            self._stopping.wait(step.pause_s)
        elif step.trades:
            self._backoff.succeeded()

    def _ask(self) -> Page | None:
        """The next page, None when it did not come."""
        walk = self._walk
        try:
            page = self._fetch(walk.gap, walk.request, self._stopping.wait)
        except SourceUnavailableError as error:
            self._health.require(f"history of {walk.pair}", str(error))
            self._pause(str(error), error.retry_after_s)
            return None
        self._health.require(f"history of {walk.pair}", None)
        return page

    def _pause(self, why: str, asked_for_s: float | None) -> None:
        now = monotonic()
        pause_s = self._backoff.next_attempt_s(now) - now
        if asked_for_s is not None:
            pause_s = min(MAX_RETRY_AFTER_S, max(pause_s, asked_for_s))
        if now - self._logged_at >= WAIT_LOG_EVERY_S:
            self._logged_at = now
            logger.warning("{}: waiting {:.1f} s for {}", self._walk.pair, pause_s, why)
        self._stopping.wait(pause_s)

    def _put(self, item: Item) -> None:
        """Hand over an item; waits while the inbox is full, which holds the exchange back."""
        while not self._stopping.is_set():
            try:
                self._inbox.put(item, timeout=0.2)
            except queue.Full:
                continue
            return
