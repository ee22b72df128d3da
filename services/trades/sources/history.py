"""The historical source over REST: from TRADES_SINCE to TRADES_UNTIL, then the end.

A thread for each pair fetches and spools (`services.trades.history`); this loop, in the main thread, owns
the publisher. First goes what earlier runs have spooled after the last confirmed trade, then each page as it
comes, so a restart on the same broker repeats no more than any at-least-once sender, and one on an empty
broker plays the spool again instead of downloading it.

A pair that the exchange refuses for good does not take the others with it: they go on and end properly, the
refused one ends where it is, the report says what is missing of it and why, and the run fails when all have
ended. So nobody takes a partial history for a whole one, and no typing error costs a night's download.
"""

import queue
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from itertools import batched
from math import inf
from pathlib import Path

from loguru import logger

from services.common.backoff import Backoff
from services.common.errors import SourceError
from services.common.health import Health
from services.common.history_report import HistoryReport, Missing, PairHistory
from services.common.messages import Trade
from services.trades.connection import Crashed
from services.trades.counters import TradeMetrics
from services.trades.exchanges.contract import Exchange
from services.trades.history.fetcher import Ended, Fetched, Fetcher, Item
from services.trades.history.ledger import Ledger
from services.trades.history.outlet import Outlet
from services.trades.history.spool import Spool, Spooled, spool_folder
from services.trades.history.walk import SETTLE_MS, Walk
from services.trades.progress import Position, Progress
from services.trades.publisher import Publisher
from services.trades.rest import Fetch, PacedFetch
from services.trades.settings import TradesSettings

TICK_S = 0.1
JOIN_S = 2.0
INBOX_PAGES = 64
#: So close to now, whoever goes on finds the rest.
CLOSE_MS = 2 * SETTLE_MS


def history_identity(settings: TradesSettings) -> str:
    """What the progress of a historical run refers to: another range, or other pairs, begin anew."""
    until = "now" if settings.until is None else settings.until
    return f"history rest {settings.exchange} {settings.since} {until} {','.join(settings.pairs)}"


