"""The HTTP face over real HTTP."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3 import Retry

from services.common.health import Health
from services.common.http import HttpServer, build_http_app
from services.common.metrics import Metrics
from services.features.api import build_router
from services.features.formats import choose_format
from services.features.groups import TA
from services.features.stores.sqlite_reader import SqliteReader
from tests.features.rows import MINUTE, T0, make_store, ta_row, tuples

NOW = T0 + 11 * MINUTE
KEY = "a-key-of-16-signs-or-more"


def serve(path: Path, **options: Any) -> HttpServer:
    router = build_router(
        lambda: SqliteReader(path),
        **({"api_key": None, "max_rows": 100, "stale_grace_s": 30, "clock_ms": lambda: NOW} | options),
    )
    server = HttpServer(build_http_app("features", {}, Health(60), Metrics(), [router]), "127.0.0.1", 0)
    server.start()
    # uvicorn begins to listen in its own thread: retry until it does.
    with requests.Session() as session:
        session.mount("http://", HTTPAdapter(max_retries=Retry(connect=50, backoff_factor=0.01)))
        assert session.get(f"{server.url}/health/live", timeout=10).status_code == 200
    return server


@pytest.fixture(scope="module")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("api") / "features.sqlite"
    with make_store(path) as store:
        store.write(TA, tuples(ta_row(i, close=100 + i, rsi_14=i or None) for i in range(10)))
        store.write(TA, tuples([ta_row(10, closed=False, close=200)]))
        store.write(TA, tuples([ta_row(2, pair="ETH/USD")]))
        store.write(TA, tuples([ta_row(i, pair="ETH/USD", exchange="coinbase") for i in (6, 7)]))
    return path


@pytest.fixture(scope="module")
def url(store_path: Path) -> Iterator[str]:
    server = serve(store_path)
    yield server.url + "/features"
    server.stop()


def get(url: str, **parameters: Any) -> requests.Response:
    return requests.get(url, params=parameters, timeout=10)


BTC = {"pair": "BTC/USD", "timeframe": "1m"}


def test_groups_explains_every_column(url: str) -> None:
    groups = get(f"{url}/groups").json()["groups"]
    assert [group["name"] for group in groups] == ["news_signals", "sentiment", "ta"]
    group = groups[2]
    assert [column["name"] for column in group["columns"]] == list(TA.names)
    assert group["columns"][15]["unit"] == "percent"


def test_latest_gives_one_vector(url: str) -> None:
    answer = get(f"{url}/ta/latest", **BTC)
    vector = answer.json()
    assert answer.status_code == 200
    assert (vector["pair"], vector["closed"], vector["features"]["close"]) == ("BTC/USD", False, 200)
    assert vector["features"]["rsi_14"] is None
    assert (vector["age_s"], vector["stale"]) == (0, False)
    assert vector["end_time"] == "2024-01-01T00:11:00.000Z"


def test_latest_flags_stale_rows(url: str) -> None:
    # Two intervals and 30 s: eight minutes old is stale, three minutes too, and the newest is not.
    old = get(f"{url}/ta/latest", pair="ETH/USD", timeframe="1m", exchange="kraken").json()
    assert (old["age_s"], old["stale"]) == (480, True)
    newer = get(f"{url}/ta/latest", pair="ETH/USD", timeframe="1m", exchange="coinbase").json()
    assert (newer["age_s"], newer["stale"]) == (180, True)


def test_staleness_begins_after_two_intervals_and_the_grace(store_path: Path) -> None:
    limit_ms = T0 + 8 * MINUTE + 2 * MINUTE + 30_000
    for now, stale in ((limit_ms, False), (limit_ms + 1, True)):
        server = serve(store_path, clock_ms=lambda now=now: now)
        query = {"pair": "ETH/USD", "timeframe": "1m", "exchange": "coinbase"}
        assert get(f"{server.url}/features/ta/latest", **query).json()["stale"] is stale
        server.stop()


def test_latest_without_a_pair_lists_all_series(url: str) -> None:
    vectors = get(f"{url}/ta/latest").json()["vectors"]
    assert [(v["exchange"], v["pair"]) for v in vectors] == [
        ("coinbase", "ETH/USD"),
        ("kraken", "BTC/USD"),
        ("kraken", "ETH/USD"),
    ]
    assert len(get(f"{url}/ta/latest", exchange="kraken").json()["vectors"]) == 2


def test_history_is_json_by_default_with_nulls(url: str) -> None:
    page = get(f"{url}/ta/history", **BTC).json()
    assert page["count"] == 10
    assert page["next_from"] is None
    assert page["rows"][0]["rsi_14"] is None
    assert page["rows"][9]["close"] == 109
    assert list(page["rows"][0])[:4] == ["exchange", "pair", "timeframe", "end_ms"]


def test_history_takes_times_in_either_notation_both_ends_included(url: str) -> None:
    by_number = {"from": T0 + 2 * MINUTE, "to": T0 + 4 * MINUTE}
    by_text = {"from": "2024-01-01T00:02:00Z", "to": "2024-01-01 00:04"}
    for times in (by_number, by_text):
        rows = get(f"{url}/ta/history", **BTC, **times, columns="close").json()["rows"]
        assert [row["close"] for row in rows] == [101, 102, 103]


def test_pages_follow_each_other_without_gap_or_overlap(url: str) -> None:
    closes: list[float] = []
    since: int | None = 0
    pages = 0
    while since is not None:
        page = get(f"{url}/ta/history", **BTC, **{"from": since}, limit=4, columns="close").json()
        closes += [row["close"] for row in page["rows"]]
        since = page["next_from"]
        pages += 1
    assert closes == [100.0 + i for i in range(10)]
    assert pages == 3


def test_parquet_and_arrow_and_csv_hold_the_same_rows(url: str, store_path: Path) -> None:
    with SqliteReader(store_path) as reader:
        expected = reader.history("BTC/USD", "1m")
    parquet = get(f"{url}/ta/history", **BTC, format="parquet")
    assert parquet.headers["content-type"] == "application/vnd.apache.parquet"
    assert pq.read_table(io.BytesIO(parquet.content)).equals(expected)
    arrow = get(f"{url}/ta/history", **BTC, format="arrow")
    assert pa.ipc.open_stream(arrow.content).read_all().equals(expected)
    csv = get(f"{url}/ta/history", **BTC, format="csv", limit=3)
    assert len(csv.text.splitlines()) == 4
    assert csv.headers["x-next-from"] == str(T0 + 4 * MINUTE)


def test_the_accept_header_chooses_the_format(url: str) -> None:
    for accept, media_type in (
        ("application/vnd.apache.parquet", "application/vnd.apache.parquet"),
        ("text/html, */*;q=0.1", "application/json"),
        ("text/csv;q=0.5, application/vnd.apache.arrow.stream", "application/vnd.apache.arrow.stream"),
    ):
        answer = requests.get(f"{url}/ta/history", params=BTC, headers={"Accept": accept}, timeout=10)
        assert answer.headers["content-type"].startswith(media_type)
    refused = requests.get(f"{url}/ta/history", params=BTC, headers={"Accept": "image/png"}, timeout=10)
    assert refused.status_code == 406


def test_a_format_that_nobody_speaks_is_none_of_ours() -> None:
    assert choose_format("image/png") is None
    assert choose_format("application/json;q=0") is None
    assert choose_format("text/csv;q=high") is None
    assert choose_format(None) == "json"


@pytest.mark.parametrize(
    ("route", "parameters", "status"),
    [
        ("history", {"from": T0 + 9, "to": T0}, 422),
        ("history", {"from": "tomorrow"}, 422),
        ("history", {"from": 1_704_067_200}, 422),
        ("history", {"limit": 10**9}, 422),
        ("history", {"limit": 0}, 422),
        ("history", {"limit": "all"}, 422),
        ("history", {"columns": "close,moon_phase"}, 422),
        ("history", {"columns": "close) FROM ta; DROP TABLE ta_1;--"}, 422),
        ("history", {"format": "xls"}, 422),
        ("history", {"pair": "BTC/USD' OR '1'='1"}, 422),
        ("history", {"pair": "btcusd"}, 422),
        ("history", {"pair": "ETH/USD"}, 422),
        ("history", {"timeframe": "1m; DROP TABLE ta_1"}, 422),
        ("history", {"exchange": "kraken'--"}, 422),
        ("history", {"pair": "DOGE/USD"}, 404),
        ("history", {"timeframe": "7m"}, 404),
        ("history", {"exchange": "nyse"}, 404),
        ("latest", {"pair": "DOGE/USD"}, 404),
        ("latest", {"timeframe": "1w"}, 404),
        ("latest", {"pair": "1; SELECT"}, 422),
        ("latest", {"pair": "ETH/USD"}, 422),
    ],
)
def test_a_bad_question_gets_its_status_and_a_reason(
    url: str, route: str, parameters: dict[str, Any], status: int
) -> None:
    answer = get(f"{url}/ta/{route}", **(BTC | parameters))
    assert answer.status_code == status, answer.text
    assert answer.json()["detail"]


@pytest.mark.parametrize(
    ("route", "parameters", "says"),
    [
        ("ta/latest", {"timefrme": "1h"}, "timefrme; known: pair, timeframe, exchange, coin"),
        ("ta/history", {**BTC, "since": T0, "until": T0}, "since, until; known: pair, timeframe, exchange,"),
        ("ta/history", {**BTC, "since": T0}, "coin, from, to, after, limit, columns, format"),
        ("sentiment/latest", {"coin": "BTC", "Coin": "ETH"}, "Coin; known"),
        ("combined/latest", {**BTC, "coin": "BTC"}, "coin; known: pair, timeframe, exchange"),
        ("combined/history", {**BTC, "accept": "csv"}, "accept; known: pair"),
        ("groups", {"group": "ta"}, "group; there are none here"),
        ("ta/latest", {"x" * 5_000: "1"}, "xxx; known: pair"),
    ],
)
def test_a_parameter_that_the_route_does_not_have_is_refused_with_those_it_has(
    url: str, route: str, parameters: dict[str, Any], says: str
) -> None:
    answer = get(f"{url}/{route}", **parameters)
    assert answer.status_code == 422
    detail = answer.json()["detail"]
    assert detail.startswith("unknown parameter ")
    assert says in detail
    assert len(detail) < 250


def test_without_the_key_nobody_learns_which_parameters_there_are(store_path: Path) -> None:
    server = serve(store_path, api_key=KEY)
    assert get(f"{server.url}/features/ta/latest", timefrme="1h").status_code == 401
    server.stop()


def test_an_unknown_group_is_404_and_a_malformed_one_422(url: str) -> None:
    assert get(f"{url}/news/latest", **BTC).status_code == 404
    assert get(f"{url}/news/history", **BTC).status_code == 404
    assert get(f"{url}/ta_1;drop/latest", **BTC).status_code == 422
    assert get(f"{url}/ta/history").status_code == 422


def test_nothing_but_reading_is_offered(url: str) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert requests.request(method, f"{url}/ta/latest", timeout=10).status_code == 405
    assert get(f"{url}/ta/history", **BTC).json()["count"] == 10


def test_the_api_key_is_asked_for_when_it_is_set(store_path: Path) -> None:
    server = serve(store_path, api_key=KEY)
    url = f"{server.url}/features/ta/latest"
    for headers, status in (
        ({}, 401),
        ({"X-API-Key": "wrong"}, 401),
        ({"X-API-Key": "wröng".encode("latin-1")}, 401),
        ({"X-API-Key": KEY}, 200),
    ):
        answer = requests.get(url, headers=headers, timeout=10)
        assert answer.status_code == status
        assert KEY not in answer.text
    # Health stays open, for the orchestrator.
    assert get(f"{server.url}/health/live").status_code == 200
    server.stop()


def test_a_store_that_cannot_be_read_is_503_until_it_can(tmp_path: Path) -> None:
    path = tmp_path / "later.sqlite"
    server = serve(path)
    assert get(f"{server.url}/features/groups").status_code == 503
    make_store(path).close()
    assert get(f"{server.url}/features/groups").status_code == 200
    server.stop()


def test_openapi_has_models_and_examples(url: str) -> None:
    document = requests.get(url.removesuffix("/features") + "/openapi.json", timeout=10).json()
    history = document["paths"]["/features/{group}/history"]["get"]
    assert {"200", "401", "404", "422", "503"} <= history["responses"].keys()
    assert "X-API-Key" in str(document["components"]["securitySchemes"])
    pair = next(p for p in history["parameters"] if p["name"] == "pair")
    assert "BTC/USD" in str(pair)
    assert document["components"]["schemas"]["Vector"]["properties"]["stale"]["description"]
