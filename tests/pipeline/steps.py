"""The candles and ta steps without a broker: messages in, feature rows out."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import msgspec

from services.candles.pipeline import CandlesStep
from services.candles.series import Rules
from services.common.history import begin_header, end_header, pause_header
from services.common.messages import TaRow, Trade, encode
from services.common.metrics import Metrics
from services.common.step import Message
from services.common.timeframes import TIMEFRAMES
from services.ta.engine import Engine
from services.ta.indicators import TABLE
from services.ta.pipeline import TaStep

#: A message of `trades` in short: value, timestamp, headers.
type Sent = tuple[bytes, int, list[tuple[str, bytes]]]
#: The last row of each candle, by timeframe and end.
type Found = dict[tuple[str, int], dict[str, Any]]
_rows: msgspec.json.Decoder[list[Any]] = msgspec.json.Decoder(list[TaRow])  # type: ignore[valid-type]


class MemoryState(dict[str, bytes]):
    def get_bytes(self, key: str) -> bytes | None:
        return self.get(key)

    def set_bytes(self, key: str, value: bytes) -> None:
        self[key] = value


def batch(trades: Sequence[Trade]) -> Sent:
    return encode(trades), trades[-1].received_at_ms, []


def heartbeat(time_ms: int) -> Sent:
    return b"[]", time_ms, []


def begin(since_ms: int) -> Sent:
    return b"[]", max(1, since_ms), [begin_header()]


def end(until_ms: int) -> Sent:
    return b"[]", until_ms, [end_header("run", 1)]


def pause(until_ms: int) -> Sent:
    return b"[]", until_ms, [pause_header()]


def live(trades: Sequence[Trade], since_ms: int, until_ms: int, cuts: Iterable[int]) -> list[Sent]:
    """As a feed sends them: a heartbeat where watching begins, small batches with heartbeats between."""
    messages = [heartbeat(since_ms)]
    edges = [0, *sorted({cut for cut in cuts if cut < len(trades)}), len(trades)]
    for first, last in pairwise(edges):
        messages += [batch(trades[first:last]), heartbeat(trades[last - 1].event_time_ms)]
    return [*messages, heartbeat(until_ms + 2_000)]


def historical(trades: Sequence[Trade], since_ms: int, until_ms: int, size: int) -> list[Sent]:
    """As a backfill sends them."""
    parts = [batch(trades[first : first + size]) for first in range(0, len(trades), size)]
    return [begin(since_ms), *parts, end(until_ms)]


class Chain:
    """One pair's way from `trades` to `ta`; state outlives it when it is handed on."""

    def __init__(self, now_ms: int, states: tuple[MemoryState, MemoryState] | None = None) -> None:
        self.states = states or (MemoryState(), MemoryState())
        self._candles = CandlesStep(Rules(), TIMEFRAMES, Metrics(), clock_ms=lambda: now_ms)
        self._ta = TaStep(Engine(tuple(TABLE)), Metrics())

    def send(self, key: bytes, messages: Iterable[Sent]) -> Found:
        """The last row of each candle, by timeframe and end."""
        found: Found = {}
        for value, timestamp, headers in messages:
            candles = self._candles(Message(key, value, timestamp, headers), self.states[0])
            assert not candles.refused
            outputs = [*candles.outputs, *([b"[]"] if headers else [])]
            for output in outputs:
                done = self._ta(Message(key, output, timestamp, headers), self.states[1])
                assert not done.refused
                for rows in done.outputs:
                    found |= {
                        (row.timeframe, row.end_ms): msgspec.structs.asdict(row) for row in _rows.decode(rows)
                    }
        return found
