"""news → news_signals: decode, ignore repeats, find the coins, and leave the rest to `scoring`."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from services.common.errors import ContractError
from services.common.messages import MAX_CLOCK_SKEW_MS, encode, received_at_ms
from services.common.metrics import Metrics
from services.common.news import News, decode_news
from services.common.runner import Context
from services.common.step import Message, State, StepResult
from services.common.stream import Stream
from services.news_signals.coin_list import load_coins
from services.news_signals.coins import CoinFinder
from services.news_signals.engines import build_engine
from services.news_signals.engines.contract import Engine, EngineContext, Story
from services.news_signals.novelty import dump_tellings, load_tellings
from services.news_signals.publisher import KafkaPublisher
from services.news_signals.relevance import relevances, standings
from services.news_signals.scoring import Pending, Scoring, now_ms
from services.news_signals.settings import NewsSignalsSettings

#: Key of a story's state; the state hangs on the message key, which is the story id.
TELLINGS = "tellings"


class NewsSignalsStep:
    """The step of the news_signals service. Its outputs go through `Scoring`, not through its result."""

    def __init__(
        self,
        finder: CoinFinder,
        scoring: Scoring,
        metrics: Metrics,
        clock_ms: Callable[[], int] = now_ms,
    ) -> None:
        self._finder = finder
        self._scoring = scoring
        self._clock_ms = clock_ms
        # A story has no exchange; the label says what the newest row was.
        self._last_event = metrics.last_event.labels("news")
        self._stories = metrics.counter("stories_total", "Tellings taken, repeats not counted")
        self._duplicates = metrics.counter("duplicate_stories_total", "Tellings known before, ignored")
        self._without = metrics.counter("stories_without_coins_total", "Tellings that name no known coin")
        self._hints = metrics.counter("unknown_hints_total", "Coins named by sources that the list lacks")

    def __call__(self, message: Message, state: State) -> StepResult:
        """Take the tellings of `message`, which are of one story. Raises `ContractError`."""
        stories, result = self._decode(message)
        if not stories:
            return result
        tellings = load_tellings(state.get_bytes(TELLINGS))
        known = tellings.count
        received = received_at_ms(message.headers)
        for story in stories:
            novelty = tellings.admit(story.observed_at_ms)
            if novelty is None:
                self._duplicates.inc()
                continue
            self._stories.inc()
            self._take(story, novelty, received)
        if tellings.count != known:
            state.set_bytes(TELLINGS, dump_tellings(tellings))
        self._last_event.set(stories[-1].observed_at_ms / 1000)
        result.rows_in = len(stories)
        return result

    def _take(self, story: News, novelty: float, received: int | None) -> None:
        found = self._finder.find(story.title, story.body, story.coins)
        self._hints.inc(found.unknown_hints)
        if not found.coins:
            self._without.inc()
            return
        relevance = relevances(standings(found, story.title, story.body))
        asked = Story(story.title, story.body, found.coins, found.mentions, found.body_mentions)
        self._scoring.add(Pending(story, asked, relevance, novelty, received))

    def _decode(self, message: Message) -> tuple[list[Any], StepResult]:
        """The good tellings, and a result that refuses the others."""
        decoded, refused = decode_news(message.key, message.value)
        bad = {index for index, _, _ in refused}
        indexes = (index for index in range(len(decoded) + len(bad)) if index not in bad)
        limit_ms = self._clock_ms() + MAX_CLOCK_SKEW_MS
        stories: list[Any] = []
        for index, story in zip(indexes, decoded, strict=True):
            ahead_ms = story.observed_at_ms - limit_ms
            if ahead_ms > 0:
                # Whoever joins on observed times would wait for this one.
                error = ContractError("future_event", f"observed {ahead_ms + MAX_CLOCK_SKEW_MS} ms from now")
                refused.append((index, encode([story]), error))
            else:
                stories.append(story)
        return stories, StepResult(refused=refused)


class NewsSignalsPipeline:
    """The stream and the engine that it asks."""

    def __init__(self, stream: Stream, engine: Engine) -> None:
        self._stream = stream
        self._engine = engine

    def run(self) -> None:
        """Run until told to stop, then close the engine."""
        try:
            self._stream.run()
        finally:
            self._engine.close()


def engine_of(settings: NewsSignalsSettings, metrics: Metrics) -> Engine:
    """The engine that the settings choose, with the embedded one to fall back to. Raises `SettingsError`."""

    def context(fallback: Callable[[], Engine]) -> EngineContext:
        # Beside the stream's own folder, which Quix may clear.
        return EngineContext(settings, metrics, settings.state_dir / "news_signals_engine", fallback)

    def embedded() -> Engine:
        return build_engine("embedded", context(embedded))

    return build_engine(settings.engine, context(embedded))


def build_pipeline(settings: NewsSignalsSettings, context: Context) -> NewsSignalsPipeline:
    """The news_signals service: `news` in, `news_signals` out. Raises `SettingsError`."""
    finder = CoinFinder(load_coins(settings.coins_path, replace=settings.coins_replace))
    with ExitStack() as undo:
        # Before the broker is asked for anything: a key that is missing will not come with it.
        engine = engine_of(settings, context.metrics)
        undo.callback(engine.close)
        stream = Stream(settings, context, ("news", "news_signals"))
        publisher = KafkaPublisher(context)
        scoring = Scoring(engine, publisher, context.metrics, context.health, settings.batch)
        step = NewsSignalsStep(finder, scoring, context.metrics)
        stream.add_step("news", step, destination="news_signals", flush=scoring.flush)
        undo.pop_all()
    return NewsSignalsPipeline(stream, engine)
