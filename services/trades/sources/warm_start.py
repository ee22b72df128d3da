"""A live source whose first start begins in the past: history by REST on the live topics, then live.

There is no seam: candles and indicators see one series from TRADES_SINCE on. A pair that live trading has a
position of goes on from there, as at any restart.
"""

import threading
from collections.abc import Callable, Sequence

from loguru import logger

from services.common.health import Health
from services.trades.progress import Progress
from services.trades.sources.history import HistorySource
from services.trades.sources.live import LiveSource

CONDITION = "live"


class WarmStart:
    """Runs `history` for the pairs that `progress` does not know, then `live`. Raises `SourceError`."""

    def __init__(
        self,
        pairs: Sequence[str],
        progress: Progress,
        history: Callable[[tuple[str, ...]], HistorySource],
        live: Callable[[], LiveSource],
        health: Health,
    ) -> None:
        self._pairs = pairs
        self._progress = progress
        self._history = history
        self._live = live
        self._health = health

    def run(self, stop: threading.Event) -> None:
        """Run in the main thread until `stop` is set."""
        fresh = tuple(pair for pair in self._pairs if pair not in self._progress.positions)
        if fresh:
            logger.info("{}: fetching what was before", ", ".join(fresh))
            self._health.require(CONDITION, "history is fetched first")
            history = self._history(fresh)
            history.run(stop)
            if stop.is_set():
                return
            self._progress.adopt(history.positions)
            self._progress.save()
            self._health.require(CONDITION, None)
        self._live().run(stop)
