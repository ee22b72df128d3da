"""The Hopsworks store without its client: settings, the missing extra, and answers equal to SQLite's.

What needs the client is in `tests/hopsworks`, which `make test-hopsworks` runs.
"""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pytest

from services.common.errors import QueryError, SettingsError, StoreError, UnknownSeriesError
from services.features import open_store
from services.features.arrow import arrow_schema
from services.features.description import description_text
from services.features.groups import SENTIMENT, TA, FeatureGroup
from services.features.sentiment import SentimentWriter
from services.features.settings import FeaturesSettings
from services.features.stores import open_for_reading
from services.features.stores.contract import Reader
from services.features.stores.hopsworks_reader import HopsworksReader
from services.features.stores.hopsworks_tables import HopsworksTables
from services.features.stores.sqlite import SqliteStore
from services.features.windows import LONGEST_MS
from tests.features.rows import MINUTE, T0, signal, ta_row, tuples

GIVEN = {
    "FEATURES_STORE": "hopsworks",
    "FEATURES_HOPSWORKS_HOST": "hopsworks.example",
    "FEATURES_HOPSWORKS_PROJECT": "crypto",
    "FEATURES_HOPSWORKS_API_KEY": "secret-key",
}


@pytest.mark.parametrize("name", [name for name in GIVEN if name != "FEATURES_STORE"])
def test_hopsworks_without_host_project_or_key_is_refused_by_name(name: str) -> None:
    with pytest.raises(SettingsError, match=f"FEATURES_STORE=hopsworks needs {name}"):
        FeaturesSettings.load(GIVEN | {name: ""})


def test_rolling_old_rows_is_refused_with_hopsworks_before_anything_is_opened() -> None:
    with pytest.raises(SettingsError, match="FEATURES_KEEP_DAYS is for FEATURES_STORE=sqlite"):
        FeaturesSettings.load(GIVEN | {"FEATURES_KEEP_DAYS": "90"})


def test_sqlite_needs_none_of_these_settings() -> None:
    assert FeaturesSettings.load({}).store == "sqlite"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FEATURES_HOPSWORKS_HOST", "https://hopsworks.example"),
        ("FEATURES_HOPSWORKS_PORT", "0"),
        ("FEATURES_HOPSWORKS_TIMEOUT_S", "0"),
        ("FEATURES_HOPSWORKS_TIMEOUT_S", "60"),
        ("FEATURES_HOPSWORKS_KEEP_DAYS", "1"),
        ("FEATURES_STORE", "oracle"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        FeaturesSettings.load(GIVEN | {name: value})


def test_the_key_is_not_shown() -> None:
    settings = FeaturesSettings.load(GIVEN)
    assert "secret-key" not in f"{settings} {settings!r} {settings.model_dump_json()}"


@pytest.mark.skipif(find_spec("hopsworks") is not None, reason="the client is installed")
def test_without_the_client_the_error_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in GIVEN.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StoreError, match="install the extra `hopsworks`"):
        open_store()
    with pytest.raises(StoreError, match="install the extra `hopsworks`"):
        open_store("hopsworks://")


def test_a_command_that_takes_a_file_says_so() -> None:
    with pytest.raises(StoreError, match="hopsworks is no file"):
        open_for_reading("hopsworks", Path())


def test_the_features_service_loads_no_hopsworks_until_it_is_chosen() -> None:
    code = "import sys, services.features.pipeline as _; print({'hopsworks', 'pandas'} & set(sys.modules))"
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "set()"


