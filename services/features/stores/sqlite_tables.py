"""Reading the groups of the SQLite store, each by itself: connections, newest rows, history."""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Self

import apsw
import pyarrow as pa

from services.common.errors import QueryError, StoreError, UnknownSeriesError
from services.features.arrow import arrow_schema
from services.features.asked import Asked, Filters
from services.features.given import single
from services.features.groups import GROUPS, FeatureGroup
from services.features.stores.sqlite_connection import open_reader
from services.features.stores.sqlite_describe import describe_group
from services.features.stores.sqlite_layers import Catalog, Layers
from services.features.stores.sqlite_rolled import rolled_folder
from services.features.stores.sqlite_schema import check_tables, load_groups
from services.features.stores.sqlite_select import (
    Span,
    as_dict,
    checked_limit,
    matching_keys,
    newest_row,
    selected_names,
    statement_columns,
)
from services.features.times import Time, to_ms


class SqliteTables:
    """What `contract.Reader` says of single groups. Safe in several threads; raises `StoreError`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._idle: deque[apsw.Connection] = deque()
        self._rolled = rolled_folder(path)
        self._catalog: Catalog | None = None
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

    def _known(self, connection: apsw.Connection) -> Catalog:
        # A version that is new, or the first roll, changes the schema.
        if self._catalog is None or self._catalog.schema_version != connection.pragma("schema_version"):
            self._catalog = Catalog.load(connection)
        return self._catalog

    def _group(self, connection: apsw.Connection, name: str) -> FeatureGroup:
        groups = self._known(connection).groups
        if single("group", name) not in groups:
            known = ", ".join(groups) or "none yet"
            hint = "; the features service adds it when it next writes this file" if name in GROUPS else ""
            raise UnknownSeriesError(f"unknown feature group {name!r}; known: {known}{hint}")
        return groups[name]

    def _layers(self, connection: apsw.Connection, group: FeatureGroup) -> Layers:
        return Layers(connection, self._rolled, self._known(connection), group)

    def groups(self) -> dict[str, FeatureGroup]:
        """The newest version of every group, by name."""
        with self._connection() as connection:
            return load_groups(connection)

    def series(self, group: str = "ta") -> list[tuple[str, ...]]:
        """The keys that have rows, in order: (exchange, pair, timeframe) for `ta`, else (coin,)."""
        with self._connection() as connection:
            return self._keys(connection, self._group(connection, group), {})

    def describe(self, group: str = "ta", *, now: Time | None = None) -> dict[str, Any]:
        """What a group holds: ``columns`` with units, descriptions and null rates (0 to 1, of the
        closed rows), ``series`` with row counts, first and last time, when the store last wrote one
        (``written_ms``) and seconds from the last time to `now` (``age_s``), ``rows``. Reads all rows.
        """
        now_ms = time.time_ns() // 1_000_000 if now is None else to_ms(now)
        with self._connection() as connection:
            found = self._group(connection, group)
            keys = self._keys(connection, found, {})
            return describe_group(connection, self._layers(connection, found), keys, now_ms)

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
            rows = self._newest(connection, found, Asked(asked, ("exchange",), of_one=True))
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
        keys = self._keys(connection, group, asked.filters(group))
        versions = [*self._layers(connection, group).tables()]
        found = (newest_row(connection, group, versions, key) for key in keys)
        return [as_dict(group, row) for row in found]

    def _keys(
        self, connection: apsw.Connection, group: FeatureGroup, filters: Filters
    ) -> list[tuple[str, ...]]:
        return matching_keys(connection, [*self._layers(connection, group).tables()], filters)

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
        layers = self._layers(connection, group)
        keys = self._keys(connection, group, asked.filters(group))
        tables = [arrow_schema([group.stored[group.index(name)] for name in names]).empty_table()]
        for key in keys:
            tables.append(layers.table(key, span, names, len(keys)))
            if span.limit is not None and not span.newest:
                span = span._replace(limit=span.limit - tables[-1].num_rows)
                if not span.limit:
                    break
        return pa.concat_tables(tables).combine_chunks()

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
            span = Span(start_ms, end_ms, None if limit < 0 else limit)
            return self._layers(connection, group).rows(key, span, columns)

    def sql(
        self, query: str, parameters: Sequence[Any] = (), limit: int | None = None
    ) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Column names and rows of any query on the file, read-only; the first `limit` rows, by default all.

        Raises `QueryError`, also for several statements, or one that begins or ends a transaction.

        ``ta``, ``news_signals`` and ``sentiment`` hold the closed rows, ``ta_online``,
        ``news_signals_online`` and ``sentiment_online`` the newest row of each series.
        """
        most = checked_limit(limit)
        with self._connection() as connection:
            try:
                names = statement_columns(connection, query)
                cursor = connection.execute(query, tuple(parameters))
                rows = [*islice(cursor, most)]
                # The rest would be read on, and hold the transaction.
                cursor.close(True)
            except (apsw.Error, TypeError) as error:
                raise QueryError(f"SQL: {error}") from error
        return names, rows

    def close(self) -> None:
        """Close the idle connections; a later question opens new ones."""
        while self._idle:
            self._idle.pop().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
