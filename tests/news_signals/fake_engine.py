"""An engine whose opinions are a pure function of the text, and the service that runs with it.

`python -m tests.news_signals.fake_engine [POINT COUNT]`; with a point it is killed there.
"""

import hashlib
import sys
from collections.abc import Sequence
from typing import Any, cast

from services.common.runner import run_service
from services.news_signals import engines
from services.news_signals.engines.contract import Engine, EngineContext, Opinion, Story
from services.news_signals.pipeline import build_pipeline
from services.news_signals.settings import NewsSignalsSettings
from tests.pipeline import victim


class FakeEngine:
    def __init__(self) -> None:
        self.batches: list[int] = []
        self.closed = False

    def score(self, stories: Sequence[Story]) -> list[tuple[Opinion, ...]]:
        self.batches.append(len(stories))
        return [tuple(opinion(story, coin) for coin in story.coins) for story in stories]

    def close(self) -> None:
        self.closed = True


def opinion(story: Story, coin: str) -> Opinion:
    digest = hashlib.sha256(f"{story.title}|{story.body}|{coin}".encode()).digest()
    parts = [1 + digest[index] for index in range(3)]
    p_pos, p_neu, p_neg = (part / sum(parts) for part in parts)
    signal = max((p_neg, -1), (p_neu, 0), (p_pos, 1))[1]
    return Opinion(p_pos, p_neu, p_neg, cast("Any", signal), "fake", "1")


def build(context: EngineContext) -> Engine:
    return FakeEngine()


def choose(name: str = "embedded") -> None:
    """Put this engine in the place of one that the settings know."""
    cast("dict[str, str]", engines.REGISTRY)[name] = __spec__.name if __spec__ else __name__


def arm(point: str, number: int) -> None:
    if point == "mid_scoring":
        victim.at(FakeEngine, "score", number, after=True)
    elif point == "after_publish":
        from services.news_signals.publisher import KafkaPublisher

        victim.at(KafkaPublisher, "signals", number, after=True)
    elif point == "after_flush":
        from services.news_signals.publisher import KafkaPublisher

        victim.at(KafkaPublisher, "flush", number, after=True)
    else:
        victim.arm(point, number)


if __name__ == "__main__":
    # Run as __main__, this file is imported once more under its name by the registry.
    from tests.news_signals import fake_engine

    fake_engine.choose()
    if len(sys.argv) > 1:
        fake_engine.arm(sys.argv[1], int(sys.argv[2]))
    sys.exit(run_service("news_signals", NewsSignalsSettings, build_pipeline))
