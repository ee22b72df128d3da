"""The LLM engine: a language model rates the stories, a cache remembers, the fallback engine never fails.

What it asks is in `services/news_signals/llm/prompt.py`, what it accepts in `answers.py`, what it may cost
in `budget.py`. Whatever goes wrong with the model, the fallback answers for the stories concerned, and
`engine` of the opinion says so.
"""

import asyncio
import random
import time
from collections import Counter as Tally
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from loguru import logger

from services.news_signals.engines.contract import Engine, EngineContext, Opinion, Story
from services.news_signals.llm.breaker import Breaker
from services.news_signals.llm.budget import Budget, Caps
from services.news_signals.llm.errors import LlmError
from services.news_signals.llm.loop import LoopThread
from services.news_signals.llm.prompt import PROMPT_VERSION, Question, answer_key, question_of
from services.news_signals.llm.provider import Target, require_extra, target_of
from services.news_signals.llm_settings import LlmSettings

if TYPE_CHECKING:
    import httpx2

    from services.news_signals.llm.answers import Probabilities
    from services.news_signals.llm.asker import Asker
    from services.news_signals.llm.cache import Cache
    from services.news_signals.llm.guard import Counters

NAME = "llm"
DAY_S = 86_400
#: A reason that goes on and on is logged once in this time.
REPEAT_LOG_S = 600.0


@dataclass(frozen=True)
class Clocks:
    """Time and chance: Unix seconds, monotonic seconds, a sleep, a number in [0, 1)."""

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    random: Callable[[], float] = random.random


class LlmEngine:
    """Scores stories by `asker`'s model; `fallback` scores those without a valid answer."""

    def __init__(
        self,
        target: Target,
        asker: "Asker",
        client: "httpx2.AsyncClient",
        cache: "Cache",
        fallback: Engine,
        deadline_s: float,
        clock: Callable[[], float],
    ) -> None:
        from services.news_signals.llm.answers import SCHEMA_VERSION

        self._target = target
        self._schema_version = SCHEMA_VERSION
        self._version = f"{target.name}/{PROMPT_VERSION}.{SCHEMA_VERSION}"
        self._asker = asker
        self._client = client
        self._cache = cache
        self._fallback = fallback
        self._deadline_s = deadline_s
        self._clock = clock
        self._logged_at: dict[str, float] = {}
        self._loop = LoopThread("llm")

    @property
    def counters(self) -> "Counters":
        """What was asked, spent and missed."""
        return self._asker.guard.counters

    def score(self, stories: Sequence[Story]) -> list[tuple[Opinion, ...]]:
        """For each story one opinion per coin, in the order of ``story.coins``. Raises `StoreError`."""
        questions = [question_of(story) for story in stories]
        keys = [self._key(question) for question in questions]
        found = self._cache.get(set(keys))
        self.counters.cache_hits.inc(sum(key in found for key in keys))
        # The same text twice is asked once.
        missing = {
            key: question
            for key, question in zip(keys, questions, strict=True)
            if key not in found and question.coins and question.title
        }
        failures = self._ask(missing, found) if missing else {}
        lost = [i for i, key in enumerate(keys) if key not in found and stories[i].coins]
        for i in lost:
            failures.setdefault(keys[i], LlmError("empty", "nothing is left of the text"))
        fallen = dict(zip(lost, self._fall_back([stories[i] for i in lost]), strict=True)) if lost else {}
        self._report([failures[keys[i]] for i in lost])
        return [
            fallen[i] if i in fallen else tuple(self._opinion(found[keys[i]][coin]) for coin in story.coins)
            for i, story in enumerate(stories)
        ]

    def close(self) -> None:
        """Let go of files, connections and the fallback."""
        self._loop.run(self._client.aclose())
        self._loop.close()
        self._cache.close()
        self._asker.guard.budget.close()
        self._fallback.close()

    def __repr__(self) -> str:
        return f"LlmEngine({self._target!r})"

    def _key(self, question: Question) -> bytes:
        # The address and the form of the answer are part of what answers.
        model = f"{self._target.name} {self._target.base_url} {self._target.output}"
        return answer_key(model, self._schema_version, question)

    def _ask(
        self, missing: dict[bytes, Question], found: dict[bytes, dict[str, "Probabilities"]]
    ) -> dict[bytes, LlmError]:
        """Ask about `missing`, add the answers to `found`; why there are none for the rest."""
        keys = list(missing)

        def answered(position: int, answer: dict[str, "Probabilities"]) -> None:
            # At once, so that what was paid for survives whatever comes next.
            self._cache.put({keys[position]: answer})

        deadline = self._clock() + self._deadline_s
        outcomes = self._loop.run(self._asker.ask(list(missing.values()), deadline, answered))
        failures: dict[bytes, LlmError] = {}
        for key, outcome in zip(keys, outcomes, strict=True):
            if isinstance(outcome, LlmError):
                failures[key] = outcome
            else:
                found[key] = outcome
        return failures

    def _fall_back(self, stories: Sequence[Story]) -> list[tuple[Opinion, ...]]:
        return self._fallback.score(stories)

    def _opinion(self, probabilities: "Probabilities") -> Opinion:
        return Opinion(*probabilities, signal_of(probabilities), NAME, self._version)

    def _report(self, failures: Sequence[LlmError]) -> None:
        tally = Tally(failure.reason for failure in failures)
        details = {failure.reason: failure.detail for failure in failures}
        now = self._clock()
        for reason, count in tally.items():
            self.counters.fallbacks.labels(reason).inc(count)
            # The breaker says itself when it opens.
            quiet_until = self._logged_at.get(reason, -REPEAT_LOG_S) + REPEAT_LOG_S
            if reason == "breaker" or now < quiet_until:
                continue
            self._logged_at[reason] = now
            logger.warning(
                "the fallback engine answers, stories: {}; {}: {}; llm_fallbacks_total counts the next ones",
                count,
                reason,
                details[reason],
            )


