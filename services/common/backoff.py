"""When to try again: jittered exponential backoff within a limit of attempts. Pure."""

from collections import deque
from collections.abc import Callable

WINDOW_S = 600.0
#: A connection that held this long was good; the next failure starts from the shortest wait.
STABLE_S = 30.0


class Backoff:
    """Waits double from `min_s` to `max_s`; at most `max_attempts` in any ten minutes."""

    def __init__(self, min_s: float, max_s: float, max_attempts: int, random: Callable[[], float]) -> None:
        self._min_s = min_s
        self._max_s = max_s
        self._max_attempts = max_attempts
        self._random = random
        self._failures = 0
        self._attempts: deque[float] = deque()

    def attempt(self, now_s: float) -> None:
        """A connection is being tried."""
        self._attempts.append(now_s)

    def succeeded(self) -> None:
        """A connection has held."""
        self._failures = 0

    def next_attempt_s(self, now_s: float) -> float:
        """When to try again after a failure now (same clock)."""
        # The cap keeps the power finite; jitter keeps clients from coming back all at once.
        wait_s = min(self._max_s, self._min_s * 2.0 ** min(self._failures, 30))
        self._failures += 1
        at_s = now_s + wait_s * (0.5 + self._random() / 2)
        while self._attempts and self._attempts[0] <= now_s - WINDOW_S:
            self._attempts.popleft()
        if len(self._attempts) >= self._max_attempts:
            at_s = max(at_s, self._attempts[-self._max_attempts] + WINDOW_S)
        return at_s
