"""What is counted and remembered on disk, over any order of days, restarts and crashes."""

import os
import signal
import sys
from collections import OrderedDict
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.news_signals.llm.budget import Budget, CapReachedError, Caps, Charge
from services.news_signals.llm.cache import Cache
from tests.news_signals.llm.support import NOON_S, temporary_folder

CAPS = Caps(10_000, usd=0.02, input_usd=1.0, output_usd=4.0)
ANSWER = {"BTC": (0.1, 0.2, 0.7)}


class Time:
    now_s = NOON_S

    def __call__(self) -> float:
        return self.now_s


def day_of(now_s: float) -> str:
    return datetime.fromtimestamp(now_s, UTC).date().isoformat()


requests = st.tuples(st.integers(1, 6_000), st.integers(1, 3_000), st.floats(0, 1), st.booleans())
steps = st.lists(requests | st.sampled_from(["restart"]) | st.floats(-40_000, 90_000), max_size=25)


@settings(max_examples=40, deadline=None)
@given(steps)
def test_no_order_of_days_restarts_and_crashes_exceeds_a_cap(done: list[object]) -> None:
    time = Time()
    spent: dict[str, tuple[int, int]] = {}
    with temporary_folder() as folder:
        path = Path(folder) / "budget.sqlite"
        budget = Budget(path, CAPS, time)
        for step in done:
            if isinstance(step, float):
                time.now_s += step
            elif step == "restart":
                budget.close()
                budget = Budget(path, CAPS, time)
            elif isinstance(step, tuple):
                most_in, most_out, share, dies = step
                day = day_of(time.now_s)
                tokens, nano_usd = spent.get(day, (0, 0))
                price = CAPS.nano_usd(most_in, most_out)
                fits = tokens + most_in + most_out <= CAPS.tokens and nano_usd + price <= 2e7
                if not fits:
                    with pytest.raises(CapReachedError) as refused:
                        budget.charge(most_in, most_out)
                    assert 0 < refused.value.until.timestamp() - time.now_s <= 86_400
                    continue
                charge = budget.charge(most_in, most_out)
                if dies:
                    # What was in flight when the process died stays charged in full.
                    took_in, took_out = most_in, most_out
                    budget.close()
                    budget = Budget(path, CAPS, time)
                else:
                    took_in, took_out = int(most_in * share), int(most_out * share)
                    time.now_s += 30
                    budget.settle(charge, took_in, took_out)
                spent[day] = (tokens + took_in + took_out, nano_usd + CAPS.nano_usd(took_in, took_out))
        for day, total in spent.items():
            assert budget.spent(day) == total
            assert total[0] <= CAPS.tokens
            assert total[1] <= 2e7
        budget.close()


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 6), st.floats(1, 3), st.integers(1, 10))
def test_a_provider_that_counts_more_than_the_bound_exceeds_a_cap_by_what_is_in_flight_only(
    at_once: int, factor: float, rounds: int
) -> None:
    bound, took = 1_000, int(1_000 * factor)
    with temporary_folder() as folder:
        budget = Budget(Path(folder) / "budget.sqlite", Caps(4_000), Time())
        for _ in range(rounds):
            flight: list[Charge] = []
            with suppress(CapReachedError):
                while len(flight) < at_once:
                    flight.append(budget.charge(bound, 0))
            for charge in flight:
                budget.settle(charge, took, 0)
        tokens, _ = budget.spent("2026-07-07")
        assert tokens <= 4_000 + at_once * (took - bound)
        budget.close()


def test_two_processes_share_a_budget(tmp_path: Path) -> None:
    first, second = (Budget(tmp_path / "b.sqlite", Caps(10), Time()) for _ in range(2))
    first.charge(6, 0)
    with pytest.raises(CapReachedError, match="6 of 10 tokens of the day"):
        second.charge(5, 0)
    second.charge(4, 0)
    first.close()
    second.close()


