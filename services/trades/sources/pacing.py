"""When recorded trades are due in a replay at a given speed. Pure: the clock is passed in."""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

from services.trades.sources.files import Columns
from services.trades.sources.timeline import Window

#: Trades due within this time share a message; no trade is later than this by design.
TICK_S = 0.002
#: The loop comes round this often even when nothing is due.
IDLE_S = 0.1


@dataclass(slots=True)
class Due:
    """What to send now: trades by pair, then a heartbeat with the simulated time."""

    by_pair: dict[str, Columns] = field(default_factory=dict)
    heartbeat_ms: int | None = None
    #: Simulated time up to which everything was given out.
    latest_ms: int = 0


class Pacer:
    """Simulated time begins at the first trade and runs `speed` times as fast as the clock."""

    def __init__(self, stretch: Iterator[Window], speed: float, heartbeat_s: float, now_s: float) -> None:
        self._stretch = stretch
        self._speed = speed
        self._heartbeat_s = heartbeat_s
        self._queues: dict[str, list[Columns]] = {}
        self._until_ms = -1
        self._exhausted = False
        self._origin: tuple[float, int] | None = None
        self._next_heartbeat_s = now_s + heartbeat_s
        self.ended = False

    def due(self, now_s: float) -> Due:
        """Everything due by `now_s`."""
        sim_ms = self._simulated_ms(now_s)
        while not self._exhausted and (self._origin is None or self._until_ms <= sim_ms):
            self._load(now_s)
            sim_ms = self._simulated_ms(now_s)
        due = Due()
        for pair, queue in list(self._queues.items()):
            taken = _take(queue, sim_ms)
            if taken is not None:
                due.by_pair[pair] = taken
                due.latest_ms = max(due.latest_ms, taken.times[-1])
            if not queue:
                del self._queues[pair]
        self.ended = self._exhausted and not self._queues
        # A pair's next part can be due already; then the time is not yet ours to tell.
        is_told = all(queue[0].times[0] > sim_ms for queue in self._queues.values())
        if now_s >= self._next_heartbeat_s and is_told and not self.ended:
            self._next_heartbeat_s = now_s + self._heartbeat_s
            due.heartbeat_ms = sim_ms
        return due

    def pause_s(self, now_s: float) -> float:
        """How long nothing will be due."""
        if self._origin is None:
            return 0.0
        next_ms = min((queue[0].times[0] for queue in self._queues.values()), default=self._until_ms)
        started_s, first_ms = self._origin
        due_s = started_s + (next_ms - first_ms) / 1000 / self._speed
        return min(IDLE_S, self._heartbeat_s, max(TICK_S, due_s - now_s))

    def _simulated_ms(self, now_s: float) -> int:
        if self._origin is None:
            return -1
        started_s, first_ms = self._origin
        return first_ms + int((now_s - started_s) * 1000 * self._speed)

    def _load(self, now_s: float) -> None:
        window = next(self._stretch, None)
        if window is None:
            self._exhausted = True
            return
        self._until_ms = window.until_ms
        for pair, columns in window.by_pair.items():
            self._queues.setdefault(pair, []).append(columns)
        if self._origin is None and window.by_pair:
            first_ms = min(columns.times[0] for columns in window.by_pair.values())
            self._origin = (now_s, first_ms)
            self._next_heartbeat_s = now_s + self._heartbeat_s


def _take(queue: list[Columns], sim_ms: int) -> Columns | None:
    """Cut what is due off the front of a pair's columns; one part at a time."""
    cut = bisect_right(queue[0].times, sim_ms)
    if cut == 0:
        return None
    head = queue[0]
    if cut == len(head.times):
        queue.pop(0)
        return head
    queue[0] = head.part(cut)
    return head.part(0, cut)
