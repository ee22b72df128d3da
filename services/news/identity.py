"""Which articles are the same telling, which tellings the same story. Pure.

A telling is one article of one source; it is known again by the source's own id and by its address. A
story is what tellings of several sources share: an address, or a title in the same words.
"""

import re
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Protocol
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

HOUR_MS = 3_600_000
#: How much longer than the repeat window a telling is remembered. A story's tellings of one UTC day share
#: an id, so its last observed time must be known for a day longer than news can be old.
MARGIN_MS = 48 * HOUR_MS
#: Keys longer than this are remembered by their hash.
MAX_ID_CHARS = 200

_TRACKING = re.compile(
    r"^(utm_.*|fbclid|gclid|dclid|msclkid|yclid|igshid|mc_cid|mc_eid|_hsenc|_hsmi|cmpid|cmp|ref|ref_src|ref_url"
    r"|referrer|source|src|amp|outputtype|guccounter|guce_.*|ncid|sr_share|feature|taid|s_kwcid|_ga|_gl)$",
    re.IGNORECASE,
)
_HOST = re.compile(r"^[\w.:-]+$")
_HOST_PREFIX = re.compile(r"^(?:(?:www|m|mobile|amp)\.)+(?=[^.]+\.)")
_AMP_PATH = re.compile(r"^(?:/amp)+(?=/)|(?:/amp(?:\.html)?)+/?$", re.IGNORECASE)
# What a title may end with, after a dash or a bar.
OUTLETS = (
    "ambcrypto", "beincrypto", "benzinga", "bitcoin magazine", "bitcoin news", "bitcoin.com news",
    "bitcoinist", "blockworks", "bloomberg", "bloomberg crypto", "bloomberg.com", "btc times",
    "business insider", "cnbc", "coindesk", "coingape", "coinspeaker", "cointelegraph",
    "cointelegraph magazine", "crypto briefing", "crypto news", "crypto.news", "cryptobriefing",
    "cryptonews", "cryptopolitan", "cryptopotato", "cryptoslate", "daily hodl", "decrypt", "dl news",
    "financial times", "forbes", "fortune", "fx empire", "fxstreet", "investing.com", "marketwatch",
    "messari", "nasdaq", "newsbtc", "protos", "reuters", "the block", "the block crypto", "the daily hodl",
    "the defiant", "the street", "thestreet", "u.today", "unchained", "utoday", "wall street journal",
    "watcher guru", "watcher.guru", "wsj", "yahoo finance", "zycrypto",
)  # fmt: skip
_SUFFIX = re.compile(r"\s+(?:[-|·•–—]|::)\s+([^|·•–—]{2,40}?)\s*$")


def canonical_url(url: str | None) -> str | None:
    """`url` without what does not choose the article; None for anything that is no web address."""
    if url is None:
        return None
    try:
        parts = urlsplit(url.strip())
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        return None
    if parts.scheme.lower() not in ("http", "https") or not _HOST.match(host):
        return None
    host = _HOST_PREFIX.sub("", host)
    if port not in (None, 80, 443):
        host += f":{port}"
    path = quote(re.sub(r"/{2,}", "/", parts.path), safe="/%:@!$&'()*+,;=~")
    path = _AMP_PATH.sub("", path).rstrip("/")
    query = [(key, value) for key, value in parse_qsl(parts.query, True) if not _TRACKING.match(key)]
    return urlunsplit(("https", host, path, urlencode(sorted(query)), ""))


def normalised_title(title: str, source: str = "") -> str:
    """The words of a title: NFKC, case folded, without outlet names at its end and without punctuation."""
    text = unicodedata.normalize("NFKC", title).casefold().strip()
    own = source.casefold()
    while (match := _SUFFIX.search(text)) and (match[1] in OUTLETS or match[1] == own):
        text = text[: match.start()]
    words = " ".join(re.sub(r"[\W_]+", " ", text).split())
    # A title of nothing but signs is told by its signs.
    return words or text


def title_key(normalised: str) -> str:
    """What a title is remembered by."""
    return _hash(normalised)[:32]


def new_story_id(normalised: str, published_at_ms: int) -> str:
    """Id of a story that nobody has told yet: 16 hex digits, by its words and the UTC day."""
    return _hash(f"{normalised}|{_day(published_at_ms)}")[:16]


def _day(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).date().isoformat()


def item_key(source: str, item_id: str | None, url: str | None, title: str, published_at_ms: int) -> str:
    """What an article is remembered by: its source, and there its id, else address, else title and UTC day.

    Where a feed gathers the articles of many, ids of two sources may be alike; a headline comes back on
    another day.
    """
    own = item_id or url or f"title:{_day(published_at_ms)}:{title}"
    return short_key(f"{source}|{own}")


def short_key(key: str) -> str:
    """`key`, or its hash where it is long."""
    return key if len(key) <= MAX_ID_CHARS else f"sha256:{_hash(key)}"


def _hash(text: str) -> str:
    return sha256(text.encode("utf-8", "replace")).hexdigest()


@dataclass(frozen=True, slots=True)
class Article:
    """What identity looks at; `url` canonical, `title` a `title_key`, `observed_at_ms` not yet final."""

    feed: str
    item: str
    source: str
    url: str | None
    title: str
    new_story_id: str
    observed_at_ms: int


@dataclass(frozen=True, slots=True)
class Telling:
    """The decision: which story, observed when, and whether others have told it before."""

    story_id: str
    observed_at_ms: int
    is_duplicate: bool


class Known(Protocol):
    """The tellings that are remembered. Times are lower bounds of observed times."""

    def is_told(self, article: Article, since_ms: int) -> bool:
        """Whether the feed told this item, or the source this address."""

    def story_of(self, article: Article, since_ms: int) -> str | None:
        """Story of the first telling of another source with the article's address, else with its title."""

    def last_observed_ms(self, story_id: str, since_ms: int) -> int | None:
        """When the newest telling of a story was observed."""


def decide(article: Article, known: Known, window_ms: int) -> Telling | None:
    """The telling that an article is, or None when it was told before.

    Observed times rise strictly within a story, since together with its id they name a telling.
    """
    # What is older counts as forgotten, whether it was cleared away already or not.
    remembered_ms = article.observed_at_ms - window_ms - MARGIN_MS
    if known.is_told(article, remembered_ms):
        return None
    story_id = known.story_of(article, article.observed_at_ms - window_ms) or article.new_story_id
    last_ms = known.last_observed_ms(story_id, remembered_ms)
    observed_at_ms = article.observed_at_ms if last_ms is None else max(article.observed_at_ms, last_ms + 1)
    return Telling(story_id, observed_at_ms, last_ms is not None)
