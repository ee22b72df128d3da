"""CryptoPanic's API, version 2: page → articles (pure), and the walk over its pages.

https://cryptopanic.com/developers/api/ — every field of a post is optional, `next` holds the key, and a
used-up quota is a 403 with words of its own.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
from loguru import logger

from services.common.errors import ContractError, SourceError, SourceUnavailableError
from services.news.contract import Bad, Item, Poll, QuotaError, Source, raw_bytes
from services.news.fetch import Answer, Fetcher, with_query
from services.news.settings import NewsSettings
from services.news.text import coin_codes, cut_body, headline, strip_html, web_address
from services.news.times import NotATimeError, WrongUnitError, parse_time

NAME = "cryptopanic"
#: Its servers ask for a pause between two requests.
PAGE_PAUSE_S = 1.0
TOKEN = "auth_token"  # noqa: S105
#: A look remembers the posts of its first pages, and the next one stops where it meets any of them.
REMEMBERED = 200


@dataclass(slots=True)
class Page:
    """One page. `ids` are those of all its posts, `next_query` what leads to the next one."""

    items: list[Item] = field(default_factory=list)
    bad: list[Bad] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    ids: list[str] = field(default_factory=list)
    next_query: dict[str, str] | None = None


def parse_page(body: bytes) -> Page:
    """Articles of ``{next, previous, results[]}``. Raises `SourceUnavailableError` for anything else."""
    try:
        envelope = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SourceUnavailableError("sent no JSON") from error
    results = envelope.get("results") if isinstance(envelope, dict) else None
    if not isinstance(results, list):
        raise SourceUnavailableError("sent JSON without a list of results")
    page = Page(next_query=_next_query(envelope.get("next")))
    for post in results:
        if isinstance(post, dict):
            _read_post(post, page)
        else:
            page.bad.append(Bad(None, raw_bytes(post), ContractError("bad_row", f"{NAME}: no object")))
    return page


def _read_post(post: dict[str, Any], page: Page) -> None:
    number = post.get("id", post.get("slug"))
    item_id = str(number) if isinstance(number, int | str) and number != "" else None
    if item_id is not None:
        page.ids.append(item_id)
    body = cut_body(strip_html(_text(post.get("description"))))
    title = headline(strip_html(_text(post.get("title"))), body)
    if not title:
        page.ignored["empty_text"] += 1
        return
    try:
        published_ms = parse_time(post.get("published_at") or post.get("created_at")).ms
    except (NotATimeError, WrongUnitError) as error:
        page.bad.append(Bad(item_id, raw_bytes(post), ContractError("missing_date", f"{NAME}: {error}")))
        return
    url = web_address(_text(post.get("original_url"))) or web_address(_text(post.get("url")))
    instruments = post.get("instruments")
    codes = (
        [one.get("code") for one in instruments if isinstance(one, dict)]
        if isinstance(instruments, list)
        else []
    )
    page.items.append(
        Item(NAME, item_id, _source(post.get("source")), title, body, url, coin_codes(codes), published_ms)
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _source(source: object) -> str:
    """``cryptopanic/coindesk.com``: who gathered it and who tells it."""
    outlet = ""
    if isinstance(source, dict):
        outlet = strip_html(_text(source.get("domain")) or _text(source.get("title")))
    return f"{NAME}/{outlet}"[:100] if outlet else NAME


def _next_query(link: object) -> dict[str, str] | None:
    """The query of `next` but for the key. Only this is taken of it, so it cannot lead anywhere else."""
    if not isinstance(link, str) or not link:
        return None
    try:
        query = parse_qs(urlsplit(link).query)
    except ValueError:
        return None
    return {key: values[-1] for key, values in query.items() if key != TOKEN}


class _Cursor(msgspec.Struct, frozen=True):
    ids: list[str]


class CryptoPanicSource:
    """The newest posts, page by page up to those that are known. Raises as `Source.poll` says."""

    def __init__(
        self,
        settings: NewsSettings,
        fetcher: Fetcher,
        now_ms: Callable[[], int],
        page_pause_s: float = PAGE_PAUSE_S,
    ) -> None:
        assert settings.cryptopanic_token is not None
        self.name = NAME
        self.interval_s = settings.cryptopanic_interval_s
        self._secrets = {TOKEN: settings.cryptopanic_token.get_secret_value()}
        self._url = f"{settings.cryptopanic_url}/api/{settings.cryptopanic_plan}/v2/posts/"
        self._query = {"kind": "news"}
        if settings.cryptopanic_currencies:
            self._query["currencies"] = ",".join(settings.cryptopanic_currencies)
        self._max_pages = settings.cryptopanic_max_pages
        self._quota_wait_s = settings.cryptopanic_quota_wait_s
        self._fetcher = fetcher
        self._now_ms = now_ms
        self._page_pause_s = page_pause_s
        self._closed = Event()
        self._was_accepted = False

    def poll(self, cursor: str | None) -> Poll:
        """The posts since the last whole look."""
        known = set(msgspec.json.decode(cursor, type=_Cursor).ids) if cursor is not None else set()
        poll = Poll(self._now_ms(), cursor)
        seen = self._walk(poll, known)
        # Oldest first, so that the first telling of a story is the one that was published first.
        poll.items.reverse()
        if seen:
            poll.cursor = msgspec.json.encode(_Cursor(seen[:REMEMBERED])).decode()
        return poll

    def _walk(self, poll: Poll, known: set[str]) -> list[str]:
        """Read pages into `poll`; the ids on them, none when the walk broke off.

        What was read counts then too, but the next look has to come as far back as this one.
        """
        seen: list[str] = []
        query = self._query
        for number in range(self._max_pages):
            if number and self._closed.wait(self._page_pause_s):
                return []
            try:
                page = self._page(query)
            except SourceUnavailableError as problem:
                if number == 0:
                    raise
                poll.problem = problem
                return []
            poll.fetched_at_ms = self._now_ms()
            poll.items += page.items
            poll.bad += page.bad
            poll.ignored += page.ignored
            seen += page.ids
            if page.next_query is None or not page.ids or not known.isdisjoint(page.ids):
                return seen
            query = page.next_query
        if known:
            logger.warning(
                "CryptoPanic has more new posts than {} pages hold; older ones are left out "
                "(NEWS_CRYPTOPANIC_MAX_PAGES)",
                self._max_pages,
            )
        return seen

    def _page(self, query: dict[str, str]) -> Page:
        answer = self._fetcher.get(
            with_query(self._url, query), headers={"Accept": "application/json"}, secrets=self._secrets
        )
        if answer.status != 200:
            raise self._refusal(answer)
        self._was_accepted = True
        return parse_page(answer.body)

    def _refusal(self, answer: Answer) -> SourceError:
        words = answer.body[:300].decode("utf-8", "replace")
        if answer.status == 403 and "quota" in words.lower():
            return QuotaError(
                f"CryptoPanic's quota is used up; no requests for {self._quota_wait_s / 3600:.1f} h "
                "(NEWS_CRYPTOPANIC_QUOTA_WAIT_S); a longer NEWS_CRYPTOPANIC_INTERVAL_S makes it last",
                self._quota_wait_s,
            )
        if answer.status in (401, 403) and not self._was_accepted:
            return SourceError(
                f"CryptoPanic refuses the key (HTTP {answer.status}); check NEWS_CRYPTOPANIC_TOKEN and "
                "NEWS_CRYPTOPANIC_PLAN"
            )
        return SourceUnavailableError(f"HTTP {answer.status}", answer.retry_after_s)

    def close(self) -> None:
        """End a walk between two pages."""
        self._closed.set()


def open_source(settings: NewsSettings, fetcher: Fetcher, now_ms: Callable[[], int]) -> Sequence[Source]:
    """The one that the settings hold a key for."""
    return [CryptoPanicSource(settings, fetcher, now_ms)]
