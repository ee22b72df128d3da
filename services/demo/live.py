"""`make demo live=1`: trades of Kraken and headlines of the default feeds until Ctrl-C."""

import socket
import sys
import time
from pathlib import Path

from services.demo import summary
from services.demo.processes import Cluster, DemoError, Service
from services.demo.progress import Progress, latency_counts, quantile_s, total
from services.demo.stored import candles_in, short, signals_in

PAIRS = "BTC/USD,ETH/USD,SOL/USD,XRP/USD"


def start_consumers(cluster: Cluster, folder: Path) -> Service:
    """candles, ta, news_signals and features; returns the last."""
    for service in ("candles", "ta", "news_signals"):
        cluster.start(service, {})
    return cluster.start("features", {"STORE_PATH": str(folder / "features.sqlite")})


def run_live(cluster: Cluster, folder: Path) -> int:
    """Run until Ctrl-C. Raises `DemoError`."""
    host = "ws.kraken.com"
    try:
        socket.create_connection((host, 443), timeout=5).close()
    except OSError as error:
        raise DemoError(
            f"cannot reach {host}:443 ({error}); live=1 needs the internet, `make demo` alone does not"
        ) from error
    features = start_consumers(cluster, folder)
    trades = cluster.start("trades", {"EXCHANGE": "kraken", "SOURCE": "live", "PAIRS": PAIRS})
    cluster.start("news", {"SOURCES": "rss"})
    cluster.wait_until_up()
    store_path = folder / "features.sqlite"
    sys.stdout.write(f"live Kraken {PAIRS} and six news feeds; Ctrl-C ends it\n")
    sys.stdout.write(f"{summary.ways_to_query(short(store_path), None, features.url)}\n")
    progress = Progress()
    before = latency_counts(features)
    while True:
        cluster.check()
        if trades.process.poll() is not None:
            raise DemoError(f"the trades service ended:\n{trades.tail()}")
        sent = total(trades.metrics(), "rows_out_total")
        rows, signals = sum(candles_in(store_path).values()), sum(signals_in(store_path).values())
        p50 = quantile_s(before, latency_counts(features), 0.5)
        latency = f", p50 {p50 * 1000:.0f} ms" if p50 is not None else ", the first candle closes in a minute"
        progress.show(f"{sent:,} trades in, {rows:,} feature rows and {signals:,} signals stored{latency}")
        time.sleep(1)
