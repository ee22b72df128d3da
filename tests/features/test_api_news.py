"""The HTTP face of news, sentiment and combined vectors, over real HTTP."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from services.features.groups import TA
from services.features.sentiment import SentimentWriter
from services.features.stores.sqlite_reader import SqliteReader
from tests.features.rows import MINUTE, T0, make_store, signal, ta_row, tuples
from tests.features.test_api import get, serve

NOW = T0 + 40 * MINUTE
BTC = {"pair": "BTC/USD", "timeframe": "1m"}


@pytest.fixture(scope="module")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Candles up to 30 minutes; news of BTC at 20 and 25 minutes, of which 5 at one time; ETH long ago."""
    path: Path = tmp_path_factory.mktemp("api") / "features.sqlite"
    with make_store(path) as store:
        for pair in ("BTC/USD", "XRP/USD"):
            store.write(TA, tuples(ta_row(i, pair=pair, close=100 + i) for i in range(30)))
        writer = SentimentWriter(store, lambda: NOW)
        writer.write("BTC", [signal(20 * MINUTE, "first", 0.5)])
        writer.write("BTC", [signal(25 * MINUTE, f"s{i}", -0.1 * i) for i in range(5)])
        writer.write("ETH", [signal(-48 * 60 * MINUTE, "old", coin="ETH")])
    return path


@pytest.fixture(scope="module")
def url(store_path: Path) -> Iterator[str]:
    server = serve(store_path, clock_ms=lambda: NOW)
    yield server.url + "/features"
    server.stop()


def test_sentiment_of_a_coin_as_of_now(url: str) -> None:
    vector = get(f"{url}/sentiment/latest", coin="BTC").json()
    assert (vector["group"], vector["coin"]) == ("sentiment", "BTC")
    # The window of 15 minutes emptied when the last signals were 15 minutes old, which is now.
    assert (vector["event_time_ms"], vector["age_s"], vector["stale"]) == (NOW, 0, False)
    assert vector["event_time"] == "2024-01-01T00:40:00.000Z"
    features = vector["features"]
    assert (features["news_count_15m"], features["sentiment_mean_15m"]) == (0, None)
    assert features["news_count_1h"] == 6
    assert features["seconds_since_news"] == 900.0


def test_the_newest_signal_of_a_coin(url: str) -> None:
    vector = get(f"{url}/news_signals/latest", coin="BTC").json()
    assert vector["features"]["story_id"] == "s4"
    assert (vector["age_s"], vector["stale"]) == (900, None)


def test_without_a_coin_all_are_listed(url: str) -> None:
    for group in ("sentiment", "news_signals"):
        vectors = get(f"{url}/{group}/latest").json()["vectors"]
        assert [vector["coin"] for vector in vectors] == ["BTC", "ETH"]


def test_sentiment_is_stale_when_a_window_holds_news_that_must_have_left_it(store_path: Path) -> None:
    # BTC's last signals leave the window of an hour at 85 minutes; 30 s of grace.
    limit_ms = T0 + 85 * MINUTE + 30_000
    for now, stale in ((limit_ms, False), (limit_ms + 1, True)):
        server = serve(store_path, clock_ms=lambda now=now: now)
        found = get(f"{server.url}/features/sentiment/latest").json()["vectors"]
        # All windows of ETH are empty, and stay so until there is news.
        assert [vector["stale"] for vector in found] == [stale, False]
        server.stop()


def test_history_of_a_coin_in_every_format(url: str, store_path: Path) -> None:
    page = get(f"{url}/sentiment/history", coin="BTC", columns="news_count_15m").json()
    assert (page["group"], page["coin"], page["count"], page["next_from"]) == ("sentiment", "BTC", 4, None)
    assert [row["news_count_15m"] for row in page["rows"]] == [1, 6, 5, 0]
    assert "next_after" not in page
    with SqliteReader(store_path) as reader:
        expected = reader.history(group="sentiment", coin="BTC")
    parquet = get(f"{url}/sentiment/history", coin="BTC", format="parquet")
    assert pq.read_table(io.BytesIO(parquet.content)).equals(expected)
    ranged = get(f"{url}/sentiment/history", coin="BTC", **{"from": T0 + 25 * MINUTE, "to": T0 + 35 * MINUTE})
    assert [row["as_of_ms"] - T0 for row in ranged.json()["rows"]] == [25 * MINUTE, 35 * MINUTE]


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize("form", ["json", "csv"])
def test_pages_neither_skip_nor_repeat_signals_of_one_time(url: str, limit: int, form: str) -> None:
    seen: list[str] = []
    following: dict[str, Any] = {}
    for _ in range(10):
        answer = get(
            f"{url}/news_signals/history",
            **{"coin": "BTC", "limit": limit, "columns": "score", "format": form, **following},
        )
        if form == "json":
            page = answer.json()
            seen += [row["story_id"] for row in page["rows"]]
            since, after = page["next_from"], page["next_after"]
        else:
            seen += [line.split(",")[2].strip('"') for line in answer.text.splitlines()[1:]]
            since, after = (answer.headers.get(f"x-next-{name}") for name in ("from", "after"))
        if since is None:
            break
        following = {"from": since} | ({"after": after} if after is not None else {})
    assert seen == ["first", "s0", "s1", "s2", "s3", "s4"]


