"""When each source is looked at: its interval, longer after failures. Pure."""

from collections.abc import Callable
from dataclasses import dataclass

from services.common.backoff import Backoff
from services.common.errors import SourceUnavailableError
from services.news.contract import Poll, QuotaError, Source

#: A source that failed so often in a row does not answer.
GIVEN_UP_AFTER = 3
#: Intervals vary by this share, so that sources do not come round together.
JITTER = 0.1
#: No answer keeps us away for longer than this.
MAX_RETRY_AFTER_S = 86_400.0
#: There is no limit of attempts but the waits.
NO_LIMIT = 1_000_000


@dataclass(slots=True)
class Turn:
    """One source and when it is next."""

    source: Source
    backoff: Backoff
    random: Callable[[], float]
    next_s: float = 0.0
    is_asked: bool = False
    has_ended: bool = False
    has_answered: bool = False
    failures: int = 0
    problem: str | None = None

    def is_due(self, now_s: float) -> bool:
        """Whether to look now."""
        return not (self.is_asked or self.has_ended) and now_s >= self.next_s

    def answered(self, poll: Poll, now_s: float) -> None:
        """A look came back."""
        self.is_asked = False
        self.has_answered = True
        self.has_ended = poll.ended
        if poll.problem is not None:
            self.failed(poll.problem, now_s)
            return
        self.failures, self.problem = 0, None
        self.backoff.succeeded()
        if poll.wait_s is not None:
            self.next_s = now_s + poll.wait_s
        else:
            self.next_s = now_s + self.source.interval_s * (1 + JITTER * (2 * self.random() - 1))

    def failed(self, error: SourceUnavailableError, now_s: float) -> None:
        """A look failed; the next one is later, and as late as the source asks for."""
        self.is_asked = False
        self.failures += 1
        self.problem = str(error)
        # Never sooner than a look that worked.
        self.next_s = max(self.backoff.next_attempt_s(now_s), now_s + self.source.interval_s * (1 - JITTER))
        wait_s = error.retry_after_s or 0.0
        self.next_s = max(
            self.next_s, now_s + (wait_s if isinstance(error, QuotaError) else min(wait_s, MAX_RETRY_AFTER_S))
        )

    @property
    def is_replay(self) -> bool:
        """Whether it is a file, which always answers."""
        return self.source.interval_s == 0

    @property
    def works(self) -> bool:
        """Whether it answered at all, and within its last looks."""
        return self.is_replay or (self.has_answered and self.failures < GIVEN_UP_AFTER)


def none_works(turns: list[Turn]) -> str | None:
    """Why there is no news: no source works. None when one does."""
    if any(turn.works for turn in turns):
        return None
    problems = [f"{turn.source.name}: {turn.problem}" for turn in turns if turn.problem is not None]
    return f"none answers ({'; '.join(problems)[:500]})" if problems else "none has answered yet"
