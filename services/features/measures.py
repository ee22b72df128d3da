"""What is measured of writing to the store."""

import time
from collections.abc import Callable

from services.common.errors import StoreError
from services.common.health import Health
from services.common.metrics import Metrics

# Fine around the goal of 100 ms p50 and 300 ms p99, from 1 ms to a minute.
FRAME_TO_ROW_BUCKETS_S = (
    *(0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1),
    *(0.125, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0, 60.0),
)
WRITE_BUCKETS_S = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 10)
NEWS_TO_ROW_BUCKETS_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600)


class Measures:
    """The service's own metrics, and what its health knows of the store."""

    def __init__(self, metrics: Metrics, health: Health) -> None:
        self._health = health
        self.last_event = metrics.last_event
        self.frame_to_row = metrics.histogram(
            "frame_to_row_seconds",
            "From the frame of the exchange to the row that can be read",
            buckets=FRAME_TO_ROW_BUCKETS_S,
        )
        self.news_to_row = metrics.histogram(
            "news_to_row_seconds",
            "From the story as it reached us to the sentiment that can be read",
            buckets=NEWS_TO_ROW_BUCKETS_S,
        )
        self.last_news = metrics.gauge(
            "last_news_timestamp_seconds", "When the newest stored signal was observed, Unix time"
        )
        self._write_seconds = metrics.histogram(
            "store_write_seconds", "Time to write a batch to the store", buckets=WRITE_BUCKETS_S
        )
        self._last_write = metrics.gauge(
            "last_write_success_timestamp_seconds", "When the store last took a batch, Unix time"
        )

    def wrote(self, begun: float, now_ms: int) -> None:
        """A write that began at `begun` (`time.perf_counter`) succeeded."""
        self._write_seconds.observe(time.perf_counter() - begun)
        self._last_write.set(now_ms / 1000)

    def failed(self, error: StoreError) -> None:
        """A write failed. The process ends now and its offsets stay, so the rows come again."""
        self._health.require("store", str(error))

    def watched(self, *acts: Callable[[], None]) -> Callable[[], None]:
        """Does `acts` in turn; when the store fails at one the health knows."""

        def act() -> None:
            try:
                for one in acts:
                    one()
            except StoreError as error:
                self.failed(error)
                raise

        return act
