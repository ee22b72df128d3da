"""Merges recordings by time: windows of trades in which every pair is complete up to one moment. Pure.

Files are opened only when their time comes, so that a folder of any size needs little memory.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import repeat
from operator import lt
from typing import Any

from services.trades.sources.files import Block, Columns


@dataclass(slots=True)
class Recording:
    """A file that can be read; `first_ms` is when it begins (0: look at once)."""

    first_ms: int
    open: Callable[[], Iterator[Block]]


@dataclass(slots=True)
class Window:
    """Trades by pair, ids given, and the time up to which nothing earlier will follow."""

    by_pair: dict[str, Columns]
    until_ms: int


class _Head:
    """The part of an open file that was read and not yet passed on."""

    def __init__(self, blocks: Iterator[Block]) -> None:
        self._blocks = blocks
        self.by_pair: dict[str, Columns] = {}
        self.last_ms = 0
        self.ended = False
        self.read_more()

    def read_more(self) -> None:
        block = next(self._blocks, None)
        if block is None:
            self.ended = True
            self.by_pair = {}
        else:
            self.by_pair, self.last_ms = block

    def take(self, until_ms: int) -> dict[str, Columns]:
        """Cut off what lies not after `until_ms`."""
        if self.last_ms <= until_ms:
            taken, self.by_pair = self.by_pair, {}
            return taken
        taken = {}
        for pair, columns in list(self.by_pair.items()):
            cut = bisect_right(columns.times, until_ms)
            if cut:
                taken[pair] = columns.part(0, cut)
                self.by_pair[pair] = columns.part(cut)
        return taken


def merge(recordings: list[Recording]) -> Iterator[tuple[dict[str, list[Columns]], int]]:
    """Trades of all recordings in windows of time; a pair can come in parts, from several files."""
    waiting = sorted(recordings, key=lambda recording: recording.first_ms)
    heads: list[_Head] = []
    while True:
        until_ms = min((head.last_ms for head in heads), default=-1)
        while waiting and (not heads or waiting[0].first_ms <= until_ms):
            head = _Head(waiting.pop(0).open())
            if not head.ended:
                heads.append(head)
                until_ms = min(head.last_ms for head in heads)
        if not heads:
            return
        parts: dict[str, list[Columns]] = {}
        for head in heads:
            for pair, columns in head.take(until_ms).items():
                if columns.times:
                    parts.setdefault(pair, []).append(columns)
            if head.last_ms <= until_ms:
                head.read_more()
        heads = [head for head in heads if not head.ended]
        yield parts, until_ms


class Numbering:
    """Gives every trade its id and drops what is known: duplicates, and what an earlier run sent."""

    def __init__(self, resume: Mapping[str, int]) -> None:
        self._resume = dict(resume)
        self._last: dict[str, int] = {}
        self.duplicates = 0
        self.resumed_rows = 0

    def number(self, pair: str, parts: list[Columns]) -> Columns:
        """One run of columns in ascending id order."""
        columns = parts[0] if len(parts) == 1 else _join(parts)
        resume = self._resume.get(pair, -1)
        if columns.ids is None:
            last = self._last.get(pair, 0)
            self._last[pair] = last + len(columns.times)
            columns.ids = list(range(last + 1, self._last[pair] + 1))
            skip = min(max(0, resume - last), len(columns.times))
            self.resumed_rows += skip
            return columns.part(skip) if skip else columns
        last = self._last.get(pair, -1)
        ids = columns.ids
        floor = max(last, resume)
        if ids[0] <= floor or not all(map(lt, ids, ids[1:])):
            columns = self._deduplicate(columns, last, resume)
        if columns.ids:
            self._last[pair] = columns.ids[-1]
        return columns

    def _deduplicate(self, columns: Columns, last: int, resume: int) -> Columns:
        assert columns.ids is not None
        kept: dict[int, int] = {}
        for row, trade_id in enumerate(columns.ids):
            if last < trade_id <= resume:
                self.resumed_rows += 1
            elif trade_id <= last or trade_id in kept:
                self.duplicates += 1
            else:
                kept[trade_id] = row
        rows = [kept[trade_id] for trade_id in sorted(kept)]
        return Columns(
            [columns.ids[row] for row in rows],
            [columns.sides[row] for row in rows],
            [columns.prices[row] for row in rows],
            [columns.quantities[row] for row in rows],
            [columns.events[row] for row in rows],
            # Due times must not fall where ids and times disagree.
            sorted(columns.times[row] for row in rows),
        )


def _join(parts: list[Columns]) -> Columns:
    """One pair out of several files, by time."""
    rows: list[tuple[Any, ...]] = sorted(
        (
            row
            for part in parts
            for row in zip(
                part.times,
                part.ids or repeat(None, len(part.times)),
                part.sides,
                part.prices,
                part.quantities,
                part.events,
                strict=True,
            )
        ),
        key=lambda row: row[0],
    )
    times, ids, sides, prices, quantities, events = (list(column) for column in zip(*rows, strict=True))
    known = [item for item in ids if item is not None]
    return Columns(known if len(known) == len(ids) else None, sides, prices, quantities, events, times)


def windows(recordings: list[Recording], numbering: Numbering) -> Iterator[Window]:
    """Merged and numbered windows; a window may hold no trade at all."""
    for parts, until_ms in merge(recordings):
        by_pair = {}
        for pair, columns in parts.items():
            numbered = numbering.number(pair, columns)
            if numbered.times:
                by_pair[pair] = numbered
        yield Window(by_pair, until_ms)
