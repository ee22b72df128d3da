"""A feed's date is a moment in time, in whatever way the feed writes it."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.news.dates import date_ms

TEN = datetime(2025, 1, 6, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "hours_before_ten"),
    [
        ("Mon, 06 Jan 2025 10:00:00 GMT", 0),
        ("Mon, 06 Jan 2025 10:00:00 +0000", 0),
        ("Mon, 06 Jan 2025 10:00:00", 0),
        ("Mon, 6 Jan 25 10:00 UT", 0),
        ("Mon, 06 Jan 2025 10:00:00 -0500", -5),
        ("Mon, 06 Jan 2025 10:00:00 EST", -5),
        ("Mon, 06 Jan 2025 10:00:00 BST", 1),
        ("Mon, 06 Jan 2025 10:00:00 CET", 1),
        ("Mon, 06 Jan 2025 10:00:00 IST", 5.5),
        ("Mon, 06 Jan 2025 10:00:00 AEST", 10),
        ("Mon, 06 Jan 2025 10:00:00 GMT+2", 2),
        ("2025-01-06T10:00:00Z", 0),
        ("2025-01-06T10:00:00+05:30", 5.5),
        ("2025-01-06 10:00:00 UTC", 0),
        ("2025-01-06 10:00:00", 0),
        ("Jan 6, 2025 10:00 AM", 0),
        ("January 6, 2025 10:00 AM", 0),
        ("1736157600", 0),
        ("1736157600000", 0),
    ],
)
def test_a_date_is_read_with_its_zone_and_without_one_as_utc(text: str, hours_before_ten: float) -> None:
    assert date_ms(text) == TEN.timestamp() * 1_000 - hours_before_ten * 3_600_000


@pytest.mark.parametrize("text", ["", "yesterday", "10:00", "Mon, 06 Jan 2025 10:00:00 XYZ", "99999999999"])
def test_what_is_no_date_or_of_an_unknown_zone_is_none(text: str) -> None:
    assert date_ms(text) is None


@given(st.integers(0, 4_102_444_800), st.integers(-12 * 60, 14 * 60))
def test_any_moment_in_any_zone_is_read_back(second: int, minutes: int) -> None:
    moment = datetime.fromtimestamp(second, UTC).replace(tzinfo=None)
    sign = "-" if minutes < 0 else "+"
    hours, rest = divmod(abs(minutes), 60)
    expected = second * 1_000 - minutes * 60_000
    assert date_ms(f"{moment:%a, %d %b %Y %H:%M:%S} {sign}{hours:02}{rest:02}") == expected
    assert date_ms(f"{moment.isoformat()}{sign}{hours:02}:{rest:02}") == expected


@given(st.text(max_size=40) | st.from_regex(r"[0-9:TZ+ ,A-Za-z-]{0,30}", fullmatch=True))
def test_any_text_is_a_date_or_none(text: str) -> None:
    assert date_ms(text) is None or isinstance(date_ms(text), int)
