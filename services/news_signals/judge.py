"""Whether a term that was found means its coin: the words beside it, and what else the story says. Pure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from services.common.news import MARKET
from services.news_signals.context import BUSINESS, CHARTS, SHARES, STATE, TRADE
from services.news_signals.nearby import (
    Candidate,
    begins_phrase,
    beside,
    bracketed,
    counted_out,
    listed,
    part_of_another,
    placed,
    priced,
)
from services.news_signals.text import Text

#: So many characters of a body are its lead, which says what the story is about.
LEAD_CHARS = 300
#: What is accepted speaks for its neighbours, so all are looked at so many times.
ROUNDS = 4


@dataclass(slots=True)
class _Story:
    """What a story as a whole says."""

    #: It is about crypto.
    trade: bool
    #: Something is priced or run in it, and it is not about shares or offices.
    business: bool
    #: Likewise charts and their readers, or another doubtful coin.
    charts: bool
    #: Likewise a percentage.
    moved: bool
    #: Offices and their staff are spoken of.
    state: bool
    hinted: frozenset[str]


def judge(texts: Sequence[Text], found: Sequence[list[Candidate]], hinted: frozenset[str]) -> None:
    """Accept the doubtful candidates of a title and a body for which something speaks.

    `found` holds those of each text in order; `hinted` are coins that the source names.
    """
    everything = [candidate for of_text in found for candidate in of_text]
    if all(candidate.accepted or candidate.coin is None for candidate in everything):
        return
    story = _story(texts, everything, hinted)
    for text, of_text in zip(texts, found, strict=True):
        _pair_names(text, of_text)
    for _ in range(ROUNDS):
        accepted = [candidate for candidate in everything if candidate.accepted]
        certain = {candidate.coin for candidate in accepted}
        story.trade = story.trade or bool(certain)
        for text, of_text in zip(texts, found, strict=True):
            for index, candidate in enumerate(of_text):
                if candidate.accepted or candidate.coin is None or part_of_another(text, candidate):
                    continue
                if candidate.end - candidate.start == 1:
                    # A letter is no ticker but in brackets after its name: U.S., S&P.
                    continue
                candidate.accepted = (
                    candidate.coin in certain
                    or _speaks(text, candidate, story)
                    or listed(text, of_text, index)
                )
        if len(accepted) == sum(candidate.accepted for candidate in everything):
            break


def _story(texts: Sequence[Text], everything: Sequence[Candidate], hinted: frozenset[str]) -> _Story:
    words = {
        fold
        for text in texts
        for token, fold in zip(text.tokens, text.folds, strict=True)
        if token.start < LEAD_CHARS
    }
    state = not words.isdisjoint(STATE)
    other = state or not words.isdisjoint(SHARES)
    # Two doubtful names of different coins speak for each other; one of them must not be an everyday word.
    unsure, everyday = (
        {c.coin for c in everything if c.grade == grade and c.coin not in (None, MARKET)}
        for grade in ("unsure", "words")
    )
    several = bool(unsure) and len(unsure | everyday) > 1
    return _Story(
        trade=bool(hinted) or not words.isdisjoint(TRADE) or any(c.accepted for c in everything),
        business=(several or not words.isdisjoint(BUSINESS)) and not other,
        charts=(several or not words.isdisjoint(CHARTS)) and not other,
        moved="%" in words and not other,
        state=state,
        hinted=hinted,
    )


def _pair_names(text: Text, of_text: Sequence[Candidate]) -> None:
    """Accept tickers whose name stands in the same text: Sonic (S), Compound and COMP.

    Where both are one word, the name must stand before the brackets and begin its phrase: Flow (FLOW), but
    not SPX Flow (FLOW), which is a firm.
    """
    if text.shouts:
        return
    names = [c for c in of_text if not c.ticker and c.coin is not None and not part_of_another(text, c)]
    words = {(name.coin, text.folds[name.first]) for name in names}
    coins = Counter(coin for coin, _ in words)
    before = {(name.coin, name.last) for name in names if begins_phrase(text, name)}
    for candidate in of_text:
        if candidate.ticker and coins[candidate.coin]:
            word, inside = text.folds[candidate.first], bracketed(text, candidate)
            others = coins[candidate.coin] - ((candidate.coin, word) in words)
            if (others and (inside or len(word) > 1)) or (
                inside and (candidate.coin, candidate.first - 1) in before
            ):
                candidate.accepted = True


def _speaks(text: Text, candidate: Candidate, story: _Story) -> bool:
    """Whether the story or the words beside it speak for a candidate."""
    near = beside(text, candidate, moved=story.trade or story.moved)
    if not candidate.ticker:
        if candidate.grade == "unsure":
            return story.trade or story.business or near
        return begins_phrase(text, candidate) and (
            near or (story.trade and placed(text, candidate)) or (not story.state and priced(text, candidate))
        )
    if candidate.coin in story.hinted or near:
        return True
    # In a text of capitals they say nothing of a ticker; elsewhere they say much, even of a word's.
    if text.shouts:
        return story.trade and placed(text, candidate)
    if counted_out(text, candidate) or (priced(text, candidate) and not story.state):
        return True
    if bracketed(text, candidate):
        # Its name is not in the list, or `_pair_names` had it: Seagate (STX).
        return story.trade
    if candidate.grade == "unsure":
        return story.trade or story.business
    return (story.trade and not story.state) or story.charts
