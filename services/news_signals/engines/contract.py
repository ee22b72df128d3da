"""What an engine does: stories in, an opinion for each coin out. Each file here that `REGISTRY` names is one.

An engine decides nothing about which coins a story is about, how relevant or how new it is; that is the
service's. Article text is untrusted: nothing in it may change what is asked.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from services.common.metrics import Metrics

#: Stands for the whole text where it has no coin: nothing is masked.
OVERALL = ""


@dataclass(frozen=True, slots=True)
class Mention:
    """A coin named in a text, at ``text[start:end]``."""

    coin: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Story:
    """One telling as an engine sees it.

    `mentions` are those in `title` and `body_mentions` those in `body`, both in order and without
    overlap. `coins` are what is asked about; a coin may be named in neither text (the source hinted at
    it) and `OVERALL` asks about the text as a whole.
    """

    title: str
    body: str
    coins: tuple[str, ...]
    mentions: tuple[Mention, ...] = ()
    body_mentions: tuple[Mention, ...] = ()


@dataclass(frozen=True, slots=True)
class Opinion:
    """What an engine thinks of one coin in one story.

    The probabilities add up to 1. `signal` is what the engine's calibrated thresholds make of them.
    """

    p_pos: float
    p_neu: float
    p_neg: float
    signal: Literal[-1, 0, 1]
    engine: str
    model_version: str

    @property
    def score(self) -> float:
        """p_pos - p_neg, in [-1, 1]."""
        return max(-1.0, min(1.0, self.p_pos - self.p_neg))

    @property
    def confidence(self) -> float:
        """Probability of the class that the signal names."""
        return (self.p_neg, self.p_neu, self.p_pos)[self.signal + 1]


class Engine(Protocol):
    """Scores stories. It answers always: an engine that can fail has another to fall back to."""

    def score(self, stories: Sequence[Story]) -> list[tuple[Opinion, ...]]:
        """For each story one opinion per coin, in the order of ``story.coins``.

        The same stories give the same opinions, however they are batched (an LLM: while its cache
        holds them).
        """

    def close(self) -> None:
        """Let go of files and connections."""


@dataclass(frozen=True, slots=True)
class EngineContext:
    """What an engine's factory is given: its settings, metrics, a folder of its own that survives restarts,
    and a maker of the engine to fall back to."""

    #: `NewsSignalsSettings`, whose fields an engine reads by its own prefix.
    settings: Any
    metrics: Metrics
    state_dir: Path
    fallback: Callable[[], Engine]


type EngineFactory = Callable[[EngineContext], Engine]
