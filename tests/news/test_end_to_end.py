"""The whole process against the embedded broker: what is on the topic counts, and nowhere a key."""

import os
import random
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import requests

from services.common.broker import EMBEDDED_ENV, EmbeddedBroker, free_port
from services.common.news import News, decode_news
from services.demo.processes import Process
from tests.common.forks import forked
from tests.common.support import Bus
from tests.news.support import T0_MS, Request, Site, hours_ago, now_ms, rss, site, wait_until

KEY = "canary0123456789"
KILLS = [
    ("within_decision", 130),
    ("after_decision", 5),
    ("after_send", 7),
    ("before_confirm", 1),
    ("after_forget", 1),
]


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as running:
        yield running


class Runs:
    """The news service, run again and again; see `tests.news.victim`."""

    def __init__(self, broker: EmbeddedBroker, folder: Path) -> None:
        self._folder = folder
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("NEWS_", "KAFKA_"))
        }
        own = {"KAFKA_BROKERS": broker.address, "NEWS_STATE_DIR": str(folder / "state")}
        self._env = {**inherited, **EMBEDDED_ENV, **own}

    def start(self, suffix: str, kill: tuple[str, int] | None = None, **values: str) -> Process:
        """Begin a run."""
        env = {f"NEWS_{name.upper()}": value for name, value in values.items()}
        module = ("tests.news.victim", *map(str, kill or ()))
        log = self._folder / f"run{suffix}-{len(self._logs(suffix))}.log"
        return forked(module, {**self._env, "KAFKA_TOPIC_SUFFIX": suffix, **env}, log)

    def run(self, suffix: str, kill: tuple[str, int] | None = None, **values: str) -> tuple[int, str]:
        """Exit code of one run, and the log of all with this suffix."""
        code = self.start(suffix, kill, **values).wait()
        return code, self.log(suffix)

    def log(self, suffix: str) -> str:
        """The log of all runs with this suffix."""
        return "".join(path.read_text() for path in self._logs(suffix))

    def _logs(self, suffix: str) -> list[Path]:
        return sorted(self._folder.glob(f"run{suffix}-*.log"))


