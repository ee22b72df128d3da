"""The picture at the end of the demo: price, bands, volume and RSI of one series."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pyarrow as pa

mpl.use("Agg")
from matplotlib import pyplot as plt


def plot_features(table: pa.Table, title: str, path: Path) -> None:
    """Save `table` (rows of one series, ascending) as a PNG."""
    columns = {
        name: np.array([np.nan if v is None else v for v in table[name].to_pylist()], dtype=float)
        for name in ("close", "bb_upper", "bb_lower", "ema_28", "rsi_14", "volume", "buy_volume")
    }
    times = np.array(table["end_ms"].to_pylist(), dtype="datetime64[ms]")
    width = np.median(np.diff(times)) * 0.8
    figure, (price, volume, rsi) = plt.subplots(
        3, 1, figsize=(11, 7), sharex=True, height_ratios=[3, 1, 1], layout="constrained"
    )
    price.fill_between(
        times, columns["bb_lower"], columns["bb_upper"], color="tab:blue", alpha=0.12, label="Bollinger 20/2"
    )
    price.plot(times, columns["close"], color="black", linewidth=1.1, label="close")
    price.plot(times, columns["ema_28"], color="tab:orange", linewidth=1.0, label="EMA 28")
    price.set_ylabel("price")
    price.set_title(title)
    price.legend(loc="upper left", frameon=False)
    volume.bar(times, columns["volume"], width=width, color="tab:red", alpha=0.6, label="sold")
    volume.bar(times, columns["buy_volume"], width=width, color="tab:green", alpha=0.8, label="bought")
    volume.set_ylabel("volume")
    volume.legend(loc="upper left", frameon=False)
    rsi.plot(times, columns["rsi_14"], color="tab:purple", linewidth=1.0)
    rsi.axhline(70, color="grey", linewidth=0.6)
    rsi.axhline(30, color="grey", linewidth=0.6)
    rsi.set_ylim(0, 100)
    rsi.set_ylabel("RSI 14")
    figure.savefig(path, dpi=110)
    plt.close(figure)
