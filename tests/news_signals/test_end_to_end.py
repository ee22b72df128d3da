"""The service as a process on the embedded broker, undisturbed and killed at any point."""

import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import requests
from confluent_kafka import Producer

from services.common.broker import EmbeddedBroker
from services.common.messages import batch_headers, encode
from services.common.news import News, decode_signals
from services.common.topics import ensure_topics, producer_config
from services.demo.processes import Cluster, Service
from tests.common.forks import forked
from tests.common.support import Bus, wait_until
from tests.news_signals.support import Bench, Signals, by_name, message, news, tellings

STORIES = tellings(20, 3)
THIRD = len(STORIES) // 3
FAKE = "tests.news_signals.fake_engine"
#: Points, and at which passing of them the service dies.
KILLS = {"after_publish": 9, "after_flush": 4, "before_commit": 4}


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as running:
        yield running


def expected() -> Signals:
    bench = Bench(now_ms=time.time_ns() // 1_000_000)
    bench.take_all(STORIES)
    return bench.signals()


EXPECTED = expected()


class World:
    """The topics with one suffix, and the services that run on them."""

    def __init__(self, broker: EmbeddedBroker, folder: Path, suffix: str) -> None:
        self.bus = Bus(broker.address, suffix)
        ensure_topics(self.bus.settings, ("news", "news_signals"))
        self.cluster = Cluster(folder, self.bus.env, forked)
        config = self.bus.settings.client_config() | producer_config(self.bus.settings) | {"log_level": 0}
        self._producer = Producer(config)

    def send(self, rows: list[News], received_ms: int | None = None) -> None:
        """Send tellings of one story as one message, to the partition of the story."""
        now_ms = time.time_ns() // 1_000_000 if received_ms is None else received_ms
        sent = message(rows)
        self._producer.produce(
            self.bus.settings.topic("news"), key=sent.key, value=sent.value, headers=batch_headers(now_ms)
        )

    def send_raw(self, key: bytes, value: bytes) -> None:
        self._producer.produce(self.bus.settings.topic("news"), key=key, value=value)

    def flush(self) -> None:
        assert self._producer.flush(20) == 0

    def start(self, *command: str, **settings: str) -> Service:
        fast = {"COMMIT_INTERVAL_S": "0.02", "BATCH": "4", **settings}
        name = f"news_signals-{len(list(self.cluster._folder.glob('*.log')))}"
        return self.cluster.start("news_signals", fast, name, (FAKE, *command))

    def signals(self) -> Signals:
        """What is on the topic, each message checked as a reader would."""
        rows: list[Any] = []
        for record in self.bus.read("news_signals"):
            good, refused = decode_signals(record.key or b"", record.value or b"")
            assert refused == []
            assert record.headers["schema_version"] == b"1"
            rows += good
        return by_name(rows)

    def wait_for_all(self) -> None:
        wait_until(lambda: self.signals().keys() >= EXPECTED.keys(), "every signal")


def ended(service: Service) -> bool:
    return service.process.poll() is not None


@pytest.fixture(scope="module")
def worlds(broker: EmbeddedBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, World]]:
    """A world for each test of this file, all started at once, since most of their time is waiting."""
    names = (*KILLS, "whole", "rebalance")
    made = {name: World(broker, tmp_path_factory.mktemp(name), f"_{name}") for name in names}
    for name, world in made.items():
        for row in STORIES[:THIRD] if name == "rebalance" else STORIES:
            world.send([row])
        world.flush()
    for point, number in KILLS.items():
        # A commit after each message, and enough left to do for the one that comes after.
        made[point].start(point, str(number), COMMIT_INTERVAL_S="0.001")
    made["whole"].start(COMMIT_INTERVAL_S="0.25", BATCH="16")
    made["rebalance"].start(COMMIT_INTERVAL_S="60", BATCH="500")
    yield made
    for world in made.values():
        world.cluster.stop()


