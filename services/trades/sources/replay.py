"""The replay source: recordings in, the same messages as live out, at a chosen speed."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, process_time

from loguru import logger

from services.common.errors import SourceError
from services.common.health import Health
from services.common.messages import Trade
from services.common.symbols import pair_of_name
from services.common.text_files import BLOCK_BYTES, TextFile
from services.trades.counters import TradeMetrics
from services.trades.exchanges import REGISTRY
from services.trades.exchanges.contract import Bad
from services.trades.progress import Progress
from services.trades.publisher import Publisher
from services.trades.settings import TradesSettings
from services.trades.sources.csv_file import CsvFile
from services.trades.sources.files import (
    CSV_ENDINGS,
    PACED_BLOCK_BYTES,
    Block,
    Columns,
    find_recordings,
    to_trades,
)
from services.trades.sources.frames_file import FramesFile
from services.trades.sources.pacing import Pacer
from services.trades.sources.timeline import Numbering, Recording, Window, windows

LOG_EVERY_S = 5.0
#: At full speed a quiet pair gets a heartbeat when the files have moved on by this much.
QUIET_MS = 60_000


def replay_identity(settings: TradesSettings) -> str:
    """What the progress of a replay refers to: other files, or other pairs, begin anew."""
    assert settings.replay_path is not None
    path = settings.replay_path.absolute()
    files = find_recordings(path)
    sizes = ",".join(f"{file.name}:{file.stat().st_size}" for file in files)
    return f"replay {path} {sizes} {','.join(settings.pairs)}"


class ReplaySource:
    """Publishes recordings until they end or `stop` is set. Raises `SourceError`."""

    def __init__(
        self,
        settings: TradesSettings,
        publisher: Publisher,
        progress: Progress,
        health: Health,
        metrics: TradeMetrics,
        now_ms: Callable[[], int],
    ) -> None:
        assert settings.replay_path is not None
        self._settings = settings
        self._publisher = publisher
        self._progress = progress
        self._health = health
        self._metrics = metrics
        self._now_ms = now_ms
        self._files: list[TextFile] = []
        self._block_bytes = PACED_BLOCK_BYTES if settings.replay_speed > 0 else BLOCK_BYTES
        self._sent = 0
        self._known: dict[str, int] = {}
        self._latest_ms = 0
        self._unlogged = (monotonic(), 0)
        resume = {pair: at.trade_id for pair, at in progress.positions.items()}
        for pair, at in progress.positions.items():
            logger.info("{} goes on after trade {}", pair, at.trade_id)
            self._known[pair] = 0
        self._numbering = Numbering(resume)
        self._recordings = [
            recording
            for path in find_recordings(settings.replay_path)
            if (recording := self._recording(path)) is not None
        ]

    def run(self, stop: threading.Event) -> None:
        """Replay all, then say up to when the recordings are complete."""
        began, cpu = monotonic(), process_time()
        stretch = windows(self._recordings, self._numbering)
        if self._settings.replay_speed > 0:
            self._run_paced(stretch, stop)
        else:
            self._run_unlimited(stretch, stop)
        if not stop.is_set():
            if not self._known:
                raise SourceError(
                    f"{self._settings.replay_path}: no trades"
                    + (f" of {', '.join(self._settings.pairs)}" if self._settings.pairs else "")
                )
            # The last trades must be safe before anybody is told that they were the last.
            self._publisher.flush()
            until_ms = max(self._latest_ms, self._settings.replay_until or 0)
            for pair in self._known:
                self._publisher.heartbeat(pair, until_ms, self._now_ms())
        self._publisher.flush()
        self._progress.save()
        if not stop.is_set():
            # A rerun replays all again, under the same ids.
            self._progress.forget()
        self._log_summary(monotonic() - began, process_time() - cpu)

    def _run_unlimited(self, stretch: Iterator[Window], stop: threading.Event) -> None:
        size = self._settings.batch_rows
        waiting: dict[str, list[Trade]] = {}
        told_ms: dict[str, int] = {}
        told_at = 0
        for window in stretch:
            for pair, columns in window.by_pair.items():
                trades = self.to_trades(pair, columns)
                held = waiting.get(pair)
                if held:
                    trades = held + trades
                full = len(trades) - len(trades) % size
                for start in range(0, full, size):
                    self.send(pair, trades[start : start + size])
                    if stop.is_set():
                        return
                waiting[pair] = trades[full:]
                told_ms[pair] = window.until_ms
            self._known.update(dict.fromkeys(window.by_pair, 0))
            self._latest_ms = max(self._latest_ms, window.until_ms)
            # Heartbeats cost a message each, so they come at most once in a batch of trades.
            if self._sent - told_at >= size:
                told_at = self._sent
                self._tell_quiet(window.until_ms - 1, told_ms, waiting)
            self.keep_up()
            if stop.is_set():
                return
        for pair, trades in waiting.items():
            if trades:
                self.send(pair, trades)

    def _tell_quiet(self, known_ms: int, told_ms: dict[str, int], waiting: dict[str, list[Trade]]) -> None:
        """Tell the time to pairs that have had no trade for long; more can come at `known_ms` + 1."""
        for pair in self._known:
            if known_ms - told_ms.get(pair, 0) >= QUIET_MS:
                if waiting.get(pair):
                    self.send(pair, waiting.pop(pair))
                self._publisher.heartbeat(pair, known_ms, self._now_ms())
                told_ms[pair] = known_ms

    def _run_paced(self, stretch: Iterator[Window], stop: threading.Event) -> None:
        pacer = Pacer(stretch, self._settings.replay_speed, self._settings.heartbeat_s, monotonic())
        while not stop.is_set():
            now_s = monotonic()
            due = pacer.due(now_s)
            for pair, columns in due.by_pair.items():
                self._known[pair] = 0
                self.send(pair, self.to_trades(pair, columns))
            self._latest_ms = max(self._latest_ms, due.latest_ms)
            if due.heartbeat_ms is not None:
                for pair in self._known:
                    self._publisher.heartbeat(pair, due.heartbeat_ms, self._now_ms())
            self.keep_up()
            if pacer.ended:
                return
            stop.wait(pacer.pause_s(monotonic()))

    def to_trades(self, pair: str, columns: Columns) -> list[Trade]:
        """Trades out of columns, received now."""
        return to_trades(self._settings.exchange, pair, columns, self._now_ms())

    def send(self, pair: str, trades: list[Trade]) -> None:
        """Publish a batch."""
        self._publisher.trades(pair, trades, self._now_ms())
        self._sent += len(trades)

    def keep_up(self) -> None:
        """What has to happen several times a second: health, progress, delivery reports, the log."""
        self._health.input_arrived()
        self._publisher.poll()
        self._progress.save_if_due()
        at, sent = self._unlogged
        now = monotonic()
        if now - at >= LOG_EVERY_S:
            self._unlogged = (now, self._sent)
            done = sum(file.read_bytes for file in self._files)
            total = sum(file.total_bytes for file in self._files)
            logger.info(
                "{:,} trades, {:,.0f}/s, {:.0%} of the files",
                self._sent,
                (self._sent - sent) / (now - at),
                done / max(1, total),
            )

    def _log_summary(self, seconds: float, cpu_s: float) -> None:
        self._metrics.duplicates.inc(self._numbering.duplicates)
        logger.info(
            "replayed {:,} trades of {} pairs in {:.1f} s ({:,.0f}/s, {:.2f} µs CPU each); "
            "{:,} duplicates ignored, {:,} sent by an earlier run",
            self._sent,
            len(self._known),
            seconds,
            self._sent / max(seconds, 1e-9),
            cpu_s * 1e6 / max(1, self._sent),
            self._numbering.duplicates,
            self._numbering.resumed_rows,
        )

    def _recording(self, path: Path) -> Recording | None:
        if not path.name.endswith(CSV_ENDINGS):
            return self._frames(path)
        pairs = self._settings.pairs
        named = pair_of_name(path.name)
        pair = pairs[0] if len(pairs) == 1 and named is None else named
        if named is not None and pairs and named not in pairs:
            if path == self._settings.replay_path and len(pairs) == 1:
                pair = pairs[0]
            else:
                logger.info("{} is of {}, which TRADES_PAIRS does not name", path.name, named)
                return None
        file = CsvFile(path)
        first_ms = file.first_ms(pair, self._now_ms)
        if first_ms is None:
            logger.warning("{} holds no trades", path)
            return None
        self._files.append(file)
        return Recording(first_ms, lambda: self._wanted(file.read(pair, self._now_ms, self._block_bytes)))

    def _wanted(self, blocks: Iterator[Block]) -> Iterator[Block]:
        """Without the pairs that the settings do not name."""
        pairs = self._settings.pairs
        for by_pair, last_ms in blocks:
            for pair in [pair for pair in by_pair if pairs and pair not in pairs]:
                ignored = by_pair.pop(pair)
                self._metrics.ignored.labels("unconfigured_pair").inc(len(ignored.times))
            yield by_pair, last_ms

    def _frames(self, path: Path) -> Recording:
        settings = self._settings
        if settings.exchange not in REGISTRY:
            raise SourceError(
                f"{path}: recorded frames need TRADES_EXCHANGE to be one of {', '.join(REGISTRY)}"
            )
        if not settings.pairs:
            raise SourceError(f"{path}: recorded frames need TRADES_PAIRS")
        exchange = REGISTRY[settings.exchange](settings.pairs)
        file = FramesFile(path)
        self._files.append(file)

        def on_ignored(reason: str) -> None:
            self._metrics.ignored.labels(reason).inc()

        return Recording(
            0,
            lambda: file.read(exchange, self._now_ms, self._on_bad, on_ignored, self._block_bytes),
        )

    def _on_bad(self, bad: Bad) -> None:
        self._publisher.dead_letter(bad, self._now_ms())
