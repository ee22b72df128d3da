"""Reading: history, latest, description, and what is not there."""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pytest

from services.common.columns import TA_COLUMNS
from services.common.errors import QueryError, StoreError, UnknownSeriesError
from services.features import open_store, to_pandas
from services.features.groups import GROUPS, TA
from services.features.sentiment import SentimentWriter
from services.features.stores.location import parse_location
from services.features.stores.sqlite import SqliteStore
from services.features.stores.sqlite_reader import SqliteReader
from services.features.times import iso, to_ms
from tests.features.rows import MINUTE, T0, make_store, signal, ta_row, tuples


@pytest.fixture
def filled(store: SqliteStore) -> SqliteStore:
    for pair in ("ETH/USD", "BTC/USD"):
        rows = [ta_row(i, pair=pair, close=100 + i, rsi_14=i or None) for i in range(10)]
        store.write(TA, tuples(rows))
    store.write(TA, tuples(ta_row(i, timeframe="1h") for i in range(3)))
    store.write(TA, tuples([ta_row(0, exchange="coinbase", pair="ETH/USD", close=7.0)]))
    return store


def test_history_is_ordered_by_exchange_pair_and_time(filled: SqliteStore) -> None:
    table = filled.history(["ETH/USD", "BTC/USD"], "1m")
    keys = list(zip(*(table[name].to_pylist() for name in ("exchange", "pair", "end_ms")), strict=True))
    assert keys == sorted(keys)
    assert len(keys) == 21
    assert table.column_names == [*TA.key, "end_ms", *(n for n in TA.names if n not in table_keys())]


def table_keys() -> tuple[str, ...]:
    return (*TA.key, "end_ms")


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (T0 + 3 * MINUTE, T0 + 5 * MINUTE),
        (datetime(2024, 1, 1, 0, 3), datetime(2024, 1, 1, 0, 5)),  # noqa: DTZ001
        (datetime(2024, 1, 1, 0, 3, tzinfo=UTC), "2024-01-01T00:05:00Z"),
        ("2024-01-01 00:03", "2024-01-01T01:05:00+01:00"),
        (
            datetime(2024, 1, 1, 2, 3, tzinfo=timezone(timedelta(hours=2))),
            str(T0 + 5 * MINUTE),
        ),
    ],
)
def test_the_range_includes_both_ends_in_every_notation(filled: SqliteStore, start: Any, end: Any) -> None:
    table = filled.history("BTC/USD", "1m", start, end, columns=["close"])
    assert table["close"].to_pylist() == [102, 103, 104]


def test_a_date_is_its_midnight_utc() -> None:
    assert to_ms(date(2024, 1, 1)) == to_ms("2024-01-01") == to_ms("20240101") == T0
    assert iso(T0) == "2024-01-01T00:00:00.000Z"


BETWEEN = "2023-12-31T23:59:59.9999999"


@pytest.mark.parametrize(
    "time",
    [
        BETWEEN,
        datetime.fromisoformat(BETWEEN),
        pd.Timestamp(BETWEEN),
        pd.Timestamp(BETWEEN, tz="UTC").tz_convert("America/New_York"),
        np.datetime64(BETWEEN),
    ],
)
def test_a_time_between_two_milliseconds_lets_in_neither_what_is_later_nor_what_is_earlier(
    store: SqliteStore, time: Any
) -> None:
    assert (to_ms(time), to_ms(time, up=True)) == (T0 - 1, T0)
    store.write(TA, tuples([ta_row(start_ms=T0 - MINUTE, end_ms=T0)]))
    assert store.history("BTC/USD", "1m", end=time).num_rows == 0
    assert store.history("BTC/USD", "1m", time, T0).num_rows == 1
    past = "2024-01-01T00:00:00.0000001"
    assert store.history("BTC/USD", "1m", past).num_rows == 0
    assert store.history("BTC/USD", "1m", past, past).num_rows == 0


def test_times_of_numpy_and_pandas_are_utc() -> None:
    assert to_ms(np.datetime64("2024-01")) == to_ms(pd.Timestamp("2024-01-01")) == T0
    assert to_ms(np.datetime64("2024-01-01T00:00", "h")) == to_ms(np.int64(T0)) == T0


