"""The SQL of a feature group: its tables, its upserts and the registry that describes it.

Names come from the registry in `groups.py` only and are checked once more here; values are always
parameters.
"""

import json
import re
from difflib import unified_diff
from typing import Any

import apsw

from services.common.columns import Column
from services.common.errors import SchemaMismatchError, StoreError
from services.features.groups import INGESTED, FeatureGroup

SQL_TYPES = {"text": "TEXT", "int": "INTEGER", "float": "REAL", "bool": "INTEGER"}
_NAME = re.compile(r"^[a-z][a-z0-9_]{0,60}$")

REGISTRY_SQL = """
CREATE TABLE IF NOT EXISTS feature_groups (
  name TEXT NOT NULL, version INTEGER NOT NULL, description TEXT NOT NULL,
  key TEXT NOT NULL, event_time TEXT NOT NULL, revision TEXT NOT NULL, closed TEXT NOT NULL,
  sparse TEXT NOT NULL, "within" TEXT NOT NULL DEFAULT '[]', PRIMARY KEY (name, version)
) STRICT;
CREATE TABLE IF NOT EXISTS feature_columns (
  group_name TEXT NOT NULL, group_version INTEGER NOT NULL, position INTEGER NOT NULL,
  name TEXT NOT NULL, kind TEXT NOT NULL, unit TEXT NOT NULL, description TEXT NOT NULL,
  nullable INTEGER NOT NULL, PRIMARY KEY (group_name, group_version, position)
) STRICT;
"""


_REGISTERED = 'name, version, description, key, event_time, revision, closed, sparse, "within"'


def quoted(name: str) -> str:
    """A name for SQL text."""
    if not _NAME.match(name):
        raise ValueError(f"{name!r} is no column or table name")
    return f'"{name}"'


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(quoted(name) for name in names)


def create_sql(group: FeatureGroup) -> str:
    """The two tables of a group, and views under its plain name for people who write SQL.

    WITHOUT ROWID keeps a series together on disk: reading one is sequential, which is worth the 2 µs a
    row that inserting costs more than appending.
    """
    columns = ", ".join(
        f"{quoted(column.name)} {SQL_TYPES[column.kind]}{'' if column.nullable else ' NOT NULL'}"
        for column in group.stored
    )
    offline, online = quoted(group.table), quoted(f"{group.table}_online")
    return f"""
CREATE TABLE IF NOT EXISTS {offline} ({columns},
  PRIMARY KEY ({_names(group.primary_key)})) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS {online} ({columns},
  PRIMARY KEY ({_names(group.key)})) STRICT, WITHOUT ROWID;
DROP VIEW IF EXISTS {quoted(group.name)};
CREATE VIEW {quoted(group.name)} AS SELECT * FROM {offline};
DROP VIEW IF EXISTS {quoted(group.name + "_online")};
CREATE VIEW {quoted(group.name + "_online")} AS SELECT * FROM {online};
"""  # noqa: S608


def upsert_sql(group: FeatureGroup, *, online: bool, over_equal: bool = True) -> str:
    """The statement that writes one row, idempotently.

    Offline a later (or the same) revision replaces a row; without revisions the later write does.
    Online a row never goes back: the order is by event time, then closed over open, then revision.
    Unless `over_equal`, only what is later replaces.
    """
    key = group.key if online else group.primary_key
    states = () if group.revision is None else (group.revision,)
    order = group.order if online else states
    table = f"{group.table}_online" if online else group.table
    updates = ", ".join(
        f"{quoted(name)} = excluded.{quoted(name)}" for name in group.names if name not in key
    )
    new = ", ".join(f"excluded.{quoted(name)}" for name in order)
    newer = f"WHERE ({new}) {'>=' if over_equal else '>'} ({_names(order)})" if order else ""
    action = f"UPDATE SET {updates} {newer}" if order or over_equal else "NOTHING"
    # S608: all names are checked by `quoted`.
    return (
        f"INSERT INTO {quoted(table)} VALUES ({', '.join('?' * len(group.names))}) "  # noqa: S608
        f"ON CONFLICT ({_names(key)}) DO {action}"
    )


def table_columns(connection: apsw.Connection, table: str) -> list[tuple[str, str, bool]]:
    """Name, type and nullability of each column; empty when there is no such table."""
    rows = connection.execute('SELECT name, type, "notnull" FROM pragma_table_xinfo(?)', (table,))
    return [(name, kind, not notnull) for name, kind, notnull in rows]


def has_rows(connection: apsw.Connection, table: str) -> bool:
    """Whether there is such a table, with a row in it."""
    sql = f"SELECT 1 FROM {quoted(table)} LIMIT 1"  # noqa: S608
    return bool(table_columns(connection, table) and connection.execute(sql).fetchall())


