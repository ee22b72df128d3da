"""RSS and Atom feeds: bytes → articles (pure), and the feed that is asked for them."""

import calendar
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any

import msgspec

from services.common.errors import ContractError, SourceUnavailableError
from services.common.messages import MAX_TIME_MS
from services.news.contract import Bad, Item, Poll, Source, raw_bytes
from services.news.dates import date_ms
from services.news.feed_parser import read_document
from services.news.fetch import Answer, Fetcher
from services.news.identity import canonical_url
from services.news.settings import NewsSettings
from services.news.text import cut_body, headline, strip_html, web_address
from services.news.xml_text import feed_text

#: No feed is as long; what follows is ignored and counted.
MAX_ITEMS = 1_000


@dataclass(slots=True)
class Feed:
    """What a document held. `is_whole` is False when its XML is broken somewhere."""

    items: list[Item] = field(default_factory=list)
    bad: list[Bad] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    is_whole: bool = True


def parse_feed(name: str, body: bytes, charset: str | None = None) -> Feed:
    """The articles of an RSS or Atom document. Raises `SourceUnavailableError` for any other."""
    document = read_document(feed_text(body, charset))
    if not document.is_feed:
        raise SourceUnavailableError("sent XML that is no feed; is this its address?")
    feed = Feed(is_whole=document.is_whole)
    for entry in document.entries[:MAX_ITEMS]:
        # As a plain dict, since the library's own warns of a fallback that we do not use.
        _read_entry(name, dict(entry), feed)
    if len(document.entries) > MAX_ITEMS:
        feed.ignored["beyond_limit"] += len(document.entries) - MAX_ITEMS
    _mark_shared_pages(feed)
    return feed


def _mark_shared_pages(feed: Feed) -> None:
    """A page under several headlines of one document, such as a live blog, does not tell articles apart."""
    titles: defaultdict[str | None, set[str]] = defaultdict(set)
    for item in feed.items:
        titles[canonical_url(item.url)].add(item.title)
    feed.items = [
        replace(item, shares_page=True) if len(titles[canonical_url(item.url)]) > 1 else item
        for item in feed.items
    ]


def _read_entry(name: str, entry: dict[str, Any], feed: Feed) -> None:
    words = strip_html(_text(entry, "title"))
    body = cut_body(strip_html(_longest_text(entry)))
    title = headline(words, body)
    if not title:
        feed.ignored["empty_text"] += 1
        return
    link = web_address(_text(entry, "link"))
    item_id = _text(entry, "id") or link
    published_ms = _published_ms(entry)
    if published_ms is None:
        given = _text(entry, "published") or _text(entry, "updated")
        raw = raw_bytes(
            {"feed": name, "id": item_id, "title": title, "url": link, "body": body, "date": given}
        )
        why = f"its date {given[:100]!r} is none" if given else "it has no date"
        feed.bad.append(Bad(item_id, raw, ContractError("missing_date", f"{name}: {title[:80]!r}: {why}")))
        return
    feed.items.append(Item(name, item_id, name, title, body, link, (), published_ms))


def _text(entry: dict[str, Any], key: str) -> str:
    # An element of a name that the library uses itself can put anything there.
    value = entry.get(key)
    return value if isinstance(value, str) else ""


def _published_ms(entry: dict[str, Any]) -> int | None:
    # Atom's `updated` is all that some feeds have.
    for key in ("published", "updated"):
        # The library knows more ways to write a date, but fewer zones, which it takes for UTC.
        at_ms = date_ms(_text(entry, key))
        if at_ms is None:
            at_ms = _parsed_ms(entry.get(f"{key}_parsed"))
        if at_ms is not None and 0 <= at_ms <= MAX_TIME_MS:
            return at_ms
    return None


def _parsed_ms(date: object) -> int | None:
    if not isinstance(date, tuple):
        return None
    try:
        return calendar.timegm(date) * 1000
    except (ValueError, OverflowError):
        # The year 0, or one of five digits.
        return None


def _longest_text(entry: dict[str, Any]) -> str:
    # Feeds put the article into the content, or into the description, or a teaser into either.
    content = entry.get("content")
    parts = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    return max((_text(entry, "summary"), *(_text(part, "value") for part in parts)), key=len)


class _Cursor(msgspec.Struct, frozen=True):
    """Where a feed stands: what makes its server answer "not modified", and for which address."""

    address: str
    etag: str | None = None
    last_modified: str | None = None


class RssSource:
    """One feed, asked with what it said the last time."""

    def __init__(
        self, name: str, url: str, interval_s: float, fetcher: Fetcher, now_ms: Callable[[], int]
    ) -> None:
        self.name = name
        self.interval_s = interval_s
        self._url = url
        # The address itself may hold a key.
        self._address = sha256(url.encode()).hexdigest()[:16]
        self._fetcher = fetcher
        self._now_ms = now_ms

    def poll(self, cursor: str | None) -> Poll:
        """Its articles. Raises `SourceUnavailableError`."""
        known = _Cursor(self._address)
        if cursor is not None:
            stored = msgspec.json.decode(cursor, type=_Cursor)
            known = stored if stored.address == self._address else known
        headers = {
            "Accept": "application/rss+xml, application/atom+xml, application/xml, text/xml, */*;q=0.1"
        }
        if known.etag is not None:
            headers["If-None-Match"] = known.etag
        if known.last_modified is not None:
            headers["If-Modified-Since"] = known.last_modified
        answer = self._fetcher.get(self._url, headers=headers)
        fetched_at_ms = self._now_ms()
        if answer.status == 304:
            return Poll(fetched_at_ms, cursor, not_modified=True)
        if answer.status != 200:
            raise SourceUnavailableError(f"HTTP {answer.status}", answer.retry_after_s)
        feed = parse_feed(self.name, answer.body, answer.charset)
        return Poll(fetched_at_ms, self._next_cursor(answer, feed), feed.items, feed.bad, feed.ignored)

    def _next_cursor(self, answer: Answer, feed: Feed) -> str:
        # A broken document may have lost articles, so it does not count as read.
        etag, modified = (answer.etag, answer.last_modified) if feed.is_whole else (None, None)
        return msgspec.json.encode(_Cursor(self._address, etag, modified)).decode()

    def close(self) -> None:
        """Nothing is open between two looks."""


def open_source(settings: NewsSettings, fetcher: Fetcher, now_ms: Callable[[], int]) -> Sequence[Source]:
    """The feeds that the settings name."""
    return [
        RssSource(name, url, settings.rss_interval_s, fetcher, now_ms)
        for name, url in settings.feeds_by_name.items()
    ]
