"""Keeping the group `sentiment` up to date: which rows signals change, and which become due by time."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any

from services.common.messages import MAX_TIME_MS
from services.features.groups import NEWS_SIGNALS, SENTIMENT
from services.features.stores.contract import Store
from services.features.windows import LONGEST_MS, WINDOWS_MS, Observed, Row, merged, sentiment_rows

_stored: Callable[[Any], tuple[Any, ...]] = attrgetter(*(column.name for column in NEWS_SIGNALS.columns))
_observed: Callable[[Any], tuple[Any, ...]] = attrgetter(*Observed._fields)


class SentimentWriter:
    """Writes signals and the sentiment that follows from them. For one thread; raises `StoreError`.

    Rows are due at their change points and not before: those of old signals at once, those of fresh ones
    as time goes on (`catch_up`). Of each coin it holds up to when rows are written (`_done`) and when the
    next is due (`_due`). Both follow from the store, and are read from it again when somebody else wrote to
    it: a restart goes on where the last process was, and replicas that share a store, where the other is.
    """

    def __init__(self, store: Store, clock_ms: Callable[[], int]) -> None:
        self._store = store
        self._clock_ms = clock_ms
        self._done: dict[str, int] = {}
        self._due: dict[str, int] = {}
        self._next_due: int | None = None
        self._known_version: int | None = None
        self._learn()

    def write(self, coin: str, signals: Sequence[Any]) -> None:
        """Store signals of one coin and every row that they change, all or nothing.

        `signals` are `common.news.NewsSignal`; one that is in the store already is replaced.
        """
        # Of two in a batch with one name the later is meant, as if they had come one by one.
        fresh = {(signal.observed_at_ms, signal.story_id): signal for signal in signals}
        times = {time for time, _ in fresh}
        # Rows follow from all signals of the coin, so nobody may add one before they are written.
        with self._store.transaction():
            self._learn()
            until = max(self._clock_ms(), self._done.get(coin, -1))
            spans = [(time, min(time + LONGEST_MS, until)) for time in times if time <= until]
            if (due := self._due.get(coin)) is not None and due <= until:
                # What time has made due goes first, since nothing looks back behind the newest row.
                spans.append((due, until))
            rows = self._rows(coin, spans, [Observed(*_observed(signal)) for signal in fresh.values()])
            stored = [_stored(fresh[name]) for name in sorted(fresh)]
            self._store.write_many([(NEWS_SIGNALS, stored), (SENTIMENT, rows)])
        self._settle(coin, until)
        self._next_due = min(self._due.values(), default=None)

    def catch_up(self) -> None:
        """Write the rows of all coins whose time has come. Costs next to nothing when there are none."""
        self._learn()
        if not self._is_due(self._clock_ms()):
            return
        with self._store.transaction():
            self._learn()
            now = self._clock_ms()
            overdue = {coin: due for coin, due in self._due.items() if due <= now}
            rows = (self._rows(coin, [(due, now)]) for coin, due in overdue.items())
            self._store.write(SENTIMENT, [*chain.from_iterable(rows)])
        for coin in overdue:
            self._settle(coin, now)
        self._next_due = min(self._due.values(), default=None)

    def _is_due(self, now_ms: int) -> bool:
        return self._next_due is not None and self._next_due <= now_ms

    def _learn(self) -> None:
        """Find out from the store what is written of each coin, unless nobody else wrote to it since."""
        version = self._store.foreign_writes()
        if version == self._known_version:
            return
        written = {row["coin"]: row["as_of_ms"] for row in self._store.latest_all(group=SENTIMENT.name)}
        self._done.clear()
        self._due.clear()
        for row in self._store.latest_all(group=NEWS_SIGNALS.name):
            coin = row["coin"]
            done = self._done[coin] = written.get(coin, -1)
            # Later there is nothing that could leave a window.
            if done < row[NEWS_SIGNALS.event_time] + LONGEST_MS:
                self._settle(coin, done)
        self._next_due = min(self._due.values(), default=None)
        # What was written while we read makes for another version.
        self._known_version = version

    def _rows(self, coin: str, spans: Sequence[tuple[int, int]], fresh: Iterable[Observed] = ()) -> list[Row]:
        """Rows at the change points in `spans`, of the stored signals and of `fresh` in their place."""
        ordered = sorted(fresh)
        rows: list[Row] = []
        # Ranges that overlap are one, so that no row is computed twice.
        for first_ms, last_ms in merged(spans):
            begin_ms = first_ms - LONGEST_MS
            found = self._store.rows(NEWS_SIGNALS, (coin,), begin_ms, last_ms, Observed._fields)
            known = {signal[:2]: signal for signal in map(Observed._make, found)}
            # Times alone compare with signals, which begin with theirs.
            inside = slice(bisect_left(ordered, (begin_ms,)), bisect_left(ordered, (last_ms + 1,)))
            known |= {signal[:2]: signal for signal in ordered[inside]}
            rows += sentiment_rows(coin, [known[name] for name in sorted(known)], first_ms, last_ms)
        return rows

    def _settle(self, coin: str, done_ms: int) -> None:
        """Everything up to `done_ms` is written; find out what comes next."""
        self._done[coin] = done_ms
        self._due.pop(coin, None)
        upcoming = []
        for length in (0, *WINDOWS_MS.values()):
            # The first signal that has not yet entered, or not yet left this window.
            after = done_ms + 1 - length
            first = self._store.rows(NEWS_SIGNALS, (coin,), after, MAX_TIME_MS, (NEWS_SIGNALS.event_time,), 1)
            upcoming += [time + length for (time,) in first]
        if upcoming:
            self._due[coin] = min(upcoming)
