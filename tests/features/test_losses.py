"""What a training set of the default features may leave out silently, and what not."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from services.common.columns import INDICATOR_NAMES
from services.common.errors import QueryError
from services.common.timeframes import next_ms
from services.features import RowsLeftOutWarning
from services.features.groups import TA
from services.features.losses import WARM_UP_ROWS
from services.features.stores.sqlite import SqliteStore
from services.ta.indicators import INPUTS, TABLE, compute
from tests.features.rows import T0, ta_row, tuples

VALUES: dict[str, Any] = {
    name: 1.0 for name in TA.features if name not in ("open", "high", "low", "close", "trade_count")
}


def write(
    store: SqliteStore, rows: int, has: Callable[[int], bool], timeframe: str = "1h", pair: str = "BTC/USD"
) -> None:
    """A series of `rows` candles whose trix_15 is null unless a row `has` it."""
    made, start = [], T0
    for i in range(rows):
        end = next_ms(start, timeframe)
        values = VALUES | ({} if has(i) else {"trix_15": None})
        made.append(ta_row(pair=pair, timeframe=timeframe, start_ms=start, end_ms=end, **values))
        start = end
    store.write(TA, tuples(made))


@pytest.mark.parametrize(("timeframe", "rows"), [("1d", 190), ("1w", 150), ("1h", 1_000)])
def test_a_series_that_keeps_its_last_rows_alone_is_refused_however_short_it_is(
    store: SqliteStore, timeframe: str, rows: int
) -> None:
    write(store, rows, lambda i: i >= rows - 3, timeframe)
    with pytest.raises(QueryError, match=rf"only 2 of {rows - 1} rows .* null are trix_15 \({rows - 3}\)"):
        store.training_set("BTC/USD", timeframe)


def test_a_pair_that_would_be_left_out_of_many_is_refused_by_name(store: SqliteStore) -> None:
    pairs = [f"P{i}/USD" for i in range(6)]
    for pair in pairs:
        write(store, 300, lambda _, pair=pair: pair != "P3/USD", pair=pair)  # type: ignore[misc]
    with pytest.raises(QueryError, match=r"no row of kraken P3/USD is complete: null are trix_15 \(299\)"):
        store.training_set(pairs, "1h")
    pairs.remove("P3/USD")
    assert store.training_set(pairs, "1h").num_rows == 5 * 299


def test_rows_that_are_lost_at_the_end_or_amid_a_series_are_told_also_where_they_are_few(
    store: SqliteStore,
) -> None:
    write(store, 1_000, lambda i: i < 810)
    with pytest.warns(RowsLeftOutWarning, match=r"only 810 of 999 rows are complete: null are trix_15 \(189"):
        assert store.training_set("BTC/USD", "1h").num_rows == 810
    write(store, 1_000, lambda i: not 400 <= i < 420)
    with pytest.warns(RowsLeftOutWarning, match=r"only 979 of 999 rows"):
        store.training_set("BTC/USD", "1h")


def test_rows_for_which_an_indicator_is_not_defined_now_and_then_are_not_told(store: SqliteStore) -> None:
    write(store, 1_000, lambda i: i % 200 != 150)
    assert store.training_set("BTC/USD", "1h").num_rows == 999 - 5


def test_a_series_that_is_not_warm_yet_is_told_beside_others_that_are(store: SqliteStore) -> None:
    write(store, 300, lambda i: i >= 43)
    write(store, 40, lambda _: False, pair="NEW/USD")
    with pytest.warns(RowsLeftOutWarning, match="no row of kraken NEW/USD is complete: too few candles"):
        assert store.training_set(["BTC/USD", "NEW/USD"], "1h").num_rows == 256


def test_whoever_names_features_is_told_nothing(store: SqliteStore) -> None:
    write(store, 300, lambda i: i >= 200)
    assert store.training_set("BTC/USD", "1h", features=["trix_15"]).num_rows == 99


def test_every_indicator_is_warm_after_the_rows_that_may_be_null_for_that() -> None:
    rng = random.Random(1)
    close = np.cumprod([1 + rng.uniform(-0.01, 0.01) for _ in range(WARM_UP_ROWS + 1)])
    columns = dict.fromkeys(INPUTS, close) | {"high": close * 1.01, "low": close * 0.99}
    values = np.full((len(INDICATOR_NAMES), len(close)), np.nan)
    compute(TABLE, columns, values)
    assert not np.isnan(values[:, WARM_UP_ROWS]).any()
