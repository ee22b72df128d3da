"""Rolling old rows out of SQLite while the service runs."""

import threading
from collections.abc import Callable
from pathlib import Path

from loguru import logger

from services.common.errors import StoreError
from services.common.metrics import Metrics
from services.common.timeframes import DAY_MS
from services.features.stores.sqlite_roll import Roll

EVERY_S = 3_600.0


def before_ms(now_ms: int, days: int) -> int:
    """Rows before this time are more than `days` whole UTC days old."""
    return max(0, now_ms // DAY_MS - days) * DAY_MS


class Retention:
    """Rolls once an hour, in a thread and on a connection of its own, so that writes wait for milliseconds.

    A roll that fails leaves the rows where they are; it is logged, counted, and tried again an hour later.
    """

    def __init__(
        self,
        store: Path,
        keep_days: int,
        metrics: Metrics,
        clock_ms: Callable[[], int],
        every_s: float = EVERY_S,
    ) -> None:
        self._keep_days = keep_days
        self._clock_ms = clock_ms
        self._every_s = every_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="retention", daemon=True)
        self._bug: BaseException | None = None
        self._roll = Roll(store, clock_ms=clock_ms, stopped=self._stopped.is_set)
        self._rows = metrics.counter("rolled_rows_total", "Rows moved from SQLite into Parquet")
        self._failures = metrics.counter("roll_failures_total", "Rolls that failed and are tried again")
        self._last = metrics.gauge("last_roll_timestamp_seconds", "When a roll last succeeded, Unix time")

    def start(self) -> None:
        """Begin; the first roll is due at once."""
        self._thread.start()

    def stop(self) -> None:
        """Stop between two periods and wait for that."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def check(self) -> None:
        """Raise what ended the thread, if something did."""
        if self._bug is not None:
            raise self._bug

    def _run(self) -> None:
        try:
            while not self._stopped.is_set():
                self.roll()
                self._stopped.wait(self._every_s)
        except BaseException as error:
            # The main thread ends the process with it.
            self._bug = error

    def roll(self) -> None:
        """Roll what is due now."""
        rows = 0
        try:
            for done in self._roll.before(before_ms(self._clock_ms(), self._keep_days)):
                self._rows.inc(done.taken)
                rows += done.taken
        except StoreError as error:
            logger.warning("old rows stay in SQLite for now: {}", error)
            self._failures.inc()
            return
        if rows:
            logger.info("{} rows that are older than {} days went into Parquet", rows, self._keep_days)
        self._last.set(self._clock_ms() / 1000)