def check_tables(connection: apsw.Connection, group: FeatureGroup, path: str) -> None:
    """Compare the tables of a group with its registry. Raises `SchemaMismatchError` showing both."""
    expected = [f"{c.name} {SQL_TYPES[c.kind]}{'' if c.nullable else ' NOT NULL'}" for c in group.stored]
    for table in (group.table, f"{group.table}_online"):
        found = [
            f"{name} {kind}{'' if nullable else ' NOT NULL'}"
            for name, kind, nullable in table_columns(connection, table)
        ]
        if found == expected:
            continue
        differences = unified_diff(
            *(
                found,
                expected,
                f"table {table} of {path}",
                f"feature group {group.name} version {group.version}",
            ),
            n=1,
            lineterm="",
        )
        raise SchemaMismatchError(
            f"table {table} of {path} has other columns than feature group {group.name} version "
            f"{group.version}; raise the group's version (its rows stay readable), or use another file\n"
            + "\n".join(f"  {line}" for line in differences)
            + f"\n  table:    {', '.join(line.split()[0] for line in found) or 'missing'}"
            + f"\n  registry: {', '.join(group.names)}"
        )


def working_copies(connection: apsw.Connection) -> list[str]:
    """The tables whose changes another store gets: those with triggers, which nobody else makes."""
    rows = connection.execute(
        "SELECT DISTINCT tbl_name FROM sqlite_schema WHERE type = 'trigger' ORDER BY tbl_name"
    )
    return [table for (table,) in rows]


def check_moveable(connection: apsw.Connection, group: FeatureGroup, path: object) -> None:
    """Raises `StoreError` when something hangs on a group's rows, and must not miss what becomes of them."""
    sql = "SELECT name FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = ?"
    triggers: list[Any] = connection.execute(sql, (group.table,)).fetchall()
    if triggers:
        raise StoreError(
            f"{path} is the working copy of another store, which looks after its old rows itself "
            f"(trigger {triggers[0][0]} on {group.table}); `make migrate leave=hopsworks store={path}` makes "
            "it a store of its own"
        )


def create_registry(connection: apsw.Connection) -> None:
    """Make the registry's tables; one of before news gets the column that it lacks."""
    connection.execute(REGISTRY_SQL)
    if not _has_within(connection):
        connection.execute("""ALTER TABLE feature_groups ADD COLUMN "within" TEXT NOT NULL DEFAULT '[]'""")


def _has_within(connection: apsw.Connection) -> bool:
    return "within" in (name for name, _, _ in table_columns(connection, "feature_groups"))


def save_group(connection: apsw.Connection, group: FeatureGroup) -> None:
    """Write the description of a group into the registry."""
    connection.execute(
        f"INSERT OR REPLACE INTO feature_groups ({_REGISTERED}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
        (
            *(group.name, group.version, group.description, json.dumps(group.key)),
            *(group.event_time, group.revision or "", group.closed or ""),
            *(json.dumps(group.sparse), json.dumps(group.within)),
        ),
    )
    identity = (group.name, group.version)
    connection.execute("DELETE FROM feature_columns WHERE (group_name, group_version) = (?, ?)", identity)
    connection.executemany(
        "INSERT INTO feature_columns VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (*identity, i, c.name, c.kind, c.unit, c.description, c.nullable)
            for i, c in enumerate(group.stored)
        ],
    )


def load_groups(connection: apsw.Connection) -> dict[str, FeatureGroup]:
    """The newest version of each group that the registry describes, by name."""
    return {name: versions[0] for name, versions in load_versions(connection).items()}


def load_versions(connection: apsw.Connection) -> dict[str, list[FeatureGroup]]:
    """Every version of each group that the registry describes, newest first, by name."""
    if not table_columns(connection, "feature_groups"):
        return {}
    groups: dict[str, list[FeatureGroup]] = {}
    fields = _REGISTERED if _has_within(connection) else _REGISTERED.replace('"within"', "'[]'")
    found: list[Any] = connection.execute(
        f"SELECT {fields} FROM feature_groups ORDER BY name, version DESC"  # noqa: S608
    ).fetchall()
    for name, version, description, key, event_time, revision, closed, sparse, within in found:
        columns = connection.execute(
            "SELECT name, kind, unit, description, nullable FROM feature_columns "
            "WHERE (group_name, group_version) = (?, ?) ORDER BY position",
            (name, version),
        )
        group = FeatureGroup(
            name=name,
            version=version,
            description=description,
            columns=tuple(
                Column(column, kind, unit, text, bool(nullable))
                for column, kind, unit, text, nullable in columns
                if column != INGESTED.name
            ),
            key=tuple(json.loads(key)),
            event_time=event_time,
            revision=revision or None,
            closed=closed or None,
            sparse=tuple(json.loads(sparse)),
            within=tuple(json.loads(within)),
        )
        groups.setdefault(name, []).append(group)
    return groups