@pytest.mark.parametrize(
    "time",
    [
        *("yesterday", "", 1_704_067_200, -1, 10**15, True, None, [], "'; DROP TABLE ta;--", "9" * 5_000),
        *(
            pd.NaT,
            np.datetime64("NaT", "ms"),
            np.array(["2024-01-01"], "M8[D]"),
            1.5,
            2**70,
            datetime.max.replace(tzinfo=UTC),
        ),
    ],
)
def test_what_is_no_time_is_refused(time: Any) -> None:
    with pytest.raises(QueryError):
        to_ms(time)


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda s: s.training_set(None, "1m"), "name at least one pair"),
        (lambda s: s.training_set([], "1m"), "name at least one pair"),
        (lambda s: s.training_set(5, "1m"), "pair is a text or several of them, not 5"),
        (lambda s: s.history(["BTC/USD", None], "1m"), "pair is a text, not None"),
        (lambda s: s.training_set("BTC/USD", ["1m", "1h"]), "name one timeframe, not ['1m', '1h']"),
        (lambda s: s.training_set("BTC/USD", None), "name a timeframe"),
        (lambda s: s.training_set("BTC/USD", "1m", features=[]), "name at least one feature; known: open"),
        (lambda s: s.training_set("BTC/USD", "1m", features=5), "feature is a text or several"),
        (lambda s: s.history("BTC/USD", "1m", columns=5), "column is a text or several"),
        (lambda s: s.vector("BTC/USD", None), "name a timeframe for group ta"),
        (lambda s: s.vector(["BTC/USD", "ETH/USD"], "1m"), "name one pair, not ['BTC/USD', 'ETH/USD']"),
        (lambda s: s.latest(["BTC/USD", "ETH/USD"], "1m"), "name one pair, not"),
        (lambda s: s.latest(group="sentiment", coin=["BTC", "ETH"]), "name one coin, not"),
        (lambda s: s.describe(["ta"]), "name one group, not ['ta']"),
        (
            lambda s: to_pandas(s.latest("BTC/USD", "1m")),
            "Arrow tables that a store answers with, not of a dict",
        ),
    ],
)
def test_a_question_that_makes_no_sense_is_refused_with_what_it_should_be(
    filled: SqliteStore, ask: Callable[[Any], Any], says: str
) -> None:
    with pytest.raises(QueryError, match=re.escape(says)):
        ask(filled)


def test_pairs_and_columns_may_come_in_any_collection(filled: SqliteStore) -> None:
    pairs: list[Any] = [
        *({"BTC/USD": 1, "ETH/USD": 2}, pd.Series(["BTC/USD", "ETH/USD"]), np.array(["ETH/USD", "BTC/USD"])),
        (pair for pair in ("BTC/USD", "ETH/USD", "BTC/USD")),
    ]
    for given in pairs:
        features = (name for name in ("close",))
        table = filled.training_set(given, "1m", features=features, exchange="kraken")  # type: ignore[arg-type]
        assert table["pair"].to_pylist() == ["BTC/USD"] * 9 + ["ETH/USD"] * 9


@pytest.mark.parametrize("limit", [0, -1, "5", 2.5, True, np.array([5]), 2**63, 2**70])
def test_a_limit_that_is_no_number_of_rows_is_refused(filled: SqliteStore, limit: Any) -> None:
    for ask in (
        lambda: filled.history("BTC/USD", "1m", limit=limit),
        lambda: filled.vector_history("BTC/USD", "1m", limit=limit),
        lambda: filled.sql("SELECT 1", limit=limit),
    ):
        with pytest.raises(QueryError, match="limit must be a whole number of rows"):
            ask()


