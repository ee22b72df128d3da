"""Whether a term that was found means its coin: the words beside it, and what else the story says. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from services.common.news import MARKET
from services.news_signals.coin_list import Grade
from services.news_signals.context import (
    BEFORE,
    BESIDE,
    BUSINESS,
    GLUE,
    JOINERS,
    MOVES,
    SHARES,
    TOWARDS,
    TRADE,
)
from services.news_signals.text import Text

#: So many characters of a body are its lead, which says what the story is about.
LEAD_CHARS = 300
#: What is accepted speaks for its neighbours, so all are looked at so many times.
ROUNDS = 4


@dataclass(slots=True)
class Candidate:
    """A term at ``tokens[first:last]`` of a text."""

    coin: str | None
    grade: Grade
    first: int
    last: int
    start: int
    end: int
    ticker: bool
    accepted: bool


def judge(texts: Sequence[Text], found: Sequence[list[Candidate]], hinted: frozenset[str]) -> None:
    """Accept the doubtful candidates of a title and a body for which something speaks.

    `found` holds those of each text in order; `hinted` are coins that the source names.
    """
    everything = [candidate for of_text in found for candidate in of_text]
    words = {
        fold
        for text in texts
        for token, fold in zip(text.tokens, text.folds, strict=True)
        if token.start < LEAD_CHARS
    }
    trade = bool(hinted) or not words.isdisjoint(TRADE) or any(c.accepted for c in everything)
    # Two doubtful names of different coins speak for each other.
    doubtful = {c.coin for c in everything if c.grade == "unsure" and c.coin not in (None, MARKET)}
    priced = (len(doubtful) > 1 or not words.isdisjoint(BUSINESS)) and words.isdisjoint(SHARES)
    moved = "%" in words
    for _ in range(ROUNDS):
        certain = {candidate.coin for candidate in everything if candidate.accepted}
        trade = trade or bool(certain)
        for text, of_text in zip(texts, found, strict=True):
            for index, candidate in enumerate(of_text):
                if candidate.accepted or candidate.coin is None or _hyphenated(text, candidate):
                    continue
                candidate.accepted = not _counted(text, candidate) and (
                    candidate.coin in certain
                    or _speaks(text, candidate, trade=trade, priced=priced, moved=moved, hinted=hinted)
                    or _listed(text, of_text, index)
                )


def _speaks(
    text: Text, candidate: Candidate, *, trade: bool, priced: bool, moved: bool, hinted: frozenset[str]
) -> bool:
    """Whether the story or the words beside it speak for a candidate."""
    beside = _beside(text, candidate, moved=trade or moved)
    # In a text of capitals they say nothing of a ticker; elsewhere they say much, even of a word's.
    if not text.shouts if candidate.ticker else candidate.grade == "unsure":
        return trade or priced or beside
    return beside or (trade and _placed(text, candidate)) or (candidate.ticker and candidate.coin in hinted)


def _placed(text: Text, candidate: Candidate) -> bool:
    """Whether an everyday word stands where a name does: first, with a 's, or last after a from or a to."""
    folds, after = text.folds, candidate.last
    following = folds[after] if after < len(folds) else "."
    if following == "'":
        return folds[after + 1 : after + 2] == ("s",)
    if candidate.first == 0:
        return following.isalpha() and following not in GLUE
    return not following.isalnum() and following not in "-$" and folds[candidate.first - 1] in TOWARDS


def _beside(text: Text, candidate: Candidate, *, moved: bool) -> bool:
    folds, after = text.folds, candidate.last
    if folds[after : after + 2] == ("'", "s"):
        after += 2
    following = folds[after] if after < len(folds) else ""
    if following == "," and after + 1 < len(folds) and folds[after + 1] in BEFORE:
        return True
    before = folds[candidate.first - 1] if candidate.first else ""
    return following in BESIDE or before in BEFORE or (moved and following in MOVES)


def _listed(text: Text, of_text: Sequence[Candidate], index: int) -> bool:
    """Whether it stands in a list with a coin that is accepted."""
    candidate = of_text[index]
    for earlier, later in pairwise(of_text[max(0, index - 1) : index + 2]):
        other = earlier if later is candidate else later
        between = text.folds[earlier.last : later.first]
        joined = 0 < len(between) <= 2 and all(fold in JOINERS for fold in between)
        if joined and other.accepted and other.coin not in (candidate.coin, MARKET):
            return True
    return False


def _hyphenated(text: Text, candidate: Candidate) -> bool:
    """Whether it is a part of another word: Near-Record, Cash-Flow; Sui-based is not."""
    tokens = text.tokens
    before = tokens[candidate.first - 1] if candidate.first else None
    if before is not None and before.text in "-_" and before.end == candidate.start and candidate.first > 1:
        return tokens[candidate.first - 2].end == before.start
    after = tokens[candidate.last] if candidate.last < len(tokens) else None
    if (
        after is None
        or after.text not in "-_"
        or after.start != candidate.end
        or candidate.last + 1 >= len(tokens)
    ):
        return False
    word = text.folds[candidate.last + 1]
    return tokens[candidate.last + 1].start == after.end and not word.endswith(("ed", "native", "to"))


def _counted(text: Text, candidate: Candidate) -> bool:
    """Whether an everyday word is followed by a number, as in: bitcoin near $60,000."""
    if candidate.grade != "words" or candidate.last >= len(text.tokens):
        return False
    following = text.tokens[candidate.last].text
    return following == "$" or following[0].isdigit()
