"""Candles from Kraken's downloads instead of trades: files in, topic `candles` out, then the end.

They go through the state machine of live candles, so longer timeframes, empty intervals and alignment are the
same. Nothing is kept between runs: a run that was killed sends all again, which is absorbed.
"""

import threading
from collections.abc import Callable
from uuid import uuid4

from loguru import logger

from services.candles.asked import AskedRange
from services.candles.bucket import Bucket, to_candles
from services.candles.files import CandleFiles, candle_files
from services.candles.ohlcvt import ESTIMATES
from services.candles.series import Applied, PairCandles
from services.candles.settings import CandlesSettings
from services.common.batches import split_batch
from services.common.delivery import Delivery
from services.common.errors import SettingsError, SourceError
from services.common.history import EMPTY, begin_header, end_header
from services.common.history_report import HistoryReport, PairHistory
from services.common.messages import batch_headers, encode, series_key
from services.common.runner import Context
from services.common.stopping import stopping
from services.common.timeframes import TIMEFRAMES
from services.common.topics import batch_bytes, ensure_topics

MAX_ROWS = 2_000
FLUSH_S = 30.0


class ArchivePipeline:
    """Runs through all files once. Raises `SourceError`."""

    def __init__(
        self, settings: CandlesSettings, context: Context, now_ms: Callable[[], int], max_rows: int = MAX_ROWS
    ) -> None:
        if not context.broker.topic_suffix:
            raise SettingsError(
                "KAFKA_TOPIC_SUFFIX: a historical run needs topics of its own, like -historical"
            )
        assert settings.archive_path is not None
        ensure_topics(context.broker, ("candles",))
        self._settings = settings
        self._now_ms = now_ms
        self._max_rows = max_rows
        self._files = candle_files(settings.archive_path, settings.pairs)
        self._topic = context.broker.topic("candles")
        self._delivery = Delivery(context)
        self._health = context.health
        self._rows_out = context.metrics.rows_out.labels("candles")
        self._done = context.metrics.gauge(
            "history_done_ratio", "Share of a pair's time range that went out, 0 to 1", "pair"
        )
        name = f"{settings.exchange}{context.broker.topic_suffix}.history.json"
        self._report_path = settings.state_dir / "candles" / name
        self._run = context.broker.history_run or uuid4().hex
        self._max_bytes = batch_bytes(context.broker)
        self._notes = [ESTIMATES]
        self._ends_ms: list[int] = []

    def run(self) -> None:
        """Send all candles of all pairs and say that it is all."""
        pairs = [PairHistory(pair) for pair in self._files]
        report = HistoryReport(self._settings.exchange, "archive", 0, 0, pairs, notes=self._notes)
        stop = threading.Event()
        with stopping(stop):
            for entry in report.pairs:
                self._send_pair(entry, self._files[entry.pair], stop)
            self._delivery.flush(FLUSH_S)
        if stop.is_set():
            return
        firsts = [pair.first_ms for pair in pairs if pair.first_ms is not None]
        report.since_ms = self._settings.since or min(firsts, default=0)
        report.until_ms = max(self._ends_ms)
        report.ended = True
        report.save(self._report_path)

    def _send_pair(self, entry: PairHistory, files: CandleFiles, stop: threading.Event) -> None:
        """The candles of one pair, from its beginning to its end."""
        settings, pair = self._settings, entry.pair
        key = series_key(settings.exchange, pair)
        logger.info("{}: candles of {} and longer from {}", pair, files.timeframe, files)
        longer = TIMEFRAMES[TIMEFRAMES.index(files.timeframe) :]
        names = [name for name in settings.timeframes if name in longer]
        asked = AskedRange(pair, settings.since or 0, settings.until, names)
        candles: PairCandles | None = None
        waiting: dict[str, list[Bucket]] = {name: [] for name in names}
        for parts in files.intervals(self._now_ms):
            ended_ms = asked.last_ms
            for run, begin_ms in asked.take(parts):
                if begin_ms is not None:
                    if candles is not None and ended_ms is not None:
                        # Ahead of a hole, too, nothing comes late any more.
                        closed = candles.heartbeat(ended_ms, final=True)
                        self._collect(closed, waiting, key, pair, all_of_it=True)
                    candles = self._begin(key, begin_ms)
                assert candles is not None
                ended_ms = run[-1].end_ms
                entry.trades += sum(part.count for part in run)
                self._collect(candles.intervals(run, files.timeframe), waiting, key, pair)
            self._done.labels(pair).set(files.share)
            self._health.input_arrived()
            self._delivery.poll()
            if stop.is_set():
                return
            if asked.over:
                break
        if candles is None:
            raise SourceError(f"{files}: no candles in the asked time")
        end_ms = asked.end(self._now_ms())
        entry.first_ms, entry.last_ms = asked.first_ms, asked.last_ms
        entry.missing += asked.missing
        self._notes += asked.notes
        self._ends_ms.append(end_ms)
        self._collect(candles.heartbeat(end_ms, final=True), waiting, key, pair, all_of_it=True)
        self._delivery.flush(FLUSH_S)
        self._send_empty(key, end_header(self._run, len(self._files)), end_ms)
        self._done.labels(pair).set(1.0)

    def _begin(self, key: bytes, at_ms: int) -> PairCandles:
        """The series begins, or begins anew: candles that began before are incomplete."""
        self._send_empty(key, begin_header(), at_ms)
        candles = PairCandles(self._settings.rules())
        candles.heartbeat(at_ms)
        return candles

    def _collect(
        self,
        applied: Applied,
        waiting: dict[str, list[Bucket]],
        key: bytes,
        pair: str,
        *,
        all_of_it: bool = False,
    ) -> None:
        """Keep what closed until a message is full."""
        for timeframe, buckets in waiting.items():
            buckets += applied.closed.get(timeframe, [])
            while len(buckets) >= self._max_rows or (buckets and all_of_it):
                rows = to_candles(buckets[: self._max_rows], self._settings.exchange, pair, timeframe, True)
                del buckets[: self._max_rows]
                now = self._now_ms()
                for batch in split_batch(encode(rows), self._max_bytes):
                    self._delivery.send(self._topic, key, batch, headers=batch_headers(now), timestamp_ms=now)
                self._rows_out.inc(len(rows))

    def _send_empty(self, key: bytes, history: tuple[str, bytes], time_ms: int) -> None:
        headers = [*batch_headers(self._now_ms()), history]
        self._delivery.send(self._topic, key, EMPTY, headers=headers, timestamp_ms=time_ms)
