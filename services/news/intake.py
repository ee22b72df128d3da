"""From what a source gave to messages: repeats left out, stories named, the rest refused. No I/O but the
registry's."""

from collections import Counter
from dataclasses import dataclass, field
from hashlib import sha256

import msgspec

from services.common.dead_letters import dead_letter
from services.common.errors import ContractError
from services.common.messages import encode
from services.common.news import MAX_NEWS_SKEW_MS, News, decode_news
from services.news.contract import Bad, Item, Poll
from services.news.identity import (
    HOUR_MS,
    MARGIN_MS,
    Article,
    canonical_url,
    decide,
    item_key,
    new_story_id,
    normalised_title,
    short_key,
    title_key,
)
from services.news.registry import Outgoing, Registry

#: What Kafka adds to a message's value, generously.
ENVELOPE_BYTES = 1_000
#: An article that is dated further ahead than a slow clock or a wrong time zone explains is not waited for.
MAX_EARLY_MS = 24 * HOUR_MS


@dataclass(slots=True)
class Taken:
    """What became of a poll: messages to send, written down already, and counts."""

    messages: list[Outgoing] = field(default_factory=list)
    tellings: int = 0
    duplicates: int = 0
    repeats: int = 0
    ignored: Counter[str] = field(default_factory=Counter)
    refused: list[ContractError] = field(default_factory=list)
    #: Whether an article is dated ahead of our clock; it may be right later.
    has_early: bool = False


class Intake:
    """Takes polls in. `max_age_h` None takes articles of any age, as a replay does."""

    def __init__(
        self,
        registry: Registry,
        *,
        service: str,
        news_topic: str,
        window_h: float,
        max_age_h: float | None,
        max_message_bytes: int,
    ) -> None:
        self._registry = registry
        self._service = service
        self._news_topic = news_topic
        self._window_ms = int(window_h * HOUR_MS)
        self._max_age_ms = None if max_age_h is None else int(max_age_h * HOUR_MS)
        self._max_bytes = max_message_bytes - ENVELOPE_BYTES

    def take(self, feed: str, poll: Poll, known_cursor: str | None) -> Taken:
        """Decide about everything in `poll` in one transaction. Raises `SourceError`."""
        taken = Taken(ignored=Counter(poll.ignored))
        if not poll.items and not poll.bad and poll.cursor == known_cursor:
            return taken
        newest_ms = poll.fetched_at_ms
        with self._registry.transaction():
            for bad in poll.bad:
                self._refuse(feed, bad, poll.fetched_at_ms, taken)
            for item in poll.items:
                newest_ms = item.observed_at_ms or newest_ms
                self._take_item(item, poll, taken)
            # What is dated ahead comes with the next look, for which the feed must not count as read.
            if poll.cursor not in (None, known_cursor) and (not taken.has_early or self._max_age_ms is None):
                self._registry.set_cursor(feed, poll.cursor)
            keep_ms = self._window_ms + MARGIN_MS
            self._registry.forget_before(newest_ms - keep_ms, poll.fetched_at_ms - keep_ms)
        return taken

    def _take_item(self, item: Item, poll: Poll, taken: Taken) -> None:
        if not item.title.strip():
            taken.ignored["empty_text"] += 1
            return
        observed_ms = poll.fetched_at_ms if item.observed_at_ms is None else item.observed_at_ms
        url = None if item.shares_page else canonical_url(item.url)
        words = normalised_title(item.title, item.source)
        key = item_key(item.source, item.item_id, url, words, item.published_at_ms)
        # Our own clock bounds a recording's times too: nothing can be observed before it is published.
        ahead_ms = item.published_at_ms - min(observed_ms, poll.fetched_at_ms)
        if ahead_ms > MAX_NEWS_SKEW_MS:
            # A date far ahead is wrong for good, and must not keep the feed from counting as read.
            taken.has_early |= ahead_ms <= MAX_EARLY_MS
            error = ContractError(
                "future_event", f"{item.source}: published {ahead_ms} ms after it was observed"
            )
            self._refuse(item.feed, Bad(key, encode(item), error), poll.fetched_at_ms, taken)
            return
        story_id = new_story_id(words, item.published_at_ms)
        article = Article(item.feed, key, item.source, url, title_key(words), story_id, observed_ms)
        telling = decide(article, self._registry, self._window_ms)
        if telling is None:
            taken.repeats += 1
            return
        # An article that is forgotten is older than this, so it never comes again as new.
        if self._max_age_ms is not None and observed_ms - item.published_at_ms > self._max_age_ms:
            taken.ignored["too_old"] += 1
            return
        row = News(
            telling.story_id,
            *(item.source, item.title, item.body, item.url, item.coins),
            *(item.published_at_ms, telling.observed_at_ms),
        )
        try:
            value = self._encode(row)
        except ContractError as error:
            self._refuse(item.feed, Bad(key, encode(item), error), poll.fetched_at_ms, taken)
            return
        self._registry.add(article, telling)
        taken.messages.append(
            self._registry.put("news", telling.story_id.encode(), value, poll.fetched_at_ms)
        )
        taken.tellings += 1
        taken.duplicates += telling.is_duplicate

    def _encode(self, row: News) -> bytes:
        """A batch of the row, its body cut to what a message may hold. Raises `ContractError`."""
        value = encode([row])
        while len(value) > self._max_bytes and row.body:
            row = msgspec.structs.replace(row, body=row.body[: len(row.body) // 2])
            value = encode([row])
        _, refused = decode_news(row.story_id.encode(), value)
        if refused:
            raise refused[0][2]
        return value

    def _refuse(self, feed: str, bad: Bad, at_ms: int, taken: Taken) -> None:
        item = bad.item_id or f"sha256:{sha256(bad.raw).hexdigest()}"
        if not self._registry.refuse(feed, short_key(item), bad.error.reason, at_ms):
            taken.repeats += 1
            return
        key, value = dead_letter(
            bad.error,
            service=self._service,
            topic=self._news_topic,
            partition=-1,
            offset=-1,
            key=None,
            value=bad.raw[: self._max_bytes],
            timestamp_ms=at_ms,
        )
        taken.messages.append(self._registry.put("dead_letters", key, value, at_ms))
        taken.refused.append(bad.error)
