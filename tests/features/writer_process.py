"""A process that writes batches without end, for the tests that read beside it or kill it.

`python -m tests.features.writer_process PATH`: batch n holds `BATCH` rows whose close is n + 1, in a
random order of timeframes; a line is printed when a batch is in the store.
"""

import sys
import time
from pathlib import Path

from services.features.groups import TA
from services.features.stores.contract import Store
from services.features.stores.sqlite import SqliteStore
from tests.features.rows import ta_row, tuples

BATCH = 20


def write_without_end(store: Store, *, flush: bool, pause_s: float = 0.0) -> None:
    """Write batches, with a pause after each where readers are slower than the writer."""
    template = tuples([ta_row(0)])[0]
    start, end, close = (TA.index(name) for name in ("start_ms", "end_ms", "close"))
    batch = 0
    while True:
        rows = []
        for i in range(batch * BATCH, (batch + 1) * BATCH):
            row = list(template)
            row[start] += i * 60_000
            row[end] += i * 60_000
            row[close] = float(batch + 1)
            rows.append(tuple(row))
        store.write(TA, rows)
        if flush:
            store.flush()
        batch += 1
        sys.stdout.write(f"{batch}\n")
        sys.stdout.flush()
        time.sleep(pause_s)


def main() -> None:
    store = SqliteStore(Path(sys.argv[1]))
    store.ensure_group(TA)
    # What a kill must not lose is lost by none without a flush either.
    write_without_end(store, flush=False)


if __name__ == "__main__":
    main()
