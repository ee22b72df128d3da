"""Feature groups as Hopsworks has them: types, keys, frames for its client."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from services.common.columns import Column
from services.features.arrow import arrow_schema, to_batches
from services.features.groups import SENTIMENT, TA, FeatureGroup
from services.features.joins import base_coin

TYPES = {"text": "string", "int": "bigint", "float": "double", "bool": "boolean"}

#: What `ta` has in Hopsworks besides its columns, so that sentiment can be joined there.
COIN = Column("coin", "text", "none", "Base coin of the pair, the key of sentiment")

#: Groups with an online row. A signal's key holds its story, so online every story would stay for good.
ONLINE = (TA.name, SENTIMENT.name)


def remote_columns(group: FeatureGroup) -> tuple[Column, ...]:
    """The columns of a group in Hopsworks."""
    return (*group.stored, COIN) if group.name == TA.name else group.stored


def primary_key(group: FeatureGroup) -> tuple[str, ...]:
    """What, with the event time, names a row offline; online it alone does."""
    return (*group.key, *group.within)


def features_of(group: FeatureGroup) -> list[Any]:
    """The columns as the client's features, with units in the descriptions."""
    from hsfs.feature import Feature

    return [
        Feature(
            column.name,
            type=TYPES[column.kind],
            description=column.description
            if column.unit == "none"
            else f"{column.description} [{column.unit}]",
            primary=column.name in primary_key(group),
        )
        for column in remote_columns(group)
    ]


def frame_of(group: FeatureGroup, rows: Sequence[tuple[Any, ...]]) -> Any:
    """Rows (in the order of ``group.stored``) as a pandas frame that the client takes as it is.

    Floats are pandas' nullable ones: in a plain column a null would become NaN, and reach the topic as that.
    Raises `pyarrow.ArrowInvalid` or `pyarrow.ArrowTypeError` for a value of another type.
    """
    import pandas as pd

    schema = arrow_schema(group.stored)
    table = pa.Table.from_batches(to_batches(rows, schema), schema)
    if group.name == TA.name:
        pairs: list[Any] = table["pair"].to_pylist()
        table = table.append_column(COIN.name, pa.array([base_coin(pair) for pair in pairs], pa.string()))
    nullable: Any = {pa.float64(): pd.Float64Dtype()}.get
    return table.to_pandas(types_mapper=nullable)
