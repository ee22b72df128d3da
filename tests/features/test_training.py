"""Training sets: labels from contiguous candles only, and no feature that knows its future."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.common.errors import QueryError, UnknownSeriesError
from services.features.groups import TA
from services.features.stores.sqlite import SqliteStore
from tests.features.rows import MINUTE, T0, make_store, ta_row, tuples

CLOSES = [100.0, 110.0, 99.0, 105.0, 120.0, 90.0]


def write(store: SqliteStore, at: list[int], **values: Any) -> None:
    rows = [ta_row(i, close=CLOSES[i % 6], rsi_14=float(i), log_return_1=0.1, **values) for i in at]
    store.write(TA, tuples(rows))


def test_the_label_is_the_log_return_that_followed(store: SqliteStore) -> None:
    write(store, list(range(6)))
    table = store.training_set("BTC/USD", "1m", features=["close", "rsi_14"], horizon=2)
    expected = [math.log(CLOSES[i + 2] / CLOSES[i]) for i in range(4)]
    assert table["label_log_return_2"].to_pylist() == pytest.approx(expected, rel=1e-12)
    assert table["known_at_ms"].to_pylist() == [T0 + (i + 1) * MINUTE for i in range(4)]
    assert table.column_names[5:] == ["close", "rsi_14", "label_log_return_2"]


def test_several_horizons_and_other_labels_stand_side_by_side(store: SqliteStore) -> None:
    write(store, list(range(6)))
    table = store.training_set(
        "BTC/USD", "1m", features=["rsi_14"], horizon=[*np.array([1, 3])], label="direction"
    )
    assert table.column_names[5:] == ["rsi_14", "label_direction_1", "label_direction_3"]
    assert table["label_direction_1"].to_pylist() == [1, -1, 1]
    assert table["label_direction_3"].to_pylist() == [1, 1, -1]
    simple = store.training_set("BTC/USD", "1m", features=["rsi_14"], label="return")
    assert simple["label_return_1"].to_pylist()[0] == pytest.approx(0.1)
    metadata: Any = simple.schema.field("label_return_1").metadata
    assert metadata[b"description"] == b"Close 1 intervals later over this close, minus 1"


def test_a_gap_gives_null_labels_and_not_returns_over_it(store: SqliteStore) -> None:
    write(store, [0, 1, 3, 4, 5])
    table = store.training_set("BTC/USD", "1m", features=["rsi_14"], dropna=False)
    known = [label is not None for label in table["label_log_return_1"].to_pylist()]
    assert known == [True, False, True, True, False]
    # Two intervals ahead of candle 1 there is one, but candle 2 is missing in between.
    table = store.training_set("BTC/USD", "1m", features=["rsi_14"], horizon=2, dropna=False)
    known = [label is not None for label in table["label_log_return_2"].to_pylist()]
    assert known == [False, False, True, False, False]


def test_labels_do_not_cross_from_one_series_into_the_next(store: SqliteStore) -> None:
    write(store, [0, 1])
    write(store, [2, 3], pair="ETH/USD")
    write(store, [4, 5], pair="ETH/USD", exchange="zeta")
    table = store.training_set(["BTC/USD", "ETH/USD"], "1m", features=["rsi_14"], dropna=False)
    known = [label is not None for label in table["label_log_return_1"].to_pylist()]
    assert known == [True, False] * 3


def test_months_of_different_length_are_contiguous(store: SqliteStore) -> None:
    write(store, [0, 1, 2, 4], timeframe="1M")
    table = store.training_set("BTC/USD", "1M", features=["rsi_14"])
    assert table["rsi_14"].to_pylist() == [0, 1]


def test_a_label_months_beyond_the_calendar_is_null(store: SqliteStore) -> None:
    write(store, [0, 1, 2], timeframe="1M")
    table = store.training_set("BTC/USD", "1M", features=["rsi_14"], horizon=[1, 100_000], dropna=False)
    assert table["label_log_return_1"].null_count == 1
    assert table["label_log_return_100000"].null_count == 3


def test_dropna_leaves_only_complete_rows(store: SqliteStore) -> None:
    store.write(TA, tuples([ta_row(0), ta_row(1, rsi_14=1.0), ta_row(2, rsi_14=2.0)]))
    table = store.training_set("BTC/USD", "1m", features=["rsi_14"])
    assert table["rsi_14"].to_pylist() == [1]


def test_quiet_candles_do_not_drop_out_by_default(store: SqliteStore) -> None:
    values: dict[str, Any] = {
        name: 1.0 for name in TA.features if name not in ("open", "high", "low", "close")
    }
    quiet = {"vwap": None, "flow_imbalance_1": None, "trade_count": 0, "volume": 0.0, "buy_volume": 0.0}
    store.write(TA, tuples(ta_row(i, **(values | quiet)) for i in range(3)))
    assert store.training_set("BTC/USD", "1m").num_rows == 2
    assert "vwap" not in store.training_set("BTC/USD", "1m").column_names


def test_features_that_are_null_throughout_are_named_and_not_an_empty_set(store: SqliteStore) -> None:
    write(store, [0, 1, 2])
    with pytest.raises(QueryError, match="no row is complete: adx_14, macd null in all 3 rows"):
        store.training_set("BTC/USD", "1m", features=["rsi_14", "adx_14", "macd"])
    assert store.training_set("BTC/USD", "1m", features=["adx_14"], dropna=False).num_rows == 3


def test_labels_do_not_look_past_the_end_of_the_range(store: SqliteStore) -> None:
    write(store, list(range(6)))
    table = store.training_set("BTC/USD", "1m", end=T0 + 3 * MINUTE, features=["rsi_14"])
    assert table["rsi_14"].to_pylist() == [0, 1]


def test_a_training_set_of_an_empty_range_is_empty(store: SqliteStore) -> None:
    write(store, [0])
    assert store.training_set("BTC/USD", "1m", "2030-01-01").num_rows == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"features": ["sharpe"]}, "known: open"),
        ({"features": ["ingested_at_ms"]}, "unknown feature"),
        ({"features": []}, "known: open"),
        ({"horizon": 0}, "horizon"),
        ({"horizon": 10**9}, "horizon"),
        ({"horizon": [1, 0]}, "horizon"),
        ({"horizon": []}, "horizon"),
        ({"horizon": "12"}, "horizon"),
        ({"horizon": 1.5}, "horizon"),
        ({"horizon": True}, "horizon"),
        ({"horizon": None}, "horizon"),
        ({"horizon": [[1]]}, "horizon"),
        ({"horizon": np.array(0)}, "horizon"),
        ({"label": "sharpe"}, "known: log_return, return, direction"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(
    store: SqliteStore, arguments: dict[str, Any], says: str
) -> None:
    write(store, [0, 1])
    with pytest.raises(QueryError, match=says):
        store.training_set("BTC/USD", "1m", **arguments)
    with pytest.raises(UnknownSeriesError):
        store.training_set("DOGE/USD", "1m")


@settings(max_examples=25, deadline=None)
@given(
    changed=st.integers(1, 11),
    close=st.floats(1, 1e6),
    rsi=st.floats(0, 100) | st.none(),
    horizon=st.integers(1, 4),
)
def test_changing_a_row_never_changes_what_earlier_rows_knew(
    tmp_path_factory: pytest.TempPathFactory, changed: int, close: float, rsi: float | None, horizon: int
) -> None:
    path: Path = tmp_path_factory.mktemp("leakage") / "store.sqlite"
    with make_store(path) as store:
        write(store, list(range(12)))

        def ask() -> Any:
            return store.training_set("BTC/USD", "1m", horizon=horizon, dropna=False)

        before = ask()
        store.write(TA, tuples([ta_row(changed, close=close, rsi_14=rsi, revision=1)]))
        after = ask()
        label = f"label_log_return_{horizon}"
        # Only the label looks ahead, and only to the candle `horizon` later.
        assert before.drop_columns([label]).slice(0, changed) == after.drop_columns([label]).slice(0, changed)
        before_labels, after_labels = before[label].to_pylist(), after[label].to_pylist()
        untouched = set(range(12)) - {changed, changed - horizon}
        assert all(before_labels[i] == after_labels[i] for i in untouched)
