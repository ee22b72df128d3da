"""CryptoPanic: pages in, articles out, the walk over them, and its refusals."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.common.errors import SourceError, SourceUnavailableError
from services.news.contract import Poll, QuotaError
from services.news.settings import NewsSettings
from services.news.sources.cryptopanic import CryptoPanicSource, parse_page
from tests.news.support import T0_MS, Request, fetcher, site

KEY = "canary0123456789"
QUOTA = {"status": "api_error", "info": "API monthly quota exceeded. Upgrade your API plan"}


def post(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "id": number,
        "slug": f"slug-{number}",
        "title": f"Story number {number}",
        "description": f"<p>Text of {number}.</p>",
        "published_at": "2026-07-07T12:00:00Z",
        "created_at": "2026-07-07T12:00:05Z",
        "kind": "news",
        "source": {"title": "Outlet A", "region": "en", "domain": "outlet-a.example", "type": "feed"},
        "original_url": f"https://outlet-a.example/{number}",
        "url": f"https://cryptopanic.com/news/{number}/slug-{number}",
        "instruments": [{"code": "BTC", "title": "Bitcoin"}, {"code": "eth"}],
        "votes": {"negative": 1, "positive": 2},
    } | fields


def page_of(*posts: object, next_link: str | None = None) -> bytes:
    return json.dumps({"next": next_link, "previous": None, "results": list(posts)}).encode()


def test_a_post_gives_its_outlet_its_coins_and_the_address_of_the_article() -> None:
    (article,) = parse_page(page_of(post(7))).items
    assert (article.feed, article.item_id, article.source) == (
        "cryptopanic",
        "7",
        "cryptopanic/outlet-a.example",
    )
    assert (article.title, article.body) == ("Story number 7", "Text of 7.")
    assert article.url == "https://outlet-a.example/7"
    assert article.coins == ("BTC", "ETH")
    assert article.published_at_ms == T0_MS


@pytest.mark.parametrize(
    "missing",
    [
        "id",
        "slug",
        "description",
        "published_at",
        "source",
        "original_url",
        "url",
        "instruments",
        "votes",
        "kind",
    ],
)
def test_every_field_but_the_title_may_be_missing_or_null(missing: str) -> None:
    for one in ({key: value for key, value in post(7).items() if key != missing}, post(7, **{missing: None})):
        (article,) = parse_page(page_of(one)).items
        assert article.title == "Story number 7"
        assert article.published_at_ms in (T0_MS, T0_MS + 5_000)


def test_a_post_without_title_is_called_by_its_text_and_without_words_ignored() -> None:
    page = parse_page(page_of(post(1, title=None), post(2, title=" ", description="<img>")))
    assert [article.title for article in page.items] == ["Text of 1."]
    assert page.ignored == {"empty_text": 1}


@pytest.mark.parametrize(
    "date", [None, "", "soon", 12, 1_783_425_600, [], "9999999999999999999999", "9" * 5_000]
)
def test_a_post_without_a_date_is_refused_with_its_bytes(date: object) -> None:
    page = parse_page(page_of(post(1, published_at=date, created_at=date), post(2)))
    assert [article.item_id for article in page.items] == ["2"]
    assert [(bad.item_id, bad.error.reason) for bad in page.bad] == [("1", "missing_date")]
    assert json.loads(page.bad[0].raw)["title"] == "Story number 1"


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"{}", b'{"results": 7}', b"[" * 100_000, b'{"results": [\xff]}']
)
def test_what_is_no_page_is_refused(body: bytes) -> None:
    with pytest.raises(SourceUnavailableError, match="sent"):
        parse_page(body)


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_post = st.one_of(_json, st.fixed_dictionaries({}, optional=dict.fromkeys(post(1), _json)))


@settings(max_examples=50, deadline=None)
@given(st.lists(_post, max_size=4), _json)
def test_any_fields_give_articles_or_dead_letters(posts: list[object], next_link: object) -> None:
    page = parse_page(json.dumps({"results": posts, "next": next_link}).encode())
    assert len(page.items) + len(page.bad) + page.ignored["empty_text"] == len(posts)


def source(url: str, **values: str) -> CryptoPanicSource:
    environ = {"SOURCES": "cryptopanic", "CRYPTOPANIC_TOKEN": KEY, "CRYPTOPANIC_URL": url} | values
    options = NewsSettings.load({f"NEWS_{name}": value for name, value in environ.items()})
    return CryptoPanicSource(options, fetcher(), lambda: T0_MS, page_pause_s=0)


class Posts:
    """Serves posts by number, newest first, two a page; fails on the pages in `broken`."""

    def __init__(self, newest: int) -> None:
        self.newest = newest
        self.broken: set[int] = set()
        self.asked: list[int] = []
        self.base = ""

    def __call__(self, request: Request) -> None:
        assert request.query["auth_token"] == KEY
        assert request.query["kind"] == "news"
        number = int(request.query.get("page", "1"))
        self.asked.append(number)
        if number in self.broken:
            request.answer(status=502)
            return
        first = self.newest - 2 * (number - 1)
        posts = [post(at) for at in (first, first - 1) if at > 0]
        more = (
            f"{self.base}{request.path}?auth_token={KEY}&kind=news&page={number + 1}" if first > 2 else None
        )
        request.json({"next": more, "previous": None, "results": posts})

    def numbers(self, poll: Poll) -> list[int]:
        return [int(article.item_id or 0) for article in poll.items]


def test_a_look_goes_back_to_what_is_known_and_tells_the_oldest_first() -> None:
    posts = Posts(4)
    with site(posts) as here:
        posts.base = here.url
        asked = source(here.url)
        first = asked.poll(None)
        assert posts.numbers(first) == [1, 2, 3, 4]
        posts.newest, posts.asked = 7, []
        second = asked.poll(first.cursor)
        assert (posts.numbers(second), posts.asked) == ([4, 5, 6, 7], [1, 2])
        posts.asked = []
        third = asked.poll(second.cursor)
        assert posts.asked == [1]
    assert posts.numbers(third) == [6, 7]
    assert KEY not in (second.cursor or "")
    assert here.requests[0].path == "/api/developer/v2/posts/"


def test_a_look_ends_after_so_many_pages() -> None:
    posts = Posts(100)
    with site(posts) as here:
        posts.base = here.url
        poll = source(
            here.url, CRYPTOPANIC_MAX_PAGES="3", CRYPTOPANIC_PLAN="growth", CRYPTOPANIC_CURRENCIES="BTC,ETH"
        ).poll(None)
    assert (posts.asked, len(poll.items)) == ([1, 2, 3], 6)
    assert here.requests[0].path == "/api/growth/v2/posts/"
    assert here.requests[0].query["currencies"] == "BTC,ETH"


def test_a_walk_that_breaks_off_loses_nothing() -> None:
    posts = Posts(2)
    with site(posts) as here:
        posts.base = here.url
        asked = source(here.url)
        before = asked.poll(None)
        posts.newest, posts.broken = 8, {2}
        broken = asked.poll(before.cursor)
        assert posts.numbers(broken) == [7, 8]
        assert str(broken.problem) == "HTTP 502"
        assert broken.cursor == before.cursor
        posts.newest, posts.broken = 9, set()
        assert posts.numbers(asked.poll(broken.cursor)) == [2, 3, 4, 5, 6, 7, 8, 9]


def test_an_empty_page_does_not_make_it_forget_what_is_known() -> None:
    with site(lambda request: request.json({"results": []})) as here:
        assert source(here.url).poll('{"ids":["5"]}').cursor == '{"ids":["5"]}'


def test_next_leads_nowhere_but_to_the_same_api() -> None:
    """Only its query is taken, and of that not the key."""

    def play(request: Request) -> None:
        evil = f"http://evil.invalid/steal?auth_token={KEY}&page=2"
        request.json(
            {"next": evil if "page" not in request.query else None, "results": [post(len(here.requests))]}
        )

    with site(play) as here:
        assert len(source(here.url).poll(None).items) == 2
    assert [request.path for request in here.requests] == ["/api/developer/v2/posts/"] * 2
    assert here.requests[1].query == {"page": "2", "auth_token": KEY}


def refusal(play: Callable[[Request], None]) -> SourceError:
    with site(play) as here, pytest.raises(SourceError) as caught:
        source(here.url).poll(None)
    assert KEY not in str(caught.value)
    return caught.value


def test_a_used_up_quota_says_so_and_how_long_it_waits() -> None:
    error = refusal(lambda request: request.json(QUOTA, 403))
    assert isinstance(error, QuotaError)
    assert error.retry_after_s == 21_600
    assert "quota is used up" in str(error)


@pytest.mark.parametrize("status", [401, 403])
def test_a_wrong_key_is_an_error_for_good_at_the_start(status: int) -> None:
    error = refusal(lambda request: request.json({"info": f"Token {KEY} not found"}, status))
    assert not isinstance(error, SourceUnavailableError)
    assert "check NEWS_CRYPTOPANIC_TOKEN" in str(error)


def test_a_key_that_was_accepted_once_is_tried_again() -> None:
    answers = iter([200, 403])

    def play(request: Request) -> None:
        status = next(answers)
        request.json({"results": []} if status == 200 else {"info": "Forbidden"}, status)

    with site(play) as here:
        asked = source(here.url)
        asked.poll(None)
        with pytest.raises(SourceUnavailableError, match="HTTP 403"):
            asked.poll(None)


def test_a_rate_limit_says_when_to_come_back() -> None:
    error = refusal(lambda request: request.answer(b"{}", 429, Retry_After="30"))
    assert isinstance(error, SourceUnavailableError)
    assert error.retry_after_s == 30


def test_a_key_that_is_echoed_is_in_no_article_dead_letter_or_cursor() -> None:
    def play(request: Request) -> None:
        key = request.query["auth_token"]
        posts = [
            post(1, title=f"Leak {key}", url=f"https://x.example/?k={key}"),
            post(2, published_at=key, created_at=key),
        ]
        request.json({"next": None, "results": posts})

    with site(play) as here:
        poll = source(here.url).poll(None)
    assert len(poll.items) == len(poll.bad) == 1
    assert KEY not in repr(poll)
