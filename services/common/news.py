"""The contracts of news: what a story and a signal hold and which are refused. Pure.

A *story* is what happened; a *telling* is one article about it. Tellings share the story id, so that
they meet on one partition in the order in which they were observed; (story id, observed time) names a
telling, and with the coin it names a signal. `observed_at_ms` is when we first saw it and never earlier
than it could be known; `published_at_ms` is what the source says.
"""

import re
from functools import lru_cache
from math import isclose
from typing import Annotated, Any, Literal

import msgspec

from services.common.errors import ContractError
from services.common.messages import TimeMs, decode_rows, literal_decoder

#: Coins are tickers; CRYPTO stands for the market as a whole.
COIN_PATTERN = r"^[A-Z0-9]{1,20}$"
MARKET = "CRYPTO"
STORY_ID_PATTERN = r"^[A-Za-z0-9_.-]{1,64}$"
MAX_TITLE_CHARS = 1_000
MAX_BODY_CHARS = 20_000
#: How far ahead of our own clock a source may date a story.
MAX_NEWS_SKEW_MS = 60_000
_COIN = re.compile(COIN_PATTERN)

Coin = Annotated[str, msgspec.Meta(pattern=COIN_PATTERN)]
StoryId = Annotated[str, msgspec.Meta(pattern=STORY_ID_PATTERN)]
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
Unit = Annotated[float, msgspec.Meta(ge=0, le=1)]


class News(msgspec.Struct, frozen=True, gc=False):
    """One telling of a story. `coins` are those that the source itself names, in no order."""

    story_id: StoryId
    source: Text
    title: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TITLE_CHARS)]
    body: Annotated[str, msgspec.Meta(max_length=MAX_BODY_CHARS)]
    url: Annotated[str, msgspec.Meta(max_length=2_000)] | None
    coins: Annotated[tuple[Coin, ...], msgspec.Meta(max_length=100)]
    published_at_ms: TimeMs
    observed_at_ms: TimeMs


class NewsSignal(msgspec.Struct, frozen=True, gc=False):
    """What one telling says of one coin. `score` is p_pos - p_neg; `signal` comes of calibrated thresholds.

    `confidence` is the probability of the signal's class, `relevance` the coin's share of the story,
    `novelty` 1 for the first telling and 3/4 of the one before for each repeat.
    """

    story_id: StoryId
    coin: Coin
    score: Annotated[float, msgspec.Meta(ge=-1, le=1)]
    p_pos: Unit
    p_neu: Unit
    p_neg: Unit
    signal: Literal[-1, 0, 1]
    confidence: Unit
    relevance: Unit
    novelty: Annotated[float, msgspec.Meta(gt=0, le=1)]
    engine: Text
    model_version: Text
    published_at_ms: TimeMs
    observed_at_ms: TimeMs
    scored_at_ms: TimeMs


_NEWS: msgspec.json.Decoder[list[Any]] = msgspec.json.Decoder(list[News])


def check_news(story: Any) -> None:
    """Refuse a telling that was published after it was observed, or has no words in its title."""
    ahead_ms = story.published_at_ms - story.observed_at_ms
    if ahead_ms > MAX_NEWS_SKEW_MS:
        raise ContractError("future_event", f"published {ahead_ms} ms after it was observed")
    if not story.title.strip():
        raise ContractError("empty_title", f"story {story.story_id}")


def check_signal(signal: Any) -> None:
    """Refuse a signal whose numbers contradict each other or that was scored before it was observed."""
    if not isclose(signal.p_pos + signal.p_neu + signal.p_neg, 1, abs_tol=1e-6):
        raise ContractError("bad_probabilities", "p_pos, p_neu and p_neg must add up to 1")
    if not isclose(signal.score, signal.p_pos - signal.p_neg, abs_tol=1e-6):
        raise ContractError("bad_score", "score must be p_pos - p_neg")
    if signal.scored_at_ms < signal.observed_at_ms:
        raise ContractError("bad_times", "scored before it was observed")


def coin_of(key: bytes) -> str:
    """Coin of a message key on `news_signals`. Raises `ContractError` on any other key."""
    coin = key.decode("ascii", "replace")
    if not _COIN.match(coin):
        raise ContractError("bad_key", f"{key[:80]!r}, expected a coin like BTC")
    return coin


@lru_cache(maxsize=4_096)
def signal_decoder(key: bytes) -> msgspec.json.Decoder[list[Any]]:
    """Decoder for a batch of `NewsSignal` that must all be of the coin that `key` names."""
    return literal_decoder(NewsSignal, {"coin": coin_of(key)})


type Refused = list[tuple[int, bytes, ContractError]]


def decode_news(key: bytes, value: bytes) -> tuple[list[Any], Refused]:
    """The good tellings of a message on `news`, and the others as `messages.decode_rows` gives them."""
    story_id = key.decode("ascii", "replace")

    def check(story: Any) -> None:
        if story.story_id != story_id:
            raise ContractError("bad_key", f"{key[:80]!r} is not the story id {story.story_id!r}")
        check_news(story)

    return decode_rows(News, key, value, check, _NEWS)


def decode_signals(key: bytes, value: bytes) -> tuple[list[Any], Refused]:
    """The good signals of a message on `news_signals`, and the others as `decode_rows` gives them."""
    decoder = signal_decoder(key)
    try:
        signals = decoder.decode(value)
        for signal in signals:
            check_signal(signal)
    except (msgspec.DecodeError, UnicodeDecodeError, ContractError):
        return decode_rows(NewsSignal, key, value, check_signal, decoder)
    return signals, []
