"""Candles from Kraken's downloads instead of trades: files in, topic `candles` out, then the end.

They go through the state machine of live candles, so longer timeframes, empty intervals and alignment are the
same. Nothing is kept between runs: a run that was killed sends all again, which is absorbed.
"""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

from loguru import logger

from services.candles.bucket import Bucket, to_candles
from services.candles.ohlcvt import ESTIMATES, IntervalParser, timeframe_of
from services.candles.series import Applied, PairCandles
from services.candles.settings import CandlesSettings
from services.common.batches import split_batch
from services.common.delivery import Delivery
from services.common.errors import SettingsError, SourceError
from services.common.history import EMPTY, begin_header, end_header
from services.common.history_report import HistoryReport, Missing, PairHistory, time_text
from services.common.messages import batch_headers, encode, series_key
from services.common.runner import Context
from services.common.stopping import stopping
from services.common.symbols import pair_of_stem
from services.common.text_files import TextFile, locate
from services.common.timeframes import TIMEFRAMES
from services.common.topics import batch_bytes, ensure_topics

ENDINGS = (".csv", ".csv.gz")
#: Kraken leaves out intervals without trades, but few pairs are without any for so long.
QUIET_MS = 24 * 3_600_000
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

    def run(self) -> None:
        """Send all candles of all pairs and say that it is all."""
        pairs = [PairHistory(pair) for pair in self._files]
        report = HistoryReport(self._settings.exchange, "archive", 0, 0, pairs, notes=self._notes)
        stop = threading.Event()
        with stopping(stop):
            for entry in report.pairs:
                self._send_pair(entry, *self._files[entry.pair], stop)
            self._delivery.flush(FLUSH_S)
        if stop.is_set():
            return
        firsts = [pair.first_ms for pair in pairs if pair.first_ms is not None]
        report.since_ms = self._settings.since or min(firsts, default=0)
        report.until_ms = max((pair.last_ms or 0 for pair in pairs), default=0)
        report.ended = True
        report.save(self._report_path)

    def _send_pair(self, entry: PairHistory, file: TextFile, timeframe: str, stop: threading.Event) -> None:
        key = series_key(self._settings.exchange, entry.pair)
        logger.info("{}: candles of {} and longer from {}", entry.pair, timeframe, file.location)
        since_ms, until_ms = self._settings.since or 1, self._settings.until
        self._send_empty(key, begin_header(), since_ms)
        candles = PairCandles(self._settings.rules())
        candles.heartbeat(since_ms)
        waiting: dict[str, list[Bucket]] = {name: [] for name in self._settings.timeframes}
        for parts in intervals_of(file, timeframe, self._now_ms):
            wanted = [
                part
                for part in parts
                if part.start_ms >= since_ms and (until_ms is None or part.end_ms <= until_ms)
            ]
            if wanted:
                entry.trades += sum(part.count for part in wanted)
                entry.first_ms = wanted[0].start_ms if entry.first_ms is None else entry.first_ms
                entry.last_ms = wanted[-1].end_ms
                self._collect(candles.intervals(wanted, timeframe), waiting, key, entry.pair)
            self._done.labels(entry.pair).set(file.read_bytes / max(1, file.total_bytes))
            self._health.input_arrived()
            self._delivery.poll()
            if stop.is_set():
                return
        if entry.last_ms is None or entry.first_ms is None:
            raise SourceError(f"{file.location}: no candles in the asked time")
        if self._settings.since is not None and entry.first_ms - since_ms > QUIET_MS:
            self._notes.append(f"the candles of {entry.pair} begin at {time_text(entry.first_ms)} only")
        if until_ms is not None and until_ms - entry.last_ms > QUIET_MS:
            entry.missing.append(Missing("the file ends here", from_ms=entry.last_ms, until_ms=until_ms))
        self._collect(candles.heartbeat(entry.last_ms, final=True), waiting, key, entry.pair, all_of_it=True)
        self._delivery.flush(FLUSH_S)
        self._send_empty(key, end_header(self._run, len(self._files)), entry.last_ms)

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


def candle_files(path: Path, pairs: tuple[str, ...]) -> dict[str, tuple[TextFile, str]]:
    """The file with the shortest candles of each pair, and their timeframe. Raises `SourceError`."""
    found: dict[str, tuple[TextFile, str]] = {}
    locations = locate(path, ENDINGS)
    for location in locations:
        timeframe = timeframe_of(location.stem)
        pair = pair_of_stem(location.stem, pairs)
        if timeframe is None or pair is None:
            continue
        known = found.get(pair)
        if known is None or _rank(timeframe) < _rank(known[1]):
            found[pair] = (TextFile(location), timeframe)
        elif timeframe == known[1]:
            raise SourceError(
                f"{known[0].location} and {location} are both {pair} {timeframe}; keep one of them"
            )
    lacking = [pair for pair in pairs if pair not in found]
    if lacking or not found:
        names = ", ".join(location.name for location in locations[:5])
        raise SourceError(
            f"{path}: no candles of {', '.join(lacking) or 'any pair'}; there are {names}, "
            "and names like XBTUSD_1.csv are known"
        )
    return {pair: found[pair] for pair in pairs} if pairs else dict(sorted(found.items()))


def _rank(timeframe: Any) -> int:
    return TIMEFRAMES.index(timeframe)


def intervals_of(file: TextFile, timeframe: str, now_ms: Callable[[], int]) -> Iterator[list[Bucket]]:
    """The intervals of a file, a block at a time. Raises `SourceError` with file, line and remedy."""
    parser = IntervalParser(str(file.location), timeframe)
    for line, text in file.texts():
        yield parser.parse(text, line, now_ms())
