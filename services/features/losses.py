"""What a training set leaves out, and whether its user must be told. Pure."""

import warnings
from collections.abc import Iterator, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from services.common.errors import QueryError

#: More rows than any indicator takes to be warm (52); nulls beyond that are there for another reason.
WARM_UP_ROWS = 100
#: Fewer lost rows than this share are those that an indicator is not defined for, as on flat prices.
NORMAL_SHARE = 0.01


class RowsLeftOutWarning(UserWarning):
    """A training set leaves out rows that were warm, or a series that is not warm yet."""


def check_loss(table: pa.Table, features: Sequence[str]) -> None:
    """Raises `QueryError` when features that nobody asked for cost most of the rows, and warns of many.

    So it is after an indicator was added or enabled: old rows have nulls in it, and dropping these leaves
    a set of the last few candles, or of the other pairs, that looks like any other. Each series is judged
    for itself; only what it lacks at its beginning, and for no longer than it takes to be warm, is normal.
    `table` is ordered by exchange, pair and time.
    """
    labels = [name for name in table.column_names if name.startswith("label_")]
    labelled, complete = _valid(table, labels), _valid(table, features)
    lost: list[pa.BooleanArray] = []
    judged, empty, cold = 0, [], []
    for name, begin, rows in _series(table):
        found = complete.slice(begin, rows)
        warm = pc.index(found, True).as_py()
        excused = min(rows if warm < 0 else warm, WARM_UP_ROWS)
        asked = labelled.slice(begin + excused, rows - excused)
        missing = pc.and_not(asked, found.slice(excused))
        lost += [pa.array([False] * excused, pa.bool_()), missing]
        judged += asked.true_count
        if asked.true_count and asked.true_count == missing.true_count:
            empty.append(name)
        elif not asked.true_count and not pc.and_(labelled.slice(begin, rows), found).true_count:
            cold.append(name)
    if not lost:
        return
    left_out = pa.concat_arrays(lost)
    count = left_out.true_count
    if empty or count > NORMAL_SHARE * judged:
        kept = f"only {pc.and_(labelled, complete).true_count} of {labelled.true_count} rows are complete"
        says = (
            f"{f'no row of {_listed(empty)} is complete' if empty else kept}: null are "
            f"{_nulls(table, features, left_out, labelled)}. Rows from before an indicator was added or "
            "enabled lack it until `make rebuild` computes it; or name the features, ask for other "
            "pairs or times, or give dropna=False"
        )
        if empty or 2 * count > judged:
            raise QueryError(says)
        _warn(says)
    if cold:
        _warn(f"no row of {_listed(cold)} is complete: too few candles for all indicators to be warm")


def _valid(table: pa.Table, names: Sequence[str]) -> pa.BooleanArray:
    """Which rows have a value in all of these columns."""
    valid: Any = reduce(pc.and_, (pc.is_valid(table[name]) for name in names))
    return pa.concat_arrays(valid.chunks) if valid.num_chunks else pa.array([], pa.bool_())


def _series(table: pa.Table) -> Iterator[tuple[str, int, int]]:
    """Name, first row and number of rows of each series, in order."""
    # In one thread groups come as they begin in the table.
    keys = table.select(["exchange", "pair"]).group_by(["exchange", "pair"], use_threads=False)
    begin = 0
    for row in keys.aggregate([([], "count_all")]).to_pylist():
        yield f"{row['exchange']} {row['pair']}", begin, row["count_all"]
        begin += row["count_all"]


def _nulls(
    table: pa.Table, features: Sequence[str], left_out: pa.BooleanArray, labelled: pa.BooleanArray
) -> str:
    """The features that cost rows, worst first, with how many rows have nulls in them."""
    lost, whole = table.filter(left_out), table.filter(labelled)
    nulls = {name: lost[name].null_count for name in features}
    worst = sorted((name for name in features if nulls[name]), key=lambda name: -nulls[name])
    return _listed([f"{name} ({whole[name].null_count})" for name in worst])


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _warn(says: str) -> None:
    # It points at the line that asked.
    warnings.warn(says, RowsLeftOutWarning, skip_file_prefixes=(str(Path(__file__).parent),))
