"""Tables of the store as pandas and Polars frames with real times. Pure.

Every answer of a store is an Arrow table, which pandas, Polars and DuckDB take as it is; its times are then
integers. These functions make UTC datetimes of them first, by the unit that each column carries.
"""

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from services.common.errors import QueryError

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

_TIME: Any = pa.timestamp("ms", tz="UTC")


def with_times(table: pa.Table) -> pa.Table:
    """Epoch milliseconds as UTC timestamps, without a copy: ``end_ms`` becomes ``end``, and so on.

    Raises `QueryError` on anything but a table.
    """
    if not isinstance(table, pa.Table):
        raise QueryError(
            f"frames are made of the Arrow tables that a store answers with, not of a {type(table).__name__}"
        )
    for position, field in enumerate(table.schema):
        if _is_time(field):
            renamed = pa.field(field.name.removesuffix("_ms"), _TIME, field.nullable, field.metadata)
            # The same eight bytes under another type.
            times: Any = pa.chunked_array([chunk.view(_TIME) for chunk in table[position].chunks], type=_TIME)
            table = table.set_column(position, renamed, times)
    return table


def to_pandas(table: pa.Table, *, index: bool = True) -> "pd.DataFrame":
    """A pandas frame of a history or training set, with UTC datetimes.

    By default its index is the time of each row: ``end`` for `ta` and training sets, else ``as_of`` or
    ``observed_at``. With several series in it a time occurs once in each.
    """
    frame = with_times(table).to_pandas()
    event_time = next((field.name for field in table.schema if _is_time(field)), None)
    return frame.set_index(event_time.removesuffix("_ms")) if index and event_time is not None else frame


def to_polars(table: pa.Table) -> "pl.DataFrame":
    """A Polars frame of a history or training set, with UTC datetimes."""
    import polars as pl

    frame = pl.from_arrow(with_times(table))
    assert isinstance(frame, pl.DataFrame)
    return frame


def _is_time(field: "pa.Field[Any]") -> bool:
    metadata: Any = field.metadata or {}
    return field.name.endswith("_ms") and metadata.get(b"unit") == b"ms" and pa.types.is_int64(field.type)
