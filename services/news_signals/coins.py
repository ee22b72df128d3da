"""Which coins a story names, and where. Pure.

Every term of the list is looked for; the longest one wins. Then the doubtful ones are judged (`judge`, by
what stands `nearby` and the words of `context`); `coin_list` explains the grades of terms.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from services.common.news import MARKET
from services.news_signals.coin_list import GRADES, Coin, Grade, is_ticker
from services.news_signals.context import BOTH, QUOTES
from services.news_signals.engines.contract import Mention
from services.news_signals.judge import LEAD_CHARS, judge
from services.news_signals.nearby import Candidate
from services.news_signals.text import Text, Token, split_term


@dataclass(frozen=True, slots=True)
class Found:
    """The coins of a story in the order of their first mention, those only hinted at last, by name.

    `mentions` and `body_mentions` are as `engines.contract.Story` wants them; `hinted` are the source's coins
    that the list knows, `unknown_hints` the number of the others.
    """

    coins: tuple[str, ...]
    mentions: tuple[Mention, ...]
    body_mentions: tuple[Mention, ...]
    hinted: frozenset[str]
    unknown_hints: int


@dataclass(frozen=True, slots=True)
class _Term:
    coin: str | None
    grade: Grade
    tokens: tuple[Token, ...]
    ticker: bool


class CoinFinder:
    """Finds the coins of a list in texts."""

    def __init__(self, coins: Iterable[Coin]) -> None:
        terms: dict[str, list[_Term]] = defaultdict(list)
        self._tickers: dict[str, str] = {}
        self._known: dict[str, str] = {}
        for coin in coins:
            self._known[coin.coin] = coin.coin
            for grade in GRADES:
                for written in coin.terms[grade]:
                    bare = written.removeprefix("$")
                    ticker = is_ticker(bare) and grade != "not"
                    if ticker:
                        self._tickers.setdefault(bare, coin.coin)
                    if written == bare:
                        tokens = split_term(bare)
                        owner = None if grade == "not" else coin.coin
                        terms[tokens[0].fold].append(_Term(owner, grade, tokens, ticker))
        # An alias serves for hints too, unless it is a coin of its own.
        self._known = self._tickers | self._known
        # Longest first; among equals a coin goes before a phrase that denies one, a ticker before a name.
        self._terms = {
            first: sorted(
                same, key=lambda term: (-len(term.tokens), GRADES.index(term.grade), not term.ticker)
            )
            for first, same in terms.items()
        }

    def find(self, title: str, body: str = "", hints: Sequence[str] = ()) -> Found:
        """The coins of a story. `hints` are the source's own."""
        hinted = frozenset(self._known[hint] for hint in hints if hint in self._known)
        texts = (Text(title), Text(body))
        found = [self._candidates(text) for text in texts]
        judge(texts, found, hinted)
        named, in_body = (
            [Mention(c.coin, c.start, c.end) for c in of_text if c.accepted and c.coin is not None]
            for of_text in found
        )
        lead = {mention.coin for mention in in_body if mention.start < LEAD_CHARS}
        market_named = {mention.coin for mention in named} == {MARKET}
        if not market_named:
            named = [mention for mention in named if mention.coin != MARKET]
        # Deep in a body, words like crypto stand in any story of the trade.
        if not market_named and (named or lead != {MARKET}):
            in_body = [mention for mention in in_body if mention.coin != MARKET]
        if any(mention.coin != MARKET for mention in (*named, *in_body)):
            hinted -= {MARKET}
        coins = dict.fromkeys([mention.coin for mention in (*named, *in_body)] + sorted(hinted))
        unknown = sum(hint not in self._known for hint in set(hints))
        return Found(tuple(coins), tuple(named), tuple(in_body), hinted, unknown)

    def _candidates(self, text: Text) -> list[Candidate]:
        """Where terms stand, the longest ones first come; in order, without overlap."""
        found: list[Candidate] = []
        at = 0
        while at < len(text.tokens):
            candidates = self._at(text, at)
            found += candidates
            at = candidates[-1].last if candidates else at + 1
        return found

    def _at(self, text: Text, at: int) -> list[Candidate]:
        tokens = text.tokens
        token = tokens[at]
        if token.text == "$" and at + 1 < len(tokens) and tokens[at + 1].start == token.end:
            coin = self._tickers.get(tokens[at + 1].text.upper())
            if coin is not None:
                return [_candidate(text, coin, "sure", at + 1, at + 2, ticker=True)]
            return []
        plural = self._terms.get(token.fold.removesuffix("s"), []) if token.fold.endswith("s") else []
        for term in (*self._terms.get(token.fold, ()), *plural):
            last = at + len(term.tokens)
            if not _written(term, text, at, last):
                continue
            if term.ticker and last + 1 < len(tokens) and tokens[last].text in "/-":
                quote = tokens[last + 1].text
                if quote in QUOTES and term.coin is not None:
                    # A pair. What it is priced in is no mention of that, but for BTC and ETH.
                    pair = [_candidate(text, term.coin, "sure", at, last, ticker=True)]
                    if quote in BOTH and quote in self._tickers:
                        pair.append(
                            _candidate(text, self._tickers[quote], "sure", last + 1, last + 2, ticker=True)
                        )
                    else:
                        pair.append(_candidate(text, None, "not", last + 1, last + 2, ticker=True))
                    return pair
            return [_candidate(text, term.coin, term.grade, at, last, ticker=term.ticker)]
        return self._glued_pair(text, at)

    def _glued_pair(self, text: Text, at: int) -> list[Candidate]:
        """``BTCUSDT``: a pair in one word."""
        token = text.tokens[at]
        for quote in QUOTES if token.text.isupper() else ():
            base = token.text.removesuffix(quote)
            if base != token.text and base in self._tickers and token.end - token.start == len(token.text):
                candidate = _candidate(text, self._tickers[base], "sure", at, at + 1, ticker=True)
                candidate.end = candidate.start + len(base)
                pair = [candidate]
                if quote in BOTH and quote in self._tickers:
                    other = _candidate(text, self._tickers[quote], "sure", at, at + 1, ticker=True)
                    other.start = candidate.end
                    pair.append(other)
                return pair
        return []


def _candidate(
    text: Text, coin: str | None, grade: Grade, first: int, last: int, *, ticker: bool
) -> Candidate:
    start, end = text.tokens[first].start, text.tokens[last - 1].end
    return Candidate(
        coin, grade, first, last, start, end, ticker, coin is not None and grade in ("sure", "capital")
    )


def _written(term: _Term, text: Text, at: int, last: int) -> bool:
    """Whether the tokens are the term, as it must be written."""
    tokens = text.tokens
    if last > len(tokens):
        return False
    if term.ticker:
        return all(
            token.text == wanted.text for token, wanted in zip(tokens[at:last], term.tokens, strict=True)
        )
    for place, wanted in enumerate(term.tokens):
        fold = text.folds[at + place]
        if fold != wanted.fold and not (place == len(term.tokens) - 1 and fold == wanted.fold + "s"):
            return False
        if fold != wanted.fold and term.grade not in ("sure", "not"):
            return False
    if term.grade in ("sure", "not"):
        return True
    return tokens[at].text[0].isupper() or tokens[at].text == term.tokens[0].text
