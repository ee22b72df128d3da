"""Settings of the news service (``NEWS_…``)."""

import re
from pathlib import Path
from typing import ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_serializer, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from services.common.news import COIN_PATTERN
from services.common.settings import Names, ServiceSettings, split_list

DEFAULT_FEEDS = (
    "coindesk=https://www.coindesk.com/arc/outboundfeeds/rss/",
    "cointelegraph=https://cointelegraph.com/rss",
    "decrypt=https://decrypt.co/feed",
    "theblock=https://www.theblock.co/rss.xml",
    "bitcoinmagazine=https://bitcoinmagazine.com/feed",
    "blockworks=https://blockworks.co/feed",
)
#: What a column of a file can be; the first two must be there.
FILE_FIELDS = ("title", "published", "body", "url", "source", "id", "coins", "observed")
SOURCES = ("rss", "cryptopanic", "file")
_NAMED_FEED = re.compile(r"^([A-Za-z0-9_.-]{1,60})=(https?://.*)$")
_QUERY = re.compile(r"\?.*", re.DOTALL)


class NewsSettings(ServiceSettings):
    """Where news comes from, how often it is asked for and what counts as told before."""

    model_config = SettingsConfigDict(env_prefix="NEWS_")
    other_prefixes: ClassVar[tuple[str, ...]] = ("NEWS_SIGNALS_",)

    stale_after_s: float = Field(
        3600.0, gt=0, description="Without an answer of any source for this long it reports not ready"
    )
    sources: Names = Field(
        ("rss",), description="rss, cryptopanic or both; or file alone, which ends with its file"
    )
    repeat_window_h: float = Field(
        72.0, gt=0, le=720, description="For this long another source's telling counts as the same story"
    )
    max_age_h: float = Field(
        72.0, gt=0, le=720, description="Older articles that a feed shows are ignored; at most the window"
    )
    feeds: Names = Field(DEFAULT_FEEDS, description="RSS and Atom feeds: name=url or url, comma-separated")
    rss_interval_s: float = Field(60.0, ge=1, le=86_400, description="Pause between two looks at a feed")
    cryptopanic_token: SecretStr | None = Field(None, description="Key for CryptoPanic's API")
    cryptopanic_plan: Literal["developer", "growth", "enterprise"] = Field(
        "developer", description="Plan that the key belongs to"
    )
    cryptopanic_currencies: Names = Field((), description="Coins to ask CryptoPanic for; all if unset")
    cryptopanic_interval_s: float = Field(
        300.0, ge=30, le=86_400, description="Pause between two looks at CryptoPanic; mind the plan's quota"
    )
    cryptopanic_max_pages: int = Field(
        5, ge=1, le=100, description="Most pages that one look at CryptoPanic asks for"
    )
    cryptopanic_quota_wait_s: float = Field(
        21_600.0, ge=60, le=2_678_400, description="No requests for this long after the quota is used up"
    )
    cryptopanic_url: str = Field(
        "https://cryptopanic.com", pattern=r"^https?://[^/?#@]+$", description="Server of CryptoPanic's API"
    )
    file_path: Path | None = Field(None, description="File of news: .csv or .ndjson, each also .gz")
    file_columns: Names = Field(
        (),
        description="Columns under other names, like title=Title,published=Date; may also name "
        "body, url, source, id, coins, observed",
    )
    file_source: str = Field(
        "file", min_length=1, max_length=100, description="Source of the file's news without such a column"
    )
    file_delay_s: float = Field(
        60.0,
        ge=0,
        le=604_800,
        description="News without a column observed counts as seen this long after it was published",
    )
    file_speed: float = Field(
        0.0, ge=0, le=10_000_000, description="File: 0 at once, 1 as it was observed, 60 an hour a minute"
    )
    file_max_bytes: int = Field(
        4_000_000_000, ge=1_000, description="A file that is larger, or unpacks to more, is refused"
    )
    connect_timeout_s: float = Field(5.0, gt=0, le=60, description="Time to connect")
    read_timeout_s: float = Field(10.0, gt=0, le=60, description="Longest silence within an answer")
    fetch_timeout_s: float = Field(30.0, gt=0, le=300, description="Time for a whole answer")
    max_answer_bytes: int = Field(
        5_000_000, ge=1_000, le=100_000_000, description="A larger answer is refused, packed or unpacked"
    )
    backoff_min_s: float = Field(5.0, gt=0, le=3600, description="First wait after a source failed")
    backoff_max_s: float = Field(900.0, gt=0, le=86_400, description="Longest wait after a source failed")
    allow_private: bool = Field(
        False, description="Fetch from private and local addresses too, for feeds within your own network"
    )
    ca_file: Path | None = Field(None, description="Certificates to trust instead of the public ones")

    @property
    def feeds_by_name(self) -> dict[str, str]:
        """Name and address of each feed."""
        return dict(map(_feed, self.feeds))

    @property
    def columns_by_field(self) -> dict[str, str]:
        """Column of each field that the settings map."""
        return dict(item.split("=", 1) for item in self.file_columns)

    @field_serializer("feeds")
    def _shown(self, value: tuple[str, ...]) -> list[str]:
        # The query may hold a key, and settings are shown in /info.
        return [_QUERY.sub("?***", text) for text in value]

    @field_validator("sources", "feeds", "cryptopanic_currencies", "file_columns", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return split_list(value)

    @field_validator("sources")
    @classmethod
    def _sources(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in value if name not in SOURCES]
        if unknown or not value:
            raise ValueError(f"unknown source {', '.join(unknown)!r}; known: {', '.join(SOURCES)}")
        if "file" in value and len(value) > 1:
            raise ValueError("file goes alone: the others have no end")
        return tuple(dict.fromkeys(value))

    @field_validator("feeds")
    @classmethod
    def _feeds(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        names = [_feed(text)[0] for text in value]
        if len(set(names)) != len(names):
            raise ValueError("two feeds have one name; write name=url")
        if taken := set(names) & set(SOURCES):
            raise ValueError(f"{taken.pop()!r} is the name of another source")
        return value

    @field_validator("cryptopanic_token")
    @classmethod
    def _token(cls, value: SecretStr | None) -> SecretStr | None:
        # Plain characters, so that it reads the same wherever it might turn up and can be struck out.
        if value is not None and not re.fullmatch(r"[A-Za-z0-9_-]{8,200}", value.get_secret_value()):
            raise ValueError("8 letters or digits at least; this is no key of CryptoPanic's")
        return value

    @field_validator("cryptopanic_currencies")
    @classmethod
    def _currencies(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for coin in value:
            if not re.match(COIN_PATTERN, coin):
                raise ValueError(f"{coin!r} is no coin; write it like BTC")
        return value

    @field_validator("file_columns")
    @classmethod
    def _columns(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            name, separator, column = text.partition("=")
            if name not in FILE_FIELDS or not separator or not column:
                raise ValueError(f"{text!r}: write field=column; fields: {', '.join(FILE_FIELDS)}")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if "rss" in self.sources and not self.feeds:
            raise ValueError("NEWS_FEEDS: name at least one feed")
        if "cryptopanic" in self.sources and self.cryptopanic_token is None:
            raise ValueError("NEWS_CRYPTOPANIC_TOKEN: CryptoPanic needs a key")
        if "file" in self.sources and self.file_path is None:
            raise ValueError("NEWS_FILE_PATH: the source file needs one")
        if self.max_age_h > self.repeat_window_h:
            raise ValueError("NEWS_MAX_AGE_H is more than NEWS_REPEAT_WINDOW_H, so old news would come twice")
        if self.backoff_max_s < self.backoff_min_s:
            raise ValueError("NEWS_BACKOFF_MAX_S is less than NEWS_BACKOFF_MIN_S")
        return self


def _feed(text: str) -> tuple[str, str]:
    """Name and address of ``name=url`` or ``url``. Raises `ValueError`."""
    named = _NAMED_FEED.match(text)
    url = named[2] if named else text
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        shown = _QUERY.sub("?***", text)[:60]
        raise ValueError(f"{shown!r} is no feed; write name=https://…")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a feed's address must hold no password, since settings are shown in /info")
    return (named[1] if named else parts.hostname.removeprefix("www."))[:60], url
