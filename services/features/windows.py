"""Windowed sentiment of one coin, from the signals observed of it. Pure.

A signal observed at ``o`` is inside a window of length ``w`` at time ``T`` when ``T - w < o <= T``. So
nothing changes between *change points*, the times ``o`` and ``o + w`` (not even an exponentially
weighted mean: all its weights fade alike), and one row at each of them tells the sentiment at any time:
it is the newest row at or before it.

Sums are exact integers. A row is a function of the set of signals alone, to the bit, wherever a
computation begins and however the signals were cut into batches; and a window can slide, since what is
taken out leaves nothing behind.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from math import sqrt
from typing import NamedTuple

#: The windows by the end of their columns' names, shortest first.
WINDOWS_MS = {"15m": 900_000, "1h": 3_600_000, "4h": 14_400_000, "24h": 86_400_000}
LONGEST_MS = max(WINDOWS_MS.values())
#: In the exponentially weighted mean a signal counts half as much after each of these parts of a window.
HALF_LIVES = 4

# Scores and weights are multiples of 2**-50, which is finer than the scores' own rounding. A weight
# below half of that is none.
_BITS = 50
_SCALE = 2.0**_BITS


class Observed(NamedTuple):
    """What windows need of a signal. Sorts by time, then story; the two name it."""

    observed_at_ms: int
    story_id: str
    score: float
    relevance: float
    novelty: float
    signal: int


#: Count, weighted mean, positive and negative share, dispersion, exponentially weighted mean.
type Cell = tuple[int, float | None, float | None, float | None, float | None, float | None]
type Row = tuple[str | int | float | None, ...]


def change_points(
    signals: Sequence[Observed], first_ms: int, last_ms: int, windows: Sequence[int] = (*WINDOWS_MS.values(),)
) -> list[int]:
    """The times in ``[first_ms, last_ms]`` at which one of `signals` enters or leaves a window."""
    times = {signal.observed_at_ms + length for signal in signals for length in (0, *windows)}
    return sorted(time for time in times if first_ms <= time <= last_ms)


def sentiment_rows(coin: str, signals: Sequence[Observed], first_ms: int, last_ms: int) -> list[Row]:
    """Rows of the group `sentiment` at each change point in ``[first_ms, last_ms]``.

    `signals` are those observed in ``[first_ms - LONGEST_MS, last_ms]``, sorted and each once. Costs
    about 50 µs a signal, however many are in a window together.
    """
    windows = [_Window(length) for length in WINDOWS_MS.values()]
    cells = [window.cell(first_ms) for window in windows]
    entering = iter(signals)
    upcoming = next(entering, None)
    newest_ms = 0
    rows: list[Row] = []
    for time in change_points(signals, first_ms, last_ms):
        while upcoming is not None and upcoming.observed_at_ms <= time:
            newest_ms = upcoming.observed_at_ms
            terms = _terms(upcoming)
            for window in windows:
                # What left a window before the first row need not enter it.
                if newest_ms > first_ms - window.length_ms:
                    window.add(newest_ms, *terms)
            upcoming = next(entering, None)
        for place, window in enumerate(windows):
            window.leave(time)
            if window.changed:
                cells[place] = window.cell(time)
        rows.append((coin, time, newest_ms, *(value for cell in cells for value in cell)))
    return rows


def expected_until_ms(last_news_at_ms: int, counts: Sequence[int]) -> int | None:
    """When a row must have been followed by another, by the windows that hold the newest signal.

    `counts` are its counts by window, shortest first; None where all are empty and nothing need follow.
    """
    for length, count in zip(WINDOWS_MS.values(), counts, strict=True):
        if count:
            return last_news_at_ms + length
    return None


def _terms(signal: Observed) -> tuple[int, int, int]:
    """Weight (relevance × novelty) and score as integers, and the sign of the signal."""
    return (
        round(signal.relevance * signal.novelty * _SCALE),
        round(signal.score * _SCALE),
        signal.signal,
    )


class _Entry(NamedTuple):
    observed_at_ms: int
    weight: int
    score: int
    sign: int
    epoch: int
    decayed: int


class _Window:
    """Sums over the signals inside one window as time goes on."""

    def __init__(self, length_ms: int) -> None:
        self.length_ms = length_ms
        self.changed = False
        self._half_life_ms = length_ms // HALF_LIVES
        self._entries: deque[_Entry] = deque()
        self._weight = self._scores = self._squares = self._positive = self._negative = 0
        # Weights that fade: 2 ** (o / half-life) is split into a mantissa and a whole exponent, the
        # epoch. Sums are kept for each epoch, of which a window touches five.
        self._faded: dict[int, list[int]] = {}

    def add(self, observed_at_ms: int, weight: int, score: int, sign: int) -> None:
        self.changed = True
        epoch, rest_ms = divmod(observed_at_ms, self._half_life_ms)
        decayed = round(2.0 ** (rest_ms / self._half_life_ms) * _SCALE) * weight
        entry = _Entry(observed_at_ms, weight, score, sign, epoch, decayed)
        self._entries.append(entry)
        self._count(entry, 1)

    def leave(self, time_ms: int) -> None:
        """Take out what is no longer inside at `time_ms`."""
        gone_ms = time_ms - self.length_ms
        while self._entries and self._entries[0].observed_at_ms <= gone_ms:
            self.changed = True
            self._count(self._entries.popleft(), -1)

    def _count(self, entry: _Entry, times: int) -> None:
        _, weight, score, sign, epoch, decayed = entry
        weight *= times
        decayed *= times
        weighted = weight * score
        self._weight += weight
        self._scores += weighted
        self._squares += weighted * score
        if sign > 0:
            self._positive += weight
        elif sign < 0:
            self._negative += weight
        sums = self._faded.setdefault(epoch, [0, 0, 0])
        sums[0] += times
        sums[1] += decayed
        sums[2] += decayed * score
        if not sums[0]:
            del self._faded[epoch]

    def cell(self, time_ms: int) -> Cell:
        """The window's columns at `time_ms`. Divisions of integers round once, at the end."""
        self.changed = False
        weight = self._weight
        if not weight:
            return (len(self._entries), None, None, None, None, None)
        oldest = time_ms // self._half_life_ms - HALF_LIVES
        faded = scores = 0
        for epoch, (_, of_weights, of_scores) in self._faded.items():
            faded += of_weights << (epoch - oldest)
            scores += of_scores << (epoch - oldest)
        # By Cauchy and Schwarz this is not negative, and integers keep to that.
        variance = self._squares * weight - self._scores * self._scores
        return (
            len(self._entries),
            self._scores / (weight << _BITS),
            self._positive / weight,
            self._negative / weight,
            sqrt(variance / (weight * weight << 2 * _BITS)),
            scores / (faded << _BITS),
        )


def merged(spans: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Ranges of times (both ends included) without overlap, in order."""
    first: int | None = None
    last = 0
    for begin, end in sorted(spans):
        if first is None:
            first, last = begin, end
        elif begin > last + 1:
            yield first, last
            first, last = begin, end
        else:
            last = max(last, end)
    if first is not None:
        yield first, last
