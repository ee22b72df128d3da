"""Reading the SQLite store: read-only connections, from any thread and any process."""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import apsw
import apsw.ext
import pyarrow as pa

from services.common.errors import QueryError, StoreError, UnknownSeriesError
from services.features.arrow import arrow_schema, to_batches
from services.features.groups import FeatureGroup
from services.features.stores.sqlite_connection import open_reader
from services.features.stores.sqlite_describe import describe_group
from services.features.stores.sqlite_schema import check_tables, load_groups, quoted
from services.features.stores.sqlite_select import (
    as_dict,
    history_sql,
    matching_keys,
    selected_names,
)
from services.features.times import Time, to_ms
from services.features.training import label_returns, training_columns


class SqliteReader:
    """`contract.Reader` on one SQLite file. Safe in several threads; raises `StoreError`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._idle: deque[apsw.Connection] = deque()
        self._groups: dict[str, FeatureGroup] = {}
        with self._connection() as connection:
            for group in load_groups(connection).values():
                check_tables(connection, group, str(path))

    @contextmanager
    def _connection(self) -> Iterator[apsw.Connection]:
        """A connection inside a read transaction, so that several statements see the same rows."""
        try:
            connection, reusable = self._idle.pop(), True
        except IndexError:
            connection, snapshot = open_reader(self.path)
            # A snapshot will never see what is written from now on.
            reusable = not snapshot
        try:
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.execute("ROLLBACK")
        except apsw.Error as error:
            reusable = False
            raise StoreError(f"cannot read the feature store {self.path}: {error}") from error
        finally:
            if reusable:
                self._idle.append(connection)
            else:
                connection.close()

    def _group(self, connection: apsw.Connection, name: str) -> FeatureGroup:
        if name not in self._groups:
            self._groups = load_groups(connection)
        if name not in self._groups:
            known = ", ".join(self._groups) or "none yet"
            raise UnknownSeriesError(f"unknown feature group {name!r}; known: {known}")
        return self._groups[name]

    def groups(self) -> dict[str, FeatureGroup]:
        """The newest version of every group, by name."""
        with self._connection() as connection:
            return load_groups(connection)

    def series(self, group: str = "ta") -> list[tuple[str, ...]]:
        """The keys that have rows, in order: (exchange, pair, timeframe) for `ta`."""
        with self._connection() as connection:
            return matching_keys(connection, self._group(connection, group), {})

    def describe(self, group: str = "ta") -> dict[str, Any]:
        """What a group holds: ``columns`` with units, descriptions and null rates (0 to 1, of the
        closed rows), ``series`` with row counts and first and last time, ``rows``. Reads all rows.
        """
        with self._connection() as connection:
            return describe_group(connection, self._group(connection, group))

    def latest(
        self, pair: str, timeframe: str, exchange: str | None = None, group: str = "ta"
    ) -> dict[str, Any] | None:
        """The newest row of one series by column name, or None where it has none yet.

        It may be an update of an open candle (``closed`` is False). When several exchanges have the
        pair, `exchange` must be given. Raises `UnknownSeriesError`, `QueryError`, `StoreError`.
        """
        rows = self.latest_all(pair, timeframe, exchange, group)
        if len(rows) > 1:
            names = ", ".join(str(row["exchange"]) for row in rows)
            raise QueryError(f"{pair} is on several exchanges; name one of {names}")
        return rows[0] if rows else None

    def latest_all(
        self,
        pair: str | None = None,
        timeframe: str | None = None,
        exchange: str | None = None,
        group: str = "ta",
    ) -> list[dict[str, Any]]:
        """The newest row of each series that fits, in key order, by column name."""
        with self._connection() as connection:
            found = self._group(connection, group)
            filters = {"pair": pair, "timeframe": timeframe, "exchange": exchange}
            matching = matching_keys(connection, found, filters)
            where = " AND ".join(f"{quoted(name)} = ?" for name in found.key)
            sql = f"SELECT * FROM {quoted(found.table + '_online')} WHERE {where}"  # noqa: S608
            return [as_dict(found, row) for key in matching for row in connection.execute(sql, key)]

    def history(
        self,
        pairs: str | Sequence[str],
        timeframe: str,
        start: Time | None = None,
        end: Time | None = None,
        columns: Sequence[str] | None = None,
        exchange: str | None = None,
        limit: int | None = None,
        newest: bool = False,
        group: str = "ta",
    ) -> pa.Table:
        """Closed rows with ``start <= end_ms <= end``, ordered by exchange, pair and end_ms.

        The key and the event time come first, then `columns` as asked (all by default). `limit` keeps
        the first rows of that order or, with `newest`, the last rows of each series. Use
        ``.to_pandas()`` or ``polars.from_arrow()`` on the result.
        Raises `UnknownSeriesError`, `QueryError`, `StoreError`.
        """
        since = 0 if start is None else to_ms(start)
        until = 2**62 if end is None else to_ms(end)
        if since > until:
            raise QueryError(f"the start {start} is after the end {end}")
        if limit is not None and limit < 1:
            raise QueryError(f"limit must be at least 1, not {limit}")
        with self._connection() as connection:
            found = self._group(connection, group)
            names = selected_names(found, columns)
            schema = arrow_schema([found.stored[found.index(name)] for name in names])
            filters = {"pair": pairs, "timeframe": timeframe, "exchange": exchange}
            sql = history_sql(found, names, newest and limit is not None)
            batches: list[pa.RecordBatch] = []
            left = -1 if limit is None else limit
            for key in matching_keys(connection, found, filters):
                rows = connection.execute(sql, (*key, since, until, left))
                batches += to_batches(rows, schema)
                if limit is not None and not newest:
                    left = limit - sum(batch.num_rows for batch in batches)
                    if left <= 0:
                        break
        return pa.Table.from_batches(batches, schema).combine_chunks()

    def training_set(
        self,
        pairs: str | Sequence[str],
        timeframe: str,
        start: Time | None = None,
        end: Time | None = None,
        features: Sequence[str] | None = None,
        horizon: int = 1,
        exchange: str | None = None,
        dropna: bool = True,
    ) -> pa.Table:
        """One row a closed candle: features known at its end, and the return that followed.

        Columns: exchange, pair, timeframe, end_ms, known_at_ms, the features (by default all but
        `vwap` and `flow_imbalance_1`, which are null in every candle without trades), and
        ``label_log_return_{horizon}``, the natural log of the close `horizon` intervals later over this
        close. The label is null where a candle in between is missing or lies after `end`. `dropna`
        leaves out rows with any null.
        Raises `UnknownSeriesError`, `QueryError`, `StoreError`.
        """
        with self._connection() as connection:
            group = self._group(connection, "ta")
        names = training_columns(group, features)
        needed = list(dict.fromkeys((*names, "close")))
        table = self.history(pairs, timeframe, start, end, needed, exchange)
        return label_returns(table, timeframe, names, horizon, dropna=dropna)

    def sql(self, query: str, parameters: Sequence[Any] = ()) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Column names and rows of any query on the file, read-only. Raises `QueryError`.

        ``ta`` holds the closed rows and ``ta_online`` the newest row of each series.
        """
        with self._connection() as connection:
            try:
                description = apsw.ext.query_info(connection, query).description
                rows = connection.execute(query, tuple(parameters)).fetchall()
            except apsw.Error as error:
                raise QueryError(f"SQL: {error}") from error
        return [name for name, _ in description], rows

    def close(self) -> None:
        """Close the idle connections; a later question opens new ones."""
        while self._idle:
            self._idle.pop().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
