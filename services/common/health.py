"""Whether a service is alive and ready, with the reasons when it is not. Pure but for the clock."""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

#: The main loop ticks several times a second; silence for this long means that it hangs.
LOOP_DEAD_AFTER_S = 30.0
#: A partition with waiting messages whose position does not move for this long is stuck.
PARTITION_STUCK_AFTER_S = 60.0


@dataclass
class _Progress:
    position: int
    lag: int
    moved_at: float


@dataclass
class Health:
    """What the main thread reports of itself, and what the HTTP thread asks.

    A service is *live* while its main loop ticks and no partition is stuck; a quiet market does not
    kill it. It is *ready* when every named condition is met and input (rows or heartbeats) is fresh.
    """

    stale_after_s: float
    clock: Callable[[], float] = monotonic
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _conditions: dict[str, str | None] = field(default_factory=dict)
    _progress: dict[tuple[str, int], _Progress] = field(default_factory=dict)
    _last_tick: float | None = None
    _last_input: float | None = None

    def tick(self) -> None:
        """The main loop went round."""
        self._last_tick = self.clock()

    def input_arrived(self) -> None:
        """Rows or a heartbeat came in."""
        self._last_input = self._last_tick = self.clock()

    def require(self, condition: str, why_not: str | None) -> None:
        """State of a named condition: None when it is met, else the reason that it is not."""
        with self._lock:
            self._conditions[condition] = why_not

    def partition(self, topic: str, partition: int, position: int, lag: int) -> None:
        """Where the consumer stands in a partition and how many messages wait in it."""
        now = self.clock()
        with self._lock:
            known = self._progress.get((topic, partition))
            moved = known is None or known.position != position or lag == 0
            moved_at = now if moved or known is None else known.moved_at
            self._progress[topic, partition] = _Progress(position, lag, moved_at)

    def forget_partition(self, topic: str, partition: int) -> None:
        """The partition is another consumer's now; what waits in it is not ours to judge."""
        with self._lock:
            self._progress.pop((topic, partition), None)

    def not_live(self) -> list[str]:
        """Why the process should be restarted; empty when it is live."""
        now = self.clock()
        reasons = []
        if self._last_tick is not None and now - self._last_tick > LOOP_DEAD_AFTER_S:
            reasons.append(f"the main loop has not run for {now - self._last_tick:.0f} s")
        with self._lock:
            for (topic, partition), at in self._progress.items():
                stuck_s = now - at.moved_at
                if at.lag > 0 and stuck_s > PARTITION_STUCK_AFTER_S:
                    reasons.append(
                        f"{topic}[{partition}] has {at.lag} messages waiting and stands still "
                        f"for {stuck_s:.0f} s"
                    )
        return reasons

    def not_ready(self) -> list[str]:
        """Why the service is not ready; empty when it is."""
        reasons = self.not_live()
        with self._lock:
            reasons += [f"{name}: {why}" for name, why in self._conditions.items() if why is not None]
        if self._last_input is None:
            reasons.append("no input yet")
        elif self.clock() - self._last_input > self.stale_after_s:
            reasons.append(f"no input for {self.clock() - self._last_input:.0f} s")
        return reasons


def read_statistics(text: str, health: Health) -> dict[tuple[str, int], int]:
    """Feed librdkafka's consumer statistics into `health`; returns the lag of each partition."""
    health.tick()
    lags: dict[tuple[str, int], int] = {}
    statistics: dict[str, Any] = json.loads(text)
    for topic, of_topic in statistics.get("topics", {}).items():
        for name, of_partition in of_topic.get("partitions", {}).items():
            position = of_partition.get("app_offset", -1)
            if int(name) < 0 or of_partition.get("fetch_state") != "active":
                health.forget_partition(topic, int(name))
                continue
            lag = max(0, of_partition.get("consumer_lag_stored", -1), of_partition.get("consumer_lag", -1))
            health.partition(topic, int(name), position, lag)
            lags[topic, int(name)] = lag
    group = statistics.get("cgrp", {})
    assigned = group.get("assignment_size", 0)
    health.require("partitions", None if assigned else "none assigned (starting, or a spare replica)")
    # The group keeps its partitions until the session times out, so it does not tell this soon.
    reachable = any(of_broker.get("state") == "UP" for of_broker in statistics.get("brokers", {}).values())
    health.require("broker", None if reachable else "cannot be reached")
    return lags
