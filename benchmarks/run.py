"""`make bench`: every figure of the design in one run, side by side, as a table.

`python -m benchmarks.run [PART …] [--scale 0.2]` runs some parts, or a short form.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.backfill import bench_backfill
from benchmarks.measure import (
    BEGIN_MS,
    PAIRS,
    Bench,
    Rate,
    Row,
    Table,
    batches,
    fill,
    growth,
    interleave,
    markets,
    peak_mib,
    resident_mib,
    singles,
)
from benchmarks.news import bench_news
from benchmarks.training import bench_training
from services.common.messages import Candle, encode, series_key
from services.common.timeframes import MINUTE_MS
from services.common.topics import ensure_topics
from services.demo.market import EXCHANGE, simulate, write_csv
from services.demo.progress import latency_counts, quantile_s, total

MIB_LIMIT = 300.0


def bench_candles(table: Table, scale: float) -> None:
    """The candles service against a plain Quix tumbling window, on the same trades."""
    table.title("candles: 4 pairs, 5 trades/s each, 9 timeframes; the plain window makes 1m only")
    plain_count = 60_000
    ours_count = int(4_000_000 * scale)
    with Bench() as bench:
        ensure_topics(bench.settings, ("trades",))
        streams = [singles(market) for market in markets(plain_count, 5.0)]
        rows = fill(bench.settings, "trades", interleave(streams))
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.plain_quix"]
        command += [bench.broker.address, "trades", str(rows), str(bench.folder / "plain")]
        result = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
        plain, plain_cpu = (float(value) for value in result.stdout.split())
    note = f"{plain_cpu / plain_count * 1e6:.1f} CPU s per 1M"
    table.add(Row("plain Quix tumbling window, 1 trade a message", plain, "trades/s", note=note))
    for size, target in ((10, None), (100, None), (1_000, 1_500_000.0)):
        # The embedded broker slows down with the number of messages, so small ones are fewer.
        count = min(ours_count, 8_000 * size)
        with Bench() as bench:
            ensure_topics(bench.settings, ("trades",))
            rows = fill(bench.settings, "trades", interleave([batches(m, size) for m in markets(count, 5.0)]))
            rate = bench.watch("candles", rows)
        table.add(_rate_row(f"candles service, {size:,} trades a message", rate, "trades/s", target))
    table.add(Row("ratio, candles service to plain window", rate.per_second / plain, "×", 50.0))


def _rate_row(what: str, rate: Rate, unit: str, target: float | None) -> Row:
    note = f"{rate.cpu_s:.2f} CPU s per 1M, peak {rate.peak_mib:.0f} MiB"
    return Row(what, rate.per_second, unit, target, note=note)


def bench_ta(table: Table, scale: float) -> None:
    """The ta service on batches of candles, all indicators."""
    table.title("ta: all indicators, batches of 1,000 one-minute candles")
    count = int(300_000 * scale)
    with Bench() as bench:
        ensure_topics(bench.settings, ("candles",))
        streams = []
        for number, pair in enumerate(PAIRS):
            streams.append(_candle_batches(pair, count // len(PAIRS), number))
        rows = fill(bench.settings, "candles", interleave(streams))
        rate = bench.watch("ta", rows)
    table.add(_rate_row("ta service", rate, "candles/s", 50_000.0))


def _candle_batches(pair: str, count: int, seed: int) -> list[tuple[bytes, bytes, int]]:
    market = simulate(pair, BEGIN_MS, [(count * MINUTE_MS, 1 / 60)], 100.0, seed)
    candles = []
    for index, (price, quantity) in enumerate(
        zip(market.prices.tolist(), market.quantities.tolist(), strict=True)
    ):
        start_ms = BEGIN_MS + index * MINUTE_MS
        low, high = price * 0.999, price * 1.001
        candles.append(
            Candle(
                EXCHANGE, pair, "1m", start_ms, start_ms + MINUTE_MS, price, high, low, price,
                quantity, price, quantity / 2, 1, True, 0,
            )
        )  # fmt: skip
    key = series_key(EXCHANGE, pair)
    slices = (candles[begin : begin + 1_000] for begin in range(0, len(candles), 1_000))
    return [(key, encode(part), len(part)) for part in slices]


def bench_store(table: Table, scale: float) -> None:
    """Trades from CSV to the store, through all four services."""
    table.title("trades → store through all four services (2 cores, embedded broker, 8,000 trades a message)")
    for name, per_second, count, target in (
        ("dense, 5 trades a second per pair", 5.0, 10_000_000, 500_000.0),
        ("sparse, one trade in 5 s per pair", 0.2, 1_500_000, 100_000.0),
    ):
        # The embedded broker searches its log for every fetch: fewer fetches leave the cores to us.
        with Bench(KAFKA_FETCH_WAIT_MS="200") as bench:
            folder = bench.folder / "market"
            folder.mkdir()
            trades = 0
            for market in markets(int(count * scale), per_second):
                write_csv(market, folder / f"{market.pair.replace('/', '-')}.csv", 1)
                trades += len(market.times_ms)
            _run_store(table, bench, name, folder, trades, target)


def _run_store(table: Table, bench: Bench, name: str, folder: Path, trades: int, target: float) -> None:
    candles = bench.cluster.start("candles", {})
    ta = bench.cluster.start("ta", {})
    features = bench.cluster.start("features", {"STORE_PATH": str(bench.folder / "features.sqlite")})
    bench.cluster.wait_until_up()
    consumers = (candles, ta, features)
    source = bench.cluster.start(
        "trades",
        {
            "EXCHANGE": EXCHANGE,
            "SOURCE": "replay",
            "PAIRS": ",".join(PAIRS),
            "REPLAY_PATH": str(folder),
            "REPLAY_SPEED": "0",
            "BATCH_ROWS": "8000",
        },
    )
    began: float | None = None
    memory: dict[str, list[tuple[int, float]]] = {s.name: [] for s in consumers}
    cpu_before = {s.name: s.metrics()["process_cpu_seconds_total"] for s in consumers}
    peak_source = 0.0
    while True:
        bench.cluster.check()
        done = total(candles.metrics(), "rows_in_total")
        if began is None and done:
            began = time.monotonic()
        if source.process.poll() is None:
            peak_source = max(peak_source, peak_mib(source))
        for service in consumers:
            memory[service.name].append((done, resident_mib(service)))
        upstream = [total(candles.metrics(), "rows_out_total"), total(ta.metrics(), "rows_out_total")]
        stored = total(features.metrics(), "rows_in_total")
        if done >= trades and upstream[0] == upstream[1] == stored:
            break
        # Looking costs the services some milliseconds each time.
        time.sleep(0.3)
    elapsed = time.monotonic() - (began or 0.0)
    cpu = " ".join(
        f"{s.name} {(s.metrics()['process_cpu_seconds_total'] - cpu_before[s.name]) / trades * 1e6:.2f}"
        for s in consumers
    )
    note = f"{stored:,} rows stored; CPU s per 1M trades: {cpu}"
    table.add(Row(name, trades / elapsed, "trades/s", target, note=note))
    peaks = {"trades": peak_source, **{s.name: peak_mib(s) for s in consumers}}
    for service_name, mib in peaks.items():
        grown = memory.get(service_name)
        note = f"growth in the last two thirds {growth(grown):+.0f} MiB" if grown else ""
        table.add(
            Row(f"  peak memory, {service_name}", mib, "MiB", MIB_LIMIT, higher_is_better=False, note=note)
        )


def bench_latency(table: Table, scale: float) -> None:
    """A trade's frame in to its row readable, at 200 trades/s with the clock running 60 times as fast."""
    table.title("live latency at 200 trades/s: frame of the closing trade in → feature row readable")
    seconds = max(10, int(60 * scale))
    speed, pairs = 60.0, PAIRS
    with Bench() as bench:
        folder = bench.folder / "market"
        folder.mkdir()
        length_ms = int(seconds * speed * 1_000)
        for number, pair in enumerate(pairs):
            market = simulate(pair, BEGIN_MS, [(length_ms, 200 / len(pairs) / speed)], 100.0, number)
            write_csv(market, folder / f"{pair.replace('/', '-')}.csv", 1)
        bench.cluster.start("candles", {})
        ta = bench.cluster.start("ta", {})
        features = bench.cluster.start("features", {"STORE_PATH": str(bench.folder / "features.sqlite")})
        bench.cluster.wait_until_up()
        settings = {
            "EXCHANGE": EXCHANGE,
            "SOURCE": "replay",
            "PAIRS": ",".join(pairs),
            "REPLAY_PATH": str(folder),
            "REPLAY_SPEED": str(speed),
        }
        source = bench.cluster.start("trades", settings)
        # The consumers join their groups while the first candles form; that is not latency.
        while total(features.metrics(), "rows_in_total") < 4 * len(pairs):
            bench.cluster.check()
            time.sleep(0.1)
        before = latency_counts(features)
        source.process.wait(timeout=seconds + 120)
        while total(features.metrics(), "rows_in_total") < total(ta.metrics(), "rows_out_total"):
            bench.cluster.check()
            time.sleep(0.1)
        after = latency_counts(features)
    count = after[float("inf")] - before[float("inf")]
    for share, limit in ((0.5, 100.0), (0.99, 300.0)):
        value = quantile_s(before, after, share)
        table.add(
            Row(
                f"p{share * 100:.0f}",
                float("nan") if value is None else value * 1_000,
                "ms",
                limit,
                higher_is_better=False,
                note=f"{count:.0f} messages",
            )
        )


PARTS: dict[str, Callable[[Table, float], None]] = {
    "candles": bench_candles,
    "ta": bench_ta,
    "store": bench_store,
    "latency": bench_latency,
    "news": bench_news,
    "backfill": bench_backfill,
    "training": bench_training,
}


def main() -> int:
    """Run the parts that were asked for; 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all if none is named")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full amount of data")
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - set(PARTS)
    if unknown:
        parser.error(f"unknown part {', '.join(sorted(unknown))}")
    table = Table()
    for part in arguments.parts or PARTS:
        PARTS[part](table, arguments.scale)
    missed = table.missed()
    print(f"\n{len(missed)} of {sum(r.met is not None for r in table.rows)} targets missed")
    for row in missed:
        print(f"  {row.what}: {row.value:,.1f} {row.unit}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
