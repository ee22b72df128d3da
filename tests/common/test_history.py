"""How services learn that a series of a historical run begins and ends."""

from pathlib import Path

import pytest

from services.common.ended import EndedSeries, Position
from services.common.errors import StateError
from services.common.history import EMPTY, End, Series, begin_header, begins, end_header, ending

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


def position(partition: int, offset: int) -> Position:
    return Position("ta", partition, offset)


def ends(run: str) -> End:
    end = ending(EMPTY, [end_header(run, 2)])
    assert end is not None
    return end


def test_a_service_that_starts_again_goes_on_counting(tmp_path: Path) -> None:
    path = tmp_path / "state" / "ends.json"
    first = EndedSeries(path, "r")
    assert not first.restore(lambda _: pytest.fail("there is nothing to ask for"))
    assert not first.end(A, ends("r"), position(0, 7))
    again = EndedSeries(path, "r")
    assert not again.restore(lambda asked: dict.fromkeys(asked, 8))
    assert again.end(B, ends("r"), position(1, 3))
    # Another run does not go on where this one was.
    other = EndedSeries(path, "s")
    assert not other.restore(lambda asked: dict.fromkeys(asked, 99))
    assert not other.end(B, ends("s"), position(1, 9))


def test_what_was_committed_to_its_last_end_has_ended_before_anything_is_read(tmp_path: Path) -> None:
    first = EndedSeries(tmp_path / "ends.json", "r")
    first.end(A, ends("r"), position(0, 7))
    assert first.end(B, ends("r"), position(1, 3))
    committed = {("ta", 0): 8, ("ta", 1): 4}
    assert EndedSeries(tmp_path / "ends.json", "r").restore(lambda _: committed)


@pytest.mark.parametrize("committed", [{("ta", 0): 8, ("ta", 1): 3}, {("ta", 0): 8}, {}])
def test_an_end_that_comes_again_is_counted_when_it_comes(
    committed: dict[tuple[str, int], int], tmp_path: Path
) -> None:
    """Else a service that was killed before it committed would stop with rows of another series unread."""
    first = EndedSeries(tmp_path / "ends.json", "r")
    first.end(A, ends("r"), position(0, 7))
    first.end(B, ends("r"), position(1, 3))
    again = EndedSeries(tmp_path / "ends.json", "r")
    assert not again.restore(lambda _: committed)
    if not committed:
        assert not again.end(A, ends("r"), position(0, 7))
    assert again.end(B, ends("r"), position(1, 3))


def test_a_series_that_began_again_has_not_ended_also_after_a_restart(tmp_path: Path) -> None:
    first = EndedSeries(tmp_path / "ends.json", None)
    first.end(A, ends("r"), position(0, 7))
    first.begin(A)
    again = EndedSeries(tmp_path / "ends.json", None)
    assert not again.restore(lambda asked: dict.fromkeys(asked, 99))
    assert not again.end(B, ends("r"), position(1, 3))


@pytest.mark.parametrize("content", ["{", '{"r": ["kraken:BTC/USD"]}'])
def test_a_damaged_file_of_ended_series_is_an_error_that_says_what_to_do(
    content: str, tmp_path: Path
) -> None:
    (tmp_path / "ends.json").write_text(content)
    with pytest.raises(StateError, match="delete it and run the history again"):
        EndedSeries(tmp_path / "ends.json", None).restore(lambda _: {})


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
