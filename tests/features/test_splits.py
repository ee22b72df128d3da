"""No label of a part looks past the cut behind it: of the closes, parts share the one at the cut alone."""

import random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.common.errors import QueryError
from services.common.timeframes import next_ms
from services.features.frames import to_pandas
from services.features.splits import split_by_time
from tests.features.rows import MINUTE, T0


def training(places: list[int], horizons: tuple[int, ...] = (1,), timeframe: str = "1m") -> pa.Table:
    ends = []
    for at in places:
        end = T0
        for _ in range(at + 1):
            end = next_ms(end, timeframe)
        ends.append(end)
    labels: dict[str, Any] = {f"label_log_return_{h}": [0.0] * len(ends) for h in horizons}
    return pa.table(
        {
            "pair": ["BTC/USD"] * len(ends),
            "timeframe": [timeframe] * len(ends),
            "end_ms": pa.array(ends, pa.int64()),
            **labels,
        }
    )


def ends_of(table: pa.Table) -> list[int]:
    return [(end - T0) // MINUTE for end in table["end_ms"].to_pylist()]  # type: ignore[operator]


def test_a_frame_is_refused_with_what_to_pass_instead() -> None:
    frame: Any = to_pandas(training([*range(20)]))
    with pytest.raises(QueryError, match="takes the Arrow table that training_set returned"):
        split_by_time(frame, 0.5)


def test_rows_whose_label_reaches_over_a_cut_are_in_no_part() -> None:
    train, validation, test = split_by_time(training([*range(20)], (3, 1)), 0.5, T0 + 16 * MINUTE)
    assert ends_of(train) == [1, 2, 3, 4, 5, 6, 7, 8]
    # The row of minute 11 itself is the first of the next part.
    assert ends_of(validation) == [11, 12, 13]
    assert ends_of(test) == [16, 17, 18, 19, 20]


def test_an_embargo_leaves_out_more_before_each_cut() -> None:
    train, test = split_by_time(training([*range(20)]), "2024-01-01T00:10", embargo=4)
    assert ends_of(train) == [1, 2, 3, 4, 5]
    assert ends_of(test)[0] == 10


def test_the_close_at_a_cut_is_the_only_one_of_both_parts_and_not_with_an_embargo() -> None:
    for embargo, shared in ((0, {10}), (1, set())):
        train, test = split_by_time(training([*range(20)], (3,)), T0 + 10 * MINUTE, embargo=embargo)
        closes = [{end + of for end in ends_of(part) for of in (0, 3)} for part in (train, test)]
        assert closes[0] & closes[1] == shared


def test_several_series_are_cut_at_the_same_time() -> None:
    both = pa.concat_tables([training([*range(10)]), training([*range(5, 15)])])
    train, test = split_by_time(both, T0 + 8 * MINUTE)
    assert ends_of(train) == [*range(1, 8), 6, 7]
    assert ends_of(test) == [8, 9, 10, *range(8, 16)]


def test_months_are_counted_by_the_calendar() -> None:
    train, _ = split_by_time(training([*range(12)], (2,), "1M"), "2024-07-01")
    assert train.num_rows == 4


@pytest.mark.parametrize("embargo", [-1, 1.5, "3", None, True, 10**18, 100_001])
def test_an_embargo_that_is_no_number_of_intervals_is_refused(embargo: Any) -> None:
    with pytest.raises(QueryError, match="embargo must be from 0 to 100000 intervals"):
        split_by_time(training([*range(10)]), 0.5, embargo=embargo)


def test_where_the_calendar_ends_no_row_before_a_cut_is_far_enough_from_it() -> None:
    train, test = split_by_time(training([*range(12)], (2,), "1M"), 0.5, embargo=100_000)
    assert (train.num_rows, test.num_rows) == (0, 6)
    numpys: Any = np.int64(3)
    assert split_by_time(training([*range(12)]), 0.5, embargo=numpys)[0].num_rows == 3


@pytest.mark.parametrize(
    ("cuts", "says"),
    [((0.8, 0.5), "ascend"), ((1.5,), "share between"), ((0.5, 0.5), "ascend"), (("soon",), "is no time")],
)
def test_cuts_that_make_no_sense_are_refused(cuts: tuple[Any, ...], says: str) -> None:
    with pytest.raises(QueryError, match=says):
        split_by_time(training([*range(10)]), *cuts)


def test_a_table_without_labels_is_refused_and_an_empty_set_gives_empty_parts() -> None:
    with pytest.raises(QueryError, match="what training_set returned"):
        split_by_time(training([1]).drop_columns(["label_log_return_1"]), 0.5)
    assert [part.num_rows for part in split_by_time(training([]), 0.5, 0.8)] == [0, 0, 0]


@settings(max_examples=60, deadline=None)
@given(
    places=st.lists(st.integers(0, 60), min_size=1, max_size=40, unique=True),
    horizon=st.integers(1, 9),
    cuts=st.lists(st.integers(0, 62), min_size=1, max_size=3, unique=True),
    embargo=st.integers(0, 5),
)
def test_no_interval_of_a_label_is_in_two_parts_and_nothing_else_is_left_out(
    places: list[int], horizon: int, cuts: list[int], embargo: int
) -> None:
    random.shuffle(places)
    table = training(places, (horizon,))
    bounds = [T0 + cut * MINUTE for cut in sorted(cuts)]
    parts = split_by_time(table, *bounds, embargo=embargo)
    taken: list[set[int]] = []
    for part in parts:
        ends = ends_of(part)
        taken.append({minute for end in ends for minute in range(end + 1, end + horizon + embargo + 1)})
    for i, one in enumerate(taken):
        assert all(one.isdisjoint(other) for other in taken[i + 1 :])
    kept = {end for part in parts for end in ends_of(part)}
    for end in {place + 1 for place in places} - kept:
        assert any(end < cut < end + horizon + embargo for cut in sorted(cuts))
