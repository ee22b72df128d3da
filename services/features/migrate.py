"""`python -m services.features.migrate` moves rows of earlier versions into the newest one of each group."""

import argparse
import sys
from collections.abc import Sequence

from services.common.errors import ServiceError
from services.features.query import store_path
from services.features.stores.sqlite_migrate import migrate


def main(arguments: Sequence[str] | None = None) -> int:
    """Migrate from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m services.features.migrate",
        description="Move the rows of earlier versions of the feature groups into the newest, with nulls in "
        "the columns that are new, also while the service writes.",
    )
    parser.add_argument("--store", help="path of the store (FEATURES_STORE_PATH)")
    asked = parser.parse_args(arguments)
    try:
        moved = [*migrate(store_path(asked.store))]
    except ServiceError as error:
        sys.stderr.write(f"migrate: {' '.join(str(error).split())}\n")
        return 1
    for done in moved:
        sys.stdout.write(f"{done.table} → {done.into}: {done.rows} rows\n")
    if not moved:
        sys.stdout.write("every group has one version: nothing to move\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
