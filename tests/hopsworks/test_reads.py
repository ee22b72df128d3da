"""Reading through the real client, as far as that goes without a cluster.

What the client asks of Hopsworks is seen by the stub: columns, filters, the view's query. Where the client
would now ask the query service or the online database, `Answers` evaluates that very query on the model's
tables. So these tests prove what is asked and how frames become answers; that a cluster answers so is not
proven.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from sqlalchemy.exc import SQLAlchemyError

from services.common.errors import StoreError, UnknownSeriesError
from services.features.groups import GROUPS
from services.features.settings import FeaturesSettings
from services.features.stores.contract import Reader
from services.features.stores.hopsworks import HopsworksStore
from services.features.stores.hopsworks_reader import HopsworksReader
from services.features.stores.hopsworks_types import COIN
from tests.features.rows import MINUTE, T0, make_store
from tests.hopsworks.model import Model, Row, read_topic
from tests.hopsworks.stub import API_KEY, Fault, Stub
from tests.hopsworks.test_contract import write_market_and_news


def holds(logic: dict[str, Any] | None, row: Row) -> bool:
    """Whether a row fits the client's filter."""
    if logic is None:
        return True
    parts = [one(logic[side], row) for side in ("leftFilter", "rightFilter") if logic[side] is not None]
    parts += [holds(logic[side], row) for side in ("leftLogic", "rightLogic") if logic[side] is not None]
    assert logic["type"] in ("AND", "SINGLE")
    return all(parts)


def one(condition: dict[str, Any], row: Row) -> bool:
    value, kind = row[condition["feature"]["name"]], condition["condition"]
    asked: Any = condition["value"]
    if kind == "IN":
        return bool(value in json.loads(asked))
    asked = type(value)(asked)
    compare = {"EQUALS": value == asked, "GREATER_THAN_OR_EQUAL": value >= asked}
    compare["LESS_THAN_OR_EQUAL"] = value <= asked
    return bool(compare[kind])


class Answers:
    """In place of the query service and the online database."""

    def __init__(self, stub: Stub) -> None:
        self._stub = stub

    def _should_be_used(self) -> bool:
        return True

    _is_enabled = _should_be_used

    def _table(self, name: str, *, online: bool) -> list[Row]:
        model = Model(GROUPS[name], read_topic(self._stub, GROUPS[name]))
        return list((model.online if online else model.offline).values())

    def _frame(self, *, online: bool) -> pd.DataFrame:
        asked = [body for called, body in self._stub.bodies if called.endswith("featurestores/query")][-1]
        names = [feature["name"] for feature in asked["leftFeatures"]]
        rows = [
            {name: row[name] for name in names}
            for row in self._table(asked["leftFeatureGroup"]["name"], online=online)
            if holds(asked["filter"], row)
        ]
        for join in asked["joins"]:
            names += self._join(rows, join)
        # As the client's frames are: nulls are NaN, rows in no order.
        frame = pd.DataFrame(rows, columns=names).sample(frac=1, random_state=0)
        if online and "closed" in names:
            frame["closed"] = frame["closed"].astype("int8")
        return frame

    def _join(self, rows: list[Row], join: dict[str, Any]) -> list[str]:
        """Add the newest row at or before each row's time."""
        group = join["query"]["leftFeatureGroup"]
        names = [feature["name"] for feature in join["query"]["leftFeatures"]]
        time, (left,), (right,) = group["eventTime"], join["leftOn"], join["rightOn"]
        table = sorted(self._table(group["name"], online=False), key=lambda row: row[time])
        for row in rows:
            known = [
                other
                for other in table
                if other[right["name"]] == row[left["name"]] and other[time] <= row["end_ms"]
            ]
            row.update({name: known[-1][name] if known else None for name in names})
        return names

    def _read_query(self, *_: Any) -> pd.DataFrame:
        return self._frame(online=False)

    def _jdbc(self, *_: Any) -> pd.DataFrame:
        return self._frame(online=True)


