"""Intervals are aligned to the UTC calendar and tile time without holes."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from services.common.timeframes import PARENT_OF, TIMEFRAMES, floor_ms, is_aligned, later_ms, next_ms

times = st.integers(0, 4_102_444_800_000)
names = st.sampled_from(TIMEFRAMES)


@given(times, names)
def test_every_time_lies_in_its_interval(time_ms: int, timeframe: str) -> None:
    start_ms = floor_ms(time_ms, timeframe)
    assert start_ms <= time_ms < next_ms(start_ms, timeframe) or start_ms < 0
    assert is_aligned(start_ms, next_ms(start_ms, timeframe), timeframe) or start_ms < 0


@given(times, st.sampled_from(sorted(PARENT_OF)))
def test_a_timeframe_begins_where_one_of_its_parents_begins(time_ms: int, timeframe: str) -> None:
    start_ms = floor_ms(time_ms, timeframe)
    if start_ms >= 0:
        assert floor_ms(start_ms, PARENT_OF[timeframe]) == start_ms


def test_weeks_begin_on_monday_and_months_on_the_first() -> None:
    time_ms = int(datetime(2024, 2, 29, 13, 37, tzinfo=UTC).timestamp() * 1000)
    week = datetime.fromtimestamp(floor_ms(time_ms, "1w") / 1000, UTC)
    month = datetime.fromtimestamp(floor_ms(time_ms, "1M") / 1000, UTC)
    after = datetime.fromtimestamp(next_ms(floor_ms(time_ms, "1M"), "1M") / 1000, UTC)
    assert (week.date().isoformat(), week.weekday()) == ("2024-02-26", 0)
    assert (month.date().isoformat(), after.date().isoformat()) == ("2024-02-01", "2024-03-01")


@given(times, names, st.integers(0, 40))
def test_intervals_later_is_as_many_times_the_next_one(time_ms: int, timeframe: str, places: int) -> None:
    start_ms = expected = floor_ms(time_ms, timeframe)
    for _ in range(places):
        expected = next_ms(expected, timeframe)
    assert later_ms(start_ms, timeframe, places) == expected


def test_there_is_no_month_after_the_year_9999() -> None:
    last = int(datetime(9999, 12, 1, tzinfo=UTC).timestamp() * 1000)
    assert later_ms(0, "1M", 8_030 * 12 - 1) == last
    assert later_ms(last, "1M", 1) is None
