"""Fetches missing trades by REST, each gap in a thread of its own, so that other pairs never wait."""

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from services.common.errors import SourceError, SourceUnavailableError
from services.trades.connection import Crashed, FillEnd, FillPage, Item
from services.trades.exchanges.contract import Exchange, Gap, Page
from services.trades.rest import Fetch, PacedFetch

#: REST can lag behind the socket, so the same cursor is asked this often before we believe it.
STUCK_TRIES = 3
MAX_BACKOFF_S = 30.0


@dataclass(frozen=True, slots=True)
class FillLimits:
    """How hard to try."""

    timeout_s: float
    #: Pause between two requests about the same pair.
    interval_s: float


class Filler:
    """Starts fills and ends them; pages and the end of each go into `inbox`."""

    def __init__(
        self, exchange: Exchange, fetch: Fetch, limits: FillLimits, inbox: "queue.Queue[Item]"
    ) -> None:
        self._exchange = exchange
        self._fetch = PacedFetch(fetch, limits.interval_s)
        self._limits = limits
        self._inbox = inbox
        self._stop = threading.Event()
        self._running: dict[str, tuple[int, threading.Event]] = {}

    def start(self, gap: Gap, fill_number: int) -> None:
        """Fill `gap`; a fill of the same pair that still runs is given up."""
        _, running = self._running.get(gap.pair, (0, None))
        if running is not None:
            running.set()
        given_up = threading.Event()
        self._running[gap.pair] = (fill_number, given_up)
        threading.Thread(
            target=self._run, args=(gap, fill_number, given_up), name=f"fill-{gap.pair}", daemon=True
        ).start()

    def stop(self) -> None:
        """End all fills; nothing more comes from them."""
        self._stop.set()
        for _, given_up in self._running.values():
            given_up.set()

    def _run(self, gap: Gap, fill_number: int, given_up: threading.Event) -> None:
        def send(item: Item) -> None:
            while not given_up.is_set():
                try:
                    self._inbox.put(item, timeout=0.2)
                except queue.Full:
                    continue
                return

        try:
            error = fill(
                gap,
                self._exchange,
                lambda gap, request: self._fetch(gap, request, given_up.wait),
                self._limits,
                emit=lambda page: send(FillPage(gap.pair, fill_number, page)),
                wait=given_up.wait,
            )
            send(FillEnd(gap, fill_number, error))
        except Exception as bug:
            send(Crashed(bug))


def fill(
    gap: Gap,
    exchange: Exchange,
    fetch: Fetch,
    limits: FillLimits,
    *,
    emit: Callable[[Page], None],
    wait: Callable[[float], bool],
    clock: Callable[[], float] = monotonic,
) -> str | None:
    """Fetch the pages of a gap and hand each to `emit`; None when done, else why it gave up.

    `wait` sleeps and returns True when the fill is to stop.
    """
    deadline = clock() + limits.timeout_s
    request = exchange.first_page(gap)
    failures = stuck = 0
    while True:
        if clock() >= deadline:
            return f"not filled within {limits.timeout_s:g} s"
        try:
            page = fetch(gap, request)
        except SourceUnavailableError as error:
            pause = error.retry_after_s
            if pause is None:
                pause = min(MAX_BACKOFF_S, max(limits.interval_s, 0.01) * 2**failures)
            failures = min(failures + 1, 20)
            if clock() + pause >= deadline:
                return f"not filled within {limits.timeout_s:g} s, at last: {error}"
            if wait(pause):
                return "stopped"
            continue
        except SourceError as error:
            return str(error)
        failures = 0
        emit(page)
        if page.next is None:
            return None
        if page.next.cursor > request.cursor:
            stuck = 0
        else:
            stuck += 1
            if stuck >= STUCK_TRIES:
                return "the exchange's cursor does not advance"
        request = page.next
