"""The way out of a historical run: what every source of one has to say, in the right order.

A pair's messages are its beginning, its trades and its end; behind a hole it begins anew. Trades
that an earlier run has sent and seen confirmed are not sent again, though they count.
"""

import threading
from collections.abc import Callable, Sequence
from itertools import batched

from loguru import logger

from services.common.health import Health
from services.common.joints import Begin
from services.common.messages import Trade
from services.trades.history.ledger import Ledger
from services.trades.progress import Progress
from services.trades.publisher import Publisher


class Outlet:
    """Publishes the history of `series` pairs; None: of pairs that go on live, so that it has no end.

    `since_ms` is where the history begins, where nobody says it with the first trades.
    """

    def __init__(
        self,
        publisher: Publisher,
        progress: Progress,
        health: Health,
        ledger: Ledger,
        now_ms: Callable[[], int],
        *,
        since_ms: int,
        series: int | None,
        batch_rows: int,
    ) -> None:
        self._publisher = publisher
        self._progress = progress
        self._health = health
        self._ledger = ledger
        self._now_ms = now_ms
        self._since_ms = since_ms
        self._series = series
        self._batch_rows = batch_rows
        #: Pairs whose first message is out; a pair with a position has had it in an earlier run.
        self._begun = set(progress.positions)
        #: The last trade of each pair that is out.
        self._sent_id = {pair: at.trade_id for pair, at in progress.positions.items()}

    def send(self, pair: str, rows: Sequence[Trade], begin: Begin | None = None) -> None:
        """Publish those that are not out yet; ids rise from call to call.

        With the first of `rows` the series begins, or begins anew, unless that one is out already.
        """
        self._ledger.passed(pair, rows)
        sent_id = self._sent_id.get(pair, -1)
        if rows and rows[0].trade_id <= sent_id:
            rows = [row for row in rows if row.trade_id > sent_id]
            begin = None
        if not rows:
            return
        if begin is not None and begin.before_ms is not None:
            self._pause(pair, begin.before_ms)
        self._begin(pair, None if begin is None else begin.at_ms)
        for batch in batched(rows, self._batch_rows):
            self._publisher.trades(pair, batch, self._now_ms())
        self._sent_id[pair] = rows[-1].trade_id

    def end(self, pair: str, until_ms: int) -> None:
        """Say that the pair is complete."""
        # The last trades must be safe before anybody is told that they were the last.
        self._publisher.flush()
        self._begin(pair)
        if self._series is not None:
            self._publisher.end(pair, until_ms, self._now_ms(), self._series)
        logger.info("{} is complete", pair)

    def _begin(self, pair: str, at_ms: int | None = None) -> None:
        """Before the first message, and where it begins anew: candles from earlier would be incomplete."""
        if at_ms is not None or pair not in self._begun:
            self._begun.add(pair)
            self._publisher.begin(pair, self._since_ms if at_ms is None else at_ms, self._now_ms())

    def _pause(self, pair: str, until_ms: int) -> None:
        """Behind the last message before a hole: what ended by then is whole."""
        # After a kill none of it may come again behind the new beginning, where it would be too late.
        self._publisher.flush()
        self._progress.save()
        self._publisher.pause(pair, until_ms, self._now_ms())

    def keep_up(self) -> None:
        """What has to happen several times a second."""
        self._health.tick()
        self._publisher.poll()
        self._progress.save_if_due()
        self._ledger.note_if_due()

    def finish(self, stop: threading.Event) -> bool:
        """Wait until everything is delivered; whether the run came to its own end."""
        self._publisher.flush()
        self._progress.save()
        if stop.is_set():
            self._ledger.save()
            return False
        self._ledger.end()
        return True
