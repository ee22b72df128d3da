"""RSS and Atom feeds: bytes → articles (pure), and the feed that is asked for them."""

import calendar
import io
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import feedparser
import msgspec

from services.common.errors import ContractError, SourceUnavailableError
from services.news.contract import Bad, Item, Poll, Source, raw_bytes
from services.news.fetch import Answer, Fetcher
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
    text = feed_text(body, charset)
    parsed: Any = feedparser.parse(
        # A file: given bytes or text, the library takes what looks like an address or a path for one.
        io.BytesIO(text.encode("utf-8", "replace")),
        response_headers={"content-type": "application/xml; charset=utf-8"},
        sanitize_html=False,
        resolve_relative_uris=False,
    )
    if not parsed.version and not parsed.entries:
        raise SourceUnavailableError("sent XML that is no feed; is this its address?")
    feed = Feed(is_whole=not parsed.bozo)
    for entry in parsed.entries[:MAX_ITEMS]:
        _read_entry(name, entry, feed)
    if len(parsed.entries) > MAX_ITEMS:
        feed.ignored["beyond_limit"] += len(parsed.entries) - MAX_ITEMS
    return feed


def _read_entry(name: str, entry: Any, feed: Feed) -> None:
    title = strip_html(entry.get("title", ""))
    body = cut_body(strip_html(_longest_text(entry)))
    if not headline(title, body):
        feed.ignored["empty_text"] += 1
        return
    link = web_address(entry.get("link", ""))
    # Atom's `updated` is all that some feeds have. As a plain dict, since the library warns of a fallback.
    dates: dict[str, Any] = dict(entry)
    date = dates.get("published_parsed") or dates.get("updated_parsed")
    item_id = entry.get("id") or link
    if date is None:
        given = dates.get("published") or dates.get("updated")
        raw = raw_bytes(
            {"feed": name, "id": item_id, "title": title, "url": link, "body": body, "date": given}
        )
        why = f"cannot read {given[:100]!r}" if given else "none given"
        feed.bad.append(Bad(item_id, raw, ContractError("missing_date", f"{name}: {why}")))
        return
    feed.items.append(
        Item(name, item_id, name, headline(title, body), body, link, (), calendar.timegm(date) * 1000)
    )


def _longest_text(entry: Any) -> str:
    # Feeds put the article into the content, or into the description, or a teaser into either.
    texts: list[str] = [
        entry.get("summary", ""),
        *(part.get("value", "") for part in entry.get("content", [])),
    ]
    return max(texts, key=len)


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
