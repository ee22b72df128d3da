"""Sentiment beside candles: what was known at the end of each, in training sets and in vectors."""

import csv
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.common.errors import QueryError, UnknownSeriesError
from services.common.news import NewsSignal
from services.common.symbols import KRAKEN_ASSETS
from services.features.groups import SENTIMENT, TA
from services.features.joins import RENAMED, base_coin, joined_names, newest_at
from services.features.sentiment import SentimentWriter
from services.features.stores.sqlite import SqliteStore
from services.features.stores.sqlite_reader import SqliteReader
from services.news_signals import coin_list
from tests.features.rows import MINUTE, T0, make_store, signal, ta_row, tuples

NOW = T0 + 90 * 24 * 60 * MINUTE
#: Indicators that the rows of these tests have.
GIVEN = ("open", "high", "low", "close", "trade_count")
WARM: dict[str, Any] = {name: 1.0 for name in TA.features if name not in GIVEN}
COUNTS = ["news_count_15m", "news_count_1h", "news_count_4h", "news_count_24h"]
BOTH = ["close", "news_count_15m", "sentiment_mean_15m", "rsi_14", "seconds_since_news"]


def write_news(store: SqliteStore, signals: list[NewsSignal]) -> None:
    writer = SentimentWriter(store, lambda: NOW)
    for coin in {s.coin for s in signals}:
        writer.write(coin, [s for s in signals if s.coin == coin])


def write_candles(store: SqliteStore, at: range, **values: Any) -> None:
    store.write(TA, tuples(ta_row(i, close=100.0 + i, **(WARM | values)) for i in at))


@pytest.fixture
def filled(store: SqliteStore) -> SqliteStore:
    """Candles that end after 1 to 40 minutes; news at 10:00 (to the millisecond) and 12:30."""
    write_candles(store, range(40))
    write_candles(store, range(40), pair="ETH/USD")
    write_news(store, [signal(10 * MINUTE, "a", 0.5), signal(12 * MINUTE + 30_000, "b", -0.25)])
    return store


