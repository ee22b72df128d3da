"""Headlines without a stream: what the service would say of each, coin by coin and as a whole."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import batched
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, Self

from services.common.errors import ServiceError
from services.common.metrics import Metrics
from services.common.news import MAX_TITLE_CHARS
from services.news_signals.coin_list import load_coins
from services.news_signals.coins import CoinFinder
from services.news_signals.engines.contract import OVERALL, Opinion, Story
from services.news_signals.pipeline import engine_of
from services.news_signals.relevance import relevances, standings
from services.news_signals.settings import NewsSignalsSettings

type Label = Literal["negative", "neutral", "positive"]
LABELS: tuple[Label, Label, Label] = ("negative", "neutral", "positive")
OVERALL_RELEVANCE = 1.0


@dataclass(frozen=True, slots=True)
class Score:
    """What an engine thinks of a coin, or of a headline as a whole; `label` says `signal` in words."""

    p_pos: float
    p_neu: float
    p_neg: float
    score: float
    signal: Literal[-1, 0, 1]
    label: Label
    confidence: float
    relevance: float
    engine: str
    model_version: str


@dataclass(frozen=True, slots=True)
class HeadlineScore:
    """A headline, the score of it all, and of each coin in the order in which they are named."""

    text: str
    overall: Score
    coins: dict[str, Score]


class HeadlineScorer:
    """Scores headlines with one engine; a context manager, since engines hold files open."""

    def __init__(self, engine: str | None = None, settings: NewsSignalsSettings | None = None) -> None:
        """Raises `SettingsError` for an engine or settings that are wrong."""
        settings = settings or NewsSignalsSettings.load()
        self._batch = settings.batch
        self._finder = CoinFinder(load_coins(settings.coins_path, replace=settings.coins_replace))
        # The engine's own state (a cache, a budget) is the service's; trying things must not touch it.
        self._folder = TemporaryDirectory(prefix="news-signals-")
        chosen = {"state_dir": Path(self._folder.name), **({"engine": engine} if engine else {})}
        try:
            self._engine = engine_of(settings.model_copy(update=chosen), Metrics())
        except ServiceError:
            self._folder.cleanup()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.close()
        self._folder.cleanup()

    def score(self, headlines: str | Iterable[str]) -> list[HeadlineScore]:
        """The scores of headlines, in order; a text alone is one headline."""
        return list(self.scores(headlines))

    def scores(self, headlines: str | Iterable[str]) -> Iterator[HeadlineScore]:
        """The scores of headlines, in order, a batch at a time. What is longer than a title is cut."""
        if isinstance(headlines, str):
            headlines = [headlines]
        for batch in batched((text[:MAX_TITLE_CHARS] for text in headlines), self._batch):
            found = [self._finder.find(text) for text in batch]
            stories = [
                Story(text, "", (*one.coins, OVERALL), one.mentions)
                for text, one in zip(batch, found, strict=True)
            ]
            for story, one, opinions in zip(stories, found, self._engine.score(stories), strict=True):
                relevance = relevances(standings(one, story.title, ""))
                *of_coins, overall = opinions
                yield HeadlineScore(
                    story.title,
                    _score_of(overall, OVERALL_RELEVANCE),
                    {
                        coin: _score_of(opinion, relevance[coin])
                        for coin, opinion in zip(one.coins, of_coins, strict=True)
                    },
                )


def _score_of(opinion: Opinion, relevance: float) -> Score:
    return Score(
        p_pos=opinion.p_pos,
        p_neu=opinion.p_neu,
        p_neg=opinion.p_neg,
        score=opinion.score,
        signal=opinion.signal,
        label=LABELS[opinion.signal + 1],
        confidence=opinion.confidence,
        relevance=relevance,
        engine=opinion.engine,
        model_version=opinion.model_version,
    )
