"""What rolling a store does: bytes a row and a year before and after, and how long writers wait meanwhile.

`python -m benchmarks.bench_roll [--store .demo/features.sqlite]` works on a copy. A year of a pair is counted
from the bytes a row that were measured, since `make demo` plays four months of one.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import apsw

from services.common.timeframes import DAY_MS, FIXED_MS
from services.features.groups import GROUPS, TA
from services.features.stores.sqlite import SqliteStore
from services.features.stores.sqlite_shrink import compact
from tests.features.rows import T0, ta_row, tuples

YEAR_ROWS = {**{name: 365 * DAY_MS // length for name, length in FIXED_MS.items()}, "1M": 12}
ROLL = [sys.executable, "-m", "services.features.roll"]


def copied(source: Path, path: Path) -> None:
    """A compact copy, whatever is in the log of the original."""
    apsw.Connection(str(path)).backup("main", apsw.Connection(str(source)), "main").step()
    compact(path)


def bytes_in_parquet(store: SqliteStore) -> dict[str, float]:
    """Bytes a row of each timeframe's files."""
    files: list[Any] = store.sql(
        "SELECT key, row_count, size_bytes FROM rolled_files WHERE group_table = 'ta_1'"
    )[1]
    sums: dict[str, list[int]] = {}
    for key, rows, size in files:
        (timeframe,) = (name for name in YEAR_ROWS if f'"{name}"' in key)
        known = sums.setdefault(timeframe, [0, 0])
        known[0] += rows
        known[1] += size
    return {name: size / rows for name, (rows, size) in sums.items()}


def write_beside(store: SqliteStore, process: subprocess.Popen[bytes]) -> list[float]:
    """Seconds of each write and flush of four rows, a hundred times a second, until the process ends."""
    template = tuples([ta_row(0, pair=f"P{i}/USD") for i in range(4)])
    start, end = TA.index("start_ms"), TA.index("end_ms")
    waits: list[float] = []
    while process.poll() is None:
        rows = []
        for row in template:
            values = list(row)
            values[start] = T0 + 1_000 * DAY_MS + len(waits) * 60_000
            values[end] = values[start] + 60_000
            rows.append(tuple(values))
        begun = time.perf_counter()
        store.write(TA, rows)
        store.flush()
        waits.append(time.perf_counter() - begun)
        time.sleep(0.01)
    return sorted(waits)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, default=Path(".demo/features.sqlite"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "features.sqlite")
        copied(arguments.store, path)
        with SqliteStore(path) as store:
            for group in GROUPS.values():
                store.ensure_group(group)
            size = store.sql("SELECT sum(pgsize) FROM dbstat WHERE name = 'ta_1'")[1][0][0]
            rows = store.sql("SELECT count(*) FROM ta_1")[1][0][0]
            in_sqlite = size / rows
            begun = time.perf_counter()
            process = subprocess.Popen([*ROLL, "--store", str(path), "--days", "0"])
            waits = write_beside(store, process)
            elapsed = time.perf_counter() - begun
            in_parquet = bytes_in_parquet(store)
        print(
            f"rolled {rows:,} rows in {elapsed:.1f} s beside a writer; {len(waits)} writes meanwhile: "
            f"p50 {waits[len(waits) // 2] * 1e3:.1f} ms, p99 {waits[len(waits) * 99 // 100] * 1e3:.1f} ms, "
            f"longest {waits[-1] * 1e3:.0f} ms"
        )
    print("timeframe  rows a year  SQLite MB  Parquet MB  bytes a row")
    total = [0.0, 0.0]
    for name, count in YEAR_ROWS.items():
        sizes = (count * in_sqlite / 1e6, count * in_parquet[name] / 1e6)
        total = [a + b for a, b in zip(total, sizes, strict=True)]
        print(
            f"{name:>9}{count:13,}{sizes[0]:11.1f}{sizes[1]:12.1f}   {in_sqlite:.0f} → {in_parquet[name]:.0f}"
        )
    print(f"{'a pair':>9}{sum(YEAR_ROWS.values()):13,}{total[0]:11.1f}{total[1]:12.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
