"""What a source gives: articles, what is wrong with others, and where it stands. Pure."""

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol

from services.common.errors import ContractError, SourceUnavailableError


class QuotaError(SourceUnavailableError):
    """The source refuses to answer until its quota is renewed; `retry_after_s` says how long we wait."""


@dataclass(frozen=True, slots=True)
class Item:
    """One article as a source gives it: text cleaned and cut, times in epoch ms.

    `feed` is who was asked, `source` who tells it; they differ where a feed gathers the articles of
    many. `item_id` is the feed's own id. `observed_at_ms` is None where the fetch is the observation.
    """

    feed: str
    item_id: str | None
    source: str
    title: str
    body: str
    url: str | None
    coins: tuple[str, ...]
    published_at_ms: int
    observed_at_ms: int | None = None
    #: Whether other articles of the feed have the same page, so that it does not tell them apart.
    shares_page: bool = False


@dataclass(frozen=True, slots=True)
class Bad:
    """An article that cannot become news, as JSON bytes. `item_id` keeps it from being refused anew."""

    item_id: str | None
    raw: bytes
    error: ContractError


@dataclass(slots=True)
class Poll:
    """What one look at a source brought.

    `cursor` is where the source stands after it, in the source's own words; it is stored together with
    the items, so that a restart neither misses nor repeats any. `wait_s` until the next look; None is
    the source's usual interval. `problem` is what kept the rest away: the items count all the same.
    """

    fetched_at_ms: int
    cursor: str | None
    items: list[Item] = field(default_factory=list)
    bad: list[Bad] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    not_modified: bool = False
    wait_s: float | None = None
    problem: SourceUnavailableError | None = None
    ended: bool = False


class Source(Protocol):
    """One feed. It is looked at in a thread of its own, never in two at once."""

    name: str
    #: Seconds between two looks; 0 for a replay, which says itself when to look again.
    interval_s: float

    def poll(self, cursor: str | None) -> Poll:
        """What there is since `cursor`.

        Raises `SourceUnavailableError` when a later look may work, `SourceError` when none will.
        """

    def close(self) -> None:
        """Let go of files."""


def raw_bytes(fields: object) -> bytes:
    """An article as its source gave it, for the dead letters: ASCII JSON, whatever it holds."""
    return json.dumps(fields, default=str).encode()