@pytest.fixture
def readers(
    store: HopsworksStore,
    stub: Stub,
    settings: FeaturesSettings,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> tuple[Reader, Reader]:
    """An SQLite store without the open candles, and a reader of Hopsworks with the same rows."""
    from hsfs import engine
    from hsfs.core import arrow_flight_client

    write_market_and_news(store)
    sqlite = make_store(tmp_path / "sqlite")
    write_market_and_news(sqlite)
    # Hopsworks is not given candles that are still open; the newest closed one is online there.
    sqlite._writer.execute("DELETE FROM ta_1_online WHERE NOT closed")
    newest = "SELECT exchange, pair, timeframe, max(end_ms) FROM ta_1 GROUP BY 1, 2, 3"
    sqlite._writer.execute(
        "INSERT OR REPLACE INTO ta_1_online SELECT * FROM ta_1 "
        f"WHERE (exchange, pair, timeframe, end_ms) IN ({newest})"
    )
    reader = HopsworksReader(settings=settings)
    answers = Answers(stub)
    monkeypatch.setattr(arrow_flight_client, "_get_instance", lambda: answers)
    monkeypatch.setattr(engine._get_instance(), "_jdbc", answers._jdbc)
    return sqlite, reader


NAMES = ["close", "rsi_14", "news_count_15m", "sentiment_mean_15m", "seconds_since_news"]


@pytest.mark.parametrize(
    "ask",
    [
        lambda s: s.latest("ETH/USD", "1m"),
        lambda s: s.latest_all(),
        lambda s: s.latest(group="sentiment", coin="BTC"),
        lambda s: s.history("ETH/USD", "1m"),
        lambda s: s.history(
            ["BTC/USD", "ETH/USD"], "1m", T0 + 3 * MINUTE, T0 + 9 * MINUTE, ["vwap", "close"]
        ),
        lambda s: s.history("ETH/USD", "1m", "2030-01-01"),
        lambda s: s.history(group="news_signals"),
        lambda s: s.history(group="sentiment", coin="BTC"),
        lambda s: s.vectors(),
        lambda s: s.vector_history("BTC/USD", "1m", columns=NAMES),
        lambda s: s.training_set(["BTC/USD", "ETH/USD"], "1m", features=NAMES, horizon=2),
        lambda s: s.training_set("BTC/USD", "1m", dropna=False),
    ],
)
def test_the_clients_answers_become_those_of_sqlite(
    readers: tuple[Reader, Reader], ask: Callable[[Reader], Any]
) -> None:
    expected, answer = (ask(reader) for reader in readers)
    if isinstance(expected, pa.Table):
        assert answer.column_names == expected.column_names
        assert answer.to_pylist() == expected.to_pylist()
    else:
        assert answer == expected


@pytest.mark.parametrize(
    "ask",
    [
        lambda s: s.history("DOGE/USD", "1m"),
        lambda s: s.history(group="news_signals", coin="DOGE"),
        lambda s: s.training_set(["BTC/USD", "btc/usd"], "1m", features=NAMES),
    ],
)
def test_a_series_that_there_is_not_is_refused(
    readers: tuple[Reader, Reader], ask: Callable[[Reader], Any]
) -> None:
    for reader in readers:
        with pytest.raises(UnknownSeriesError, match=r"unknown (pair|coin) .*; known: BTC"):
            ask(reader)


def test_keys_and_times_are_filtered_in_hopsworks_and_only_asked_columns_are_read(
    readers: tuple[Reader, Reader], stub: Stub
) -> None:
    readers[1].history(["ETH/USD", "BTC/USD"], "1m", T0, T0 + MINUTE, ["close"], "kraken")
    asked = [body for called, body in stub.bodies if called.endswith("featurestores/query")][-1]
    assert [f["name"] for f in asked["leftFeatures"]] == ["exchange", "pair", "timeframe", "end_ms", "close"]
    row = {"exchange": "kraken", "pair": "ETH/USD", "timeframe": "1m", "end_ms": T0}
    assert holds(asked["filter"], row)
    for other in ({"pair": "SOL/USD"}, {"timeframe": "1h"}, {"exchange": "zeta"}, {"end_ms": T0 - 1}):
        assert not holds(asked["filter"], row | other)
    assert COIN.name not in {f["name"] for f in asked["leftFeatures"]}


def test_a_question_that_hopsworks_fails_is_one_clear_error(
    readers: tuple[Reader, Reader], stub: Stub
) -> None:
    stub.faults.append(Fault("featurestores/query", 500))
    with pytest.raises(StoreError, match=r"cannot read ta offline: .*HTTP 500") as error:
        readers[1].history("ETH/USD", "1m")
    assert API_KEY not in str(error.value)


@pytest.mark.parametrize(
    ("ask", "raised", "says"),
    [
        ("_read_query", pa.ArrowException("down"), "does not answer through its query service"),
        ("_read_query", ValueError("Reading data with Hive is not supported"), "does not offer this client"),
        ("_jdbc", SQLAlchemyError("down, password=secret"), "does not answer through its online database"),
    ],
)
def test_a_service_of_hopsworks_that_cannot_be_read_is_named(
    readers: tuple[Reader, Reader], monkeypatch: pytest.MonkeyPatch, ask: str, raised: Exception, says: str
) -> None:
    def fail(*_: Any) -> None:
        raise raised

    from hsfs import engine

    monkeypatch.setattr(Answers, "_read_query", fail)
    monkeypatch.setattr(engine._get_instance(), "_jdbc", fail)
    with pytest.raises(StoreError, match=says) as error:
        readers[1].latest_all() if ask == "_jdbc" else readers[1].history("ETH/USD", "1m")
    assert "secret" not in str(error.value)
