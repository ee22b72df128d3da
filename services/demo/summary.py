"""What the demo says at the end."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from services.common.columns import INDICATOR_NAMES
from services.common.timeframes import TIMEFRAMES


def counts_table(counts: Mapping[tuple[str, str, str], int], warm: Mapping[tuple[str, str, str], int]) -> str:
    """Feature rows by series and timeframe, and how many indicators the newest row has."""
    series = sorted({(exchange, pair) for exchange, pair, _ in counts})
    lines = ["  rows stored            " + "".join(f"{timeframe:>9}" for timeframe in TIMEFRAMES)]
    for exchange, pair in series:
        cells = "".join(f"{counts.get((exchange, pair, t), 0) or '-':>9}" for t in TIMEFRAMES)
        lines.append(f"  {exchange + ' ' + pair:<23}{cells}")
    lines.append(f"  indicators warm (of {len(INDICATOR_NAMES)})")
    for exchange, pair in series:
        cells = "".join(f"{warm.get((exchange, pair, t), 0) or '-':>9}" for t in TIMEFRAMES)
        lines.append(f"  {exchange + ' ' + pair:<23}{cells}")
    return "\n".join(lines)


def newest_table(rows: Iterable[Mapping[str, Any]]) -> str:
    """The newest vectors, a line each."""
    names = ("close", "rsi_14", "macd_hist", "bb_lower", "bb_upper", "atr_14", "flow_imbalance_14")
    lines = [
        f"  {'newest features':<23}{'tf':>4}  {'end (UTC)':<16}" + "".join(f"{name:>18}" for name in names)
    ]
    for row in rows:
        end = datetime.fromtimestamp(row["end_ms"] / 1000, UTC).strftime("%Y-%m-%d %H:%M")
        cells = "".join("                 -" if row[n] is None else f"{row[n]:18,.4f}" for n in names)
        lines.append(f"  {row['exchange'] + ' ' + row['pair']:<23}{row['timeframe']:>4}  {end:<16}{cells}")
    return "\n".join(lines)


def sentiment_table(rows: Iterable[Mapping[str, Any]], signals: Mapping[str, int]) -> str:
    """Windowed sentiment of the coins with most signals, a line each."""
    windows = ("1h", "24h")
    heads = "".join(f"{f'news {w}':>10}{f'mean {w}':>10}{f'ewma {w}':>10}" for w in windows)
    lines = [f"  {'sentiment':<19}{'signals':>8}  {'as of (UTC)':<16}{heads}"]
    ordered = sorted(rows, key=lambda row: (-signals.get(row["coin"], 0), row["coin"]))
    for row in ordered[:6]:
        at = datetime.fromtimestamp(row["as_of_ms"] / 1000, UTC).strftime("%Y-%m-%d %H:%M")
        cells = ""
        for window in windows:
            cells += f"{row[f'news_count_{window}']:10d}"
            for name in (f"sentiment_mean_{window}", f"sentiment_ewma_{window}"):
                cells += "         -" if row[name] is None else f"{row[name]:+10.3f}"
        lines.append(f"  {row['coin']:<19}{signals.get(row['coin'], 0):8d}  {at:<16}{cells}")
    return "\n".join(lines)


def ways_to_query(store: Path, plot: Path | None, query_url: str | None = None) -> str:
    """Where everything is and what to type next."""
    lines = [
        f"  store    {store}",
        *([f"  plot     {plot}"] if plot else []),
        "  query    make query                                # newest vector of every series",
        "           make query sql=\"SELECT pair, end_ms, close, rsi_14 FROM ta WHERE timeframe = '1h' "
        'ORDER BY end_ms DESC LIMIT 5"',
        "           make sentiment text='Dogecoin jumps on Musk tweet, Shiba Inu lags behind'",
        f"  python   from services.features import open_store; open_store('{store}').vector(",
        "               'BTC/USD', '1h', exchange='simulated')",
    ]
    if query_url is None:
        lines.append(
            "  http     make serve                                # then open /docs of the URL it prints"
        )
    else:
        lines.append(
            f"  http     {query_url}/features/combined/latest?pair=BTC/USD&timeframe=1m   "
            f"docs: {query_url}/docs"
        )
    return "\n".join(lines)


def missing(
    expected: Mapping[tuple[str, str, str], int], counts: Mapping[tuple[str, str, str], int]
) -> Sequence[str]:
    """Which series have another number of rows than they must have."""
    return [
        f"{' '.join(series)}: {counts.get(series, 0)} rows, expected {count}"
        for series, count in sorted(expected.items())
        if counts.get(series, 0) != count
    ]
