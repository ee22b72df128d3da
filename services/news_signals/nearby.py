"""What stands beside a term, and what that says of it. Pure; the words are those of `context`."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from services.common.news import MARKET
from services.news_signals.coin_list import Grade
from services.news_signals.context import (
    BEFORE,
    BESIDE,
    COMPOUND,
    GLUE,
    HELPERS,
    JOINERS,
    LEVELS,
    MODIFIERS,
    MOVES,
    OPENERS,
    PRICE,
    TOWARDS,
)
from services.news_signals.text import Text

#: A price or a percentage so many tokens after a verb belongs to it.
REACH = 9
_CLAUSE_ENDS = frozenset(";:?!|—–")
_SIGNS = frozenset("(+-−–~▲▼")
_PEAKS = frozenset({"high", "highs", "low", "lows"})
_AMOUNTS = frozenset({"thousand", "million", "billion", "trillion", "k", "m", "b", "mn", "bn"})
#: Dollars of this size are a budget, a fine or a market value, not the price of a coin.
_SUMS = ("m", "b", "t", "mn", "bn", "tn", "mln", "bln", "million", "billion", "trillion", "crore", "lakh")


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


def part_of_another(text: Text, candidate: Candidate) -> bool:
    """Whether what stands beside a doubtful term makes it something else, whatever else speaks for it."""
    following = text.folds[candidate.last] if candidate.last < len(text.folds) else ""
    return following in COMPOUND or _hyphenated(text, candidate) or _counted(text, candidate)


def begins_phrase(text: Text, candidate: Candidate) -> bool:
    """Whether a name that is an everyday word has no other word of its phrase before it: market Optimism."""
    if candidate.first == 0:
        return True
    at = candidate.first - 1
    before = text.folds[at]
    if at and (before == "'" or (before == "s" and text.folds[at - 1] == "'")):
        # Somebody's; a quotation mark stands apart from the word before it.
        return text.tokens[at].start != text.tokens[at - 1].end
    if not before.isalpha() or before in OPENERS:
        return True
    return before.endswith("s") and before not in MODIFIERS


def beside(text: Text, candidate: Candidate, *, moved: bool) -> bool:
    """Whether a word of coins stands beside it; with `moved` one of prices after it will do."""
    folds, after = text.folds, candidate.last
    if folds[after : after + 2] == ("'", "s"):
        after += 2
    following = folds[after] if after < len(folds) else ""
    if following == "," and after + 1 < len(folds) and folds[after + 1] in BEFORE:
        return True
    before = folds[candidate.first - 1] if candidate.first else ""
    return following in BESIDE or before in BEFORE or (moved and following in MOVES)


def priced(text: Text, candidate: Candidate) -> bool:
    """Whether a price or a percentage follows it, alone or with a verb of prices: LINK breaks above $20."""
    folds, at = text.folds, candidate.last
    if at < len(folds) and folds[at] in _SIGNS:
        while at < len(folds) and folds[at] in _SIGNS:
            at += 1
        return at < len(folds) and (folds[at] == "$" or folds[at][0].isdigit()) and _figure(folds, at, at + 5)
    while at < len(folds) and folds[at] in HELPERS:
        at += 1
    if folds[at : at + 1] == ("to",):
        return _figure(folds, at + 1, at + 4)
    if folds[at : at + 1] and folds[at] in PRICE:
        return _figure(folds, at + 1, at + REACH)
    return _percent(folds, at + 1)


def counted_out(text: Text, candidate: Candidate) -> bool:
    """Whether it follows a number as coins do: 500M DOGE, 3 million LINK, 74,000 NEAR; $5M DOGE is none."""
    folds, at = text.folds, candidate.first - 1
    if at >= 1 and folds[at] in _AMOUNTS:
        at -= 1
    elif at < 0 or not (
        (folds[at][0].isdigit() and folds[at][-1] in "kmb")
        or (folds[at].isdigit() and at >= 2 and folds[at - 1] == "," and folds[at - 2].isdigit())
    ):
        return False
    while at >= 0 and (folds[at][0].isdigit() or folds[at] in ",."):
        at -= 1
    return at + 1 < candidate.first and folds[at + 1][0].isdigit() and (at < 0 or folds[at] not in "$€£₹¥")


def bracketed(text: Text, candidate: Candidate) -> bool:
    """Whether it stands in brackets of its own, as a ticker does after its name."""
    folds = text.folds
    return folds[candidate.first - 1 : candidate.first] == ("(",) and folds[
        candidate.last : candidate.last + 1
    ] == (")",)


def placed(text: Text, candidate: Candidate) -> bool:
    """Whether an everyday word stands where a name does: first, with a 's, or last after a from or a to."""
    folds, after = text.folds, candidate.last
    following = folds[after] if after < len(folds) else "."
    if following == "'":
        return folds[after + 1 : after + 2] == ("s",)
    if candidate.first == 0:
        return following.isalpha() and following not in GLUE
    if following.isalnum() or following in "-$" or folds[candidate.first - 1] not in TOWARDS:
        return False
    # Climbs 5% on optimism: a reason, no place.
    earlier = folds[candidate.first - 2] if candidate.first > 1 else ""
    return earlier not in MOVES and not earlier[:1].isdigit() and earlier != "%"


def listed(text: Text, of_text: Sequence[Candidate], index: int) -> bool:
    """Whether it stands in a list with a coin that is accepted."""
    candidate = of_text[index]
    for earlier, later in pairwise(of_text[max(0, index - 1) : index + 2]):
        other = earlier if later is candidate else later
        between = text.folds[earlier.last : later.first]
        joined = 0 < len(between) <= 2 and all(fold in JOINERS for fold in between)
        if joined and other.accepted and other.coin not in (candidate.coin, MARKET):
            return True
    return False


def _figure(folds: Sequence[str], at: int, end: int) -> bool:
    """Whether a price, a percentage or a word of price levels comes before the clause ends."""
    for place in range(at, min(end, len(folds))):
        fold = folds[place]
        following = folds[place + 1] if place + 1 < len(folds) else ""
        if fold in _CLAUSE_ENDS or (fold == "." and not following[:1].isdigit()):
            return False
        if fold == "%" or fold in LEVELS or (fold == "time" and following in _PEAKS):
            return True
        if fold == "record" and (following in _PEAKS or following in GLUE or not following.isalpha()):
            return following not in ("for", "of")
        if fold == "$" and following[:1].isdigit():
            return not _sum(folds, place + 1)
        if fold.isdigit() and following in ("cent", "cents"):
            return True
    return False


def _percent(folds: Sequence[str], at: int) -> bool:
    """Whether a percentage stands here that is a part of nothing: sags 11%, but not cuts 11% of jobs."""
    begin = at
    while at < len(folds) and (folds[at].isdigit() or (folds[at] == "." and at > begin)):
        at += 1
    return begin < at < len(folds) and folds[at] == "%" and folds[at + 1 : at + 2] != ("of",)


def _sum(folds: Sequence[str], at: int) -> bool:
    while at < len(folds) and (folds[at].isdigit() or folds[at] in ",."):
        at += 1
    word = folds[at].lstrip("0123456789") if at < len(folds) else ""
    return word in _SUMS


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
    if not (candidate.grade == "words" or text.shouts) or candidate.last >= len(text.tokens):
        return False
    following = text.tokens[candidate.last].text
    return following == "$" or following[0].isdigit()
