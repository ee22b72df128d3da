"""The picture at the end of the demo: price with news on it, volume, RSI and sentiment of one series."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pyarrow as pa

mpl.use("Agg")
from matplotlib import pyplot as plt


def plot_features(table: pa.Table, signals: pa.Table, title: str, path: Path) -> None:
    """Save combined rows of one series and the signals of its coin (both ascending) as a PNG."""
    names = ("close", "bb_upper", "bb_lower", "ema_28", "rsi_14", "volume", "buy_volume")
    sentiment = ("sentiment_ewma_24h", "sentiment_mean_24h", "news_count_24h")
    columns = {name: _floats(table, name) for name in (*names, *sentiment)}
    times = np.array(table["end_ms"].to_pylist(), dtype="datetime64[ms]")
    width = np.median(np.diff(times)) * 0.8
    figure, (price, volume, rsi, mood) = plt.subplots(
        4, 1, figsize=(11, 9), sharex=True, height_ratios=[3, 1, 1, 1.4], layout="constrained"
    )
    price.fill_between(
        times, columns["bb_lower"], columns["bb_upper"], color="tab:blue", alpha=0.12, label="Bollinger 20/2"
    )
    price.plot(times, columns["close"], color="black", linewidth=1.1, label="close")
    price.plot(times, columns["ema_28"], color="tab:orange", linewidth=1.0, label="EMA 28")
    _mark_news(price, signals, times, columns["close"])
    price.set_ylabel("price")
    price.set_title(title)
    price.legend(loc="upper left", frameon=False, ncols=3)
    volume.bar(times, columns["volume"], width=width, color="tab:red", alpha=0.6, label="sold")
    volume.bar(times, columns["buy_volume"], width=width, color="tab:green", alpha=0.8, label="bought")
    volume.set_ylabel("volume")
    volume.legend(loc="upper left", frameon=False)
    rsi.plot(times, columns["rsi_14"], color="tab:purple", linewidth=1.0)
    rsi.axhline(70, color="grey", linewidth=0.6)
    rsi.axhline(30, color="grey", linewidth=0.6)
    rsi.set_ylim(0, 100)
    rsi.set_ylabel("RSI 14")
    count = mood.twinx()
    count.bar(times, columns["news_count_24h"], width=width, color="grey", alpha=0.2)
    count.set_ylabel("news in 24 h")
    mood.set_zorder(count.get_zorder() + 1)
    mood.patch.set_visible(False)
    mood.step(
        times, columns["sentiment_mean_24h"], where="post", color="tab:blue", linewidth=1.2, label="mean 24h"
    )
    mood.step(
        times, columns["sentiment_ewma_24h"], where="post", color="tab:olive", linewidth=1.2, label="EWMA 24h"
    )
    mood.axhline(0, color="grey", linewidth=0.6)
    mood.set_ylim(-1, 1)
    mood.set_ylabel("sentiment")
    mood.legend(loc="upper left", frameon=False, ncols=2)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _floats(table: pa.Table, name: str) -> Any:
    return np.array([np.nan if v is None else v for v in table[name].to_pylist()], dtype=float)


def _mark_news(price: Any, signals: pa.Table, times: Any, close: Any) -> None:
    """A triangle for each positive or negative signal where it was observed, larger the more it weighs."""
    observed = np.array(signals["observed_at_ms"].to_pylist(), dtype="datetime64[ms]")
    at = np.interp(observed.astype(np.int64), times.astype(np.int64), close)
    size = 25 + 60 * _floats(signals, "relevance") * _floats(signals, "novelty")
    told = np.array(signals["signal"].to_pylist(), dtype=int)
    for sign, marker, colour, label in (
        (1, "^", "tab:green", "positive news"),
        (-1, "v", "tab:red", "negative news"),
        (0, "o", "grey", "neutral news"),
    ):
        chosen = told == sign
        price.scatter(
            observed[chosen],
            at[chosen],
            s=size[chosen] * (0.5 if sign == 0 else 1),
            marker=marker,
            color=colour,
            edgecolors="white",
            linewidths=0.5,
            zorder=3,
            label=label,
        )
