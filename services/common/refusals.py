"""Counts what goes to the dead letters, and tells the log of it without drowning the log."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from loguru import logger
from prometheus_client import Counter

from services.common.errors import ContractError

#: Of each reason so many lines in so many seconds. The metric and the topic have them all.
LINES = 10
WINDOW_S = 10.0


@dataclass(slots=True)
class _Window:
    began: float
    lines: int = 0
    held_back: int = 0


class Refusals:
    """The refused messages and rows of one service."""

    def __init__(self, counter: Counter, clock: Callable[[], float] = time.monotonic) -> None:
        """`counter` has the label ``reason``; `clock` gives seconds."""
        self._counter = counter
        self._clock = clock
        self._windows: dict[str, _Window] = {}

    def note(self, where: str, error: ContractError) -> None:
        """Count a refusal. `where` says what was refused: a position on a topic, a source."""
        self._counter.labels(error.reason).inc()
        now = self._clock()
        window = self._windows.setdefault(error.reason, _Window(now))
        if now - window.began >= WINDOW_S:
            if window.held_back:
                logger.warning(
                    "{} more dead letters like that in {:.0f} s: {}",
                    window.held_back,
                    now - window.began,
                    error.reason,
                )
            window = self._windows[error.reason] = _Window(now)
        if window.lines < LINES:
            window.lines += 1
            logger.warning("dead letter {}: {}", where, error)
        else:
            window.held_back += 1
            if window.held_back == 1:
                logger.warning(
                    "many dead letters for {}: they are on the topic dead_letters and in its metric, "
                    "but not every one is logged any more",
                    error.reason,
                )
