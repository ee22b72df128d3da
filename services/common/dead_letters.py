"""Dead letters: where refused messages and rows go, and the way back.

`python -m services.common.dead_letters` (`make redrive`) sends them to their topics again.
"""

import argparse
import sys
import time
from collections import Counter
from pathlib import Path
from uuid import uuid4

import msgspec
from confluent_kafka import Consumer, Producer, TopicPartition

from services.common.errors import BrokerUnavailableError, ContractError, ServiceError
from services.common.messages import SCHEMA_HEADER, DeadLetter, encode
from services.common.settings import BrokerSettings
from services.common.topics import TOPICS, ensure_topics, letter_bytes, producer_config

#: Set on redriven messages, so that logs and readers can tell them from first deliveries.
REDRIVEN_HEADER = "redriven_from"
IDLE_S = 3.0


def dead_letter(
    error: ContractError,
    *,
    service: str,
    topic: str,
    partition: int,
    offset: int,
    key: bytes | None,
    value: bytes,
    timestamp_ms: int,
    schema_version: str | None = None,
    row: int | None = None,
    max_bytes: int | None = None,
) -> tuple[bytes, bytes]:
    """Key and value of the dead letter for a message, or for one row of it.

    The key is the position, so that a redelivered message does not make a second letter in the eyes
    of whoever reads the latest by key. Of a value over `max_bytes`, which others may send who are allowed
    larger messages than we are, the letter holds the beginning.
    """
    detail = error.detail
    if max_bytes is not None and len(value) > max_bytes:
        detail = f"{detail}{'; ' if detail else ''}cut from {len(value)} bytes"
        value = value[:max_bytes]
    letter = DeadLetter(
        topic=topic,
        partition=partition,
        offset=offset,
        row=row,
        key=key,
        value=value,
        schema_version=schema_version,
        reason=error.reason,
        detail=detail,
        service=service,
        timestamp_ms=timestamp_ms,
        dead_at_ms=time.time_ns() // 1_000_000,
    )
    if partition < 0:
        # Never was a message: nothing can deliver it twice, and each is a letter of its own.
        position = f"{service}/{uuid4()}"
    else:
        position = f"{topic}/{partition}/{offset}" + ("" if row is None else f"/{row}")
    return position.encode(), encode([letter])


def redrive(
    settings: BrokerSettings, *, reason: str | None, dry_run: bool, idle_s: float = IDLE_S
) -> Counter[str]:
    """Send the dead letters that were not redriven yet to their topics; counts by ``topic reason``.

    Letters that were made since it began wait for the next run: a message that is refused again would
    be sent again without end. Letters of the same position are sent once. With `reason`, the others stay
    for a later run only if they come after the last one sent: progress is one offset a partition.
    `dry_run` only counts. Raises `BrokerUnavailableError`, `TopicError`.
    """
    ensure_topics(settings, ("dead_letters",))
    config = settings.client_config()
    consumer = Consumer(
        {
            **config,
            "group.id": f"redrive{settings.topic_suffix}" + (f"-{reason}" if reason else ""),
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "fetch.message.max.bytes": letter_bytes(settings),
            **({"session.timeout.ms": 2000, "heartbeat.interval.ms": 300} if settings.embedded else {}),
        }
    )
    producer = Producer({**config, **producer_config(settings)})
    known = {settings.topic(name) for name in TOPICS}
    counts: Counter[str] = Counter()
    seen: set[bytes] = set()
    failures: list[str] = []
    done: dict[int, int] = {}
    ended: set[int] = set()
    began_ms = time.time_ns() // 1_000_000
    consumer.subscribe([settings.topic("dead_letters")])
    # The first wait covers joining the group.
    quiet_until = time.monotonic() + idle_s + (5 if settings.embedded else 15)
    try:
        while time.monotonic() < quiet_until:
            message = consumer.poll(0.2)
            if message is None or message.error():
                continue
            partition, position, value = message.partition(), message.key() or b"", message.value()
            letters = msgspec.json.decode(value, type=list[DeadLetter]) if value is not None else []
            if partition in ended or any(letter.dead_at_ms >= began_ms for letter in letters):
                ended.add(partition)
                continue
            quiet_until = time.monotonic() + idle_s
            done[partition] = message.offset() + 1
            if position in seen:
                continue
            seen.add(position)
            for letter in letters:
                if reason is not None and letter.reason != reason:
                    continue
                if letter.topic not in known or letter.partition < 0:
                    # A frame that an exchange sent wrong never was a message; it is kept for people.
                    counts[f"{letter.topic} {letter.reason} (not redriven: came from no topic)"] += 1
                    continue
                counts[f"{letter.topic} {letter.reason}"] += 1
                if not dry_run:
                    _send(producer, letter, position, failures)
        if not dry_run:
            if producer.flush(30) or failures:
                raise BrokerUnavailableError(f"not all letters were delivered: {failures[:3]}")
            if done:
                topic = settings.topic("dead_letters")
                offsets = [TopicPartition(topic, partition, offset) for partition, offset in done.items()]
                consumer.commit(offsets=offsets, asynchronous=False)
    finally:
        consumer.close()
    return counts


def _send(producer: Producer, letter: DeadLetter, position: bytes, failures: list[str]) -> None:
    headers: list[tuple[str, bytes]] = [(REDRIVEN_HEADER, position)]
    if letter.schema_version is not None:
        headers.append((SCHEMA_HEADER, letter.schema_version.encode()))
    while True:
        try:
            producer.produce(
                letter.topic,
                key=letter.key,
                value=letter.value,
                timestamp=letter.timestamp_ms,
                headers=headers,
                on_delivery=lambda error, _: failures.append(str(error)) if error else None,
            )
        except BufferError:
            producer.poll(1)
        else:
            producer.poll(0)
            return


def main() -> int:
    """Redrive from the command line."""
    parser = argparse.ArgumentParser(description="Send dead letters to their topics again.")
    parser.add_argument("--reason", help="only the letters with this reason")
    parser.add_argument("--dry-run", action="store_true", help="count them, send nothing")
    parser.add_argument("--env-file", type=Path, help="file with KAFKA_… settings")
    arguments = parser.parse_args()
    try:
        settings = BrokerSettings.load(env_file=arguments.env_file)
        counts = redrive(settings, reason=arguments.reason, dry_run=arguments.dry_run)
    except ServiceError as error:
        sys.stderr.write(f"redrive: {error}\n")
        return 1
    word = "found" if arguments.dry_run else "redriven"
    for name, count in sorted(counts.items()):
        sys.stdout.write(f"{count:8d}  {name}\n")
    sys.stdout.write(f"{sum(counts.values())} dead letters {word}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
