"""Which tellings are repeats, and how new the others are."""

from hypothesis import given
from hypothesis import strategies as st

from services.news_signals.novelty import FLOOR, KEPT, dump_tellings, load_tellings

times = st.lists(st.integers(0, 4_102_444_800_000), max_size=40)


def admit_all(stored: bytes | None, observed: list[int]) -> tuple[bytes, list[float | None]]:
    tellings = load_tellings(stored)
    novelties = [tellings.admit(time_ms) for time_ms in observed]
    return dump_tellings(tellings), novelties


def test_each_further_telling_is_worth_three_quarters_of_the_one_before() -> None:
    _, novelties = admit_all(None, [100, 200, 300, 400])
    assert novelties == [1.0, 0.75, 0.75**2, 0.75**3]


def test_a_telling_that_was_delivered_before_is_ignored() -> None:
    _, novelties = admit_all(None, [100, 200, 100, 200, 300])
    assert novelties == [1.0, 0.75, None, None, 0.75**2]


def test_a_telling_observed_earlier_that_comes_later_is_the_next_one() -> None:
    _, novelties = admit_all(None, [300, 100])
    assert novelties == [1.0, 0.75]


@given(times, st.integers(0, 40))
def test_a_restart_between_any_two_tellings_changes_nothing(observed: list[int], at: int) -> None:
    whole = admit_all(None, observed)
    stored, first = admit_all(None, observed[:at])
    stored, second = admit_all(stored, observed[at:])
    assert (stored, first + second) == whole


@given(times)
def test_the_novelties_of_a_story_follow_from_their_number_alone(observed: list[int]) -> None:
    _, novelties = admit_all(None, observed)
    assert [n for n in novelties if n is not None] == [0.75**k for k in range(len(set(observed)))]


@given(times)
def test_delivering_everything_again_admits_nothing(observed: list[int]) -> None:
    stored, _ = admit_all(None, observed)
    again, novelties = admit_all(stored, observed)
    assert again == stored
    assert novelties == [None] * len(observed)


def test_the_state_stays_small_and_still_knows_the_last_tellings_however_many_there_are() -> None:
    observed = list(range(1_000_000_000_000, 1_000_000_000_000 + 5_000))
    stored, novelties = admit_all(None, observed)
    assert len(stored) < 10 * KEPT + 20
    assert novelties[-1] == FLOOR > 0
    again, repeats = admit_all(stored, observed)
    assert again == stored
    assert set(repeats) == {None}
    assert admit_all(stored, [observed[-1] + 1])[1] == [FLOOR]


def test_a_telling_before_fifty_others_is_a_repeat_when_it_comes_again() -> None:
    stored, novelties = admit_all(None, [*range(1_000, 1_000 + KEPT), 1])
    assert novelties[-1] is not None
    assert admit_all(stored, [1])[1] == [None]
