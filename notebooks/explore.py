"""The feature store for data scientists: look at it, read it, train on it.

    marimo edit notebooks/explore.py                             in the browser
    python notebooks/explore.py --store store/features.sqlite    as a script that prints

Without a store yet, run `make demo` first.
"""

import marimo

app = marimo.App(width="medium", app_title="Explore the feature store")


@app.cell
def _():
    import sys
    from pathlib import Path

    import marimo as mo

    # So that it also runs where the project is not installed.
    root = Path(__file__).resolve().parents[1]
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))

    def show(title, value):
        """In the browser a heading and the value; in a script plain text."""
        if mo.running_in_notebook():
            return mo.vstack([mo.md(f"**{title}**"), value])
        print(f"\n{title}\n{'-' * len(title)}\n{value}")
        return None

    return Path, mo, root, show, sys


@app.cell
def _(mo):
    mo.md(
        """
        # The feature store

        The `features` service keeps every closed candle and its indicators, and the newest row of each
        series. Reading never disturbs it, also while it writes. Times are UTC epoch milliseconds;
        `end_ms` is when a candle ended, and everything in its row was known by then.
        """
    )
    return


@app.cell
def _(Path, mo, root, sys):
    from services.common.errors import ServiceError
    from services.features import open_store

    given = mo.cli_args().get("store")
    if given is None:
        # What `make demo` leaves, and what the service writes by default.
        candidates = [root / "store" / "features.sqlite", *sorted(root.glob(".demo/**/*.sqlite"))]
        given = next((str(path) for path in candidates if path.is_file()), None)
    try:
        store = open_store(given)
    except ServiceError as error:
        if not mo.running_in_notebook():
            sys.exit(f"{error}\nRun `make demo` first, or name a store with --store PATH.")
        mo.stop(True, mo.md(f"**{error}** Run `make demo` first, then run this cell again."))
    return (store,)


@app.cell
def _(show, store):
    # What there is: series with row counts, times and ages; columns with units and null rates.
    import pandas as pd

    from services.features.description import description_text

    pd.set_option("display.width", 150, "display.max_columns", 16)
    described = store.describe()
    if not described["series"]:
        raise SystemExit("The store has no closed candles yet: let `make demo` run for a minute.")
    series = pd.DataFrame(described["series"])
    # Hopsworks does not count rows.
    rows = "-" if described["rows"] is None else described["rows"]
    show(f"{rows} rows in {len(series)} series", "\n".join(description_text(described)))
    return pd, series


@app.cell
def _(pd, series):
    # The pair with most rows serves as the example below, in hours if there are enough of them.
    counts = pd.to_numeric(series["rows"]).fillna(0)
    hours = counts[(series["timeframe"] == "1h") & (counts >= 500)]
    longest = series.loc[(hours if len(hours) else counts).idxmax()]
    exchange, pair, timeframe = longest["exchange"], longest["pair"], longest["timeframe"]
    return exchange, pair, timeframe


@app.cell
def _(exchange, pair, show, store, timeframe):
    # The newest vector, as a model that runs now would ask for it: with the sentiment of the pair's coin at
    # the end of the candle, where the store has news of it.
    coins = store.latest_all(group="sentiment") if "sentiment" in store.groups() else []
    has_news = pair.partition("/")[0] in {row["coin"] for row in coins}
    ask = store.vector if has_news else store.latest
    vector = ask(pair, timeframe, exchange)
    show(
        f"Newest vector of {pair} {timeframe}",
        {name: value for name, value in vector.items() if value is not None},
    )
    return (has_news,)


@app.cell
def _(exchange, has_news, pair, show, store, timeframe):
    # History is an Arrow table. `to_pandas` and `to_polars` make frames of it, with UTC datetimes.
    from services.features import to_pandas, to_polars

    history = store.history(
        pair, timeframe, columns=["close", "volume", "rsi_14", "sma_7"], exchange=exchange
    )
    frame = to_pandas(history)
    show("History as pandas", frame.drop(columns=["exchange", "pair", "timeframe"]).tail())
    news = None
    if has_news:
        news = to_pandas(
            store.history(
                group="sentiment",
                coin=pair.partition("/")[0],
                columns=["news_count_24h", "sentiment_mean_24h", "sentiment_ewma_4h"],
            )
        )
        show("Windows of news, a row at each change", news.dropna().tail())
    return frame, history, news, to_pandas, to_polars


@app.cell
def _(history, show, to_polars):
    import polars as pl

    show(
        "The same in Polars, a day a row",
        to_polars(history)
        .group_by_dynamic("end", every="1d", closed="right")
        .agg(pl.col("close").last(), pl.col("volume").sum())
        .tail(5),
    )
    return


@app.cell
def _(exchange, has_news, pair, show, store, timeframe):
    # A training set: what was known at each candle's end, and the log return of the 3 candles that followed.
    # Nothing looks ahead: news counts from when it was observed, labels end with the asked range.
    HORIZON = 3
    wanted = ["rsi_14", "log_return_1", "log_return_5", "adx_14", "flow_imbalance_14", "realized_vol_20"]
    known = store.history(pair, timeframe, columns=wanted, exchange=exchange)
    features = [name for name in wanted if 2 * known[name].null_count < known.num_rows]
    if has_news:
        # Counts are never null; a mean is, wherever its window is empty.
        features += ["news_count_4h", "news_count_24h"]
    training = store.training_set(
        pair, timeframe, features=features, horizon=HORIZON, exchange=exchange
    )
    label = f"label_log_return_{HORIZON}"
    show(f"Training set of {training.num_rows} rows", training.slice(max(0, training.num_rows - 3)).to_pandas())
    return features, label, training


