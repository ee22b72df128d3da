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
    # What there is: series with their row counts and times, columns with units and null rates.
    import pandas as pd

    pd.set_option("display.width", 150, "display.max_columns", 12, "display.max_colwidth", 80)
    described = store.describe()
    series = pd.DataFrame(described["series"])
    if series.empty:
        raise SystemExit("The store has no closed candles yet: let `make demo` run for a minute.")
    series["first"] = pd.to_datetime(series["first_ms"], unit="ms", utc=True)
    series["last"] = pd.to_datetime(series["last_ms"], unit="ms", utc=True)
    columns = pd.DataFrame(described["columns"])[["name", "unit", "null_rate", "description"]]
    show(f"{described['rows']} rows in {len(series)} series", series.drop(columns=["first_ms", "last_ms"]))
    return columns, pd, series


@app.cell
def _(columns, show):
    show("Columns", columns)
    return


@app.cell
def _(series):
    # The longest series serves as the example below.
    longest = series.sort_values("rows").iloc[-1]
    exchange, pair, timeframe = longest["exchange"], longest["pair"], longest["timeframe"]
    return exchange, pair, timeframe


@app.cell
def _(exchange, pair, show, store, timeframe):
    # The newest vector, as a model that runs now would ask for it.
    vector = store.latest(pair, timeframe, exchange)
    show(
        f"Newest vector of {pair} {timeframe}",
        {name: value for name, value in vector.items() if value is not None},
    )
    return


@app.cell
def _(exchange, pair, pd, show, store, timeframe):
    # News: the same vector with the sentiment of the pair's coin at the end of the candle, and its windows
    # over time, a row at each time at which a story enters or leaves one.
    if "sentiment" in store.groups() and store.latest_all(group="sentiment"):
        combined = store.vector(pair, timeframe, exchange)
        show(
            "Sentiment in the newest vector",
            {name: combined[name] for name in combined if "news" in name or "sentiment" in name},
        )
        windows = store.history(
            group="sentiment",
            coin=pair.partition("/")[0],
            columns=["news_count_24h", "sentiment_mean_24h", "sentiment_ewma_4h"],
        ).to_pandas()
        windows.index = pd.to_datetime(windows["as_of_ms"], unit="ms", utc=True)
        show("Windows of news", windows.dropna().tail())
    return


@app.cell
def _(exchange, pair, pd, show, store, timeframe):
    # History is an Arrow table: .to_pandas() or polars.from_arrow() make a frame of it.
    history = store.history(
        pair, timeframe, columns=["close", "volume", "rsi_14", "sma_7"], exchange=exchange
    )
    frame = history.to_pandas()
    frame.index = pd.to_datetime(frame["end_ms"], unit="ms", utc=True)
    show("History as pandas", frame.tail())
    return frame, history


@app.cell
def _(history, show):
    import polars as pl

    show(
        "The same in Polars, an hour a row",
        pl.from_arrow(history)
        .with_columns(pl.from_epoch("end_ms", "ms").dt.replace_time_zone("UTC").alias("end"))
        .group_by_dynamic("end", every="1h")
        .agg(pl.col("close").last(), pl.col("volume").sum())
        .tail(5),
    )
    return (pl,)


@app.cell
def _(exchange, pair, show, store, timeframe):
    # Features as known at each row's time and the return that followed: nothing looks ahead.
    # dropna=False keeps the rows whose indicators are not warm yet.
    training = store.training_set(
        pair, timeframe, features=["rsi_14", "log_return_1"], horizon=5, exchange=exchange, dropna=False
    )
    show(f"Training set of {training.num_rows} rows", training.to_pandas().tail())
    return (training,)


@app.cell
def _(pl, show, training):
    label = "label_log_return_5"
    known = pl.from_arrow(training).drop_nulls()
    show(
        "Correlation with the return that followed",
        known.select(pl.corr(name, label) for name in ("rsi_14", "log_return_1"))
        if known.height > 1
        else "too few complete rows yet",
    )
    return


@app.cell
def _(Path, show, store):
    # DuckDB reads the Parquet files that `python -m services.features.export --out DIR` writes.
    import tempfile

    import duckdb

    from services.features.export import export

    with tempfile.TemporaryDirectory() as folder:
        export(store, Path(folder))
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
def _(frame, pair, timeframe):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (upper, lower) = plt.subplots(2, 1, sharex=True, figsize=(9, 5), height_ratios=[2, 1])
    upper.plot(frame.index, frame["close"], label="close")
    upper.plot(frame.index, frame["sma_7"], label="SMA 7")
    upper.set_title(f"{pair} {timeframe}")
    upper.legend()
    lower.plot(frame.index, frame["rsi_14"])
    lower.set_ylabel("RSI 14")
    lower.set_ylim(0, 100)
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
