"""`python -m services.features.export --out DIR` writes the closed rows as Parquet files.

One file a series, partitioned the way DuckDB, Polars, pandas and Spark read without being told:
``DIR/ta/exchange=kraken/pair=BTC%2FUSD/timeframe=1m/ta.parquet``, and a coin's news beside it in
``DIR/sentiment/coin=BTC/sentiment.parquet``. The version of a group is in each file's metadata.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from services.common.errors import QueryError, ServiceError, StoreError
from services.features.groups import FeatureGroup
from services.features.joins import base_coin
from services.features.partitions import key_folder
from services.features.query import store_path
from services.features.stores.contract import Reader
from services.features.stores.sqlite_reader import SqliteReader
from services.features.times import Time, to_ms

#: Rows of one page of history, and of one row group of a file.
PAGE_ROWS = 100_000


@dataclass(frozen=True, slots=True)
class Written:
    """One exported file."""

    path: Path
    rows: int
    size_bytes: int


def export(
    store: Reader,
    out: Path,
    *,
    group: str = "ta",
    pairs: Sequence[str] | None = None,
    timeframes: Sequence[str] | None = None,
    coins: Sequence[str] | None = None,
    start: Time | None = None,
    end: Time | None = None,
) -> list[Written]:
    """Write the closed rows with ``start <= event time <= end``, one file a series; what was written.

    `pairs` and `timeframes` choose series of `ta`, `coins` those of the groups of news. A file appears
    under its name when it is complete. Key columns are in the path, not in the file.
    Raises `QueryError`, `StoreError`.
    """
    described = store.groups().get(group)
    if described is None:
        raise QueryError(f"unknown feature group {group!r}")
    written = []
    for row in _series(store, group, pairs, timeframes, coins):
        key = {name: str(row[name]) for name in described.key}
        folder = out / group / key_folder(described.key, [*key.values()])
        pages = _pages(store, described, key, start, end)
        try:
            done = _write(folder / f"{group}.parquet", pages, described)
            if done is not None:
                _remove_others(done.path, group)
        except OSError as error:
            raise StoreError(f"cannot write to {folder}: {error.strerror or error}") from error
        if done is not None:
            written.append(done)
    return written


def _series(
    store: Reader,
    group: str,
    pairs: Sequence[str] | None,
    timeframes: Sequence[str] | None,
    coins: Sequence[str] | None,
) -> Iterator[dict[str, object]]:
    for pair, timeframe, coin in product(pairs or (None,), timeframes or (None,), coins or (None,)):
        yield from store.latest_all(pair, timeframe, group=group, coin=coin)


def _pages(
    store: Reader, group: FeatureGroup, key: dict[str, str], start: Time | None, end: Time | None
) -> Iterator[pa.Table]:
    """The history of one series, a page at a time, so that the memory does not grow with it."""
    since, after = start, None
    while True:
        page = store.history(
            key.get("pair"),
            key.get("timeframe"),
            since,
            end,
            exchange=key.get("exchange"),
            limit=PAGE_ROWS,
            group=group.name,
            coin=key.get("coin"),
            after=after,
        )
        if page.num_rows:
            yield page
        if page.num_rows < PAGE_ROWS:
            return
        last: int = page[group.event_time][-1].as_py()
        if group.within:
            since, after = last, page[group.within[0]][-1].as_py()
        elif end is not None and last >= to_ms(end):
            return
        else:
            since = last + 1


def _write(path: Path, pages: Iterator[pa.Table], group: FeatureGroup) -> Written | None:
    key = list(group.key)
    first = next(pages, None)
    if first is None:
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    rows = 0
    metadata = {"feature_group": group.name, "feature_group_version": str(group.version)}
    schema = first.drop_columns(key).schema.with_metadata(metadata)
    with pq.ParquetWriter(unfinished, schema, compression="zstd") as writer:
        for page in (first, *pages):
            writer.write_table(page.drop_columns(key))
            rows += page.num_rows
    unfinished.replace(path)
    return Written(path, rows, path.stat().st_size)


def _remove_others(path: Path, group: str) -> None:
    """Remove what an export of before left under a name with a version: readers would take both files."""
    for other in path.parent.glob(f"{group}_*.parquet"):
        if other.stem.removeprefix(f"{group}_").isdecimal():
            other.unlink(missing_ok=True)


def _export(store: SqliteReader, group: str, asked: argparse.Namespace) -> list[Written]:
    """One group, as the command line asks for it."""
    chosen: dict[str, Sequence[str] | None] = {"pairs": asked.pair, "timeframes": asked.timeframe}
    found = store.groups().get(group)
    if found is not None and "coin" in found.key:
        coins = asked.coin
        if coins is None and asked.pair is not None:
            # Of a pair that nobody writes about there is no news, which is no error.
            known = {coin for (coin,) in store.series(group)}
            coins = sorted(known & {base_coin(pair) for pair in asked.pair})
            if not coins:
                return []
        chosen = {"coins": coins}
    return export(store, asked.out, group=group, start=asked.start, end=asked.end, **chosen)


def main(arguments: Sequence[str] | None = None) -> int:
    """Export from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m services.features.export", description="Write the features as Parquet files."
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--group", action="append", help="like sentiment; all groups without it")
    parser.add_argument("--pair", action="append", help="like BTC/USD; of news, that of its base coin")
    parser.add_argument("--timeframe", action="append", help="like 1m; may be given several times")
    parser.add_argument("--coin", action="append", help="like BTC; may be given several times")
    parser.add_argument("--from", dest="start", help="first event time, ISO 8601 or epoch ms")
    parser.add_argument("--to", dest="end", help="last event time, ISO 8601 or epoch ms")
    parser.add_argument("--store", help="path of the store (FEATURES_STORE_PATH)")
    asked = parser.parse_args(arguments)
    try:
        with SqliteReader(store_path(asked.store)) as store:
            written = [
                file for group in asked.group or store.groups() for file in _export(store, group, asked)
            ]
    except ServiceError as error:
        sys.stderr.write(f"export: {' '.join(str(error).split())}\n")
        return 1
    for file in written:
        sys.stdout.write(f"{file.rows:9d} rows  {file.size_bytes:11d} bytes  {file.path}\n")
    sys.stdout.write(f"{sum(file.rows for file in written)} rows in {len(written)} files\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