def test_a_limit_may_be_a_number_of_numpy(filled: SqliteStore) -> None:
    limit: Any = np.int64(5)
    assert filled.history("BTC/USD", "1m", limit=limit).num_rows == 5
    assert filled.vector_history("BTC/USD", "1m", columns="close", limit=limit, newest=True).num_rows == 5
    assert filled.sql("SELECT * FROM ta", limit=limit)[1][5:] == []
    assert filled.history("BTC/USD", "1m", limit=2**63 - 1).num_rows == 10


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("SELECT 1; SELECT 1, 2", "one statement, not several"),
        ("SELECT pair FROM ta; DELETE FROM ta_1", "one statement, not several"),
        ("", "one statement, not none"),
        ("-- nothing", "one statement, not none"),
        ("COMMIT", "neither begins nor ends"),
        ("/* all */ ROLLBACK", "neither begins nor ends"),
        ("SAVEPOINT one", "neither begins nor ends"),
        ("SELECT ?", "bindings"),
    ],
)
def test_sql_is_one_statement_that_leaves_the_transaction_alone(
    filled: SqliteStore, query: str, says: str
) -> None:
    with pytest.raises(QueryError, match=f"SQL: .*{says}"):
        filled.sql(query)
    assert filled.sql("SELECT count(*) FROM ta; -- of all pairs;")[1] == [(24,)]
    with pytest.raises(QueryError, match="SQL: "):
        filled.sql("SELECT ?", [object()])


@pytest.mark.parametrize("location", ["", "/", 5])
def test_what_names_no_file_is_no_store(location: Any) -> None:
    with pytest.raises(StoreError, match="a feature store is"):
        open_store(location)


def test_limit_keeps_the_first_rows_or_the_newest_of_each_series(filled: SqliteStore) -> None:
    first = filled.history(["BTC/USD", "ETH/USD"], "1m", limit=12, exchange="kraken")
    assert first["pair"].to_pylist() == ["BTC/USD"] * 10 + ["ETH/USD"] * 2
    last = filled.history(["BTC/USD", "ETH/USD"], "1m", limit=2, newest=True, exchange="kraken")
    assert last["close"].to_pylist() == [108, 109, 108, 109]


def test_columns_come_after_the_key_in_the_order_asked(filled: SqliteStore) -> None:
    table = filled.history("BTC/USD", "1m", columns=["rsi_14", "close"])
    assert table.column_names == ["exchange", "pair", "timeframe", "end_ms", "rsi_14", "close"]
    metadata: Any = table.schema.field("rsi_14").metadata
    assert metadata[b"unit"] == b"percent"


def test_history_becomes_pandas_and_polars_frames(filled: SqliteStore) -> None:
    table = filled.history("BTC/USD", "1m")
    assert table.to_pandas()["close"].sum() == 1045
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    assert frame["rsi_14"].null_count() == 1


def test_history_of_a_range_without_rows_is_empty_and_typed(filled: SqliteStore) -> None:
    table = filled.history("BTC/USD", "1m", "2030-01-01")
    assert table.num_rows == 0
    assert table.column_names[4:] != []


@pytest.mark.parametrize(
    ("question", "known"),
    [
        (lambda s: s.history("DOGE/USD", "1m"), "BTC/USD, ETH/USD"),
        (lambda s: s.history(["BTC/USD", "DOGE/USD"], "1m"), "BTC/USD, ETH/USD"),
        (lambda s: s.history("BTC/USD", "7m"), "1h, 1m"),
        (lambda s: s.history("BTC/USD", "1m", exchange="nyse"), "kraken"),
        (lambda s: s.latest("BTC/USD", "1w"), "1h, 1m"),
        (lambda s: s.latest("x' OR '1'='1", "1m"), "BTC/USD, ETH/USD"),
        (lambda s: s.latest("BTC/USD", "1m", group="news"), "ta"),
        (lambda s: s.describe("news"), "ta"),
    ],
)
def test_an_unknown_name_is_refused_with_the_known_ones(
    filled: SqliteStore, question: Any, known: str
) -> None:
    with pytest.raises(UnknownSeriesError, match=known):
        question(filled)