@app.cell
def _(label, features, show, to_pandas, training):
    # A tiny model, to show the way: least squares on the first 60 % of the time, looked at on the next 20 %
    # while one tries things, and judged once on the last 20 %. Rows whose label reaches over a cut are in no
    # part. Of a market that is a random walk, like the demo's, nobody should expect to predict anything.
    import numpy as np

    from services.features import split_by_time

    parts = dict(zip(("train", "validation", "test"), split_by_time(training, 0.6, 0.8), strict=True))
    frames = {name: to_pandas(part) for name, part in parts.items()}

    def matrix(part):
        scaled = (part[features] - frames["train"][features].mean()) / (frames["train"][features].std() + 1e-12)
        return np.column_stack([np.ones(len(part)), scaled.to_numpy(float)])

    weights = np.linalg.lstsq(matrix(frames["train"]), frames["train"][label].to_numpy(), rcond=None)[0]
    predicted = {name: matrix(part) @ weights for name, part in frames.items()}

    def judged(name):
        realised = frames[name][label].to_numpy()
        moved = realised != 0
        hits = np.mean(np.sign(predicted[name][moved]) == np.sign(realised[moved]))
        # Labels overlap, so that only every third row is news.
        error = 0.5 / np.sqrt(max(1, moved.sum() / 3))
        # Against the forecast that nothing moves.
        r2 = 1 - np.sum((realised - predicted[name]) ** 2) / np.sum(realised**2)
        return f"{name:<11}{len(realised):>7} rows   R² {r2:+.4f}   direction right {hits:.1%} ± {error:.1%}"

    judgements = {name: judged(name) for name in frames}
    show("Least squares, judged by time", "\n".join(judgements.values()))
    return frames, judgements, predicted


@app.cell
def _(Path, pair, show, store, timeframe):
    # DuckDB reads the Parquet files that `python -m services.features.export --out DIR` writes: here of one
    # series, since a whole store may be larger than the temporary folder.
    import tempfile

    import duckdb

    from services.features.export import export

    with tempfile.TemporaryDirectory() as folder:
        export(store, Path(folder), pairs=[pair], timeframes=[timeframe])
        with duckdb.connect() as database:
            answer = database.execute(
                "SELECT pair, timeframe, count(*) AS candles, min(low) AS low, max(high) AS high "
                "FROM read_parquet(?, hive_partitioning = true) GROUP BY ALL ORDER BY ALL",
                [f"{folder}/ta/**/*.parquet"],
            ).df()
    show("DuckDB over exported Parquet", answer)
    return (duckdb,)


@app.cell
def _(duckdb, history, show):
    # It reads Arrow tables without a copy, too.
    with duckdb.connect() as connection:
        connection.register("history", history)
        quiet = connection.execute("SELECT count(*) AS quiet FROM history WHERE volume = 0").df()
    show("Candles without trades", quiet)
    return


@app.cell
def _(frame, frames, judgements, label, news, pair, predicted, timeframe):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(11, 7), layout="constrained")
    grid = figure.add_gridspec(3, 3, height_ratios=[2, 1, 1])
    price = figure.add_subplot(grid[0, :2])
    price.plot(frame.index, frame["close"], linewidth=0.8, label="close")
    price.plot(frame.index, frame["sma_7"], linewidth=0.8, label="SMA 7")
    price.set_title(f"{pair} {timeframe}")
    rsi = figure.add_subplot(grid[1, :2], sharex=price)
    rsi.plot(frame.index, frame["rsi_14"], linewidth=0.6)
    rsi.set(ylabel="RSI 14", ylim=(0, 100))
    below = figure.add_subplot(grid[2, :2], sharex=price)
    if news is not None:
        below.step(news.index, news["sentiment_mean_24h"], where="post", linewidth=0.8)
    below.set(ylabel="sentiment 24h", ylim=(-1, 1))
    below.set_xlim(frame.index[0], frame.index[-1])
    for name, colour in (("train", "C2"), ("validation", "C1"), ("test", "C3")):
        if len(frames[name]):
            price.axvspan(frames[name].index[0], frames[name].index[-1], color=colour, alpha=0.12, label=name)
    price.legend(loc="lower left", fontsize=8, ncols=5)
    below.tick_params("x", rotation=30)
    for hidden in (price, rsi):
        hidden.tick_params(labelbottom=False)
    scatter = figure.add_subplot(grid[:2, 2])
    scatter.scatter(predicted["test"], frames["test"][label], s=5, alpha=0.5)
    scatter.axhline(0, color="grey", linewidth=0.5)
    scatter.axvline(0, color="grey", linewidth=0.5)
    scatter.set(xlabel="predicted return", ylabel="return that followed")
    scatter.set_title("test rows")
    scatter.locator_params("x", nbins=4)
    words = figure.add_subplot(grid[2, 2])
    words.axis("off")
    text = "\n".join(line.replace("   direction", "\n  direction") for line in judgements.values())
    words.text(0, 1, text, va="top", fontsize=7, family="monospace")
    figure
    return (figure,)


@app.cell
def _(figure, mo):
    # As a script there is no place to show a figure; name one with --plot FILE.
    if mo.cli_args().get("plot"):
        figure.savefig(mo.cli_args().get("plot"), dpi=120)
    return


if __name__ == "__main__":
    app.run()
