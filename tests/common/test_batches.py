"""Batches that are larger than a message may be."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.batches import split_batch

VALUES = st.lists(st.text(max_size=12) | st.integers() | st.lists(st.booleans(), max_size=5), max_size=30)


@given(rows=VALUES, max_bytes=st.integers(20, 200))
def test_the_parts_hold_the_rows_in_order_and_are_as_large_as_they_may_be(
    rows: list[object], max_bytes: int
) -> None:
    parts = split_batch(msgspec.json.encode(rows), max_bytes)
    decoded = [msgspec.json.decode(part) for part in parts]
    assert [row for part in decoded for row in part] == rows
    for part, held in zip(parts, decoded, strict=True):
        assert len(part) <= max_bytes or len(held) == 1
    for part, following in zip(parts, decoded[1:], strict=False):
        # The next row would not have fitted.
        assert len(part) + 1 + len(msgspec.json.encode(following[0])) > max_bytes


def test_a_batch_that_fits_is_left_as_it_is() -> None:
    assert split_batch(b"[]", 2) == [b"[]"]
    assert split_batch(b"[ 1, 2 ]", 8) == [b"[ 1, 2 ]"]


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_row_that_is_too_large_is_alone(at: int) -> None:
    rows = ["a", "b"]
    rows.insert(at, "x" * 50)
    parts = [msgspec.json.decode(part) for part in split_batch(msgspec.json.encode(rows), 20)]
    assert ["x" * 50] in parts
    assert [row for part in parts for row in part] == rows
