"""What the features service costs a row: decode, check and write, and what reading back takes.

`python benchmarks/bench_store.py [--rows N] [--folder DIR]`. Figures are CPU time of this process.
"""

import argparse
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from services.common.columns import INDICATOR_NAMES
from services.common.health import Health
from services.common.messages import TaRow, batch_headers, row_decoder, series_key
from services.common.metrics import Metrics
from services.common.step import Message
from services.common.timeframes import FIXED_MS
from services.features.groups import TA
from services.features.steps import FeaturesStep, plausible
from services.features.stores.sqlite import SqliteStore
from services.features.stores.sqlite_reader import SqliteReader

START_MS = 1_700_006_400_000 // FIXED_MS["1d"] * FIXED_MS["1d"]


class NoState:
    def get_bytes(self, key: str) -> bytes | None:  # noqa: ARG002
        return None

    def set_bytes(self, key: str, value: bytes) -> None:
        pass


def make_rows(pair: str, count: int, timeframe: str = "1m") -> list[Any]:
    rng = random.Random(pair)
    length = FIXED_MS[timeframe]
    rows = []
    for i in range(count):
        start = START_MS + i * length
        close = 100 + rng.random()
        rows.append(
            TaRow(
                *("kraken", pair, timeframe, start, start + length, close, close + 1, close - 1, close),
                *(12.5 * rng.random(), close, 0.0, rng.randrange(1, 99), True, 0),
                *(rng.random() * 100 for _ in INDICATOR_NAMES),
            )
        )
    return rows


def messages(rows: int, batch: int, pairs: int) -> list[Message]:
    """Batches as they come in a backfill: the pairs take turns."""
    of_pair = {f"P{i}/USD": make_rows(f"P{i}/USD", rows // pairs) for i in range(pairs)}
    return [
        Message(
            series_key("kraken", pair),
            msgspec.json.encode(of_pair[pair][begin : begin + batch]),
            START_MS,
            batch_headers(START_MS),
        )
        for begin in range(0, rows // pairs, batch)
        for pair in of_pair
    ]


def cpu_s(work: Callable[[], Any]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def bench_writes(folder: Path, rows: int, batch: int) -> None:
    path = folder / f"batch{batch}.sqlite"
    store = SqliteStore(path)
    store.ensure_group(TA)
    step = FeaturesStep(TA, TaRow, store, Metrics(), Health(60))
    todo = messages(rows, batch, pairs=20)
    latencies = []

    def run() -> None:
        for i, message in enumerate(todo):
            begun = time.perf_counter()
            step(message, NoState())
            latencies.append(time.perf_counter() - begun)
            if i % 200 == 0:
                store.flush()

    for message in todo[:20]:
        # A pair's first message compiles its decoder.
        step(Message(message.key, b"[]", 0, None), NoState())
    used = cpu_s(run)
    written = store.sql("SELECT count(*) FROM ta")[1][0][0]
    store.close()
    cuts = statistics.quantiles(latencies, n=100)
    print(
        f"{batch:5d} rows a batch: {used / written * 1e6:6.1f} µs CPU a row, "
        f"{used / len(todo) * 1e6:7.0f} µs a message; wall p50 {cuts[49] * 1e6:.0f} µs, "
        f"p99 {cuts[98] * 1e6:.0f} µs; {path.stat().st_size / written:.0f} bytes a row"
    )


def bench_parts(rows: int) -> None:
    todo = messages(rows, 80, pairs=1)
    row: Any = TaRow
    decoder = row_decoder(row, todo[0].key)
    decoded: list[list[Any]] = []
    decode = cpu_s(lambda: decoded.extend(decoder.decode(m.value) for m in todo))
    check = cpu_s(lambda: [plausible(batch, 2**62) for batch in decoded])
    as_tuples = cpu_s(lambda: [[msgspec.structs.astuple(row) for row in batch] for batch in decoded])
    print(
        f"of it decode {decode / rows * 1e6:.1f}, check {check / rows * 1e6:.1f}, "
        f"tuples {as_tuples / rows * 1e6:.1f} µs a row"
    )


def bench_reads(folder: Path, rows: int) -> None:
    path = folder / "read.sqlite"
    with SqliteStore(path) as store:
        store.ensure_group(TA)
        made = [msgspec.structs.astuple(row) for row in make_rows("BTC/USD", rows)]
        for begin in range(0, rows, 1000):
            store.write(TA, made[begin : begin + 1000])
    with SqliteReader(path) as reader:
        # The first Arrow array of a process imports pandas where that is installed: 1 s.
        reader.history("BTC/USD", "1m", limit=1)
        for name, ask in (
            ("history", lambda: reader.history("BTC/USD", "1m").num_rows),
            ("history, 5 columns", lambda: reader.history("BTC/USD", "1m", columns=TA.features[:5])),
            ("training_set", lambda: reader.training_set("BTC/USD", "1m").num_rows),
            ("describe", lambda: reader.describe()),
            ("to_pandas", lambda: reader.history("BTC/USD", "1m").to_pandas()),
            ("latest", lambda: reader.latest("BTC/USD", "1m")),
        ):
            begun = time.perf_counter()
            ask()
            print(f"{name} of {rows} rows × {len(TA.stored)} columns: {time.perf_counter() - begun:.4f} s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, help="where to put the stores; a temporary one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        for batch in (1, 5, 80, 1000):
            # Enough messages to mean something, and not so many rows that large batches take minutes.
            bench_writes(folder, min(arguments.rows, 5_000 * batch), batch)
        bench_parts(min(arguments.rows, 40_000))
        bench_reads(folder, arguments.rows)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory {peak:.0f} MB, the benchmark's own data included")
    return 0


if __name__ == "__main__":
    sys.exit(main())
