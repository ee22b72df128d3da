"""Rows of one key from several places, newer over older, as if they were in one table. Pure.

A row can be in the table of the newest version, in a Parquet file that old rows were rolled into, and in the
table of an earlier version. Where several have it, a newer place's row holds unless its revision is lower,
which is the rule by which a write replaces a row.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from services.features.arrow import arrow_schema
from services.features.groups import FeatureGroup


def readable_as(older: FeatureGroup, newer: FeatureGroup) -> bool:
    """Whether rows of `older` can be read as rows of `newer`, with nulls where it has more columns."""
    if (older.name, *_shape(older)) != (newer.name, *_shape(newer)):
        return False
    kinds = {column.name: column.kind for column in older.columns}
    return all(kinds.get(c.name, c.kind if c.nullable else None) == c.kind for c in newer.columns)


def _shape(group: FeatureGroup) -> tuple[object, ...]:
    return (group.key, group.event_time, group.within, group.revision, group.closed)


def merge_names(group: FeatureGroup, names: Sequence[str]) -> list[str]:
    """The columns `merged` needs beside those asked for: what names and what orders a row."""
    order = (group.event_time, *group.within, *(() if group.revision is None else (group.revision,)))
    return list(dict.fromkeys((*names, *order)))


def merged(group: FeatureGroup, newer: pa.Table, older: pa.Table) -> pa.Table:
    """The rows of both, each once. Both are of one key, in order, with the columns of `merge_names`."""
    if not newer.num_rows or not older.num_rows:
        return newer if newer.num_rows else older
    old_times: list[Any] = older[group.event_time].to_pylist()
    new_times: list[Any] = newer[group.event_time].to_pylist()
    # Only where the two overlap must rows be looked at one by one.
    begin = bisect_left(old_times, new_times[0])
    end = bisect_right(new_times, old_times[-1])
    head, older = older.slice(0, begin), older.slice(begin)
    tail, newer = newer.slice(end), newer.slice(0, end)
    return pa.concat_tables([head, _interleaved(group, newer, older), tail])


def _interleaved(group: FeatureGroup, newer: pa.Table, older: pa.Table) -> pa.Table:
    chosen: dict[Any, int] = dict(zip(_identities(group, older), range(older.num_rows), strict=True))
    new_revisions, old_revisions = _revisions(group, newer), _revisions(group, older)
    for place, identity in enumerate(_identities(group, newer)):
        known = chosen.get(identity)
        if known is None or new_revisions[place] >= old_revisions[known]:
            chosen[identity] = older.num_rows + place
    places = pa.array([chosen[identity] for identity in sorted(chosen)], pa.int64())
    return pa.concat_tables([older, newer]).take(places)


def _identities(group: FeatureGroup, table: pa.Table) -> list[Any]:
    columns = [table[name].to_pylist() for name in (group.event_time, *group.within)]
    return list(zip(*columns, strict=True))


def _revisions(group: FeatureGroup, table: pa.Table) -> list[Any]:
    return [0] * table.num_rows if group.revision is None else table[group.revision].to_pylist()


def conformed(table: pa.Table, group: FeatureGroup, names: Sequence[str]) -> pa.Table:
    """`table` with exactly the columns `names` of `group`, null where it has none."""
    schema = arrow_schema([group.stored[group.index(name)] for name in names])
    columns: list[Any] = [
        table[field.name] if field.name in table.column_names else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)
