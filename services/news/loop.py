"""One loop in the main thread that owns the clock, the registry and the producer.

Each look at a source runs in a thread of its own and reports through one queue, so that a server that
hangs delays nobody but itself.
"""

import queue
import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic, time

from loguru import logger

from services.common.backoff import Backoff
from services.common.errors import SourceUnavailableError
from services.common.health import Health
from services.common.metrics import Metrics
from services.common.refusals import Refusals
from services.news.contract import Poll, QuotaError, Source
from services.news.counters import NewsMetrics
from services.news.intake import Intake, Taken
from services.news.publisher import Publisher
from services.news.registry import Registry
from services.news.schedule import NO_LIMIT, Turn, none_works
from services.news.settings import NewsSettings

TICK_S = 0.1
#: Deliveries are written down together, at most this much later. A kill before repeats them.
CONFIRM_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class _Report:
    turn: Turn
    result: Poll | Exception


class NewsLoop:
    """Looks, decides, publishes, until `stop` is set or every source has ended.

    Raises `SourceError`, `BrokerUnavailableError`.
    """

    def __init__(
        self,
        settings: NewsSettings,
        sources: Sequence[Source],
        registry: Registry,
        intake: Intake,
        publisher: Publisher,
        health: Health,
        metrics: Metrics,
        *,
        clock: Callable[[], float] = monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._turns = [
            Turn(
                source,
                Backoff(settings.backoff_min_s, settings.backoff_max_s, NO_LIMIT, jitter),
                jitter,
            )
            for source in sources
        ]
        self._registry = registry
        self._intake = intake
        self._publisher = publisher
        self._health = health
        self._refusals = Refusals(metrics.dead_letters)
        self._metrics = NewsMetrics(metrics)
        self._clock = clock
        self._inbox: queue.Queue[_Report] = queue.Queue()
        self._delivered: list[int] = []
        self._confirm_at = clock()
        self._began = clock()
        self._total: Counter[str] = Counter()

    def run(self, stop: threading.Event) -> None:
        """Block until done."""
        self._health.require("sources", none_works(self._turns))
        if all(turn.is_replay for turn in self._turns):
            # There is nobody to wait for.
            self._health.input_arrived()
        left_over = self._registry.unconfirmed()
        if left_over:
            logger.info("sending {} messages again that an earlier run did not see delivered", len(left_over))
            self._publisher.send(left_over)
        try:
            while not stop.is_set() and not all(turn.has_ended for turn in self._turns):
                self._health.tick()
                self._confirm(self._publisher.poll())
                self._ask_who_is_due()
                self._handle_reports()
        finally:
            for turn in self._turns:
                turn.source.close()
        self._confirm(self._publisher.flush(), now=True)
        if all(turn.has_ended for turn in self._turns):
            # A rerun plays it all again, under the same ids.
            self._registry.forget()
            self._log_summary()
        else:
            self._registry.close()

    def _ask_who_is_due(self) -> None:
        now_s = self._clock()
        for turn in self._turns:
            if turn.is_due(now_s):
                turn.is_asked = True
                cursor = self._registry.cursor(turn.source.name)
                # A daemon: a stop need not wait for a server.
                name = f"look-{turn.source.name}"
                threading.Thread(target=self._look, args=(turn, cursor), name=name, daemon=True).start()

    def _look(self, turn: Turn, cursor: str | None) -> None:
        try:
            self._inbox.put(_Report(turn, turn.source.poll(cursor)))
        except Exception as error:
            # Raised in the main thread unless it is one that is expected.
            self._inbox.put(_Report(turn, error))

    def _handle_reports(self) -> None:
        """Wait for one report, then take what else is there."""
        try:
            self._handle(self._inbox.get(timeout=TICK_S))
            while True:
                self._handle(self._inbox.get_nowait())
        except queue.Empty:
            return

    def _handle(self, report: _Report) -> None:
        turn, result = report.turn, report.result
        if isinstance(result, SourceUnavailableError):
            turn.failed(result, self._clock())
            self._on_problem(turn, result)
        elif isinstance(result, Exception):
            raise result
        else:
            self._on_answer(turn, result)
        self._health.require("sources", none_works(self._turns))

    def _on_answer(self, turn: Turn, poll: Poll) -> None:
        name = turn.source.name
        taken = self._intake.take(name, poll, self._registry.cursor(name))
        self._publisher.send(taken.messages)
        self._count(name, taken, is_replay=turn.is_replay)
        turn.answered(poll, self._clock())
        self._health.input_arrived()
        self._metrics.last_success.labels(name).set(time())
        if poll.problem is not None:
            self._on_problem(turn, poll.problem)
            return
        self._metrics.fetches.labels(name, "not_modified" if poll.not_modified else "ok").inc()
        self._health.require(f"quota of {name}", None)

    def _on_problem(self, turn: Turn, error: SourceUnavailableError) -> None:
        name = turn.source.name
        is_quota = isinstance(error, QuotaError)
        self._metrics.fetches.labels(name, "quota" if is_quota else "error").inc()
        wait_s = turn.next_s - self._clock()
        if is_quota:
            logger.error("{}: {}", name, error)
            self._health.require(f"quota of {name}", str(error))
        else:
            logger.warning("{}: {}; next look in {:.0f} s", name, error, wait_s)

    def _count(self, name: str, taken: Taken, *, is_replay: bool) -> None:
        self._metrics.items.labels(name).inc(taken.tellings)
        self._metrics.repeats.labels(name).inc(taken.repeats)
        self._metrics.duplicates.labels(name).inc(taken.duplicates)
        for reason, count in taken.ignored.items():
            if count:
                self._metrics.ignored.labels(name, reason).inc(count)
        for error in taken.refused:
            self._refusals.note(f"from {name}", error)
        if taken.tellings and not is_replay:
            logger.info("{}: {} new, {} of them told before", name, taken.tellings, taken.duplicates)
        self._total.update(
            tellings=taken.tellings,
            duplicates=taken.duplicates,
            repeats=taken.repeats,
            empty=taken.ignored["empty_text"],
            refused=len(taken.refused),
        )

    def _confirm(self, delivered: Sequence[int], *, now: bool = False) -> None:
        self._delivered += delivered
        if self._delivered and (now or self._clock() >= self._confirm_at):
            self._registry.confirm(self._delivered)
            self._delivered = []
            self._confirm_at = self._clock() + CONFIRM_EVERY_S

    def _log_summary(self) -> None:
        total = self._total
        logger.info(
            "played {:,} tellings ({:,} of stories told before) in {:.1f} s; {:,} repeats and {:,} without "
            "words ignored, {:,} refused",
            *(total["tellings"], total["duplicates"], self._clock() - self._began),
            *(total["repeats"], total["empty"], total["refused"]),
        )
