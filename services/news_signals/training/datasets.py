"""The labelled headlines as training samples: text as the model reads it, label, data set, split. Pure.

Labels are 0 negative, 1 neutral, 2 positive. A title goes to one split with all that is made of it, so that
no test title was seen in training under another mask.
"""

import csv
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

import msgspec

from services.news_signals.engines.contract import Mention
from services.news_signals.engines.masking import mask

LABELS = {"negative": 0, "neutral": 1, "positive": 2, "neg": 0, "neu": 1, "pos": 2, "-": 0, "0": 1, "+": 2}
TFNS_LABELS = {"0": 0, "1": 2, "2": 1}
TEST_PERCENT = 10

type Split = Literal["train", "calibration", "test"]
#: Finds the coins named in a title.
type Find = Callable[[str], Sequence[Mention]]

_DECISION = re.compile(r"""['"](.+?)['"]: ['"](positive|negative|neutral)['"](?:, |\}$)""")
_URL = re.compile(r"https?://\S+")
_CASHTAG = re.compile(r"\$[A-Z]{1,5}\b")


class Sample(msgspec.Struct, frozen=True):
    """One text and its label. `entity` is what was masked as the target, "" for the text as a whole."""

    text: str
    label: int
    dataset: str
    split: Split
    entity: str = ""
    #: How many entities the title is about.
    entities: int = 1
    file: str = ""
    kind: str = ""


def sentfin(lines: Iterable[str]) -> Iterator[Sample]:
    """SEntFiN: a sample for each entity and, where all agree, one for the title as a whole."""
    for row in csv.DictReader(lines):
        title = row["Title"]
        # The column looks like a Python dict, but names with apostrophes are not escaped.
        decisions = dict(_DECISION.findall(row["Decisions"].strip().removeprefix("{")))
        split: Split = "test" if _percent(title) < TEST_PERCENT else "train"
        mentions = list(_entity_mentions(title, decisions))
        found = {mention.coin for mention in mentions}
        for entity, label in decisions.items():
            if entity in found:
                text = mask(title, mentions, entity)
                yield Sample(text, LABELS[label], "sentfin", split, entity, len(decisions))
        if len(set(decisions.values())) == 1:
            label = next(iter(decisions.values()))
            yield Sample(title, LABELS[label], "sentfin", split, entities=len(decisions))


def tfns(lines: Iterable[str], split: Split) -> Iterator[Sample]:
    """Twitter Financial News: the text, and in training also with its only cashtag masked."""
    for row in csv.DictReader(lines):
        text = _URL.sub("", row["text"]).strip()
        label = TFNS_LABELS[row["label"]]
        yield Sample(text, label, "tfns", split)
        tags = set(_CASHTAG.findall(text))
        if split == "train" and len(tags) == 1:
            yield Sample(_CASHTAG.sub("[TARGET]", text), label, "tfns", split, tags.pop())


def crypto(lines: Iterable[str], split: Split, file: str, find: Find) -> Iterator[Sample]:
    """Our own headlines: one sample for the title as a whole and one for each coin that `find` finds."""
    for row in csv.DictReader(lines):
        title, kind = row["title"], row["kind"] or "natural"
        labels = {item[:-1]: LABELS[item[-1]] for item in row["coins"].split()}
        yield Sample(title, LABELS[row["overall"]], "crypto", split, "", len(labels), file, kind)
        mentions = find(title)
        for coin in dict.fromkeys(mention.coin for mention in mentions):
            if coin in labels:
                text = mask(title, mentions, coin)
                yield Sample(text, labels[coin], "crypto", split, coin, len(labels), file, kind)


def _entity_mentions(title: str, names: Iterable[str]) -> list[Mention]:
    """The first place of each name, longest names first, without overlap."""
    lower = title.lower()
    mentions: list[Mention] = []
    for name in sorted(names, key=len, reverse=True):
        start = lower.find(name.lower())
        while start >= 0 and any(m.start < start + len(name) and start < m.end for m in mentions):
            start = lower.find(name.lower(), start + 1)
        if start >= 0:
            mentions.append(Mention(name, start, start + len(name)))
    return sorted(mentions, key=lambda mention: mention.start)


def _percent(title: str) -> int:
    """A number from 0 to 99 that a title always gets, however it is punctuated."""
    words = re.sub(r"[^a-z0-9]+", " ", title.lower()).strip()
    return int(hashlib.sha256(words.encode()).hexdigest()[:8], 16) % 100
