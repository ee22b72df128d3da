"""Reading the groups of the SQLite store, each by itself: connections, newest rows, history."""

import time
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
from services.features.groups import GROUPS, FeatureGroup
from services.features.stores.sqlite_connection import open_reader
from services.features.stores.sqlite_describe import describe_group
from services.features.stores.sqlite_schema import check_tables, load_groups
from services.features.stores.sqlite_select import (
    Asked,
    Span,
    as_dict,
    history_sql,
    matching_keys,
    newest_sql,
    selected_names,
)
from services.features.times import Time, to_ms


class SqliteTables:
    """What `contract.Reader` says of single groups. Safe in several threads; raises `StoreError`."""

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
            hint = "; the features service adds it when it next writes this file" if name in GROUPS else ""
            raise UnknownSeriesError(f"unknown feature group {name!r}; known: {known}{hint}")
        return self._groups[name]

    def groups(self) -> dict[str, FeatureGroup]:
        """The newest version of every group, by name."""
        with self._connection() as connection:
            return load_groups(connection)

    def series(self, group: str = "ta") -> list[tuple[str, ...]]:
        """The keys that have rows, in order: (exchange, pair, timeframe) for `ta`, else (coin,)."""
        with self._connection() as connection:
            return matching_keys(connection, self._group(connection, group), {})

    def describe(self, group: str = "ta", *, now: Time | None = None) -> dict[str, Any]:
        """What a group holds: ``columns`` with units, descriptions and null rates (0 to 1, of the
        closed rows), ``series`` with row counts, first and last time, when the store last wrote one
        (``written_ms``) and seconds from the last time to `now` (``age_s``), ``rows``. Reads all rows.
        """
        now_ms = time.time_ns() // 1_000_000 if now is None else to_ms(now)
        with self._connection() as connection:
            return describe_group(connection, self._group(connection, group), now_ms)

    def latest(
        self,
        pair: str | None = None,
        timeframe: str | None = None,
        exchange: str | None = None,
        group: str = "ta",
        *,
        coin: str | None = None,
    ) -> dict[str, Any] | None:
        """The newest row of one series by column name, or None where it has none yet.

        `ta` needs `pair` and `timeframe`, and `exchange` when several have the pair; its row may be an
        update of an open candle (``closed`` is False). Other groups need `coin`:
        ``latest(group="sentiment", coin="BTC")``.
        Raises `UnknownSeriesError`, `QueryError`, `StoreError`.
        """
        asked = {"pair": pair, "timeframe": timeframe, "exchange": exchange, "coin": coin}
        with self._connection() as connection:
            found = self._group(connection, group)
            rows = self._newest(connection, found, Asked(asked, ("exchange",)))
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
        *,
        coin: str | None = None,
    ) -> list[dict[str, Any]]:
        """The newest row of each series that fits, in key order, by column name."""
        asked = {"pair": pair, "timeframe": timeframe, "exchange": exchange, "coin": coin}
        with self._connection() as connection:
            return self._newest(connection, self._group(connection, group), Asked(asked))

    def _newest(self, connection: apsw.Connection, group: FeatureGroup, asked: Asked) -> list[dict[str, Any]]:
        sql = newest_sql(group)
        keys = matching_keys(connection, group, asked.filters(group))
        return [as_dict(group, row) for key in keys for row in connection.execute(sql, key)]

    def history(
        self,
        pairs: str | Sequence[str] | None = None,
        timeframe: str | None = None,
        start: Time | None = None,
        end: Time | None = None,
        columns: Sequence[str] | None = None,
        exchange: str | None = None,
        limit: int | None = None,
        newest: bool = False,
        group: str = "ta",
        *,
        coin: str | Sequence[str] | None = None,
        after: str | None = None,
    ) -> pa.Table:
        """Closed rows with ``start <= event time <= end``, ordered by key, event time and story.

        `ta` needs `pairs` and `timeframe`; the other groups take `coin` (all coins by default):
        ``history(group="sentiment", coin="BTC", start="2026-01-31")``. The key and the event time come
        first, then `columns` as asked (all by default). `limit` keeps the first rows of that order or,
        with `newest`, the last rows of each series. `after` goes on with `news_signals` of one coin
        behind a page: of the rows at `start` itself, only those of later story ids. Use ``.to_pandas()``
        or ``polars.from_arrow()`` on the result.
        Raises `UnknownSeriesError`, `QueryError`, `StoreError`.
        """
        span = Span.of(start, end, limit, newest, after)
        asked = Asked(
            {"pair": pairs, "timeframe": timeframe, "exchange": exchange, "coin": coin}, ("exchange", "coin")
        )
        with self._connection() as connection:
            found = self._group(connection, group)
            return self._history(connection, found, asked, span, selected_names(found, columns))

    def _history(
        self, connection: apsw.Connection, group: FeatureGroup, asked: Asked, span: Span, names: list[str]
    ) -> pa.Table:
        schema = arrow_schema([group.stored[group.index(name)] for name in names])
        keys = matching_keys(connection, group, asked.filters(group))
        sql, bounds = history_sql(group, names, span, len(keys))
        batches: list[pa.RecordBatch] = []
        left = -1 if span.limit is None else span.limit
        for key in keys:
            rows = connection.execute(sql, (*key, *bounds, left))
            batches += to_batches(rows, schema)
            if span.limit is not None and not span.newest:
                left = span.limit - sum(batch.num_rows for batch in batches)
                if left <= 0:
                    break
        return pa.Table.from_batches(batches, schema).combine_chunks()

    def rows(
        self,
        group: FeatureGroup,
        key: tuple[str, ...],
        start_ms: int,
        end_ms: int,
        columns: Sequence[str],
        limit: int = -1,
    ) -> list[tuple[Any, ...]]:
        """Closed rows of one key as tuples of `columns`, both ends included, in order."""
        with self._connection() as connection:
            sql, _ = history_sql(group, columns, Span(start_ms, end_ms), 1)
            found: list[tuple[Any, ...]] = connection.execute(sql, (*key, start_ms, end_ms, limit)).fetchall()
            return found

    def sql(self, query: str, parameters: Sequence[Any] = ()) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Column names and rows of any query on the file, read-only. Raises `QueryError`.

        ``ta``, ``news_signals`` and ``sentiment`` hold the closed rows, ``ta_online``,
        ``news_signals_online`` and ``sentiment_online`` the newest row of each series.
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