def test_a_day_begins_at_midnight_utc(tmp_path: Path) -> None:
    time = Time()
    budget = Budget(tmp_path / "b.sqlite", Caps(10), time)
    midnight_s = NOON_S + 43_200
    time.now_s = midnight_s - 0.001
    charge = budget.charge(10, 0)
    with pytest.raises(CapReachedError) as caught:
        budget.charge(1, 0)
    assert caught.value.until.timestamp() == midnight_s
    time.now_s = midnight_s
    budget.charge(10, 0)
    # An answer that comes after midnight belongs to the day on which it was asked for.
    budget.settle(charge, 3, 0)
    assert (budget.spent("2026-07-07"), budget.spent("2026-07-08")) == ((3, 0), (10, 0))
    budget.close()


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.lists(st.integers(0, 12), min_size=1, max_size=5) | st.sampled_from(["restart", "wait"]),
        max_size=25,
    ),
    st.integers(1, 8),
)
def test_the_cache_gives_back_the_newest_answers_that_are_young_enough(
    done: list[object], max_rows: int
) -> None:
    time = Time()
    kept: OrderedDict[int, tuple[float, float]] = OrderedDict()
    with temporary_folder() as folder:
        path = Path(folder) / "cache.sqlite"
        cache = Cache(path, max_rows, 100, time)
        for number, step in enumerate(done):
            if step == "wait":
                time.now_s += 40
            elif step == "restart":
                cache.close()
                cache = Cache(path, max_rows, 100, time)
            elif isinstance(step, list):
                kept = OrderedDict((k, v) for k, v in kept.items() if v[0] > time.now_s - 100)
                cache.put({bytes([key]): {"BTC": (number / 100, 0.0, 1.0)} for key in step})
                for key in dict.fromkeys(step):
                    kept.setdefault(key, (time.now_s, number / 100))
                while len(kept) > max_rows:
                    kept.popitem(last=False)
                assert len(cache) <= max_rows
            young = {k: v[1] for k, v in kept.items() if v[0] > time.now_s - 100}
            found = cache.get(bytes([key]) for key in range(13))
            assert {key[0]: answer["BTC"][0] for key, answer in found.items()} == young
        cache.close()


def test_an_answer_is_kept_exactly(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "c.sqlite", 10, 100, Time())
    answer = {"BTC": (1 / 3, 0.1 + 0.2, 1e-17), "": (0.0, 1.0, 0.0)}
    cache.put({b"k": answer})
    assert cache.get([b"k"]) == {b"k": answer}
    cache.close()


VICTIM = """
import os, signal, sys
from pathlib import Path
from services.news_signals.llm.budget import Budget, Caps
from services.news_signals.llm.cache import Cache
folder, clock = Path(sys.argv[1]), lambda: 1783425600.0
cache, budget = Cache(folder / "c.sqlite", 100, 1e6, clock), Budget(folder / "b.sqlite", Caps(10_000), clock)
cache.put({b"kept": {"BTC": (0.1, 0.2, 0.7)}})
budget.settle(budget.charge(1_000, 0), 10, 0)
budget.charge(500, 0)
cache._connection.execute("BEGIN IMMEDIATE")
cache._connection.execute("INSERT INTO answers VALUES (x'00', 1783425600, '{}')")
cache._connection.execute("PRAGMA cache_spill = 1")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_kill_9_loses_no_answer_and_no_charge(tmp_path: Path) -> None:
    status = os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", VICTIM, str(tmp_path)])
    assert status == -signal.SIGKILL
    cache, budget = (
        Cache(tmp_path / "c.sqlite", 100, 1e6, Time()),
        Budget(tmp_path / "b.sqlite", CAPS, Time()),
    )
    assert cache.get([b"kept", b"\x00"]) == {b"kept": ANSWER}
    assert budget.spent("2026-07-07")[0] == 510
    cache.close()
    budget.close()