@pytest.mark.parametrize(
    ("question", "says"),
    [
        (lambda s: s.history("BTC/USD", "1m", columns=["close; DROP TABLE ta"]), "unknown column"),
        (lambda s: s.history("BTC/USD", "1m", columns=["sharpe"]), "known: exchange, pair"),
        (lambda s: s.history("BTC/USD", "1m", "2024-01-02", "2024-01-01"), "after the end"),
        (lambda s: s.history("BTC/USD", "1m", limit=0), "limit"),
        (lambda s: s.history([], "1m"), "at least one pair"),
        (lambda s: s.latest("ETH/USD", "1m"), "coinbase, kraken"),
        (lambda s: s.sql("SELECT nonsense FROM ta"), "nonsense"),
        (lambda s: s.sql("DELETE FROM ta_1"), "readonly"),
        (lambda s: s.sql("DROP TABLE ta_1"), "readonly"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(filled: SqliteStore, question: Any, says: str) -> None:
    with pytest.raises(QueryError, match=says):
        question(filled)


def test_latest_tells_exchanges_apart(filled: SqliteStore) -> None:
    latest = filled.latest("ETH/USD", "1m", "coinbase")
    assert latest is not None
    assert latest["close"] == 7
    assert len(filled.latest_all()) == 4
    assert [row["timeframe"] for row in filled.latest_all("BTC/USD")] == ["1h", "1m"]


def test_describe_counts_rows_and_nulls_and_explains_columns(filled: SqliteStore) -> None:
    described = filled.describe(now=T0 + 190 * MINUTE)
    columns = {column["name"]: column for column in described["columns"]}
    assert described["rows"] == 24
    assert columns["close"]["null_rate"] == 0
    assert columns["rsi_14"]["null_rate"] == pytest.approx(6 / 24)
    assert columns["rsi_14"]["unit"] == "percent"
    assert described["series"][1] == {
        "exchange": "kraken",
        "pair": "BTC/USD",
        "timeframe": "1h",
        "rows": 3,
        "first_ms": T0 + 60 * MINUTE,
        "last_ms": T0 + 180 * MINUTE,
        "written_ms": T0,
        "age_s": 600.0,
    }


@pytest.fixture
def with_news(filled: SqliteStore) -> SqliteStore:
    writer = SentimentWriter(filled, lambda: T0 + 60 * MINUTE)
    writer.write("BTC", [signal(10 * MINUTE, story) for story in "abc"])
    writer.write("ETH", [signal(20 * MINUTE, "d", coin="ETH")])
    return filled


def test_groups_of_news_are_asked_by_coin(with_news: SqliteStore) -> None:
    assert with_news.series("sentiment") == [("BTC",), ("ETH",)]
    assert with_news.history(group="news_signals", coin="BTC")["story_id"].to_pylist() == list("abc")
    both = with_news.history(group="sentiment", coin=["ETH", "BTC"], columns=["news_count_15m"])
    assert both.column_names == ["coin", "as_of_ms", "news_count_15m"]
    assert both["coin"].to_pylist() == ["BTC", "BTC", "ETH", "ETH"]
    assert both.equals(with_news.history(group="sentiment", columns="news_count_15m"))
    assert with_news.latest(group="news_signals", coin="BTC")["story_id"] == "c"  # type: ignore[index]
    assert [row["coin"] for row in with_news.latest_all(group="sentiment")] == ["BTC", "ETH"]


def test_signals_are_ordered_by_time_and_story_and_limited_from_either_end(with_news: SqliteStore) -> None:
    for newest, expected in ((False, ["a", "b"]), (True, ["b", "c"])):
        table = with_news.history(group="news_signals", coin="BTC", limit=2, newest=newest)
        assert table["story_id"].to_pylist() == expected
        assert table.column_names[:3] == ["coin", "observed_at_ms", "story_id"]
    behind = with_news.history(group="news_signals", coin="BTC", start=T0 + 10 * MINUTE, after="a")
    assert behind["story_id"].to_pylist() == ["b", "c"]


@pytest.mark.parametrize(
    ("question", "says"),
    [
        (lambda s: s.latest("BTC/USD", "1m", group="sentiment"), "has no pair; its key is coin"),
        (lambda s: s.latest(group="sentiment"), "name a coin"),
        (lambda s: s.latest(coin="BTC"), "group ta has no coin; its key is exchange, pair, timeframe"),
        (lambda s: s.latest("BTC/USD"), "name a timeframe"),
        (lambda s: s.history(), "name a pair and a timeframe"),
        (lambda s: s.history("BTC/USD"), "name a timeframe"),
        (lambda s: s.history(group="sentiment", coin=[]), "at least one coin"),
        (lambda s: s.history(group="sentiment", coin="BTC", after="a"), "after"),
        (lambda s: s.history(group="news_signals", after="a"), "after"),
        (lambda s: s.history(group="sentiment", coin="DOGE"), "known: BTC, ETH"),
        (lambda s: s.latest(group="news_signals", coin="DOGE"), "known: BTC, ETH"),
    ],
)
def test_a_question_with_the_key_of_another_group_is_refused(
    with_news: SqliteStore, question: Any, says: str
) -> None:
    with pytest.raises(QueryError, match=says):
        question(with_news)


def test_describe_counts_the_groups_of_news(with_news: SqliteStore) -> None:
    signals, sentiment = (
        with_news.describe(group, now=T0 + 25 * MINUTE) for group in ("news_signals", "sentiment")
    )
    assert [series["rows"] for series in signals["series"]] == [3, 1]
    assert sentiment["series"][0] == {
        "coin": "BTC",
        "rows": 2,
        "first_ms": T0 + 10 * MINUTE,
        "last_ms": T0 + 25 * MINUTE,
        "written_ms": T0,
        "age_s": 0.0,
    }
    columns = {column["name"]: column for column in sentiment["columns"]}
    assert columns["sentiment_mean_15m"]["null_rate"] == 0.5
    assert columns["news_count_15m"]["null_rate"] == 0
    assert columns["sentiment_dispersion_4h"]["unit"] == "score"


def test_plain_sql_sees_the_groups_of_news(with_news: SqliteStore) -> None:
    for table, rows in (
        *(("news_signals", 4), ("news_signals_online", 2)),
        *(("sentiment", 4), ("sentiment_online", 2)),
    ):
        assert with_news.sql(f"SELECT count(*) FROM {table}")[1] == [(rows,)]


def test_an_empty_store_answers(store: SqliteStore) -> None:
    assert store.latest_all() == []
    assert store.series() == []
    assert store.describe()["rows"] == 0
    with pytest.raises(UnknownSeriesError, match="none yet"):
        store.latest("BTC/USD", "1m")


def test_the_registry_in_the_file_is_the_registry_of_the_code(store: SqliteStore) -> None:
    assert store.groups() == GROUPS
    assert TA.columns == TA_COLUMNS


def test_open_store_is_read_only_and_takes_paths_and_urls(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with make_store(path) as store:
        store.write(TA, tuples([ta_row(0)]))
    monkeypatch.setenv("FEATURES_STORE_PATH", str(path))
    for where in (path, str(path), f"sqlite:///{path}", None):
        with open_store(where) as reader:
            assert reader.history("BTC/USD", "1m").num_rows == 1
            assert not hasattr(reader, "write")


def test_a_url_says_relative_or_absolute() -> None:
    assert parse_location("sqlite:///a/b.sqlite") == ("sqlite", Path("a/b.sqlite"))
    assert parse_location("sqlite:////a/b.sqlite") == ("sqlite", Path("/a/b.sqlite"))


def test_a_store_that_does_not_exist_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="make demo"):
        open_store(tmp_path / "nothing.sqlite")


def test_duckdb_reads_a_history_without_a_copy(filled: SqliteStore) -> None:
    history = filled.history("BTC/USD", "1m")
    with duckdb.connect() as connection:
        connection.register("history", history)
        assert connection.execute("SELECT sum(close) FROM history").fetchall() == [(1045,)]


def test_plain_sql_sees_closed_rows_as_ta_and_the_newest_as_ta_online(filled: SqliteStore) -> None:
    names, rows = filled.sql("SELECT pair, count(*) AS n FROM ta WHERE exchange = ? GROUP BY 1", ["kraken"])
    assert names == ["pair", "n"]
    assert rows == [("BTC/USD", 13), ("ETH/USD", 10)]
    assert filled.sql("SELECT 1 WHERE 0") == (["1"], [])


def test_a_reader_sees_what_is_written_after_it_was_opened(path: Path) -> None:
    with make_store(path) as store, SqliteReader(path) as reader:
        store.write(TA, tuples([ta_row(0)]))
        assert reader.history("BTC/USD", "1m").num_rows == 1
        store.write(TA, tuples([ta_row(1)]))
        assert reader.history("BTC/USD", "1m").num_rows == 2
