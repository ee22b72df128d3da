"""Reading the tables of Hopsworks through its client: newest rows online, closed rows offline, joined rows.

What the client asks of a cluster is held to a stub; the cluster's answers (of its query service offline, of
its database online) are not: none was within reach.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from operator import and_
from typing import Any

import pyarrow as pa

from services.common.columns import Column
from services.common.errors import UnknownSeriesError
from services.features.arrow import arrow_schema
from services.features.groups import SENTIMENT, TA, FeatureGroup
from services.features.hopsworks_settings import HopsworksSettings
from services.features.stores.hopsworks_answers import Wanted
from services.features.stores.hopsworks_client import Hopsworks
from services.features.stores.hopsworks_errors import problems
from services.features.stores.hopsworks_view import VIEW


class HopsworksTables:
    """The offline and online tables, as Arrow in the types of the registry. Raises `StoreError`."""

    def __init__(self, remote: Hopsworks, settings: HopsworksSettings) -> None:
        self._remote = remote
        self._settings = settings
        self._known: dict[str, Any] = {}

    def online(self, group: FeatureGroup) -> list[dict[str, Any]]:
        """The newest row of each key, in the order of the keys."""
        with problems(self._settings, f"read {group.name} online"):
            frame = self._group(group).select(list(group.names)).read(online=True, dataframe_type="pandas")
        rows: list[dict[str, Any]] = to_table(frame, group.stored).to_pylist()
        return sorted(rows, key=lambda row: tuple(row[name] for name in group.key))

    def offline(
        self, group: FeatureGroup, names: Sequence[str], wanted: Wanted, start_ms: int, end_ms: int
    ) -> pa.Table:
        """Closed rows with ``start_ms <= event time <= end_ms``, by key, event time and `within`."""
        with problems(self._settings, f"read {group.name} offline"):
            found = self._group(group)
            query = found.select(list(names))
            conditions = conditions_of(found, group, wanted, start_ms, end_ms)
            frame = query.filter(conditions).read(dataframe_type="pandas")
        columns = [group.stored[group.index(name)] for name in names]
        return ordered(to_table(frame, columns), group)

    def joined(self, names: Sequence[str], wanted: Wanted, start_ms: int, end_ms: int) -> pa.Table:
        """Rows of the feature view: `ta` with the sentiment of its end, as Hopsworks joins them."""
        with problems(self._settings, f"read feature view {VIEW}"):
            conditions = conditions_of(self._group(TA), TA, wanted, start_ms, end_ms)
            # Keys and times are features of the view; asked for as keys they would come a second time.
            frame = self._remote.view().get_batch_data(extra_filter=conditions, dataframe_type="pandas")
        # Before a coin's first signal nothing joins, so there even a count may be null.
        columns = {column.name: replace(column, nullable=True) for column in SENTIMENT.columns}
        columns |= {column.name: column for column in TA.stored}
        return ordered(to_table(frame, [columns[name] for name in names]), TA)

    def _group(self, group: FeatureGroup) -> Any:
        found = self._known.get(group.table)
        if found is None:
            found = self._remote.store.get_feature_group(group.name, version=group.version)
            if found is None:
                raise UnknownSeriesError(
                    f"Hopsworks has no feature group {group.name} version {group.version}; the features "
                    "service makes it when it first writes there"
                )
            self._known[group.table] = found
        return found


def conditions_of(found: Any, group: FeatureGroup, wanted: Wanted, start_ms: int, end_ms: int) -> Any:
    """The client's filter for keys and event times."""
    time = found[group.event_time]
    parts = [time >= start_ms, time <= end_ms]
    for name, values in wanted.items():
        feature = found[name]
        parts.append(feature == values[0] if len(values) == 1 else feature.isin(list(values)))
    return reduce(and_, parts)


def to_table(frame: Any, columns: Sequence[Column]) -> pa.Table:
    """A pandas frame of the client as Arrow: strict but for the 0 and 1 of a database's booleans."""
    schema = arrow_schema(columns)
    arrays: list[Any] = []
    for field in schema:
        array: Any = pa.Array.from_pandas(frame[field.name])
        arrays.append(array.cast(pa.int8()).cast(pa.bool_()) if pa.types.is_boolean(field.type) else array)
    return pa.Table.from_arrays(
        [array.cast(field.type) for array, field in zip(arrays, schema, strict=True)], schema=schema
    )


def ordered(table: pa.Table, group: FeatureGroup) -> pa.Table:
    """Rows by key, event time and `within`, as far as the table has these columns."""
    names = [name for name in group.primary_key if name in table.column_names]
    return table.sort_by([(name, "ascending") for name in names]).combine_chunks()