class HistorySource:
    """Publishes a range of time of all pairs, whole and in order. Raises `SourceError`.

    `goes_on` leaves out the end, for pairs that somebody goes on with.
    """

    def __init__(
        self,
        settings: TradesSettings,
        exchange: Exchange,
        fetch: Fetch,
        publisher: Publisher,
        progress: Progress,
        health: Health,
        metrics: TradeMetrics,
        now_ms: Callable[[], int],
        report_path: Path,
        *,
        goes_on: bool = False,
    ) -> None:
        assert settings.since is not None
        now = now_ms()
        self._since_ms = settings.since
        # Nothing is known of the future, and services refuse what is stamped so.
        self._until_ms = now if settings.until is None else min(settings.until, now)
        if goes_on:
            self._until_ms = max(min(self._since_ms + 1, now), self._settled_ms(now))
        if self._since_ms >= self._until_ms:
            raise SourceError("TRADES_SINCE lies in the future: there is no history yet")
        self._settings = settings
        self._exchange = exchange
        self._publisher = publisher
        self._progress = progress
        self._health = health
        self._metrics = metrics
        self._now_ms = now_ms
        self._fetch = PacedFetch(fetch, settings.rest_interval_s)
        self._inbox: queue.Queue[Item] = queue.Queue(INBOX_PAGES)
        self._stopping = threading.Event()
        self._report_path = report_path
        self._goes_on = goes_on
        self._spools: dict[str, Spool] = {}
        self._failed: dict[str, SourceError] = {}
        #: How much later than its end the latest round ended.
        self._behind_ms: float = inf

    def run(self, stop: threading.Event) -> None:
        """Send what is spooled, fetch the rest, and say that it is all."""
        fetchers: list[Fetcher] = []
        try:
            for pair in self._settings.pairs:
                folder = spool_folder(self._settings.state_dir, self._exchange.name, pair, self._since_ms)
                self._spools[pair] = Spool(folder, self._exchange.name, pair, self._since_ms)
            ledger = self._open_ledger()
            outlet = self._outlet(ledger)
            # Before the fetchers append to them.
            spooled = {pair: spool.read(self._now_ms) for pair, spool in self._spools.items()}
            fetchers = self._start_fetchers()
            self._play(spooled, outlet, ledger, stop)
            self._receive(outlet, ledger, stop)
            while not stop.is_set() and self._follows(ledger):
                fetchers = self._start_fetchers()
                self._receive(outlet, ledger, stop)
        finally:
            self._stopping.set()
            for fetcher in fetchers:
                fetcher.join(JOIN_S)
            for spool in self._spools.values():
                spool.close()
        if not outlet.finish(stop):
            return
        if self._failed:
            raise SourceError("; ".join(f"{pair}: {error}" for pair, error in self._failed.items()))
        # Complete: a further run is a new one, which begins the series anew.
        self._progress.forget()

    @property
    def positions(self) -> Mapping[str, Position]:
        """The last trade of each pair that the broker has confirmed."""
        return self._progress.positions

    def _outlet(self, ledger: Ledger) -> Outlet:
        return Outlet(
            self._publisher,
            self._progress,
            self._health,
            ledger,
            self._now_ms,
            since_ms=self._since_ms,
            series=None if self._goes_on else len(self._settings.pairs),
            batch_rows=self._settings.batch_rows,
        )

    def _open_ledger(self) -> Ledger:
        notes = []
        if self._settings.until is not None and self._settings.until > self._until_ms:
            notes.append("TRADES_UNTIL lies in the future; the history ends with the present")
            logger.warning(notes[0])
        pairs = [PairHistory(pair) for pair in self._settings.pairs]
        report = HistoryReport(
            self._exchange.name, "rest", self._since_ms, self._until_ms, pairs, notes=notes
        )
        return Ledger(report, self._report_path, self._metrics)

    @staticmethod
    def _settled_ms(now_ms: int) -> int:
        """Whoever goes on finds by id what has not settled yet."""
        return now_ms - SETTLE_MS

    def _follows(self, ledger: Ledger) -> bool:
        """Whether a further round comes nearer to now, for whoever goes on: a long one took its time.

        A live feed fills what is left at once, and holds back what comes meanwhile.
        """
        now = self._now_ms()
        behind_ms = now - self._until_ms
        if not self._goes_on or self._failed or behind_ms <= CLOSE_MS or behind_ms > self._behind_ms / 2:
            return False
        logger.info("fetching the {:.0f} s that have passed since", behind_ms / 1000)
        self._behind_ms = behind_ms
        self._until_ms = self._settled_ms(now)
        ledger.ends(self._until_ms)
        return True

    def _start_fetchers(self) -> list[Fetcher]:
        fetchers = [self._fetcher(pair, spool) for pair, spool in self._spools.items()]
        for fetcher in fetchers:
            fetcher.start()
        return fetchers

    def _fetcher(self, pair: str, spool: Spool) -> Fetcher:
        settings = self._settings
        walk = Walk(self._exchange, pair, self._since_ms, self._until_ms, spool.cursor.known)
        # No limit of attempts: those of REST are paced already.
        backoff = Backoff(settings.backoff_min_s, settings.backoff_max_s, 1, random.random)
        return Fetcher(
            walk, spool, self._fetch, backoff, self._inbox, self._stopping, self._health, self._now_ms
        )

    def _play(
        self, spooled: dict[str, Spooled], outlet: Outlet, ledger: Ledger, stop: threading.Event
    ) -> None:
        """Send what earlier runs have fetched, a batch of each pair in turn."""
        batches = {pair: batched(of.trades, self._settings.batch_rows) for pair, of in spooled.items()}
        for pair, of in spooled.items():
            for missing in of.cursor.missing:
                ledger.missing(pair, missing)
            if of.cursor.trades:
                logger.info("{}: {:,} trades are spooled already", pair, of.cursor.trades)
        while batches and not stop.is_set():
            for pair in list(batches):
                rows = next(batches[pair], None)
                if rows is None:
                    del batches[pair]
                    ledger.covered(pair, spooled[pair].cursor.known.covered_ms)
                    continue
                outlet.send(pair, self._wanted(rows))
                ledger.covered(pair, rows[-1].event_time_ms)
                self._health.input_arrived()
                outlet.keep_up()
        ledger.fetching_begins()

    def _receive(self, outlet: Outlet, ledger: Ledger, stop: threading.Event) -> None:
        """Send pages as they come, until all pairs have ended."""
        waiting = set(self._settings.pairs)
        while waiting and not stop.is_set():
            outlet.keep_up()
            try:
                item = self._inbox.get(timeout=TICK_S)
            except queue.Empty:
                continue
            if isinstance(item, Crashed):
                raise item.error
            if isinstance(item, Fetched):
                self._on_page(item, outlet, ledger)
            else:
                waiting.remove(item.pair)
                self._on_end(item, outlet, ledger)

    def _on_page(self, page: Fetched, outlet: Outlet, ledger: Ledger) -> None:
        self._health.input_arrived()
        for bad in page.bad:
            self._publisher.dead_letter(bad, self._now_ms())
        for missing in page.missing:
            ledger.missing(page.pair, missing)
        self._metrics.filled.labels(page.pair).inc(len(page.trades))
        outlet.send(page.pair, self._wanted(page.trades))
        ledger.covered(page.pair, page.covered_ms)

    def _on_end(self, ended: Ended, outlet: Outlet, ledger: Ledger) -> None:
        pair = ended.pair
        if ended.error is not None:
            logger.error("{} ends early: {}", pair, ended.error)
            self._failed[pair] = ended.error
            from_ms = self._spools[pair].cursor.known.covered_ms
            ledger.missing(pair, Missing(str(ended.error), from_ms=from_ms, until_ms=self._until_ms))
            outlet.end(pair, from_ms)
            return
        outlet.end(pair, self._until_ms)

    def _wanted(self, rows: Sequence[Trade]) -> list[Trade]:
        """Those of the range; whoever goes on wants all that there are."""
        if self._goes_on:
            return list(rows)
        return [row for row in rows if row.event_time_ms < self._until_ms]
