"""One series of the SQLite store from wherever its rows are: tables of versions, and rolled files."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import pyarrow as pa

from services.features.arrow import arrow_schema, to_batches
from services.features.groups import FeatureGroup
from services.features.layers import conformed, merge_names, merged, readable_as
from services.features.stores.sqlite_rolled import TABLE, read_files, rolled_files
from services.features.stores.sqlite_schema import load_versions
from services.features.stores.sqlite_select import Span, as_of_sql, history_sql


class Catalog(NamedTuple):
    """What a file holds: the newest version of each group, those before it that can be read as it, tables."""

    schema_version: int
    groups: dict[str, FeatureGroup]
    earlier: dict[str, list[FeatureGroup]]
    tables: frozenset[str]

    @classmethod
    def load(cls, connection: apsw.Connection) -> "Catalog":
        """What the registry and the schema say; versions newest first."""
        versions = load_versions(connection)
        tables: Any = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
        return cls(
            connection.pragma("schema_version"),
            {name: found[0] for name, found in versions.items()},
            {name: [g for g in found[1:] if readable_as(g, found[0])] for name, found in versions.items()},
            frozenset(name for (name,) in tables),
        )


class Layers:
    """The places of one group's rows, as of the read transaction of a connection."""

    def __init__(
        self, connection: apsw.Connection, folder: Path, catalog: Catalog, group: FeatureGroup
    ) -> None:
        self._connection = connection
        self._folder = folder
        self._tables = catalog.tables
        self._rolled = TABLE in catalog.tables
        self._earlier = catalog.earlier.get(group.name, [])
        self.group = group

    def tables(self) -> Iterator[FeatureGroup]:
        """The versions that still have tables, newest first."""
        yield self.group
        yield from (group for group in self._earlier if group.table in self._tables)

    def beneath(self, key: Sequence[str], first_ms: int, last_ms: int) -> bool:
        """Whether rows of a key in a range may be elsewhere than in the newest version's table."""
        if not self._earlier and not self._rolled:
            return False
        if self._files(self.group, key, first_ms, last_ms):
            return True
        span = Span(first_ms, last_ms)
        _, *tables = self.tables()
        return any(self._files(group, key, first_ms, last_ms) for group in self._earlier) or any(
            self._select(group, key, span, group.key, 1).fetchall() for group in tables
        )

    def table(self, key: Sequence[str], span: Span, names: Sequence[str], keys: int = 1) -> pa.Table:
        """The columns `names` of the rows of a key in a span, in order. Raises `QueryError`."""
        if span.after is not None:
            # Whether the group can be paged so, which the files would not know.
            history_sql(self.group, names, span, keys)
        if not self.beneath(key, span.start_ms, span.end_ms):
            return self._from_table(self.group, key, span, names, keys)
        needed = merge_names(self.group, names)
        layers = self._read(key, span, needed, keys)
        result = next(layers)
        for newer in layers:
            result = _limited(merged(self.group, newer, result), span)
        return conformed(result, self.group, names)

    def rows(self, key: Sequence[str], span: Span, names: Sequence[str]) -> list[tuple[Any, ...]]:
        """The same as tuples."""
        if not self.beneath(key, span.start_ms, span.end_ms):
            return self._select(self.group, key, span, names, _count(span)).fetchall()
        table = self.table(key, span, names)
        return list(zip(*(table[name].to_pylist() for name in names), strict=True))

    def as_of(self, key: Sequence[str], time_ms: int, names: Sequence[str]) -> tuple[Any, ...] | None:
        """The newest row of a key at or before a time, of a group with one row a time."""
        time = self.group.event_time
        found: Any = self._connection.execute(
            as_of_sql(self.group, [*names, time]), (*key, time_ms)
        ).fetchone()
        since = 0 if found is None else found[-1]
        if not self.beneath(key, since, time_ms):
            return None if found is None else tuple(found[:-1])
        rows = self.rows(key, Span(since, time_ms, 1, newest=True), names)
        return rows[0] if rows else None

    def _read(self, key: Sequence[str], span: Span, names: Sequence[str], keys: int) -> Iterator[pa.Table]:
        """The rows of each place, oldest place first."""
        for group in (*reversed(self._earlier), self.group):
            files = self._files(group, key, span.start_ms, span.end_ms)
            own = [name for name in names if name in group.names]
            if files:
                table = read_files(self._folder, files, group, key, span, own)
                yield conformed(table, self.group, names)
            if group.table in self._tables:
                yield conformed(self._from_table(group, key, span, own, keys), self.group, names)

    def _from_table(
        self, group: FeatureGroup, key: Sequence[str], span: Span, names: Sequence[str], keys: int
    ) -> pa.Table:
        schema = arrow_schema([group.stored[group.index(name)] for name in names])
        rows = self._select(group, key, span, names, _count(span), keys)
        return pa.Table.from_batches(to_batches(rows, schema), schema)

    def _select(
        self,
        group: FeatureGroup,
        key: Sequence[str],
        span: Span,
        names: Sequence[str],
        count: int,
        keys: int = 1,
    ) -> apsw.Cursor:
        sql, bounds = history_sql(group, names, span, keys)
        return self._connection.execute(sql, (*key, *bounds, count))

    def _files(self, group: FeatureGroup, key: Sequence[str], first_ms: int, last_ms: int) -> list[Any]:
        return rolled_files(self._connection, group, key, first_ms, last_ms) if self._rolled else []


def _count(span: Span) -> int:
    return -1 if span.limit is None else span.limit


def _limited(table: pa.Table, span: Span) -> pa.Table:
    if span.limit is None or table.num_rows <= span.limit:
        return table
    return table.slice(table.num_rows - span.limit if span.newest else 0, span.limit)
