"""The topics: what flows where, how long it is kept, and how it is created.

| topic        | key              | rows                                   |
| ------------ | ---------------- | -------------------------------------- |
| trades       | kraken:BTC/USD   | `messages.Trade`; ``[]`` is a heartbeat |
| candles      | kraken:BTC/USD   | `messages.Candle`                      |
| ta           | kraken:BTC/USD   | `messages.TaRow`                       |
| news         | the story id     | `news.News`, the tellings of one story |
| news_signals | BTC              | `news.NewsSignal`, of one coin         |
| dead_letters | topic/part/offset | `messages.DeadLetter`                 |

A heartbeat says: the exchange is alive and nothing traded up to the message's Kafka timestamp.
"""

import logging
from dataclasses import dataclass
from typing import Any

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from loguru import logger

from services.common.errors import BrokerUnavailableError, TopicError
from services.common.settings import BrokerSettings

HOUR_MS = 3_600_000
#: What key, headers and Kafka itself add to a message's value, generously.
ENVELOPE_BYTES = 1_000


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """One topic. Retention must outlast the longest outage of what reads it."""

    name: str
    retention_ms: int
    retention_bytes: int = -1


TOPICS: dict[str, TopicSpec] = {
    spec.name: spec
    for spec in (
        TopicSpec("trades", 7 * 24 * HOUR_MS),
        TopicSpec("candles", 30 * 24 * HOUR_MS),
        TopicSpec("ta", 30 * 24 * HOUR_MS),
        TopicSpec("news", 30 * 24 * HOUR_MS),
        TopicSpec("news_signals", 30 * 24 * HOUR_MS),
        TopicSpec("dead_letters", 90 * 24 * HOUR_MS),
    )
}


def batch_bytes(settings: BrokerSettings) -> int:
    """Largest value of a message, unless it is a dead letter."""
    return settings.max_message_bytes - ENVELOPE_BYTES


def letter_bytes(settings: BrokerSettings) -> int:
    """Largest dead letter: a whole message in base64, and what is said of it."""
    return settings.max_message_bytes * 4 // 3 + 100_000


def topic_config(name: str, settings: BrokerSettings) -> dict[str, str]:
    """Broker-side configuration of the topic `name` (without its suffix)."""
    spec = TOPICS[name]
    retention_ms = spec.retention_ms
    if settings.retention_hours is not None:
        retention_ms = int(settings.retention_hours * HOUR_MS)
    return {
        "retention.ms": str(retention_ms),
        "retention.bytes": str(spec.retention_bytes),
        "cleanup.policy": "delete",
        # Heartbeats say their time in the message's timestamp, so the broker must not replace it.
        "message.timestamp.type": "CreateTime",
        "max.message.bytes": str(
            letter_bytes(settings) if name == "dead_letters" else settings.max_message_bytes
        ),
    }


def producer_config(settings: BrokerSettings) -> dict[str, Any]:
    """What every producer of ours adds to librdkafka's configuration."""
    config: dict[str, Any] = {
        # No duplicates and no reordering by retries; Quix sets it too, but progress relies on it.
        "enable.idempotence": True,
        "linger.ms": 0,
        # The topics hold their own, smaller limit.
        "message.max.bytes": letter_bytes(settings),
        "queue.buffering.max.kbytes": 32_768,
        "compression.type": "lz4",
    }
    if settings.embedded:
        # It reports a wrong high watermark after a batch of several records, which makes stateful
        # applications refuse to restart; our messages are batches of rows already.
        config["batch.num.messages"] = 1
    return config


def _admin(settings: BrokerSettings) -> AdminClient:
    config = {**settings.client_config(), "socket.timeout.ms": 10_000}
    return AdminClient(config, logger=logging.getLogger("librdkafka"))


def ensure_topics(settings: BrokerSettings, names: tuple[str, ...]) -> None:
    """Create those of `names` that are missing; refuse ones with another number of partitions.

    The partition of a key, and with it all state, follows from the number of partitions, so a topic
    with a different one must not be used silently. Raises `BrokerUnavailableError`, `TopicError`.
    """
    admin = _admin(settings)
    wanted = {settings.topic(name): name for name in names}
    try:
        existing = admin.list_topics(timeout=settings.connect_timeout_s).topics
    except KafkaException as error:
        admin.poll(0)  # hands what librdkafka knows of the reason to the log
        raise BrokerUnavailableError(
            f"no broker answers at {settings.brokers}; set KAFKA_BROKERS, or start one to try things "
            f"with `python -m services.common.broker` ({error.args[0].str()})"
        ) from error
    for full_name in sorted(wanted.keys() & existing.keys()):
        partitions = len(existing[full_name].partitions)
        if partitions not in (0, settings.partitions):
            raise TopicError(
                f"topic {full_name} has {partitions} partitions and KAFKA_PARTITIONS is "
                f"{settings.partitions}; set it to {partitions}, or use new topics (KAFKA_TOPIC_SUFFIX)"
            )
    missing = [
        NewTopic(
            full_name,
            num_partitions=settings.partitions,
            replication_factor=settings.replication_factor,
            config=topic_config(name, settings),
        )
        for full_name, name in wanted.items()
        if full_name not in existing
    ]
    if not missing:
        return
    for full_name, future in admin.create_topics(missing).items():
        try:
            future.result(timeout=settings.connect_timeout_s)
            logger.info("created topic {} with {} partitions", full_name, settings.partitions)
        except KafkaException as error:
            # Another service may have created it between our look and our call.
            if error.args[0].name() != "TOPIC_ALREADY_EXISTS":
                raise TopicError(f"cannot create topic {full_name}: {error.args[0].str()}") from error


def committed_offsets(
    settings: BrokerSettings, group: str, partitions: set[tuple[str, int]]
) -> dict[tuple[str, int], int]:
    """The next offset that a consumer group reads of each partition (topic, number); none: not committed.

    Raises `BrokerUnavailableError`.
    """
    asked = [TopicPartition(topic, partition) for topic, partition in sorted(partitions)]
    # It has to live until it has answered.
    admin = _admin(settings)
    answers = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group, asked)])
    try:
        found = answers[group].result(timeout=settings.connect_timeout_s + 10)
    except (KafkaException, TimeoutError) as error:
        why = error.args[0].str() if error.args else "no answer"
        raise BrokerUnavailableError(
            f"the broker at {settings.brokers} does not say how far {group} has come ({why})"
        ) from error
    return {(at.topic, at.partition): at.offset for at in found.topic_partitions or [] if at.offset >= 0}
