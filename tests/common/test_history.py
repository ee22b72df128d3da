"""How services learn that a series of a historical run begins and ends."""

from pathlib import Path

import pytest

from services.common.ended import EndedSeries
from services.common.errors import StateError
from services.common.history import EMPTY, Series, begin_header, begins, end_header, ending

A, B = b"kraken:BTC/USD", b"kraken:ETH/USD"


def test_an_empty_message_says_that_a_series_begins_or_ends() -> None:
    assert begins(EMPTY, [begin_header()])
    assert ending(EMPTY, [end_header("r", 2)]) == ("r", 2)
    assert ending(EMPTY, [begin_header()]) is None
    assert not begins(EMPTY, [end_header("r", 2)])


def test_rows_that_inherited_the_header_say_nothing() -> None:
    assert not begins(b"[{}]", [begin_header()])
    assert ending(b"[{}]", [end_header("r", 2)]) is None


@pytest.mark.parametrize("text", ["", "end", "end r", "end r x", "end r -1", "end r 1 2", "other"])
def test_any_other_header_says_nothing(text: str) -> None:
    assert ending(EMPTY, [("history", text.encode())]) is None
    assert not begins(EMPTY, [("history", text.encode())])


def test_a_run_has_ended_when_all_its_series_have() -> None:
    series = Series()
    (_, value) = end_header("r", 2)
    end = ending(EMPTY, [("history", value)])
    assert end is not None
    assert not series.end(A, end)
    assert not series.end(A, end)
    assert series.end(B, end)


def test_only_the_end_of_the_named_run_counts() -> None:
    series = Series("mine")
    mine, other = (ending(EMPTY, [end_header(run, 1)]) for run in ("mine", "other"))
    assert mine is not None
    assert other is not None
    assert not series.end(A, other)
    assert series.end(A, mine)
    assert series.dump() == {"mine": [A.decode()]}


def test_a_service_that_starts_again_goes_on_counting(tmp_path: Path) -> None:
    end = ending(EMPTY, [end_header("r", 2)])
    assert end is not None
    path = tmp_path / "state" / "ended.json"
    assert not EndedSeries(path, "r").end(A, end)
    again = EndedSeries(path, "r")
    assert again.end(B, end)
    # Another run does not go on where this one was.
    other = ending(EMPTY, [end_header("s", 2)])
    assert other is not None
    assert not EndedSeries(path, "s").end(B, other)


def test_a_damaged_file_of_ended_series_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "ended.json").write_text("{")
    with pytest.raises(StateError, match="delete it and run the history again"):
        EndedSeries(tmp_path / "ended.json", None)


def test_an_end_that_was_left_over_does_not_count_once_the_series_begins_again() -> None:
    series = Series()
    end = ending(EMPTY, [end_header("r", 2)])
    other = ending(EMPTY, [end_header("other", 2)])
    assert end is not None
    assert other is not None
    assert not series.end(A, end)
    series.begin(A)
    assert not series.end(B, end)
    assert not series.end(A, other)
    assert series.end(A, end)
