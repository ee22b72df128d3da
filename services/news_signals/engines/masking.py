"""Which text the embedded model reads to judge one coin: the coin and the others masked. Pure.

One headline can be good for one coin and bad for another, so the model never sees names: the coin asked
about becomes `TARGET`, every other one `OTHER`. It also keeps the model from knowing coins by reputation.
"""

import re
from collections.abc import Sequence

from services.news_signals.engines.contract import OVERALL, Mention, Story

TARGET, OTHER = "[TARGET]", "[OTHER]"
# Where one sentence of a body ends and the next begins.
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
_PLACEHOLDER = re.compile(r"\[(?:TARGET|OTHER)\]", re.IGNORECASE)
#: A coin's ticker right behind its name, as in "Bitcoin (BTC)", says nothing more.
_REPEATED = re.compile(r"(\[TARGET\]|\[OTHER\])(?:'s)?\s*\(\s*\$?\1\s*\)")


def masked_text(story: Story, coin: str) -> str:
    """The text to judge `coin` by.

    The title where it names the coin, else the first sentence of the body that does, else (the coin is
    only a hint of the source, or `OVERALL`) the whole title as it is.
    """
    if coin == OVERALL:
        return _clean(story.title)
    if any(mention.coin == coin for mention in story.mentions):
        return mask(story.title, story.mentions, coin)
    named = next((mention for mention in story.body_mentions if mention.coin == coin), None)
    if named is None:
        return _clean(story.title)
    start, end = _sentence_around(story.body, named)
    inside = [
        Mention(mention.coin, mention.start - start, mention.end - start)
        for mention in story.body_mentions
        if start <= mention.start and mention.end <= end
    ]
    return mask(story.body[start:end], inside, coin)


def mask(text: str, mentions: Sequence[Mention], coin: str) -> str:
    """`text` with the mentions of `coin` as `TARGET` and those of others as `OTHER`.

    `mentions` are in order and do not overlap.
    """
    parts, at = [], 0
    for mention in mentions:
        parts += [_clean(text[at : mention.start]), TARGET if mention.coin == coin else OTHER]
        at = mention.end
    return _REPEATED.sub(r"\1", "".join([*parts, _clean(text[at:])]))


def _clean(text: str) -> str:
    # A text must not bring placeholders of its own.
    return _PLACEHOLDER.sub(" ", text)


def _sentence_around(body: str, mention: Mention) -> tuple[int, int]:
    start, end = 0, len(body)
    for gap in _SENTENCE_END.finditer(body):
        if gap.end() <= mention.start:
            start = gap.end()
        elif gap.start() >= mention.end:
            end = gap.start()
            break
    return start, end