def test_combined_is_the_candle_and_the_sentiment_of_its_end(url: str, store_path: Path) -> None:
    vector = get(f"{url}/combined/latest", **BTC).json()
    features = vector["features"]
    assert (vector["group"], vector["end_ms"], features["close"]) == ("combined", T0 + 30 * MINUTE, 129)
    assert (features["news_count_15m"], features["seconds_since_news"]) == (6, 300.0)
    assert vector["stale"] is True
    with SqliteReader(store_path) as reader:
        names = ["close", "news_count_15m", "sentiment_mean_15m", "sentiment_ewma_4h", "seconds_since_news"]
        last = reader.training_set("BTC/USD", "1m", features=names, dropna=False).to_pylist()[-1]
    assert {name: features[name] for name in names} == {name: last[name] for name in names}


def test_combined_of_an_open_candle_is_as_of_now(store_path: Path) -> None:
    now = T0 + 27 * MINUTE
    with make_store(store_path) as store:
        store.write(TA, tuples([ta_row(0, timeframe="1d", closed=False)]))
    server = serve(store_path, clock_ms=lambda: now)
    found = [
        get(f"{server.url}/features/combined/latest", pair="BTC/USD", timeframe="1d").json(),
        *get(f"{server.url}/features/combined/latest", timeframe="1d").json()["vectors"],
    ]
    server.stop()
    for vector in found:
        features = vector["features"]
        assert (vector["closed"], vector["age_s"]) == (False, 0)
        assert (features["news_count_15m"], features["seconds_since_news"]) == (6, 120.0)
    assert len(found) == 2


def test_combined_lists_all_that_fit(url: str) -> None:
    vectors = get(f"{url}/combined/latest", timeframe="1m").json()["vectors"]
    assert [vector["pair"] for vector in vectors] == ["BTC/USD", "XRP/USD"]
    quiet = vectors[1]["features"]
    assert (quiet["news_count_24h"], quiet["sentiment_mean_24h"], quiet["seconds_since_news"]) == (
        0,
        None,
        None,
    )


def test_combined_history_pages_like_that_of_ta(url: str) -> None:
    rows: list[Any] = []
    since: int | None = 0
    while since is not None:
        query = {**BTC, "from": since, "limit": 8, "columns": "news_count_15m,close"}
        page = get(f"{url}/combined/history", **query).json()
        rows += page["rows"]
        since = page["next_from"]
    assert [row["close"] for row in rows] == [100 + i for i in range(30)]
    assert [row["news_count_15m"] for row in rows] == [0] * 19 + [1] * 5 + [6] * 6
    assert get(f"{url}/combined/history", **BTC, format="csv").status_code == 200


@pytest.mark.parametrize(
    ("route", "parameters", "status", "says"),
    [
        ("sentiment/latest", {"coin": "DOGE"}, 404, "known: BTC, ETH"),
        ("sentiment/history", {"coin": "DOGE"}, 404, "known: BTC, ETH"),
        ("news_signals/latest", {"coin": "btc"}, 422, ""),
        ("sentiment/latest", BTC, 422, "has no pair; its key is coin"),
        ("sentiment/history", {}, 422, "name a coin"),
        ("ta/latest", {"coin": "BTC"}, 422, "has no coin"),
        ("ta/history", {"coin": "BTC"}, 422, "has no coin"),
        ("ta/history", {"pair": "BTC/USD"}, 422, "name a timeframe"),
        ("ta/history", {**BTC, "after": "s1"}, 422, "after"),
        ("sentiment/history", {"coin": "BTC", "after": "s1"}, 422, "after"),
        ("news_signals/history", {"coin": "BTC", "after": "' OR 1"}, 422, ""),
        ("news_signals/history", {"coin": "BTC", "columns": "close"}, 422, "known: coin"),
        ("combined/latest", {"pair": "DOGE/USD", "timeframe": "1m"}, 404, "known: BTC/USD"),
        ("combined/history", {"pair": "BTC/USD"}, 422, ""),
        ("combined/history", {**BTC, "columns": "moon_phase"}, 422, "known: exchange"),
        ("combined/history", {**BTC, "from": "tomorrow"}, 422, "is no time"),
        ("combined/history", {**BTC, "limit": 10**9}, 422, ""),
    ],
)
def test_a_bad_question_gets_its_status_and_a_reason(
    url: str, route: str, parameters: dict[str, Any], status: int, says: str
) -> None:
    answer = get(f"{url}/{route}", **parameters)
    assert answer.status_code == status, answer.text
    assert says in str(answer.json()["detail"])


def test_a_store_without_the_groups_answers_404_and_names_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    with make_store(path, [TA]) as store:
        store.write(TA, tuples([ta_row(0)]))
    server = serve(path)
    assert get(f"{server.url}/features/ta/latest", **BTC).status_code == 200
    for route in ("sentiment/latest", "combined/latest"):
        answer = get(f"{server.url}/features/{route}")
        assert (answer.status_code, "known: ta" in answer.json()["detail"]) == (404, True)
    server.stop()


def test_openapi_knows_the_answers_of_both_kinds_of_groups(url: str) -> None:
    document = get(url.removesuffix("/features") + "/openapi.json").json()
    assert {"Vector", "CoinVector", "History", "CoinHistory"} <= document["components"]["schemas"].keys()
    assert "/features/combined/latest" in document["paths"]
