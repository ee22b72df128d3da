"""A circuit breaker: a model that fails again and again is left alone for a while. Pure but for the clock."""

from collections.abc import Callable

from loguru import logger

#: What needs somebody to act (a wrong key, an empty account) is not tried again sooner.
LONG_PAUSE_S = 600.0
#: A provider may ask for any wait; a longer one is looked at again after this.
MAX_PAUSE_S = 3_600.0


class Breaker:
    """Closed: requests pass. Open: none passes until `pause_s` are over. Half-open: one passes, as a probe.

    Only a valid answer ends a row of failures; any answer ends a probe. `clock` is in seconds and
    monotonic.
    """

    def __init__(self, max_failures: int, pause_s: float, clock: Callable[[], float]) -> None:
        self._max_failures = max_failures
        self._pause_s = pause_s
        self._clock = clock
        self._failures = 0
        self._open_until: float | None = None
        self._probing = False

    def wait_s(self) -> float:
        """How long no request may pass; 0 when one may, or waits for the probe's outcome."""
        return 0.0 if self._open_until is None else max(0.0, self._open_until - self._clock())

    def admit(self) -> bool:
        """Whether a request may go out now. One that was admitted must be reported back."""
        if self._open_until is None:
            return True
        if self._probing or self._clock() < self._open_until:
            return False
        self._probing = True
        return True

    def not_sent(self) -> None:
        """The admitted request was not sent after all."""
        self._probing = False

    def answered(self) -> None:
        """The provider answered, well or badly."""
        if self._open_until is not None:
            logger.info("the model answers again")
        self._open_until = None
        self._probing = False

    def succeeded(self) -> None:
        """The answer was valid."""
        self._failures = 0

    def failed(self, why: str, pause_s: float | None = None) -> None:
        """A request failed; with `pause_s` the next ones would too for that long."""
        self._failures += 1
        probed, self._probing = self._probing, False
        if pause_s is None and not probed and self._failures < self._max_failures:
            return
        pause_s = min(MAX_PAUSE_S, max(self._pause_s, pause_s or 0.0))
        until = self._clock() + pause_s
        # Requests that were under way when it opened change nothing.
        if self._open_until is None or probed or until > self._open_until + 1:
            logger.warning(
                "the model is left alone for {:.0f} s and the fallback answers: {} ({} failures in a row)",
                pause_s,
                why,
                self._failures,
            )
        self._open_until = until if self._open_until is None or probed else max(self._open_until, until)
