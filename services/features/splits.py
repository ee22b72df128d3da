"""Dividing a training set by time, so that no part's labels look past the cut behind it. Pure."""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from services.common.errors import QueryError
from services.features.times import Time, to_ms
from services.features.training import checked_intervals, intervals_later

_LABEL = re.compile(r"^label_\w+_(\d+)$")


def split_by_time(table: pa.Table, *cuts: Time | float, embargo: int = 0) -> list[pa.Table]:
    """Parts of a training set, one more than there are cuts, oldest first, each as ordered as the set is.

    A cut is a time, or a share between 0 and 1 of the distinct times in the set. Rows from a cut on are in
    the next part. A row whose label looks past the cut behind it is in no part. The close at the cut itself
    is in both: as the last that labels of the one look at, and as the close of the first row of the other,
    when it is known. `embargo` leaves out that many more intervals before each cut.

    >>> train, validation, test = split_by_time(training, 0.7, 0.85)       # doctest: +SKIP

    Raises `QueryError` on cuts that do not ascend, and on a table that is no training set.
    """
    if not isinstance(table, pa.Table):
        raise QueryError(
            "split_by_time takes the Arrow table that training_set returned; make frames of its parts"
        )
    horizons = [int(found[1]) for name in table.column_names if (found := _LABEL.match(name))]
    if not horizons or not {"end_ms", "timeframe"} <= {*table.column_names}:
        raise QueryError("split_by_time takes what training_set returned, with its labels")
    more = checked_intervals("embargo", embargo, 0)
    if not table.num_rows:
        return [table] * (len(cuts) + 1)
    known: Any = table["end_ms"].combine_chunks()
    label_end = intervals_later(known, str(table["timeframe"][0]), max(horizons) + more)
    times = _cut_times(pc.unique(known).sort(), cuts)
    parts = []
    for first, last in pairwise((-1, *times, None)):
        inside = pc.greater_equal(known, pa.scalar(first, pa.int64()))
        if last is not None:
            inside = pc.and_(inside, pc.less_equal(label_end, pa.scalar(last, pa.int64())))
        parts.append(table.filter(inside))
    return parts


def _cut_times(times: "pa.Array[Any]", cuts: Sequence[Time | float]) -> list[int]:
    found: list[int] = []
    for cut in cuts:
        if isinstance(cut, float):
            if not 0 < cut < 1:
                raise QueryError(f"a cut is a time or a share between 0 and 1, not {cut}")
            found.append(times[int(cut * len(times))].as_py())
        else:
            found.append(to_ms(cut, up=True))
    if any(a >= b for a, b in pairwise(found)):
        raise QueryError("the cuts must ascend, each leaving rows between it and the next")
    return found
