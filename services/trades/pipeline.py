"""Wires a source to the bus: nothing in, topic `trades` (and `dead_letters`) out."""

import threading
from pathlib import Path
from time import time_ns
from typing import Protocol

from services.common.errors import SettingsError
from services.common.runner import Context
from services.common.stopping import stopping
from services.common.topics import ensure_topics
from services.trades.counters import TradeMetrics
from services.trades.exchanges import REGISTRY
from services.trades.progress import Progress
from services.trades.publisher import KafkaPublisher, Publisher
from services.trades.rest import http_fetch
from services.trades.settings import TradesSettings
from services.trades.sources.archive import ArchiveSource, archive_identity
from services.trades.sources.history import HistorySource, history_identity
from services.trades.sources.live import LiveSource
from services.trades.sources.replay import ReplaySource, replay_identity
from services.trades.sources.warm_start import WarmStart


class Source(Protocol):
    """What produces trades until `stop` is set or it has no more."""

    def run(self, stop: threading.Event) -> None:
        """Run in the main thread."""


class TradesPipeline:
    """Runs a source until it ends or SIGTERM or SIGINT comes."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def run(self) -> None:
        """Block until the source is done."""
        stop = threading.Event()
        with stopping(stop):
            self._source.run(stop)


def now_ms() -> int:
    """Wall clock, epoch ms."""
    return time_ns() // 1_000_000


def build_pipeline(settings: TradesSettings, context: Context) -> TradesPipeline:
    """Topics, progress, publisher and source. Raises `ServiceError`."""
    if settings.source == "historical" and not context.broker.topic_suffix:
        # Services forget a series when its history begins, and stop at its end.
        raise SettingsError("KAFKA_TOPIC_SUFFIX: a historical run needs topics of its own, like -historical")
    ensure_topics(context.broker, ("trades", "dead_letters"))
    folder = settings.state_dir / "trades"
    name = f"{settings.exchange}{context.broker.topic_suffix}"
    kind, identity = _progress_of(settings)
    progress = Progress(folder / f"{name}{kind}.json", identity)
    publisher = KafkaPublisher(context, settings.exchange, progress)
    return TradesPipeline(
        build_source(settings, context, publisher, progress, folder / f"{name}.history.json")
    )


def _progress_of(settings: TradesSettings) -> tuple[str, str]:
    """Ending of the progress file, and what its positions refer to."""
    if settings.source == "live":
        return "", f"live {settings.exchange}"
    if settings.source == "replay":
        return ".replay", replay_identity(settings)
    return ".progress", archive_identity(settings) if settings.history == "archive" else history_identity(
        settings
    )


def build_source(
    settings: TradesSettings, context: Context, publisher: Publisher, progress: Progress, report: Path
) -> Source:
    """The source that the settings ask for; a historical one writes its `report`."""
    metrics = TradeMetrics(context.metrics)
    if settings.source == "replay":
        return ReplaySource(settings, publisher, progress, context.health, metrics, now_ms)
    if settings.source == "historical" and settings.history == "archive":
        return ArchiveSource(settings, publisher, progress, context.health, metrics, now_ms, report)
    exchange = REGISTRY[settings.exchange](settings.pairs)
    fetch = http_fetch(exchange, settings.rest_url or exchange.rest_url, now_ms)
    health = context.health
    if settings.source == "historical":
        return HistorySource(settings, exchange, fetch, publisher, progress, health, metrics, now_ms, report)

    def live() -> LiveSource:
        return LiveSource(settings, exchange, publisher, progress, health, metrics, fetch, now_ms)

    if settings.since is None:
        return live()

    def before(pairs: tuple[str, ...]) -> HistorySource:
        chosen = settings.model_copy(update={"pairs": pairs, "until": None})
        own = Progress(report.with_suffix(".progress"), history_identity(chosen))
        out = KafkaPublisher(context, settings.exchange, own)
        return HistorySource(chosen, exchange, fetch, out, own, health, metrics, now_ms, report, goes_on=True)

    return WarmStart(settings.pairs, progress, before, live, health)
