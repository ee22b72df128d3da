"""Frames with real times, whatever group or question they come from."""

from datetime import UTC, datetime

import pandas as pd
import polars as pl
import pyarrow as pa

from services.features import to_pandas, to_polars
from services.features.frames import with_times
from services.features.groups import TA
from services.features.sentiment import SentimentWriter
from services.features.stores.sqlite import SqliteStore
from tests.features.rows import MINUTE, T0, signal, ta_row, tuples


def fill(store: SqliteStore) -> None:
    store.write(TA, tuples(ta_row(i, close=100.0 + i, rsi_14=i or None) for i in range(120)))
    SentimentWriter(store, lambda: T0 + 200 * MINUTE).write("BTC", [signal(MINUTE)])


def test_a_pandas_frame_is_indexed_by_utc_time_and_can_be_resampled(store: SqliteStore) -> None:
    fill(store)
    frame = to_pandas(store.history("BTC/USD", "1m", columns=["start_ms", "close", "rsi_14"]))
    assert frame.index.name == "end"
    assert frame.index[0] == pd.Timestamp("2024-01-01 00:01", tz="UTC")
    assert frame["start"].iloc[0] == pd.Timestamp("2024-01-01", tz="UTC")
    assert frame["close"].resample("1h", closed="right", label="right").last().tolist() == [159.0, 219.0]
    assert frame["rsi_14"].isna().sum() == 1
    assert list(to_pandas(store.history("BTC/USD", "1m"), index=False).columns[:4]) == [
        *("exchange", "pair", "timeframe", "end")
    ]


def test_a_polars_frame_has_utc_datetimes_and_groups_by_them(store: SqliteStore) -> None:
    fill(store)
    frame = to_polars(store.history("BTC/USD", "1m", columns=["close"]))
    assert frame.schema["end"] == pl.Datetime("ms", "UTC")
    hours = frame.group_by_dynamic("end", every="1h", closed="right", label="right").agg(
        pl.col("close").last()
    )
    assert hours["end"].to_list() == [datetime(2024, 1, 1, hour, tzinfo=UTC) for hour in (1, 2)]


def test_training_sets_and_news_become_frames_by_their_own_times(store: SqliteStore) -> None:
    fill(store)
    training = to_pandas(store.training_set("BTC/USD", "1m", features=["close"]))
    assert (training.index == training["known_at"]).all()
    assert to_pandas(store.history(group="sentiment")).index.name == "as_of"
    signals = to_polars(store.history(group="news_signals"))
    assert signals["observed_at"][0] - signals["published_at"][0] == pd.Timedelta(seconds=1)
    assert to_polars(store.vector_history("BTC/USD", "1m", limit=2)).height == 2


def test_times_are_the_same_bytes_and_other_integers_are_left_alone(store: SqliteStore) -> None:
    fill(store)
    table = store.history("BTC/USD", "1m")
    timed = with_times(table)
    assert timed["end"].cast(pa.int64()).to_pylist() == table["end_ms"].to_pylist()
    assert timed.schema.field("trade_count").type == pa.int64()
    assert "closed" in timed.column_names
    own = pa.table({"end_ms": [1, 2]})
    # Nothing says that these are times of ours.
    assert with_times(own) is own
    assert to_pandas(own).columns.tolist() == ["end_ms"]
    empty = store.history("BTC/USD", "1m", "2030-01-01")
    assert to_pandas(empty).empty
    assert to_polars(empty).schema["end"] == pl.Datetime("ms", "UTC")
