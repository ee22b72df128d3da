"""The historical source over downloaded files: every pair whole, in order, then its end."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from loguru import logger

from services.common.health import Health
from services.common.history_report import HistoryReport, PairHistory
from services.common.joints import Begin
from services.common.messages import Trade
from services.common.text_files import locate
from services.trades.counters import TradeMetrics
from services.trades.history.archive import TICK_RULE, PairArchive
from services.trades.history.files import archive_files
from services.trades.history.ledger import Ledger
from services.trades.history.outlet import Outlet
from services.trades.progress import Progress
from services.trades.publisher import Publisher
from services.trades.settings import TradesSettings
from services.trades.sources.files import CSV_ENDINGS

#: Pairs that are read at the same time; each has a file open and some batches in memory.
MAX_PAIRS = 16
type _Reading = tuple[PairArchive, Iterator[tuple[list[Trade], Begin | None]]]


def archive_identity(settings: TradesSettings) -> str:
    """What the progress of a run refers to: other files, another range or other pairs begin anew."""
    assert settings.archive_path is not None
    path = settings.archive_path.absolute()
    sizes = {f.path.name: f.path.stat().st_size for f in locate(path, CSV_ENDINGS)}
    files = ",".join(f"{name}:{size}" for name, size in sizes.items())
    return (
        f"history archive {settings.exchange} {path} {files} {settings.since} {settings.until} "
        f"{','.join(settings.pairs)}"
    )


class ArchiveSource:
    """Publishes what the files hold. Raises `SourceError`."""

    def __init__(
        self,
        settings: TradesSettings,
        publisher: Publisher,
        progress: Progress,
        health: Health,
        metrics: TradeMetrics,
        now_ms: Callable[[], int],
        report_path: Path,
    ) -> None:
        assert settings.archive_path is not None
        self._settings = settings
        self._progress = progress
        self._health = health
        self._now_ms = now_ms
        archives = [
            PairArchive(settings.exchange, pair, files, settings.since or 0, settings.until)
            for pair, files in archive_files(settings.archive_path, settings.pairs, now_ms).items()
        ]
        for pair, at in progress.positions.items():
            logger.info("{} goes on after trade {}", pair, at.trade_id)
        self._waiting = deque(archives)
        self._ends_ms: list[int] = []
        self._estimated: list[str] = []
        first_ms = min(archive.first_ms for archive in archives)
        self._report = HistoryReport(
            settings.exchange,
            "archive",
            first_ms if settings.since is None else settings.since,
            settings.until or now_ms(),
            [PairHistory(archive.pair) for archive in archives],
        )
        self._ledger = Ledger(self._report, report_path, metrics)
        self._outlet = Outlet(
            publisher,
            progress,
            health,
            self._ledger,
            now_ms,
            since_ms=settings.since or 0,
            series=len(archives),
            batch_rows=settings.batch_rows,
        )

    def run(self, stop: threading.Event) -> None:
        """A batch of each pair in turn, so that they share what follows evenly."""
        self._ledger.fetching_begins()
        reading: list[_Reading] = []
        while (reading or self._waiting) and not stop.is_set():
            while self._waiting and len(reading) < MAX_PAIRS:
                archive = self._waiting.popleft()
                reading.append((archive, archive.batches(self._now_ms, self._settings.batch_rows)))
                del archive
            # What has ended is let go at once, with its files and what it has read.
            reading = [one for one in reading if stop.is_set() or self._goes_on(*one)]
        if self._estimated:
            self._ledger.note(TICK_RULE.format(", ".join(self._estimated)))
        if not stop.is_set():
            self._ledger.ends(max(self._ends_ms))
        if self._outlet.finish(stop):
            # Complete: a further run is a new one, which begins the series anew.
            self._progress.forget()

    def _goes_on(self, archive: PairArchive, batches: Iterator[tuple[list[Trade], Begin | None]]) -> bool:
        """Send the next batch of a pair, or its end."""
        batch = next(batches, None)
        if batch is None:
            self._end(archive)
        else:
            self._outlet.send(archive.pair, *batch)
            self._ledger.reached(archive.pair, min(archive.share, 0.999))
        for missing in archive.missing:
            self._ledger.missing(archive.pair, missing)
        archive.missing.clear()
        self._health.input_arrived()
        self._outlet.keep_up()
        return batch is not None

    def _end(self, archive: PairArchive) -> None:
        archive.check_any()
        end_ms = archive.end_ms(self._now_ms())
        if archive.estimates_sides:
            self._estimated.append(archive.pair)
        for note in archive.notes:
            self._ledger.note(note)
        self._ends_ms.append(end_ms)
        self._ledger.reached(archive.pair, 1.0)
        self._outlet.end(archive.pair, end_ms)