@pytest.fixture(scope="module")
def killed(worlds: dict[str, World]) -> dict[str, World]:
    """For each point the world of a service that was killed there and started again."""
    for point in KILLS:
        world = worlds[point]
        (victim,) = world.cluster.services
        wait_until(partial(ended, victim), f"the death {point}")
        assert victim.process.returncode == -signal.SIGKILL, victim.tail()
        assert world.signals().keys() < EXPECTED.keys()
        world.cluster.services.remove(victim)
        world.start()
    return worlds


def test_a_rebalance_and_a_kill_lose_no_story_that_was_pending(worlds: dict[str, World]) -> None:
    """The first replica commits rarely, so its stories are pending when their partitions are revoked."""
    world = worlds["rebalance"]
    (first,) = world.cluster.services
    world.cluster.wait_until_up()
    wait_until(lambda: first.metrics().get("stories_total") == THIRD, "the first replica's stories")
    assert world.signals() == {}
    second = world.start(STATE_DIR=str(first.log.parent / "second"))
    wait_until(world.signals, "what the first replica sends when it gives up its partitions")
    for row in STORIES[THIRD:]:
        world.send([row])
    world.flush()
    world.cluster.wait_until_up()
    wait_until(lambda: second.metrics().get("stories_total", 0) > 0, "the second replica's stories")
    first.process.kill()
    first.process.wait()
    world.cluster.services.remove(first)
    world.wait_for_all()
    assert world.signals() == EXPECTED


@pytest.mark.parametrize("point", KILLS)
def test_a_service_killed_at_a_point_leaves_the_signals_of_an_undisturbed_run(
    killed: dict[str, World], point: str
) -> None:
    world = killed[point]
    world.wait_for_all()
    (again,) = world.cluster.services
    again.process.terminate()
    assert again.process.wait(timeout=20) == 0, again.tail()
    assert world.signals() == EXPECTED


def test_stories_become_signals_and_bad_rows_dead_letters(worlds: dict[str, World]) -> None:
    world = worlds["whole"]
    (service,) = world.cluster.services
    world.wait_for_all()
    world.send([STORIES[0]])
    world.send_raw(b"story-1", b"no json")
    world.send_raw(b"story-2", encode([msgspec.to_builtins(news(2)) | {"title": ""}]))
    world.flush()

    def counted() -> bool:
        metrics = service.metrics()
        return (metrics["stories_total"], metrics["duplicate_stories_total"]) == (len(STORIES), 1)

    wait_until(counted, "all stories and the repeat")
    metrics = service.metrics()
    assert metrics['signals_total{engine="fake"}'] == len(EXPECTED)
    assert metrics['rows_out_total{destination="news_signals"}'] == len(EXPECTED)
    assert metrics["scoring_seconds_count"] >= 1
    wait_until(lambda: requests.get(f"{service.url}/health/ready", timeout=5).ok, "readiness")
    assert sorted(letter.reason for _, letter in world.bus.letters(2)) == ["bad_json", "bad_row"]
    assert world.signals() == EXPECTED
    a_lone_story_is_scored_soon_and_keeps_its_receipt(world)
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(timeout=20) == 0, service.tail()
    assert "Traceback" not in service.log.read_text()


def a_lone_story_is_scored_soon_and_keeps_its_receipt(world: World) -> None:
    before = len(world.bus.read("news_signals"))
    received_ms = time.time_ns() // 1_000_000
    world.send([news(1_000, title="Zcash Gains 4%", body="")], received_ms)
    world.flush()
    wait_until(lambda: len(world.bus.read("news_signals")) > before, "the lone story's signal")
    (record,) = (record for record in world.bus.read("news_signals") if record.key == b"ZEC")
    assert record.headers["received_at_ms"] == str(received_ms).encode()
    # The poll of the stream and the commit interval, and some more for a busy machine.
    assert record.timestamp_ms - received_ms < 3_000