def signal_of(probabilities: "Probabilities") -> Literal[-1, 0, 1]:
    """The likeliest class; neutral where it is not alone.

    An LLM answers about any coin on the same scale, so that no thresholds are fitted to it.
    """
    p_pos, p_neu, p_neg = probabilities
    if p_pos > max(p_neu, p_neg):
        return 1
    return -1 if p_neg > max(p_neu, p_pos) else 0


def build(context: EngineContext, clocks: Clocks | None = None) -> LlmEngine:
    """The engine that the settings describe. Raises `SettingsError` and `StoreError`."""
    settings: LlmSettings = context.settings
    clocks = clocks or Clocks()
    target = target_of(settings)
    require_extra(target)
    # Heavy, and only there with the extra.
    from services.news_signals.llm.asker import Asker
    from services.news_signals.llm.cache import Cache
    from services.news_signals.llm.client import build_model, http_client
    from services.news_signals.llm.guard import Counters, Guard

    # First, so that a fallback that is not installed is known now and not when it is needed.
    fallback = context.fallback()
    caps = Caps(
        settings.llm_daily_tokens, settings.llm_daily_usd, settings.llm_input_usd, settings.llm_output_usd
    )
    guard = Guard(
        Breaker(settings.llm_breaker_failures, settings.llm_breaker_s, clocks.monotonic),
        Budget(context.state_dir / "llm_budget.sqlite", caps, clocks.wall),
        Counters(context.metrics),
        settings.llm_timeout_s,
        settings.llm_retries,
        settings.llm_max_output_tokens,
        target.key,
        clocks.monotonic,
        clocks.sleep,
        clocks.random,
    )
    cache = Cache(
        settings.llm_cache_path or context.state_dir / "llm_cache.sqlite",
        settings.llm_cache_rows,
        settings.llm_cache_days * DAY_S,
        clocks.wall,
    )
    client = http_client(settings.llm_timeout_s)
    asker = Asker(
        build_model(target, client),
        guard,
        target.output,
        settings.llm_batch,
        asyncio.Semaphore(settings.llm_concurrency),
    )
    logger.info("stories are rated by {} at {}", target.name, target.base_url)
    return LlmEngine(target, asker, client, cache, fallback, settings.llm_deadline_s, clocks.monotonic)
