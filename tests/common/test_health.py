"""Live and ready, told from librdkafka's statistics and a clock that the test moves."""

import json
from typing import Any

import pytest

from services.common.health import LOOP_DEAD_AFTER_S, PARTITION_STUCK_AFTER_S, Health, read_statistics


class World:
    """A service as librdkafka sees it; the keys and values are those of librdkafka 2.12."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.health = Health(stale_after_s=120, clock=lambda: self.now)

    def report(
        self, partitions: dict[int, dict[str, Any]] | None = None, brokers: tuple[str, ...] = ("UP", "UP")
    ) -> dict[tuple[str, int], int]:
        """One statistics message; returns the lags."""
        mine = [p for p in (partitions or {}).values() if p["fetch_state"] == "active"]
        unassigned = partition(fetch_state="none", app_offset=-1001, lag=-1, lag_stored=-1)
        text = {
            "type": "consumer",
            "brokers": {str(i): {"nodeid": i, "state": state} for i, state in enumerate(brokers)},
            "topics": {
                "trades": {
                    "topic": "trades",
                    "partitions": {
                        str(name): at for name, at in {**(partitions or {}), -1: unassigned}.items()
                    },
                }
            }
            if partitions
            else {},
            "cgrp": {"state": "up", "join_state": "steady", "assignment_size": len(mine)},
        }
        return read_statistics(json.dumps(text), self.health)

    def later(self, seconds: float, partitions: dict[int, dict[str, Any]]) -> None:
        """Time goes on, with statistics every two seconds."""
        until = self.now + seconds
        while self.now < until:
            self.now = min(until, self.now + 2)
            self.report(partitions)


def partition(
    app_offset: int, lag_stored: int, lag: int | None = None, fetch_state: str = "active"
) -> dict[str, Any]:
    return {
        "fetch_state": fetch_state,
        "desired": fetch_state == "active",
        "app_offset": app_offset,
        "stored_offset": app_offset,
        "committed_offset": -1001,
        "hi_offset": app_offset + max(0, lag_stored),
        "consumer_lag": lag_stored if lag is None else lag,
        "consumer_lag_stored": lag_stored,
    }


@pytest.fixture
def world() -> World:
    return World()


def test_before_the_first_assignment_it_is_live_and_says_what_it_waits_for(world: World) -> None:
    assert world.report() == {}
    assert world.health.not_live() == []
    assert world.health.not_ready() == [
        "partitions: none assigned (starting, or a spare replica)",
        "no input yet",
    ]


def test_with_partitions_and_input_it_is_ready(world: World) -> None:
    world.health.input_arrived()
    lags = world.report({0: partition(5, 0, lag=-1), 1: partition(7, 3)})
    assert lags == {("trades", 0): 0, ("trades", 1): 3}
    assert world.health.not_ready() == []


def test_the_lag_of_a_partition_that_was_never_read_is_that_of_the_commit(world: World) -> None:
    assert world.report({0: partition(-1001, -1, lag=9)}) == {("trades", 0): 9}


def test_a_partition_that_stands_still_with_messages_waiting_is_not_live(world: World) -> None:
    stuck = {0: partition(5, 40), 1: partition(7, 0)}
    world.report(stuck)
    world.later(PARTITION_STUCK_AFTER_S, stuck)
    assert world.health.not_live() == []
    world.later(2, stuck)
    assert world.health.not_live() == ["trades[0] has 40 messages waiting and stands still for 62 s"]
    assert world.health.not_live()[0] in world.health.not_ready()
    world.report({0: partition(6, 39), 1: partition(7, 0)})
    assert world.health.not_live() == []


def test_a_partition_that_lags_but_moves_is_live(world: World) -> None:
    for position in range(100):
        world.later(2, {0: partition(position, 1_000_000)})
    assert world.health.not_live() == []


def test_a_quiet_market_is_live_but_not_ready_once_its_input_is_stale(world: World) -> None:
    world.health.input_arrived()
    quiet = {0: partition(5, 0)}
    world.later(120, quiet)
    assert world.health.not_ready() == []
    world.later(1, quiet)
    assert world.health.not_ready() == ["no input for 121 s"]
    world.later(24 * 3600, quiet)
    assert world.health.not_live() == []
    world.health.input_arrived()
    assert world.health.not_ready() == []


def test_messages_that_come_after_a_quiet_hour_do_not_count_as_stuck_since_then(world: World) -> None:
    world.later(3600, {0: partition(5, 0)})
    world.report({0: partition(5, 2)})
    assert world.health.not_live() == []


def test_a_partition_that_another_replica_took_is_not_ours_to_move(world: World) -> None:
    world.report({0: partition(5, 40), 1: partition(7, 0)})
    revoked = {0: partition(-1001, -1, lag=40, fetch_state="stopped"), 1: partition(7, 0)}
    assert world.report(revoked) == {("trades", 1): 0}
    world.later(3 * PARTITION_STUCK_AFTER_S, revoked)
    assert world.health.not_live() == []


def test_a_spare_replica_is_live_and_not_ready(world: World) -> None:
    world.health.input_arrived()
    world.report({0: partition(-1001, -1, lag=0, fetch_state="stopped")})
    assert world.health.not_live() == []
    assert world.health.not_ready() == ["partitions: none assigned (starting, or a spare replica)"]


def test_a_broker_that_is_gone_is_told_before_the_session_times_out(world: World) -> None:
    world.health.input_arrived()
    world.report({0: partition(5, 0)}, brokers=("INIT", "TRY_CONNECT"))
    assert world.health.not_ready() == ["broker: cannot be reached"]
    assert world.health.not_live() == []
    world.report({0: partition(5, 0)}, brokers=("TRY_CONNECT", "UP"))
    assert world.health.not_ready() == []


def test_a_main_loop_that_hangs_is_not_live(world: World) -> None:
    world.report({0: partition(5, 0)})
    world.now += LOOP_DEAD_AFTER_S
    assert world.health.not_live() == []
    world.now += 1
    assert world.health.not_live() == ["the main loop has not run for 31 s"]


def test_an_unmet_condition_gives_its_reason(world: World) -> None:
    world.health.input_arrived()
    world.health.require("store", "disk full")
    assert world.health.not_ready() == ["store: disk full"]
    world.health.require("store", None)
    assert world.health.not_ready() == []