def test_a_row_knows_what_was_observed_up_to_its_end(filled: SqliteStore) -> None:
    table = filled.training_set("BTC/USD", "1m", features=BOTH, dropna=False)
    assert table.column_names[5:] == [*BOTH, "label_log_return_1"]
    by_end = {(row["end_ms"] - T0) // MINUTE: row for row in table.to_pylist()}
    shown = {
        end: [by_end[end][name] for name in ("news_count_15m", "sentiment_mean_15m", "seconds_since_news")]
        for end in (9, 10, 12, 13, 24, 25, 27, 28)
    }
    assert shown == {
        9: [0, None, None],
        10: [1, 0.5, 0.0],
        12: [1, 0.5, 120.0],
        13: [2, 0.125, 30.0],
        24: [2, 0.125, 690.0],
        25: [1, -0.25, 750.0],
        27: [1, -0.25, 870.0],
        28: [0, None, 930.0],
    }


def test_by_default_counts_join_and_no_row_is_lost(filled: SqliteStore) -> None:
    table = filled.training_set("BTC/USD", "1m")
    assert table.num_rows == 39
    assert table.column_names[5:-1] == [*(n for n in TA.features if n not in TA.sparse), *COUNTS]
    metadata: Any = table.schema.field("news_count_1h").metadata
    assert metadata[b"unit"] == b"count"


def test_by_default_a_coin_without_sentiment_has_the_features_of_ta_alone(filled: SqliteStore) -> None:
    assert not {*COUNTS} & {*filled.training_set("ETH/USD", "1m").column_names}
    both = filled.training_set(["BTC/USD", "ETH/USD"], "1m")
    assert both.num_rows == 78
    assert both["news_count_24h"].to_pylist()[39:] == [0] * 39


def test_asking_for_what_is_null_without_news_keeps_the_rows_with_news(filled: SqliteStore) -> None:
    table = filled.training_set("BTC/USD", "1m", features=["close", "sentiment_ewma_15m"])
    ends = [(end - T0) // MINUTE for end in table["end_ms"].to_pylist()]  # type: ignore[operator]
    assert ends == list(range(10, 28))


def test_the_seconds_since_news_tell_a_quiet_time_from_one_before_the_first_signal(
    filled: SqliteStore,
) -> None:
    counts = filled.training_set("BTC/USD", "1m", features=["news_count_15m"])
    assert counts["news_count_15m"].to_pylist()[:10] == [0] * 9 + [1]
    known = filled.training_set("BTC/USD", "1m", features=["news_count_15m", "seconds_since_news"])
    ends = [(end - T0) // MINUTE for end in known["end_ms"].to_pylist()]  # type: ignore[operator]
    assert ends == list(range(10, 40))
    # Quiet again, and kept.
    assert known["news_count_15m"].to_pylist()[-1] == 0


def test_sentiment_of_a_coin_without_news_is_counts_of_0_and_nulls(filled: SqliteStore) -> None:
    names = ["news_count_4h", "sentiment_mean_4h", "seconds_since_news"]
    table = filled.training_set("ETH/USD", "1m", features=names, dropna=False)
    assert {tuple(row[name] for name in names) for row in table.to_pylist()} == {(0, None, None)}
    with pytest.raises(QueryError, match="sentiment_mean_4h, seconds_since_news null in all 40 rows"):
        filled.training_set("ETH/USD", "1m", features=names)


def test_a_name_that_is_in_neither_group_is_refused_with_the_known_ones(filled: SqliteStore) -> None:
    for name in ("sentiment_mean_7d", "last_news_at_ms", "coin"):
        with pytest.raises(QueryError, match=r"known: open, .*news_count_15m, .*seconds_since_news"):
            filled.training_set("BTC/USD", "1m", features=["close", name])
        with pytest.raises(QueryError, match="unknown column"):
            filled.vector_history("BTC/USD", "1m", columns=["close", f"{name}s"])


def test_each_exchange_of_a_pair_joins_the_same_sentiment(filled: SqliteStore) -> None:
    write_candles(filled, range(5, 20), exchange="zeta")
    table = filled.training_set("BTC/USD", "1m", features=BOTH, dropna=False)
    by_exchange: dict[str, dict[int, Any]] = {"kraken": {}, "zeta": {}}
    for row in table.to_pylist():
        by_exchange[row["exchange"]][row["end_ms"]] = row["sentiment_mean_15m"]
    assert len(by_exchange["zeta"]) == 15
    assert by_exchange["zeta"].items() <= by_exchange["kraken"].items()


def test_a_range_that_begins_between_two_rows_of_sentiment_knows_the_first(filled: SqliteStore) -> None:
    whole = filled.training_set("BTC/USD", "1m", features=BOTH, dropna=False)
    part = filled.training_set("BTC/USD", "1m", start=T0 + 20 * MINUTE, features=BOTH, dropna=False)
    assert part.equals(whole.slice(19))


def test_an_empty_range_is_empty_and_typed(filled: SqliteStore) -> None:
    table = filled.training_set("BTC/USD", "1m", "2030-01-01", features=BOTH)
    assert table.num_rows == 0
    assert table.column_names[5:] == [*BOTH, "label_log_return_1"]


def test_the_vector_is_the_newest_row_with_the_sentiment_of_its_end(filled: SqliteStore) -> None:
    vector = filled.vector("BTC/USD", "1m")
    assert vector is not None
    assert (vector["end_ms"], vector["close"]) == (T0 + 40 * MINUTE, 139.0)
    assert (vector["news_count_15m"], vector["news_count_1h"]) == (0, 2)
    assert vector["seconds_since_news"] == 1650.0
    assert [v["pair"] for v in filled.vectors()] == ["BTC/USD", "ETH/USD"]
    assert filled.vectors("ETH/USD")[0]["seconds_since_news"] is None


def test_a_candle_that_is_still_open_has_the_sentiment_of_now_and_not_of_its_end(
    filled: SqliteStore,
) -> None:
    store = filled
    store.write(TA, tuples([ta_row(0, timeframe="1h", closed=False)]))
    names = ("news_count_15m", "sentiment_mean_15m", "seconds_since_news")
    seen = {}
    for minutes in (9, 11, 13, 26, 60, 90):
        (vector,) = store.vectors("BTC/USD", "1h", now=T0 + minutes * MINUTE)
        assert vector == store.vector("BTC/USD", "1h", now=T0 + minutes * MINUTE)
        seen[minutes] = tuple(vector[name] for name in names)
    assert seen == {
        9: (0, None, None),
        11: (1, 0.5, 60.0),
        13: (2, 0.125, 30.0),
        26: (1, -0.25, 810.0),
        60: (0, None, 2850.0),
        # The candle ended meanwhile, and its last row is on the way.
        90: (0, None, 2850.0),
    }
    # Its end is past, so that now is later by the wall clock.
    assert store.vector("BTC/USD", "1h")["seconds_since_news"] == 2850.0  # type: ignore[index]


def test_a_closed_candle_has_the_sentiment_of_its_end_also_where_the_clock_is_behind(
    filled: SqliteStore,
) -> None:
    vector = filled.vector("BTC/USD", "1m", now=T0)
    assert vector == filled.vector("BTC/USD", "1m")


def test_the_history_of_vectors_has_the_columns_asked_for(filled: SqliteStore) -> None:
    table = filled.vector_history("BTC/USD", "1m", columns=["sentiment_mean_15m", "close"], limit=11)
    assert table.column_names == ["exchange", "pair", "timeframe", "end_ms", "sentiment_mean_15m", "close"]
    assert table["sentiment_mean_15m"].to_pylist() == [None] * 9 + [0.5, 0.5]
    newest = filled.vector_history("BTC/USD", "1m", limit=1, newest=True).to_pylist()[0]
    assert newest == filled.vector("BTC/USD", "1m")


def test_a_pair_on_two_exchanges_must_be_told_apart(filled: SqliteStore) -> None:
    write_candles(filled, range(5), exchange="zeta")
    with pytest.raises(QueryError, match="kraken, zeta"):
        filled.vector("BTC/USD", "1m")
    assert filled.vector("BTC/USD", "1m", "zeta") is not None
    with pytest.raises(UnknownSeriesError, match="known: BTC/USD, ETH/USD"):
        filled.vector("DOGE/USD", "1m")


def test_a_store_from_before_news_answers_for_ta_and_gets_the_groups_when_it_is_written(path: Path) -> None:
    with make_store(path, [TA]) as store:
        write_candles(store, range(5))
        # As the registry was before it knew of `within`.
        store._writer.execute('ALTER TABLE feature_groups DROP COLUMN "within"')
    with SqliteReader(path) as reader:
        assert reader.groups() == {"ta": TA}
        assert reader.history("BTC/USD", "1m").num_rows == 5
        assert reader.latest("BTC/USD", "1m") is not None
        assert reader.training_set("BTC/USD", "1m").num_rows == 4
        assert reader.describe()["rows"] == 5
        for ask in (
            lambda: reader.vector("BTC/USD", "1m"),
            lambda: reader.vector_history("BTC/USD", "1m"),
            lambda: reader.latest(group="sentiment", coin="BTC"),
            lambda: reader.training_set("BTC/USD", "1m", features=["news_count_1h"]),
            lambda: reader.describe("news_signals"),
        ):
            with pytest.raises(UnknownSeriesError, match="known: ta; the features service adds it"):
                ask()
        with make_store(path) as store:
            write_news(store, [signal(MINUTE)])
        assert reader.vector("BTC/USD", "1m")["news_count_15m"] == 1  # type: ignore[index]
        assert "news_count_15m" in reader.training_set("BTC/USD", "1m").column_names


def test_the_coin_of_a_pair_stands_before_the_slash() -> None:
    assert base_coin("BTC/USD") == "BTC"


def test_the_newest_place_at_each_time() -> None:
    assert newest_at([2, 4, 4, 9], [1, 2, 3, 4, 8, 9, 10]) == [None, 0, 0, 2, 2, 3, 3]
    assert newest_at([], [1]) == [None]


def _news() -> st.SearchStrategy[list[NewsSignal]]:
    def make(seconds: int, delay_s: int, score: float, story: str) -> NewsSignal:
        at_ms = seconds * 1_000
        return signal(at_ms, story, score, published_at_ms=T0 + at_ms - delay_s * 1_000)

    made = st.builds(
        make,
        st.integers(-3_000, 6_000) | st.integers(-50, 100).map(lambda i: i * 60),
        st.integers(0, 7_200),
        st.integers(-10, 10).map(lambda i: i / 10),
        st.sampled_from("abc"),
    )
    return st.lists(made, max_size=10, unique_by=lambda s: (s.observed_at_ms, s.story_id))


def every_feature(store: SqliteStore) -> list[dict[str, Any]]:
    names = ["close", *joined_names(SENTIMENT)]
    return store.training_set("BTC/USD", "5m", features=names, dropna=False).to_pylist()


@settings(max_examples=25, deadline=None)
@given(news=_news(), at=st.integers(0, 19))
def test_deleting_all_that_was_observed_after_a_row_does_not_change_the_row(
    news: list[NewsSignal], at: int
) -> None:
    known_at_ms = T0 + (at + 1) * 5 * MINUTE
    earlier = [s for s in news if s.observed_at_ms <= known_at_ms]
    seen = []
    for signals, candles in ((news, 20), (earlier, at + 1)):
        with tempfile.TemporaryDirectory() as folder, make_store(Path(folder, "store")) as store:
            store.write(TA, tuples(ta_row(i, close=100.0 + i, timeframe="5m") for i in range(candles)))
            write_news(store, signals)
            rows = every_feature(store)
            for row in rows:
                del row["label_log_return_1"]
            seen.append(rows[: at + 1])
            if candles == at + 1:
                online = store.vector("BTC/USD", "5m")
                assert online is not None
                # What is served online is the training row of the same time.
                assert {name: online[name] for name in seen[0][at] if name != "known_at_ms"} == {
                    name: value for name, value in seen[0][at].items() if name != "known_at_ms"
                }
    assert seen[0] == seen[1]


@pytest.mark.parametrize(("old", "coin"), RENAMED.items())
def test_a_pair_under_an_old_ticker_gets_the_news_of_its_coin(old: str, coin: str) -> None:
    assert base_coin(f"{old}/USD") == coin
    assert base_coin(f"{coin}/USD") == coin
    with (Path(coin_list.__file__).parent / "data" / "coins.csv").open(encoding="utf-8", newline="") as file:
        (row,) = [row for row in csv.DictReader(file) if row["coin"] == coin]
    if old not in KRAKEN_ASSETS.values():
        assert old in row["sure"].split("|")
