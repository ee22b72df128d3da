"""Rolled rows: Parquet files beside the SQLite file, and the table in it that says which of them count.

A file counts from the transaction on that names it, and its rows may be in SQLite as well until they are
deleted there; readers take each once (`layers.py`). Files never change: one that is written anew gets
another name, and the one that it replaces stays for readers that began before.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import pyarrow as pa
import pyarrow.parquet as pq

from services.common.errors import StoreError
from services.features.arrow import arrow_schema
from services.features.groups import FeatureGroup
from services.features.partitions import Period, key_folder
from services.features.stores.sqlite_schema import table_columns
from services.features.stores.sqlite_select import Span

ROLLED_SQL = """
CREATE TABLE IF NOT EXISTS rolled_files (
  path TEXT NOT NULL PRIMARY KEY, group_table TEXT NOT NULL, key TEXT NOT NULL, period TEXT NOT NULL,
  row_count INTEGER NOT NULL, first_ms INTEGER NOT NULL, last_ms INTEGER NOT NULL,
  size_bytes INTEGER NOT NULL, written_at_ms INTEGER NOT NULL, replaced_at_ms INTEGER
) STRICT;
CREATE UNIQUE INDEX IF NOT EXISTS rolled_files_current ON rolled_files (group_table, key, period)
  WHERE replaced_at_ms IS NULL;
"""
TABLE = "rolled_files"
#: What is encoded before it is written; a month of 1m at once takes 10 MB more, for a file 0.3 % smaller.
ROW_GROUP_ROWS = 8_192

_FIND = """
SELECT path, row_count, first_ms, last_ms FROM rolled_files
WHERE group_table = ? AND key = ? AND replaced_at_ms IS NULL AND last_ms >= ? AND first_ms <= ?
ORDER BY first_ms
"""


class RolledFile(NamedTuple):
    """A file that counts."""

    path: str
    rows: int
    first_ms: int
    last_ms: int


def rolled_folder(store: Path) -> Path:
    """The folder of the Parquet files of a store; it moves with the store."""
    return store.with_name(store.name + "-rolled")


def key_text(key: Sequence[str]) -> str:
    """A key as the table of files has it."""
    return json.dumps([*key])


def rolled_files(
    connection: apsw.Connection, group: FeatureGroup, key: Sequence[str], first_ms: int, last_ms: int
) -> list[RolledFile]:
    """The files of one version of a group with rows of a key in a range of times, in order."""
    found = connection.execute(_FIND, (group.table, key_text(key), first_ms, last_ms))
    return [RolledFile(*row) for row in found]


def has_files(connection: apsw.Connection, table: str) -> bool:
    """Whether rows of one version of a group were rolled."""
    if not table_columns(connection, TABLE):
        return False
    sql = f"SELECT 1 FROM {TABLE} WHERE replaced_at_ms IS NULL AND group_table = ? LIMIT 1"  # noqa: S608
    return bool(connection.execute(sql, (table,)).fetchall())


def read_files(
    folder: Path,
    files: Sequence[RolledFile],
    group: FeatureGroup,
    key: Sequence[str],
    span: Span,
    names: Sequence[str],
) -> pa.Table:
    """The columns `names` of one key's rows in a span. Raises `StoreError`."""
    # Here, since it loads pandas where that is installed, and most stores have no files.
    import pyarrow.dataset as ds

    # Those of the key are in the path.
    inside = [name for name in group.names if name not in group.key]
    schema = arrow_schema([group.stored[group.index(name)] for name in inside])
    time = ds.field(group.event_time)
    asked = (time >= span.start_ms) & (time <= span.end_ms)
    if span.after is not None:
        asked &= (time > span.start_ms) | (ds.field(group.within[0]) > span.after)
    try:
        found = ds.dataset([str(folder / file.path) for file in _needed(files, span)], schema, "parquet")
        table = found.to_table(columns=[name for name in names if name in inside], filter=asked)
    except (OSError, pa.ArrowException) as error:
        raise StoreError(
            f"cannot read rolled rows in {folder}, which belongs to the store beside it: {error}"
        ) from error
    if span.limit is not None:
        table = table.slice(max(0, table.num_rows - span.limit) if span.newest else 0, span.limit)
    for name, value in zip(group.key, key, strict=True):
        if name in names:
            table = table.append_column(name, pa.repeat(pa.scalar(value), table.num_rows))
    return table


def _needed(files: Sequence[RolledFile], span: Span) -> list[RolledFile]:
    """The files that hold the rows a limit lets through, counted from the end that it keeps."""
    if span.limit is None:
        return [*files]
    needed, sure = [], 0
    for file in reversed(files) if span.newest else files:
        if sure >= span.limit:
            break
        needed.append(file)
        # Of a file at the edge nobody knows how many rows are inside.
        if span.start_ms < file.first_ms and file.last_ms <= span.end_ms:
            sure += file.rows
    return needed[::-1] if span.newest else needed


def write_file(
    folder: Path, table: pa.Table, group: FeatureGroup, key: Sequence[str], period: Period, number: int
) -> Path:
    """A new file with rows of one key and period, on the disk when this returns."""
    inside = folder / group.table / key_folder(group.key, key)
    inside.mkdir(parents=True, exist_ok=True)
    while (path := inside / f"{period.name}.{number}.parquet").exists():
        number += 1
    unfinished = path.with_name(f".{path.name}.unfinished")
    rows = table.drop_columns(list(group.key))
    # Prices and indicators hardly repeat; with dictionaries the files are a third larger.
    texts: Any = [field.name for field in rows.schema if pa.types.is_string(field.type)]
    pq.write_table(rows, unfinished, compression="zstd", use_dictionary=texts, row_group_size=ROW_GROUP_ROWS)
    _sync(unfinished)
    unfinished.replace(path)
    for parent in (inside, *inside.parents):
        _sync(parent)
        if parent == folder.parent:
            break
    return path


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
