"""`python -m services.features.migrate` moves rows of earlier versions into the newest one of each group."""

import argparse
import sys
from collections.abc import Sequence

from services.common.errors import ServiceError
from services.features.query import store_path
from services.features.stores.hopsworks import leave_hopsworks
from services.features.stores.sqlite_migrate import migrate, staying


def main(arguments: Sequence[str] | None = None) -> int:
    """Migrate from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m services.features.migrate",
        description="Move the rows of earlier versions of the feature groups into the newest, with nulls in "
        "the columns that are new, also while the service writes.",
    )
    parser.add_argument(
        "--leave-hopsworks",
        action="store_true",
        help="make a working copy an SQLite store of its own instead",
    )
    parser.add_argument("--store", help="path of the store (FEATURES_STORE_PATH)")
    asked = parser.parse_args(arguments)
    if asked.leave_hopsworks:
        return _leave(asked.store)
    try:
        path = store_path(asked.store)
        moved = [*migrate(path)]
        left = staying(path)
    except ServiceError as error:
        sys.stderr.write(f"migrate: {' '.join(str(error).split())}\n")
        return 1
    for done in moved:
        sys.stdout.write(f"{done.table} → {done.into}: {done.rows} rows\n")
    for line in left:
        sys.stdout.write(f"{line}\n")
    if not moved:
        sys.stdout.write("nothing to move\n" if left else "every group has one version: nothing to move\n")
    return 0


def _leave(store: str | None) -> int:
    try:
        path = store_path(store)
        waited = leave_hopsworks(path)
    except ServiceError as error:
        sys.stderr.write(f"migrate: {' '.join(str(error).split())}\n")
        return 1
    for table, rows in waited.items():
        sys.stdout.write(f"{table}: changes are no longer noted; {rows} had not reached Hopsworks\n")
    if not waited:
        sys.stdout.write(f"{path} is no working copy of Hopsworks: nothing to do\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
