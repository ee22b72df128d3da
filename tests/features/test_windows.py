"""Windows over signals: against plain sums over all of them, at the edges, and from anywhere to anywhere."""

from math import sqrt
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.features.groups import SENTIMENT
from services.features.windows import (
    LONGEST_MS,
    WINDOWS_MS,
    Observed,
    change_points,
    expected_until_ms,
    merged,
    sentiment_rows,
)
from tests.features.rows import MINUTE, T0

HOUR = 60 * MINUTE
EMPTY = (0, None, None, None, None, None)


def plain_cell(signals: list[Observed], at_ms: int, length_ms: int) -> tuple[Any, ...]:
    """A window's columns by the definitions, summed anew in floating point."""
    inside = [s for s in signals if at_ms - length_ms < s.observed_at_ms <= at_ms]
    weights = [s.relevance * s.novelty for s in inside]
    total = sum(weights)
    if not total:
        return (len(inside), *(None,) * 5)
    pairs = list(zip(inside, weights, strict=True))
    mean = sum(w * s.score for s, w in pairs) / total
    fading = [w * 0.5 ** ((at_ms - s.observed_at_ms) / (length_ms / 4)) for s, w in pairs]
    return (
        len(inside),
        mean,
        sum(w for s, w in pairs if s.signal == 1) / total,
        sum(w for s, w in pairs if s.signal == -1) / total,
        sqrt(sum(w * (s.score - mean) ** 2 for s, w in pairs) / total),
        sum(f * s.score for s, f in zip(inside, fading, strict=True)) / sum(fading),
    )


def by_name(row: tuple[Any, ...]) -> dict[str, Any]:
    return dict(zip((column.name for column in SENTIMENT.columns), row, strict=True))


def observed() -> st.SearchStrategy[list[Observed]]:
    """Signals over two days, many at the same time or a window's length apart."""
    lengths = st.sampled_from([0, *WINDOWS_MS.values()])
    times = st.builds(
        lambda base, step, length: T0 + base * 7 * HOUR + step * MINUTE + length,
        *(st.integers(0, 6), st.integers(0, 40), lengths),
    )
    signals = st.builds(
        Observed,
        times,
        st.sampled_from("abcd"),
        st.floats(-1, 1),
        st.just(0.0) | st.floats(0.001, 1),
        st.sampled_from([1.0, 0.75, 0.5625]),
        st.sampled_from([-1, 0, 1]),
    )
    return st.lists(signals, min_size=1, max_size=25, unique_by=lambda s: s[:2]).map(sorted)


@settings(max_examples=150, deadline=None)
@given(signals=observed())
def test_rows_equal_plain_sums_over_the_signals_inside(signals: list[Observed]) -> None:
    rows = sentiment_rows("BTC", signals, signals[0].observed_at_ms, signals[-1].observed_at_ms + LONGEST_MS)
    for row in rows:
        time: Any = row[1]
        for place, length in enumerate(WINDOWS_MS.values()):
            cell = row[3 + 6 * place : 9 + 6 * place]
            expected = plain_cell(signals, time, length)
            assert cell[0] == expected[0]
            assert cell[1:] == pytest.approx(expected[1:], abs=1e-9)
        assert row[2] == max(s.observed_at_ms for s in signals if s.observed_at_ms <= time)


