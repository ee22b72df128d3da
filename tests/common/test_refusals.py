"""Every refusal is counted; a flood of them does not drown the log."""

from collections.abc import Iterator

import pytest
from loguru import logger
from prometheus_client import CollectorRegistry, Counter

from services.common.errors import ContractError
from services.common.refusals import LINES, WINDOW_S, Refusals


@pytest.fixture
def lines() -> Iterator[list[str]]:
    found: list[str] = []
    sink = logger.add(lambda message: found.append(message.record["message"]), level="WARNING")
    yield found
    logger.remove(sink)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def refusals(clock: Clock) -> tuple[Refusals, Counter]:
    counter = Counter("dead_letters", "", ["reason"], registry=CollectorRegistry())
    return Refusals(counter, clock), counter


def test_a_few_are_logged_one_by_one_with_where_and_why(lines: list[str]) -> None:
    noted, counter = refusals(Clock())
    noted.note("trades[0]@7", ContractError("late", "400 s behind"))
    noted.note("trades[1]@3", ContractError("decode", "no JSON"))
    assert lines == [
        "dead letter trades[0]@7: late: 400 s behind",
        "dead letter trades[1]@3: decode: no JSON",
    ]
    assert counter.labels("late")._value.get() == 1


def test_of_a_flood_the_log_has_the_first_ones_and_how_many_there_were(lines: list[str]) -> None:
    clock = Clock()
    noted, counter = refusals(clock)
    for at in range(5_000):
        noted.note(f"trades[0]@{at}", ContractError("late", "400 s behind"))
    assert len(lines) == LINES + 1
    assert "many dead letters for late" in lines[-1]
    clock.now += WINDOW_S
    noted.note("trades[0]@5000", ContractError("late", "3 s behind"))
    assert lines[LINES + 1 :] == [
        f"{5_000 - LINES} more dead letters like that in {WINDOW_S:.0f} s: late",
        "dead letter trades[0]@5000: late: 3 s behind",
    ]
    assert counter.labels("late")._value.get() == 5_001


def test_a_flood_of_one_reason_hides_no_other(lines: list[str]) -> None:
    noted, _ = refusals(Clock())
    for _ in range(100):
        noted.note("a", ContractError("late", ""))
    noted.note("b", ContractError("decode", "no JSON"))
    assert lines[-1] == "dead letter b: decode: no JSON"


def test_ten_in_every_ten_seconds_are_all_logged(lines: list[str]) -> None:
    clock = Clock()
    noted, _ = refusals(clock)
    for _ in range(5):
        for _ in range(LINES):
            noted.note("a", ContractError("late", "x"))
        clock.now += WINDOW_S
    assert len(lines) == 5 * LINES
