"""The practical limit of a backfill: Kraken archives to SQLite rows with Polars and TA-Lib, in one process.

`python -m benchmarks.polars_limit FOLDER DATABASE` prints ``trades wall_s cpu_s peak_mib``. No broker, no
restarts, no late trades, no duplicates: whoever needs none of these can have it.
"""

import resource
import sqlite3
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl

from services.common.columns import INDICATOR_NAMES
from services.ta.indicators import INPUTS, TABLE, compute

EVERY = {
    "1m": "1m",
    "5m": "5m",
    "15m": "15m",
    "30m": "30m",
    "1h": "1h",
    "4h": "4h",
    "1d": "1d",
    "1w": "1w",
    "1M": "1mo",
}
CANDLE = ("start", "open", "high", "low", "close", "volume", "vwap", "buy_volume", "trade_count")


def candles_of(trades: pl.DataFrame, every: str) -> pl.DataFrame:
    """Candles of one timeframe that have a trade, columns `CANDLE`."""
    quote = pl.col("price") * pl.col("quantity")
    return trades.group_by_dynamic("start", every=every).agg(
        open=pl.col("price").first(),
        high=pl.col("price").max(),
        low=pl.col("price").min(),
        close=pl.col("price").last(),
        volume=pl.col("quantity").sum(),
        vwap=quote.sum() / pl.col("quantity").sum(),
        buy_volume=pl.col("quantity").filter(pl.col("buy")).sum(),
        trade_count=pl.len(),
    )


def main(folder: Path, database: Path) -> None:
    """Read, aggregate, compute and write."""
    began, cpu = time.perf_counter(), time.process_time()
    count = 0
    db = sqlite3.connect(database)
    names = ", ".join(("pair", "timeframe", *CANDLE, *INDICATOR_NAMES))
    db.execute(f"CREATE TABLE ta ({names}, PRIMARY KEY (pair, timeframe, start)) WITHOUT ROWID")
    marks = ", ".join("?" * (2 + len(CANDLE) + len(INDICATOR_NAMES)))
    for path in sorted(folder.glob("*.csv")):
        trades = (
            pl.scan_csv(path, has_header=False, new_columns=["time", "price", "quantity"])
            .with_columns(
                start=pl.from_epoch((pl.col("time") * 1000).cast(pl.Int64), time_unit="ms"),
                buy=pl.col("price").diff().sign().replace(0.0, None).forward_fill().fill_null(1.0) > 0,
            )
            .collect()
        )
        count += trades.height
        for timeframe, every in EVERY.items():
            candles = candles_of(trades, every)
            columns = {name: candles[name].cast(pl.Float64).to_numpy() for name in INPUTS}
            out = np.full((len(INDICATOR_NAMES), candles.height), np.nan)
            compute(TABLE, columns, out)
            indicators = pl.DataFrame(dict(zip(INDICATOR_NAMES, out, strict=True))).fill_nan(None)
            table = candles.select(pl.col("start").dt.epoch("ms"), *CANDLE[1:]).hstack(indicators)
            rows = ((path.stem, timeframe, *row) for row in table.iter_rows())
            db.executemany(f"INSERT INTO ta VALUES ({marks})", rows)
        db.commit()
    db.close()
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(count, time.perf_counter() - began, time.process_time() - cpu, peak_mib)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
