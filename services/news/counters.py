"""The metrics that only this service has."""

from services.common.metrics import Metrics


class NewsMetrics:
    """Counters of articles and of looks at the sources; `source` is the feed that was asked."""

    def __init__(self, metrics: Metrics) -> None:
        self.items = metrics.counter("news_items_total", "Tellings sent", "source")
        self.repeats = metrics.counter("news_repeats_total", "Articles seen before, not sent", "source")
        self.duplicates = metrics.counter(
            "news_duplicates_total", "Tellings of a story that was told before, sent", "source"
        )
        self.ignored = metrics.counter("news_ignored_total", "Articles that are no news", "source", "reason")
        self.fetches = metrics.counter("fetches_total", "Looks at a source", "source", "result")
        self.last_success = metrics.gauge(
            "last_success_timestamp_seconds", "When a source last answered, Unix time", "source"
        )
