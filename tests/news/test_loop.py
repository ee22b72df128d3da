"""The loop over real servers: each source alone, restarts, deliveries, health, metrics; and the schedule."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.common.backoff import Backoff
from services.common.errors import SourceError, SourceUnavailableError
from services.news.contract import Poll, QuotaError, Source
from services.news.schedule import NO_LIMIT, Turn, none_works
from services.news.settings import SOURCES
from services.news.sources import REGISTRY
from services.news.sources.rss import RssSource
from tests.news.support import Request, Runner, Site, fetcher, hours_ago, item, now_ms, rss, site


def feed(here: Site, name: str, interval_s: float = 0.1, **limits: float) -> RssSource:
    return RssSource(name, f"{here.url}/{name}", interval_s, fetcher(**limits), now_ms)


class Feeds:
    """Serves each feed what `articles` holds of it; statuses can be set."""

    def __init__(self) -> None:
        self.articles: dict[str, list[tuple[str, str, int]]] = {}
        self.status: dict[str, int] = {}
        self.stopping = threading.Event()

    def __call__(self, request: Request) -> None:
        name = request.path.strip("/")
        if self.status.get(name) == 0:
            self.stopping.wait(5)
        elif status := self.status.get(name):
            request.answer(b"", status)
        else:
            body = rss(*self.articles.get(name, []), base=f"https://{name}.example")
            request.answer(body)


@pytest.fixture
def feeds() -> Iterator[Feeds]:
    made = Feeds()
    yield made
    made.stopping.set()


def test_the_registered_sources_are_those_in_the_folder_and_in_the_settings() -> None:
    folder = Path(__file__).parents[2] / "services" / "news" / "sources"
    files = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert files == set(REGISTRY) == set(SOURCES)


def test_stories_of_two_feeds_meet_and_each_article_is_sent_once(tmp_path: Path, feeds: Feeds) -> None:
    at_ms = hours_ago(1)
    feeds.articles = {"a": [("1", "Bitcoin rises", at_ms)], "b": [("9", "BITCOIN RISES!", at_ms)]}
    with site(feeds) as here, Runner(tmp_path, [feed(here, "a"), feed(here, "b")]) as runner:
        runner.until(lambda: len(runner.publisher.news()) == 2, "both tellings")
        feeds.articles["a"].append(("2", "Ether falls", at_ms))
        runner.until(lambda: len(runner.publisher.news()) == 3, "the new article")
        runner.until(lambda: runner.count("news_repeats_total", source="b") > 1, "repeats")
        assert runner.health.not_ready() == []
    one, other, third = runner.publisher.news()
    assert one.story_id == other.story_id != third.story_id
    assert {one.source, other.source} == {"a", "b"}
    assert other.observed_at_ms > one.observed_at_ms
    assert abs(one.observed_at_ms - now_ms()) < 60_000
    assert runner.publisher.sent[0].received_at_ms == one.observed_at_ms
    assert runner.count("news_items_total", source="a") + runner.count("news_items_total", source="b") == 3
    duplicates = [runner.count("news_duplicates_total", source=name) for name in "ab"]
    assert sum(duplicates) == 1
    assert runner.count("fetches_total", source="a", result="ok") > 1
    assert abs(runner.count("last_success_timestamp_seconds", source="a") * 1000 - now_ms()) < 60_000


def test_a_feed_that_hangs_or_fails_stops_no_other(tmp_path: Path, feeds: Feeds) -> None:
    feeds.articles = {"good": [("1", "Bitcoin rises", hours_ago(1))]}
    feeds.status = {"broken": 503, "hangs": 0}
    with site(feeds) as here:
        sources = [feed(here, name, total_s=0.5) for name in ("hangs", "broken", "good")]
        with Runner(tmp_path, sources) as runner:
            runner.until(lambda: runner.publisher.news(), "the good feed's article")
            good = runner.count("fetches_total", source="good", result="ok")
            runner.until(
                lambda: runner.count("fetches_total", source="good", result="ok") > good + 2, "more looks"
            )
            runner.until(
                lambda: runner.count("fetches_total", source="hangs", result="error") > 0, "a time-out"
            )
            runner.until(
                lambda: runner.count("fetches_total", source="broken", result="error") > 2, "retries"
            )
            assert runner.health.not_ready() == []
            feeds.status["good"] = 500
            runner.until(lambda: any("none answers" in why for why in runner.health.not_ready()), "not ready")
            why = " ".join(runner.health.not_ready())
            assert "broken: HTTP 503" in why
            assert "hangs: no whole answer" in why
            del feeds.status["broken"]
            runner.until(lambda: not runner.health.not_ready(), "ready again")
        assert runner.error is None


def test_a_restart_repeats_nothing_and_sends_what_was_not_confirmed(tmp_path: Path, feeds: Feeds) -> None:
    feeds.articles = {"a": [("1", "Bitcoin rises", hours_ago(1)), ("2", "Ether falls", hours_ago(2))]}
    with site(feeds) as here:
        with Runner(tmp_path, [feed(here, "a")]) as first:
            first.publisher.holds_back = True
            first.until(lambda: len(first.publisher.news()) == 2, "the news")
        with Runner(tmp_path, [feed(here, "a")]) as second:
            second.until(lambda: second.count("news_repeats_total", source="a") >= 2, "a look")
        with Runner(tmp_path, [feed(here, "a")]) as third:
            third.until(lambda: third.count("news_repeats_total", source="a") >= 2, "a look")
    assert second.publisher.news() == first.publisher.news()
    assert [message.received_at_ms for message in second.publisher.sent] == [
        message.received_at_ms for message in first.publisher.sent
    ]
    assert third.publisher.sent == []


def test_what_a_feed_said_of_its_version_survives_a_restart(tmp_path: Path) -> None:
    def play(request: Request) -> None:
        known = request.headers["If-None-Match"] == '"v1"'
        request.answer(
            b"" if known else rss(("1", "Bitcoin", hours_ago(1))), 304 if known else 200, ETag='"v1"'
        )

    with site(play) as here:
        with Runner(tmp_path, [feed(here, "a")]) as first:
            first.until(lambda: first.count("fetches_total", source="a", result="not_modified"), "a 304")
        asked = len(here.requests)
        with Runner(tmp_path, [feed(here, "a")]) as second:
            second.until(lambda: second.count("fetches_total", source="a", result="not_modified"), "a 304")
            assert second.health.not_ready() == []
        assert here.requests[asked].headers["If-None-Match"] == '"v1"'
    assert second.publisher.sent == []


def test_articles_without_a_date_are_dead_letters_once(tmp_path: Path) -> None:
    body = rss(("1", "Bitcoin", hours_ago(1)), ("2", "Ether", hours_ago(-5))).replace(b"<pubDate>", b"<x>", 1)
    body = body.replace(b"</pubDate>", b"</x>", 1)

    def look_thrice() -> Runner:
        with Runner(tmp_path, [feed(here, "a")]) as runner:
            runner.until(lambda: runner.count("fetches_total", source="a", result="ok") > 2, "three looks")
        return runner

    with site(lambda request: request.answer(body)) as here:
        first, second = look_thrice(), look_thrice()
    letters = first.publisher.letters()
    assert sorted(letter.reason for letter in letters) == ["future_event", "missing_date"]
    assert all((letter.topic, letter.partition) == ("news", -1) for letter in letters)
    assert all(b'"title"' in letter.value for letter in letters)
    assert first.count("dead_letters_total", reason="missing_date") == 1
    assert (first.publisher.news(), second.publisher.sent) == ([], [])


def test_an_error_for_good_ends_the_loop(tmp_path: Path) -> None:
    class Refused:
        name, interval_s = "cryptopanic", 0.1

        def poll(self, cursor: str | None) -> Poll:
            raise SourceError("check NEWS_CRYPTOPANIC_TOKEN")

        def close(self) -> None:
            """Nothing is open."""

    with Runner(tmp_path, [Refused()]) as runner:
        runner.wait()
    assert isinstance(runner.error, SourceError)


def test_a_bug_in_a_source_ends_the_loop(tmp_path: Path) -> None:
    class Broken:
        name, interval_s = "x", 0.1

        def poll(self, cursor: str | None) -> Poll:
            raise ZeroDivisionError

        def close(self) -> None:
            """Nothing is open."""

    with Runner(tmp_path, [Broken()]) as runner:
        runner.wait()
    assert isinstance(runner.error, ZeroDivisionError)


def test_a_used_up_quota_is_shown_and_ends_the_requests(tmp_path: Path, feeds: Feeds) -> None:
    looks = []

    class Spent:
        name, interval_s = "cryptopanic", 0.1

        def poll(self, cursor: str | None) -> Poll:
            looks.append(cursor)
            raise QuotaError("CryptoPanic's quota is used up", 3600)

        def close(self) -> None:
            """Nothing is open."""

    feeds.articles = {"a": [("1", "Bitcoin rises", hours_ago(1))]}
    with site(feeds) as here, Runner(tmp_path, [Spent(), feed(here, "a")]) as runner:
        runner.until(lambda: runner.count("fetches_total", source="a", result="ok") > 3, "looks at the other")
        assert runner.health.not_ready() == ["quota of cryptopanic: CryptoPanic's quota is used up"]
    assert len(looks) == 1
    assert len(runner.publisher.news()) == 1


def test_what_a_walk_brought_counts_although_it_broke_off(tmp_path: Path) -> None:
    class Breaks:
        name, interval_s = "x", 0.1

        def poll(self, cursor: str | None) -> Poll:
            problem = SourceUnavailableError("HTTP 502")
            return Poll(now_ms(), cursor, items=[item("1", published_at_ms=hours_ago(1))], problem=problem)

        def close(self) -> None:
            """Nothing is open."""

    with Runner(tmp_path, [Breaks()]) as runner:
        runner.until(lambda: runner.count("fetches_total", source="x", result="error") > 2, "looks")
    assert len(runner.publisher.news()) == 1


def turn(interval_s: float = 60.0) -> Turn:
    class Quiet:
        name = "x"

        def __init__(self) -> None:
            self.interval_s = interval_s

        def poll(self, cursor: str | None) -> Poll:
            return Poll(0, cursor)

        def close(self) -> None:
            """Nothing is open."""

    source: Source = Quiet()
    return Turn(source, Backoff(5, 900, NO_LIMIT, lambda: 1.0), lambda: 0.5)


def test_a_failing_source_is_asked_ever_less_often_and_as_late_as_it_wishes() -> None:
    of = turn()
    waits = []
    for _ in range(10):
        of.failed(SourceUnavailableError("HTTP 500"), 0.0)
        waits.append(of.next_s)
    assert waits == [54, 54, 54, 54, 80, 160, 320, 640, 900, 900]
    of.answered(Poll(0, None), 0.0)
    assert of.next_s == 60
    of.failed(SourceUnavailableError("HTTP 429", 1_000), 0.0)
    assert of.next_s == 1_000
    of.failed(SourceUnavailableError("HTTP 429", 1e9), 0.0)
    assert of.next_s == 86_400
    of.failed(QuotaError("quota", 1e6), 0.0)
    assert of.next_s == 1e6


def test_a_source_is_never_looked_at_twice_at_once() -> None:
    of = turn()
    assert of.is_due(0.0)
    of.is_asked = True
    assert not of.is_due(1e9)


def test_one_source_that_answers_is_enough() -> None:
    one, other = turn(), turn()
    assert none_works([one, other]) == "none has answered yet"
    other.failed(SourceUnavailableError("HTTP 500"), 0.0)
    assert none_works([one, other]) == "none answers (x: HTTP 500)"
    one.answered(Poll(0, None), 0.0)
    assert none_works([one, other]) is None
    for _ in range(3):
        assert none_works([one, other]) is None
        one.failed(SourceUnavailableError("gone"), 0.0)
    assert none_works([one, other]) == "none answers (x: gone; x: HTTP 500)"
