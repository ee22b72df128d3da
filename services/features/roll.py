"""`python -m services.features.roll --days 90` moves old rows into Parquet files beside the store."""

import argparse
import sys
import time
from collections.abc import Sequence

from services.common.errors import QueryError, ServiceError
from services.features.query import store_path
from services.features.retention import before_ms
from services.features.stores.sqlite_roll import Roll
from services.features.stores.sqlite_rolled import rolled_folder
from services.features.stores.sqlite_shrink import can_shrink, compact


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Roll from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m services.features.roll",
        description="Move rows that are older than some days from an SQLite store into Parquet files beside "
        "it, also while the service writes. `history`, `training_set` and the HTTP API read both.",
    )
    parser.add_argument("--days", type=int, default=90, help="whole UTC days to keep in SQLite (90)")
    parser.add_argument(
        "--compact", action="store_true", help="rewrite a file that cannot shrink; nobody can write meanwhile"
    )
    parser.add_argument("--store", help="path of the store (FEATURES_STORE_PATH)")
    asked = parser.parse_args(arguments)
    try:
        if asked.days < 0:
            raise QueryError("--days must not be negative")
        path = store_path(asked.store)
        rolls = [*Roll(path, clock_ms=_now_ms).before(before_ms(_now_ms(), asked.days))]
        if asked.compact:
            compact(path)
        hint = (
            "" if can_shrink(path) else "; --compact (make roll compact=1) lets it shrink, once and for all"
        )
    except ServiceError as error:
        sys.stderr.write(f"roll: {' '.join(str(error).split())}\n")
        return 1
    taken = sum(done.taken for done in rolls)
    size = sum(done.size_bytes for done in rolls)
    sys.stdout.write(
        f"{taken} rows into {len(rolls)} files of {size} bytes in {rolled_folder(path)}; "
        f"{path} has {path.stat().st_size} bytes{hint}\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