@pytest.fixture(scope="module")
def runs_of(broker: EmbeddedBroker, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(broker, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Settings of a replay with stories of many outlets, repeats and rows without a date."""
    rng = random.Random(7)
    rows = []
    for number in range(300):
        at_ms = T0_MS + rng.randrange(300) * 3_600_000
        date = "" if number % 50 == 7 else str(at_ms)
        rows.append(f"{rng.randrange(250)},Story {rng.randrange(120)},{date},outlet-{rng.randrange(5)}\n")
    path = tmp_path_factory.mktemp("recording") / "news.csv"
    path.write_text("id,title,published,source\n" + "".join(rows))
    return {"sources": "file", "file_path": str(path)}


def tellings(bus: Bus) -> list[News]:
    """Everything on the topic, partition by partition; each message keyed by its story."""
    found: list[News] = []
    for record in bus.read("news"):
        rows, refused = decode_news(record.key or b"", record.value or b"")
        assert refused == []
        assert record.headers["schema_version"] == b"1"
        assert abs(record.timestamp_ms - now_ms()) < 600_000
        found += rows
    return found


@pytest.fixture(scope="module")
def undisturbed(broker: EmbeddedBroker, runs_of: Runs, recording: dict[str, str]) -> list[News]:
    code, log = runs_of.run("_calm", None, **recording)
    assert code == 0, log
    assert "played" in log
    bus = Bus(broker.address, "_calm")
    rows = tellings(bus)
    assert len(set(map(repr, rows))) == len(rows)
    assert len(rows) > 150
    assert len(bus.letters()) == 6
    return rows


@pytest.mark.parametrize(("point", "number"), KILLS)
def test_a_replay_killed_at_a_point_and_started_again_tells_the_same(
    point: str,
    number: int,
    broker: EmbeddedBroker,
    runs_of: Runs,
    recording: dict[str, str],
    undisturbed: list[News],
) -> None:
    suffix = f"_{point}"
    code, log = runs_of.run(suffix, (point, number), **recording)
    assert code == -signal.SIGKILL, log
    code, log = runs_of.run(suffix, None, **recording)
    assert code == 0, log
    bus = Bus(broker.address, suffix)
    rows = tellings(bus)
    assert set(map(repr, rows)) == set(map(repr, undisturbed))
    # The keys make letters that came twice one; only a replay that had ended makes them anew.
    letters = {key for key, _ in bus.letters()}
    assert len(letters) == (12 if point == "after_forget" else 6)
    assert max(Counter(map(repr, rows)).values()) <= 2


def test_a_wrong_file_key_or_setting_ends_the_process_in_words(runs_of: Runs, tmp_path: Path) -> None:
    code, log = runs_of.run("_missing", sources="file", file_path=str(tmp_path / "none.csv"))
    assert (code, "no such file; set NEWS_FILE_PATH" in log) == (2, True), log
    code, log = runs_of.run("_setting", sources="cryptopanic", cryptopanic_token=KEY, cryptopanic_plan="free")
    assert (code, "NEWS_CRYPTOPANIC_PLAN" in log) == (2, True), log
    with site(lambda request: request.json({"info": f"Token {KEY} not found"}, 401)) as here:
        options = {"cryptopanic_token": KEY, "cryptopanic_url": here.url, "allow_private": "true"}
        code, refused = runs_of.run("_key", None, sources="cryptopanic", **options)
    assert (code, "check NEWS_CRYPTOPANIC_TOKEN" in refused) == (2, True), refused
    assert KEY not in log + refused
    assert "Traceback" not in log + refused


class World:
    """Two feeds and CryptoPanic, which echoes its key wherever it can."""

    def __init__(self) -> None:
        self.articles = [("1", "Bitcoin rises", hours_ago(1)), ("2", "Ether falls", hours_ago(2))]
        self.here: Site | None = None

    def __call__(self, request: Request) -> None:
        if request.path == "/a":
            request.answer(rss(*self.articles, base="https://a.example"), ETag=f'"{len(self.articles)}"')
        elif request.path == "/b":
            request.answer(b"<!DOCTYPE html><html>down</html>", 503)
        else:
            self.posts(request)

    def posts(self, request: Request) -> None:
        key, assured = request.query["auth_token"], self.here
        assert assured is not None
        if "page" in request.query:
            # A header that the library warns of, with the whole address.
            request.raw(b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n: d\r\nContent-Length: 5\r\n\r\nx")
            return
        posts: list[dict[str, Any]] = [
            {
                "id": 5,
                "title": "BITCOIN RISES",
                "published_at": hours_ago(1),
                "instruments": [{"code": "BTC"}],
            },
            {"id": 6, "title": f"No date, but {key}"},
        ]
        request.json({"next": f"{assured.url}{request.path}?auth_token={key}&page=2", "results": posts})


def test_the_service_tells_each_article_once_across_a_kill_and_shows_no_key(
    broker: EmbeddedBroker, runs_of: Runs, tmp_path: Path
) -> None:
    bus = Bus(broker.address, "_live")
    world = World()
    with site(world) as here:
        world.here = here
        url = f"http://127.0.0.1:{free_port()}"
        settings = {
            "sources": "rss,cryptopanic", "feeds": f"a={here.url}/a,b={here.url}/b", "rss_interval_s": "1",
            "backoff_min_s": "0.1", "allow_private": "true", "cryptopanic_token": KEY, "log_level": "DEBUG",
            "cryptopanic_url": here.url, "state_dir": str(tmp_path), "http_port": url.rpartition(":")[2],
        }  # fmt: skip
        first = runs_of.start("_live", None, **settings)
        try:
            wait_until(lambda: first.poll() is not None or len(bus.read("news")) >= 3, "news")
        finally:
            first.kill()
        assert first.wait() == -signal.SIGKILL, runs_of.log("_live")
        world.articles.append(("3", "Solana stalls", hours_ago(1)))
        second = runs_of.start("_live", None, **settings)
        try:
            wait_until(lambda: second.poll() is not None or len(bus.read("news")) >= 4, "more news")
            looks = len(here.requests)
            wait_until(lambda: second.poll() is not None or len(here.requests) > looks + 2, "more looks")
            pages = "".join(requests.get(url + page, timeout=5).text for page in ("/info", "/metrics"))
            ready = requests.get(url + "/health/ready", timeout=5)
        finally:
            second.terminate()
        code, log = second.wait(), runs_of.log("_live")
    assert code == 0, log
    records, letters = bus.read("news"), bus.letters()
    rows = [row for record in records for row in msgspec.json.decode(record.value or b"", type=list[News])]
    by_title = {row.title: row for row in rows}
    # The kill may have come between a delivery and its note, so a row may be there twice, word for word.
    assert len(set(map(repr, rows))) == len(by_title) == 4
    assert by_title["BITCOIN RISES"].story_id == by_title["Bitcoin rises"].story_id
    assert by_title["BITCOIN RISES"].coins == ("BTC",)
    assert by_title["Ether falls"].source == "a"
    (letter,) = {repr(letter): letter for _, letter in letters}.values()
    assert (letter.reason, letter.topic, letter.partition) == ("missing_date", "news_live", -1)
    assert ready.status_code == 200, ready.text
    assert 'fetches_total{result="error",source="b"}' in pages
    assert "b: HTTP 503" in log
    state = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"etag" in state
    assert all(request.query["auth_token"] == KEY for request in here.requests if "/api/" in request.path)
    for shown in (pages, log, repr(records), repr(letters), repr(state), ready.text):
        assert KEY not in shown
