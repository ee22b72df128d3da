"""Rows of a feature group as Arrow columns. Pure."""

from collections.abc import Iterable, Sequence
from itertools import batched
from typing import Any

import pyarrow as pa

from services.common.columns import Column

# Rows are Python objects until they are columns; this many at a time stay in the processor's cache,
# which made 100,000 rows of 59 columns take 0.7 s instead of 2.3 s at 20,000 at a time.
CHUNK_ROWS = 2_000

_TYPES: dict[str, pa.DataType] = {
    "text": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
}


def arrow_schema(columns: Sequence[Column]) -> pa.Schema:
    """Arrow types of the columns, with their units and descriptions as field metadata."""
    return pa.schema(
        [
            pa.field(
                column.name,
                _TYPES[column.kind],
                nullable=column.nullable,
                metadata={"unit": column.unit, "description": column.description},
            )
            for column in columns
        ]
    )


def to_batches(rows: Iterable[tuple[Any, ...]], schema: pa.Schema) -> list[pa.RecordBatch]:
    """Rows in the order of `schema` as record batches of at most `CHUNK_ROWS` rows."""
    batches = []
    for chunk in batched(rows, CHUNK_ROWS):
        arrays = []
        for values, field in zip(zip(*chunk, strict=True), schema, strict=True):
            if pa.types.is_boolean(field.type):
                # SQLite has no booleans.
                arrays.append(pa.array(values, pa.int8()).cast(pa.bool_()))
            else:
                arrays.append(pa.array(values, field.type))
        batches.append(pa.RecordBatch.from_arrays(arrays, schema=schema))
    return batches
