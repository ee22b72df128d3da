"""Training sets: what was known at a time, and what came after it. Pure.

The rule against look-ahead: a feature column holds only what was known at the row's `known_at_ms`; only
the label looks ahead, and never past the end of the asked range. Of a set that ends at a time and one that
begins there, both have the row of that time; the earlier one's has no label and leaves with the nulls, so
that what they share is its close: the last that the earlier labels look at, and known when the later set
begins. For `ta` rows `known_at_ms` is the end of the candle: every trade in it had happened by then, and so
had those of a correction, which only arrived late. Sentiment joins as of `known_at_ms` by the times at which
stories were *observed*, not published (`joins.py`).
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, get_args

import pyarrow as pa
import pyarrow.compute as pc

from services.common.columns import Column, Unit
from services.common.errors import QueryError
from services.common.timeframes import FIXED_MS, later_ms
from services.features.arrow import arrow_schema
from services.features.given import several, whole_number
from services.features.groups import FeatureGroup
from services.features.joins import default_names, joined_names
from services.features.losses import check_loss

# Arrow's arrays are generic for the type checker only; this alias is evaluated by nobody else.
type Values = pa.Array[Any]

#: What a label says of the closes at a row's end and `horizon` intervals later.
Label = Literal["log_return", "return", "direction"]

MAX_HORIZON = 100_000
KNOWN_AT = Column("known_at_ms", "int", "ms", "When all features of the row were known, UTC epoch")
_LABEL_TEXTS: dict[Label, tuple[Unit, str]] = {
    "log_return": ("ratio", "Natural log of the close {} intervals later over this close"),
    "return": ("ratio", "Close {} intervals later over this close, minus 1"),
    "direction": (
        "score",
        "Whether the close {} intervals later is above this one (1), below (-1) or equal (0)",
    ),
}


def training_columns(
    group: FeatureGroup,
    sentiment: FeatureGroup,
    features: Sequence[str] | None,
    has_news: Callable[[], bool],
) -> list[str]:
    """The feature columns asked for, of `group` or of what `sentiment` adds to it.

    By default all that are not null wherever nothing happened; those of sentiment only with `has_news`.
    Raises `QueryError` that names what there is.
    """
    if features is None:
        names = [name for name in group.features if name not in group.sparse]
        return [*names, *default_names(sentiment)] if has_news() else names
    names = several("feature", features)
    known = (*group.features, *joined_names(sentiment))
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        says = f"unknown feature {', '.join(unknown)[:100]}" if unknown else "name at least one feature"
        raise QueryError(f"{says}; known: {', '.join(known)}")
    return names


def label_returns(
    table: pa.Table,
    timeframe: str,
    features: Sequence[str],
    horizon: int | Sequence[int],
    *,
    dropna: bool,
    label: Label = "log_return",
    chosen: bool = True,
) -> pa.Table:
    """Add a label for each horizon to a history (ordered by exchange, pair and end_ms, one timeframe).

    `table` needs ``close`` and `features`. The label of a row compares the close `horizon` intervals later
    with its own, as `label` says; null unless all the candles up to there are in `table`.
    Raises `QueryError` on a horizon or label that there is not, and when `dropna` would drop everything
    because some features are null in every row, or, of features that nobody has `chosen`, too much
    (`losses.check_loss`, which also warns).
    """
    horizons = _checked(horizon, label)
    end_ms, close = _column(table, "end_ms"), _column(table, "close")
    names = ("exchange", "pair")
    result = table.select(["exchange", "pair", "timeframe", "end_ms"])
    result = result.append_column(arrow_schema([KNOWN_AT]).field(0), end_ms)
    for name in features:
        result = result.append_column(table.schema.field(name), table[name])
    for places in horizons:
        # Series are ordered and free of duplicates, so when the row `places` on is also as many intervals
        # on, nothing is missing in between.
        contiguous = pc.and_(
            pc.equal(_ahead(end_ms, places), intervals_later(end_ms, timeframe, places)),
            pc.and_(*(pc.equal(_ahead(_column(table, name), places), table[name]) for name in names)),
        )
        values = _label_values(label, _ahead(close, places), close)
        result = result.append_column(
            _label_field(label, places), pc.if_else(contiguous, values, pa.scalar(None, values.type))
        )
    if not dropna:
        return result
    complete = result.drop_null()
    empty = [name for name in features if result[name].null_count == result.num_rows]
    if result.num_rows and not complete.num_rows and empty:
        raise QueryError(
            f"no row is complete: {', '.join(empty)} null in all {result.num_rows} rows (not warm yet, "
            "left out by TA_INDICATORS, or without news); choose other features, or dropna=False"
        )
    if not chosen:
        check_loss(result, features)
    return complete


def _checked(horizon: int | Sequence[int], label: str) -> list[int]:
    if label not in get_args(Label):
        raise QueryError(f"unknown label {str(label)[:40]!r}; known: {', '.join(get_args(Label))}")
    given = [horizon] if getattr(horizon, "ndim", None) == 0 or not isinstance(horizon, Iterable) else horizon
    horizons = list(dict.fromkeys(checked_intervals("horizon", places, 1) for places in given))
    if not horizons:
        raise QueryError("name at least one horizon")
    return horizons


def checked_intervals(name: str, given: object, least: int) -> int:
    """A number of intervals. Raises `QueryError` that calls it `name` when it is none."""
    found = whole_number(given)
    if found is None or not least <= found <= MAX_HORIZON:
        raise QueryError(f"{name} must be from {least} to {MAX_HORIZON} intervals, not {str(given)[:40]!r}")
    return found


def _label_values(label: Label, later: Values, close: Values) -> Values:
    if label == "direction":
        return pc.cast(pc.sign(pc.subtract(later, close)), pa.int64())
    ratio = pc.divide(later, close)
    return pc.ln(ratio) if label == "log_return" else pc.subtract(ratio, 1.0)


def _label_field(label: Label, places: int) -> "pa.Field[Any]":
    unit, text = _LABEL_TEXTS[label]
    kind: Literal["int", "float"] = "int" if label == "direction" else "float"
    column = Column(f"label_{label}_{places}", kind, unit, text.format(places), nullable=True)
    return arrow_schema([column]).field(0)


def _column(table: pa.Table, name: str) -> Values:
    column = table[name]
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _ahead(values: Values, places: int) -> Values:
    """Each row's value `places` rows further on; null where there is none."""
    return pa.concat_arrays([values.slice(places), pa.nulls(min(places, len(values)), values.type)])


def intervals_later(end_ms: Values, timeframe: str, intervals: int) -> Values:
    """The ends of the candles so many places later, by the calendar; null where it ends, in year 9999."""
    if timeframe in FIXED_MS:
        return pc.add(end_ms, pa.scalar(FIXED_MS[timeframe] * intervals, pa.int64()))
    # Months differ in length; there are few of them.
    ends: list[Any] = end_ms.to_pylist()
    return pa.array([later_ms(end, timeframe, intervals) for end in ends], pa.int64())