@settings(max_examples=100, deadline=None)
@given(signals=observed(), data=st.data())
def test_between_two_change_points_nothing_changes(signals: list[Observed], data: Any) -> None:
    last = signals[-1].observed_at_ms + LONGEST_MS
    rows = sentiment_rows("BTC", signals, signals[0].observed_at_ms, last)
    time = data.draw(st.integers(signals[0].observed_at_ms, last))
    held = [row for row in rows if row[1] <= time][-1]
    for place, length in enumerate(WINDOWS_MS.values()):
        cell = held[3 + 6 * place : 9 + 6 * place]
        assert cell == pytest.approx(plain_cell(signals, time, length), abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(signals=observed(), data=st.data())
def test_a_row_is_the_same_to_the_bit_wherever_the_computation_begins(
    signals: list[Observed], data: Any
) -> None:
    begin, end = signals[0].observed_at_ms, signals[-1].observed_at_ms + LONGEST_MS
    whole = sentiment_rows("BTC", signals, begin, end)
    first, last = sorted((data.draw(st.integers(begin, end)), data.draw(st.integers(begin, end))))
    seen = [s for s in signals if first - LONGEST_MS <= s.observed_at_ms <= last]
    part = sentiment_rows("BTC", seen, first, last)
    assert part == [row for row in whole if first <= row[1] <= last]


def test_one_signal_makes_five_rows() -> None:
    rows = sentiment_rows("BTC", [Observed(T0, "a", -0.5, 0.5, 1.0, -1)], T0, T0 + LONGEST_MS)
    inside = (1, -0.5, 0.0, 1.0, 0.0, -0.5)
    assert rows == [
        ("BTC", T0, T0, *inside, *inside, *inside, *inside),
        ("BTC", T0 + 15 * MINUTE, T0, *EMPTY, *inside, *inside, *inside),
        ("BTC", T0 + HOUR, T0, *EMPTY, *EMPTY, *inside, *inside),
        ("BTC", T0 + 4 * HOUR, T0, *EMPTY, *EMPTY, *EMPTY, *inside),
        ("BTC", T0 + 24 * HOUR, T0, *EMPTY, *EMPTY, *EMPTY, *EMPTY),
    ]


def test_a_signal_is_inside_from_its_time_until_just_before_it_is_a_window_old() -> None:
    signals = [Observed(T0, "a", 1.0, 1.0, 1.0, 1), Observed(T0 + 15 * MINUTE, "b", -1.0, 1.0, 1.0, -1)]
    first, second, *_ = (by_name(row) for row in sentiment_rows("BTC", signals, T0, T0 + 20 * MINUTE))
    assert first["news_count_15m"] == 1
    assert second["as_of_ms"] == T0 + 15 * MINUTE
    assert (second["news_count_15m"], second["sentiment_mean_15m"]) == (1, -1.0)
    assert (second["news_count_1h"], second["sentiment_mean_1h"]) == (2, 0.0)


def test_signals_of_one_time_share_a_row() -> None:
    signals = [Observed(T0, name, score, 1.0, 1.0, 0) for name, score in (("a", 0.2), ("b", 0.4))]
    rows = sentiment_rows("BTC", signals, T0, T0 + LONGEST_MS)
    assert len(rows) == 5
    assert by_name(rows[0])["sentiment_mean_15m"] == pytest.approx(0.3)
    assert by_name(rows[0])["sentiment_dispersion_15m"] == pytest.approx(0.1)


def test_weight_is_relevance_times_novelty() -> None:
    signals = [Observed(T0, "a", 1.0, 0.5, 0.5, 1), Observed(T0, "b", -1.0, 0.75, 1.0, -1)]
    row = by_name(sentiment_rows("BTC", signals, T0, T0)[0])
    assert row["sentiment_mean_1h"] == -0.5
    assert (row["sentiment_positive_1h"], row["sentiment_negative_1h"]) == (0.25, 0.75)


def test_what_is_half_a_half_life_newer_counts_more() -> None:
    signals = [Observed(T0, "a", -1.0, 1.0, 1.0, -1), Observed(T0 + 15 * MINUTE, "b", 1.0, 1.0, 1.0, 1)]
    row = by_name(sentiment_rows("BTC", signals, T0, T0 + 15 * MINUTE)[-1])
    # In the window of an hour weights halve in 15 minutes.
    assert row["sentiment_ewma_1h"] == pytest.approx((1 - 0.5) / 1.5)
    assert row["sentiment_mean_1h"] == 0


def test_signals_without_weight_count_and_have_no_mean() -> None:
    row = by_name(sentiment_rows("BTC", [Observed(T0, "a", 1.0, 0.0, 1.0, 1)], T0, T0)[0])
    assert row["news_count_24h"] == 1
    assert row["sentiment_mean_24h"] is None


def test_change_points_are_entries_and_exits_in_range_each_once() -> None:
    signals = [Observed(T0, "a", 0, 1, 1, 0), Observed(T0 + 45 * MINUTE, "b", 0, 1, 1, 0)]
    # At an hour one leaves the window of an hour and the other that of 15 minutes.
    assert change_points(signals, T0, T0 + HOUR) == [T0, T0 + 15 * MINUTE, T0 + 45 * MINUTE, T0 + HOUR]


def test_the_smallest_window_with_news_says_when_a_row_must_be_followed() -> None:
    assert expected_until_ms(T0, (2, 5, 9, 9)) == T0 + 15 * MINUTE
    assert expected_until_ms(T0, (0, 0, 1, 9)) == T0 + 4 * HOUR
    assert expected_until_ms(T0, (0, 0, 0, 0)) is None


def test_ranges_that_touch_are_merged() -> None:
    assert list(merged([(5, 6), (1, 2), (3, 4), (8, 9), (1, 1)])) == [(1, 6), (8, 9)]
    assert list(merged([])) == []
