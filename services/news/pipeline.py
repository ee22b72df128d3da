"""Wires sources to the bus: nothing in, topic `news` (and `dead_letters`) out."""

import logging
import threading
from importlib.metadata import version
from time import time_ns

from services.common.http import DISTRIBUTION
from services.common.runner import Context
from services.common.stopping import stopping
from services.common.topics import ensure_topics
from services.news.fetch import Fetcher, Limits
from services.news.intake import Intake
from services.news.loop import NewsLoop
from services.news.publisher import KafkaPublisher
from services.news.registry import Registry
from services.news.settings import NewsSettings
from services.news.sources import REGISTRY
from services.news.sources.file import file_identity


class NewsPipeline:
    """Runs the loop until it ends or SIGTERM or SIGINT comes."""

    def __init__(self, loop: NewsLoop) -> None:
        self._loop = loop

    def run(self) -> None:
        """Block until the loop is done."""
        stop = threading.Event()
        with stopping(stop):
            self._loop.run(stop)


def now_ms() -> int:
    """Wall clock, epoch ms."""
    return time_ns() // 1_000_000


def build_pipeline(settings: NewsSettings, context: Context) -> NewsPipeline:
    """Topics, registry, sources and publisher. Raises `ServiceError`."""
    # Its warnings show whole addresses, and an address can hold a key.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    is_replay = "file" in settings.sources
    identity = file_identity(settings) if is_replay else "live"
    fetcher = Fetcher(
        Limits(
            settings.connect_timeout_s,
            settings.read_timeout_s,
            settings.fetch_timeout_s,
            settings.max_answer_bytes,
        ),
        user_agent=f"{DISTRIBUTION}/{version(DISTRIBUTION)}",
        allow_private=settings.allow_private,
        ca_file=settings.ca_file,
    )
    sources = [source for name in settings.sources for source in REGISTRY[name](settings, fetcher, now_ms)]
    ensure_topics(context.broker, ("news", "dead_letters"))
    kind = "file" if is_replay else "live"
    registry = Registry(settings.state_dir / "news" / f"{kind}{context.broker.topic_suffix}.sqlite", identity)
    intake = Intake(
        registry,
        service=context.service,
        news_topic=context.broker.topic("news"),
        window_h=settings.repeat_window_h,
        max_age_h=None if is_replay else settings.max_age_h,
        max_message_bytes=context.broker.max_message_bytes,
    )
    publisher = KafkaPublisher(context, now_ms)
    return NewsPipeline(
        NewsLoop(settings, sources, registry, intake, publisher, context.health, context.metrics)
    )