class SqliteTables:
    """`HopsworksTables` with the rows of an SQLite store, joined by hand."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    def online(self, group: FeatureGroup) -> list[dict[str, Any]]:
        return self._store.latest_all(group=group.name)

    def offline(
        self, group: FeatureGroup, names: list[str], wanted: dict[str, list[str]], start_ms: int, end_ms: int
    ) -> pa.Table:
        conditions = [f"{group.event_time} BETWEEN ? AND ?"]
        parameters: list[Any] = [start_ms, end_ms]
        for name, values in wanted.items():
            conditions.append(f"{name} IN ({', '.join('?' * len(values))})")
            parameters += values
        _, rows = self._store.sql(
            f"SELECT {', '.join(names)} FROM {group.name} WHERE {' AND '.join(conditions)} "
            f"ORDER BY {', '.join(group.primary_key)}",
            parameters,
        )
        schema = arrow_schema([group.stored[group.index(name)] for name in names])
        columns = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in names]
        kinds = [field.type for field in schema]
        arrays: list[Any] = [
            pa.array(values, pa.int8()).cast(kind) if pa.types.is_boolean(kind) else pa.array(values, kind)
            for values, kind in zip(columns, kinds, strict=True)
        ]
        return pa.Table.from_arrays(arrays, schema=schema)

    def joined(self, names: list[str], wanted: dict[str, list[str]], start_ms: int, end_ms: int) -> pa.Table:
        own = [name for name in names if name in TA.names]
        table = self.offline(TA, own, wanted, start_ms, end_ms)
        _, rows = self._store.sql("SELECT * FROM sentiment ORDER BY as_of_ms")
        time, coin = SENTIMENT.index("as_of_ms"), SENTIMENT.index("coin")
        found: list[Any] = []
        for row in table.to_pylist():
            known = [r for r in rows if r[coin] == row["pair"].split("/")[0] and r[time] <= row["end_ms"]]
            found.append(known[-1] if known else [None] * len(SENTIMENT.names))
        for name in names[len(own) :]:
            column = replace(SENTIMENT.columns[SENTIMENT.index(name)], nullable=True)
            field = arrow_schema([column]).field(0)
            values: Any = pa.array([row[SENTIMENT.index(name)] for row in found], field.type)
            table = table.append_column(field, values)
        return table


@pytest.fixture
def readers(store: SqliteStore) -> tuple[Reader, Reader]:
    for pair, exchange in (("BTC/USD", "kraken"), ("ETH/USD", "kraken"), ("BTC/USD", "zeta")):
        rows = [ta_row(i, pair=pair, exchange=exchange, close=100 + i, rsi_14=i or None) for i in range(40)]
        store.write(TA, tuples(rows))
    writer = SentimentWriter(store, lambda: T0 + 90 * MINUTE)
    writer.write("BTC", [signal(10 * MINUTE, "a", 0.5), signal(12 * MINUTE + 30_000, "b", -0.25)])
    writer.write("ETH", [signal(12 * MINUTE, story, coin="ETH") for story in "cde"])
    settings = FeaturesSettings.load(GIVEN)
    tables = cast("HopsworksTables", SqliteTables(store))
    return store, HopsworksReader(settings=settings, open_tables=lambda _: tables)


NAMES = ["close", "rsi_14", "news_count_15m", "sentiment_mean_15m", "seconds_since_news"]


@pytest.mark.parametrize(
    "ask",
    [
        lambda s: s.latest("ETH/USD", "1m"),
        lambda s: s.latest("BTC/USD", "1m", "zeta"),
        lambda s: s.latest(group="sentiment", coin="BTC"),
        lambda s: s.latest_all(),
        lambda s: s.latest_all("BTC/USD"),
        lambda s: s.latest_all(group="sentiment"),
        lambda s: s.history("BTC/USD", "1m"),
        lambda s: s.history(["ETH/USD", "BTC/USD"], "1m", T0 + 3 * MINUTE, T0 + 9 * MINUTE, ["rsi_14"]),
        lambda s: s.history("BTC/USD", "1m", "2030-01-01"),
        lambda s: s.history("BTC/USD", "1m", limit=3, exchange="zeta"),
        lambda s: s.history(["BTC/USD", "ETH/USD"], "1m", limit=3, newest=True),
        lambda s: s.history(["BTC/USD", "ETH/USD"], "1m", limit=99, newest=True),
        lambda s: s.history(group="sentiment"),
        lambda s: s.history(group="news_signals", coin="ETH"),
        lambda s: s.history(group="news_signals", coin="ETH", start=T0 + 12 * MINUTE, after="c"),
        lambda s: s.vector("ETH/USD", "1m"),
        lambda s: s.vectors(),
        lambda s: s.vector_history("BTC/USD", "1m", exchange="kraken"),
        lambda s: s.vector_history("BTC/USD", "1m", columns=NAMES, limit=5),
        lambda s: s.vector_history("BTC/USD", "1m", columns="close"),
        lambda s: s.training_set("BTC/USD", "1m", features=NAMES, horizon=3),
        lambda s: s.training_set(["BTC/USD", "ETH/USD"], "1m", features=NAMES, dropna=False),
        lambda s: s.training_set("BTC/USD", "1m", features=["rsi_14"], exchange="kraken"),
        lambda s: s.training_set("BTC/USD", "1m", dropna=False),
    ],
)
def test_the_answers_are_those_of_sqlite_on_the_same_rows(
    readers: tuple[Reader, Reader], ask: Callable[[Reader], Any]
) -> None:
    expected, answer = (ask(reader) for reader in readers)
    assert expected is not None
    if isinstance(expected, pa.Table):
        assert answer.column_names == expected.column_names
        assert answer.to_pylist() == expected.to_pylist()
    else:
        assert answer == expected


@pytest.mark.parametrize(
    ("ask", "error", "says"),
    [
        (lambda s: s.latest("DOGE/USD", "1m"), UnknownSeriesError, "known: BTC/USD, ETH/USD"),
        (lambda s: s.latest("BTC/USD", "1m"), QueryError, "kraken, zeta"),
        (lambda s: s.latest(group="news_signals", coin="BTC"), QueryError, "ask for its history"),
        (lambda s: s.history("BTC/USD", "1m", columns=["moon"]), QueryError, "known: exchange"),
        (lambda s: s.training_set(None, "1m"), QueryError, "name at least one pair"),
        (lambda s: s.training_set("BTC/USD", ["1m"]), QueryError, "name one timeframe"),
        (lambda s: s.vector(["BTC/USD"], "1m"), QueryError, "name one pair"),
        (lambda s: s.latest("BTC/USD", ["1m"]), QueryError, "name one timeframe"),
        (lambda s: s.history([], "1m"), QueryError, "at least one pair"),
        (lambda s: s.describe("moon"), UnknownSeriesError, "known: ta"),
        (lambda s: s.training_set("BTC/USD", "1m", features=["moon"]), QueryError, "unknown feature"),
    ],
)
def test_what_cannot_be_answered_is_refused(
    readers: tuple[Reader, Reader], ask: Callable[[Reader], Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        ask(readers[1])


@pytest.mark.parametrize(
    "ask",
    [
        lambda s: s.history("DOGE/USD", "1m"),
        lambda s: s.history("ETH/USD", "1m", exchange="zeta"),
        lambda s: s.history("ETH/USD", "5m", limit=1),
        lambda s: s.history(["BTC/USD", "btc/usd"], "1m"),
        lambda s: s.history(group="sentiment", coin="DOGE"),
        lambda s: s.history(group="news_signals", coin=["DOGE", "BTC"]),
        lambda s: s.vector_history("DOGE/USD", "1m"),
        lambda s: s.training_set(["DOGE/USD", "BTC/USD"], "1m", features=["close"]),
        lambda s: s.training_set("DOGE/USD", "1m"),
    ],
)
def test_a_series_that_there_is_not_is_refused_as_sqlite_does(
    readers: tuple[Reader, Reader], ask: Callable[[Reader], Any]
) -> None:
    refused = []
    for reader in readers:
        with pytest.raises(UnknownSeriesError, match=r"unknown \w+ .*; known: ") as error:
            ask(reader)
        refused.append(str(error.value))
    assert refused[0] == refused[1]


def test_vectors_read_the_sentiment_of_a_coin_once_and_not_its_whole_history(
    readers: tuple[Reader, Reader], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int]] = []
    plain = SqliteTables.offline

    def noted(self: Any, group: Any, names: Any, wanted: Any, start_ms: int, end_ms: int) -> pa.Table:
        asked.append((wanted["coin"][0], start_ms))
        return plain(self, group, names, wanted, start_ms, end_ms)

    monkeypatch.setattr(SqliteTables, "offline", noted)
    store, reader = readers
    assert reader.vectors() == store.vectors()
    # Two series of BTC, one of ETH, and news of both since their end.
    end = T0 + 40 * MINUTE
    assert asked == [("BTC", end - LONGEST_MS), ("ETH", end - LONGEST_MS)]


def test_sentiment_that_has_held_for_longer_than_a_window_is_found(store: SqliteStore) -> None:
    writer = SentimentWriter(store, lambda: T0 + 20 * LONGEST_MS)
    writer.write("BTC", [signal(0), signal(9 * LONGEST_MS, "later")])
    store.write(TA, tuples([ta_row(6, timeframe="1d"), ta_row(5, timeframe="1d", exchange="zeta")]))
    tables = cast("HopsworksTables", SqliteTables(store))
    reader = HopsworksReader(settings=FeaturesSettings.load(GIVEN), open_tables=lambda _: tables)
    found = reader.vectors()
    assert found == store.vectors()
    assert [row["news_count_24h"] for row in found] == [0, 0]
    assert all(row["seconds_since_news"] > 5 * 86_400 for row in found)


def test_describe_names_columns_and_series_without_reading_all_rows(readers: tuple[Reader, Reader]) -> None:
    expected, described = (reader.describe() for reader in readers)
    for name in ("name", "version", "description", "key", "event_time"):
        assert described[name] == expected[name]
    assert [c["name"] for c in described["columns"]] == [c["name"] for c in expected["columns"]]
    assert [s["last_ms"] for s in described["series"]] == [s["last_ms"] for s in expected["series"]]
    assert described["rows"] is None
    _, counts, _, names, *lines = description_text(described)
    assert counts == "- closed rows in 3 series"
    assert (names.split()[3:5], lines[0].split()[:5]) == (
        ["rows", "first"],
        ["kraken", "BTC/USD", "1m", "-", "-"],
    )
