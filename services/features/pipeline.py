"""ta and news_signals → store: which steps run on which topic, what time itself brings, and HTTP."""

from ipaddress import ip_address

from loguru import logger

from services.common.messages import TaRow
from services.common.runner import Context
from services.common.stream import Stream
from services.features.api import build_router
from services.features.groups import GROUPS, TA
from services.features.measures import Measures
from services.features.retention import Retention
from services.features.sentiment import SentimentWriter
from services.features.settings import FeaturesSettings
from services.features.steps import FeaturesStep, NewsStep, now_ms
from services.features.stores import open_for_reading, open_for_writing
from services.features.stores.contract import Reader, Store


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reached from this machine only."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class FeaturesPipeline:
    """The stream and the store that it writes."""

    def __init__(self, stream: Stream, store: Store, retention: Retention | None) -> None:
        self._stream = stream
        self._store = store
        self._retention = retention

    def run(self) -> None:
        """Run until told to stop, then close the store."""
        if self._retention is not None:
            self._retention.start()
        try:
            self._stream.run()
        finally:
            if self._retention is not None:
                self._retention.stop()
            self._store.close()


def build_pipeline(settings: FeaturesSettings, context: Context) -> FeaturesPipeline:
    """The features service: `ta` and `news_signals` in, the feature store out, and its HTTP face."""
    key = settings.api_key.get_secret_value() if settings.api_key is not None else None
    if key is None and not is_loopback(settings.http_host):
        logger.warning("/features is open to whoever reaches {}: set FEATURES_API_KEY", settings.http_host)
    stream = Stream(settings, context, ("ta", "news_signals"))
    context.health.require("store", "not open")
    store = open_for_writing(settings.store, settings.store_path, settings.store_synchronous, settings)
    for group in GROUPS.values():
        store.ensure_group(group)
    context.health.require("store", None)
    measures = Measures(context.metrics, context.health)
    sentiment = SentimentWriter(store, now_ms)
    flush = measures.watched(store.flush)

    # A candle's row must not be there before the sentiment of its end is.
    ta_step = FeaturesStep(
        TA, TaRow, store, context.metrics, context.health, measures=measures, before=sentiment.catch_up
    )
    stream.add_step("ta", ta_step, stateful=False, flush=flush)
    stream.add_step("news_signals", NewsStep(sentiment, measures, now_ms), stateful=False, flush=flush)
    # No message brings a commit for rows that time alone makes due, and a remote store has yet to get them.
    stream.on_tick(measures.watched(sentiment.catch_up, store.flush))
    retention = None
    if settings.keep_days:
        retention = Retention(settings.store_path, settings.keep_days, context.metrics, now_ms)
        stream.on_tick(retention.check)

    def reader() -> Reader:
        # Whatever the store, this file has all that the service writes, and at once.
        return open_for_reading("sqlite", settings.store_path)

    context.routers.append(
        build_router(
            reader,
            api_key=key,
            max_rows=settings.max_rows,
            stale_grace_s=settings.stale_grace_s,
            clock_ms=now_ms,
        )
    )
    return FeaturesPipeline(stream, store, retention)
