"""Text as it is searched: words and signs in one form, with their places in the original. Pure."""

import re
import unicodedata
from dataclasses import dataclass
from functools import cached_property, lru_cache

# A link or a handle names nobody in the story: bitcoinmagazine.com/ethereum-news, @solana.
_NO_PROSE = re.compile(r"https?://\S+|www\.\S+|(?<![\w.])@\w+|[\w.+-]{1,64}@[\w-]+\.\w+", re.IGNORECASE)
_TOKEN = re.compile(r"[^\W_]+|[^\w\s]|_")
_APOSTROPHES = dict.fromkeys(map(ord, "\u2018\u2019\u02bc\u2032\u00b4`"), "'")
#: At least so many words, and this share of them in capitals, make a text that shouts.
SHOUT_WORDS = 4
SHOUT_SHARE = 0.7


@dataclass(frozen=True, slots=True)
class Token:
    """A word or a sign at ``text[start:end]`` of the original; `fold` is `text` without case."""

    text: str
    fold: str
    start: int
    end: int


class Text:
    """A title or a body: its tokens, in order."""

    def __init__(self, original: str) -> None:
        self.length = len(original)
        searched, places = _one_form(original)
        searched = _NO_PROSE.sub(lambda found: " " * len(found[0]), searched)
        self.tokens = [
            Token(
                found[0],
                found[0].casefold(),
                places[found.start()],
                # The end of the character that the last one came of, not the start of the next.
                places[found.end() - 1] + 1,
            )
            for found in _TOKEN.finditer(searched)
        ]

    @cached_property
    def folds(self) -> tuple[str, ...]:
        """The tokens without case."""
        return tuple(token.fold for token in self.tokens)

    @cached_property
    def shouts(self) -> bool:
        """Whether it is written in capitals, so that capitals say nothing."""
        words = [token.text for token in self.tokens if len(token.text) > 1 and token.text.isalpha()]
        capital = sum(word.isupper() for word in words)
        return len(words) >= SHOUT_WORDS and capital >= SHOUT_SHARE * len(words)


def split_term(term: str) -> tuple[Token, ...]:
    """The tokens of a name that is searched for."""
    return tuple(Text(term).tokens)


def _one_form(original: str) -> tuple[str, "range | list[int]"]:
    """Compatibility forms (NFKC) without invisible characters, and the place of each character's origin.

    Letters of other scripts that only look like Latin ones stay what they are: a name in look-alikes is
    no name.
    """
    if original.isascii():
        return original, range(len(original))
    characters: list[str] = []
    places: list[int] = []
    for place, character in enumerate(original):
        for form in _form(character):
            characters.append(form)
            places.append(place)
    return "".join(characters), places


@lru_cache(maxsize=8_192)
def _form(character: str) -> str:
    if unicodedata.category(character) in ("Cf", "Mn"):
        return ""
    return unicodedata.normalize("NFKC", character).translate(_APOSTROPHES)
