"""The Prometheus metrics of a service: base units, counters end in ``_total``, times not ages."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.process_collector import ProcessCollector

LATENCY_BUCKETS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5, 10, 60)


class Metrics:
    """One registry a process, and the metrics that every service has."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.messages = self.counter("messages_processed_total", "Messages taken from a topic", "topic")
        self.rows_in = self.counter("rows_in_total", "Rows taken from a topic", "topic")
        self.rows_out = self.counter("rows_out_total", "Rows sent or stored", "destination")
        self.heartbeats = self.counter("heartbeats_total", "Heartbeats taken from a topic", "topic")
        self.null_values = self.counter("null_values_total", "Messages without a value, ignored", "topic")
        self.dead_letters = self.counter("dead_letters_total", "Rows or messages refused", "reason")
        self.last_event = self.gauge(
            "last_event_timestamp_seconds", "Event time of the newest row, Unix time", "exchange"
        )
        self.last_message = self.gauge(
            "last_message_timestamp_seconds", "When the last message was processed, Unix time"
        )
        self.lag = self.gauge(
            "kafka_consumergroup_lag", "Messages waiting in a partition", "topic", "partition"
        )

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        """A counter in this registry."""
        return Counter(name, text, labels, registry=self.registry)

    def gauge(self, name: str, text: str, *labels: str) -> Gauge:
        """A gauge in this registry."""
        return Gauge(name, text, labels, registry=self.registry)

    def histogram(
        self, name: str, text: str, *labels: str, buckets: tuple[float, ...] = LATENCY_BUCKETS_S
    ) -> Histogram:
        """A histogram in this registry."""
        return Histogram(name, text, labels, buckets=buckets, registry=self.registry)
