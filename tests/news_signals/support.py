"""Stories, a publisher that remembers, a state in memory, and the step with them."""

import random
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from services.common.health import Health
from services.common.messages import batch_headers, encode
from services.common.metrics import Metrics
from services.common.news import News, NewsSignal, check_signal
from services.common.step import Message, StepResult
from services.news_signals.coin_list import load_coins
from services.news_signals.coins import CoinFinder
from services.news_signals.pipeline import NewsSignalsStep
from services.news_signals.scoring import Scoring
from tests.news_signals.fake_engine import FakeEngine

T0 = 1_750_000_000_000
NOW = T0 + 86_400_000
FINDER = CoinFinder(load_coins())
TITLES = (
    "Bitcoin Slips Below $60K as ETF Outflows Mount",
    "Ether and Solana Rally While Bitcoin Treads Water",
    "XRP Ledger Goes Quiet, Cardano Gains 4%",
    "Regulator Publishes Crypto Guidance",
    "Bitcoin Cash Miner Buys Litecoin Rigs",
    "Local Bakery Wins Prize",
)
BODIES = (
    "",
    "Ethereum fees fell. " * 3,
    "Dogecoin traders shrugged. " + "Nothing else happened. " * 30 + "Monero too.",
)
type Signals = dict[tuple[str, str, int], dict[str, Any]]


def news(story: int = 1, telling: int = 0, **values: Any) -> News:
    fields: dict[str, Any] = {
        "story_id": f"story-{story}",
        "source": "test",
        "title": TITLES[story % len(TITLES)],
        "body": BODIES[(story + telling) % len(BODIES)],
        "url": None,
        "coins": ("BTC", "NOSUCHCOIN") if story % 4 == 0 else (),
        "published_at_ms": T0 + 1_000 * story,
        "observed_at_ms": T0 + 1_000 * story + 60_000 * telling,
    }
    return News(**(fields | values))


def tellings(stories: int, each: int) -> list[News]:
    """Tellings of several stories, mixed, those of a story in order."""
    rng = random.Random(7)
    left = {story: list(range(each)) for story in range(stories)}
    mixed = []
    while left:
        story = rng.choice(list(left))
        mixed.append(news(story, left[story].pop(0)))
        if not left[story]:
            del left[story]
    return mixed


def message(rows: Sequence[News] | bytes, key: bytes | None = None, received_ms: int | None = T0) -> Message:
    value = rows if isinstance(rows, bytes) else encode(rows)
    if key is None:
        assert not isinstance(rows, bytes)
        key = rows[0].story_id.encode()
    return Message(key, value, T0, None if received_ms is None else batch_headers(received_ms))


class MemoryState:
    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    def get_bytes(self, key: str) -> bytes | None:
        return self.values.get(key)

    def set_bytes(self, key: str, value: bytes) -> None:
        self.values[key] = value


class Sent:
    """The publisher of a test: messages as (coin, rows, received), and how often it was flushed."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, list[NewsSignal], int | None]] = []
        self.flushed = 0

    def signals(self, coin: str, rows: Sequence[NewsSignal], received_at_ms: int | None, now_ms: int) -> None:
        assert rows
        assert {row.coin for row in rows} == {coin}
        for row in rows:
            check_signal(row)
        # What goes over the wire keeps every bit and passes the contract.
        self.messages.append((coin, msgspec.json.decode(encode(rows), type=list[NewsSignal]), received_at_ms))

    def flush(self) -> None:
        self.flushed += 1


class Bench:
    """The step as the stream would call it, with a state for each key."""

    def __init__(self, batch: int = 16, now_ms: int = NOW, engine: FakeEngine | None = None) -> None:
        self.now_ms = now_ms
        self.metrics = Metrics()
        self.health = Health(60)
        self.engine = engine or FakeEngine()
        self.sent = Sent()
        self.states: dict[bytes, MemoryState] = {}
        self.restart(batch)

    def restart(self, batch: int = 16) -> None:
        """A new process on the state that was committed; what waited is gone."""
        self.metrics = Metrics()
        clock = lambda: self.now_ms  # noqa: E731
        self.scoring = Scoring(self.engine, self.sent, self.metrics, self.health, batch, clock)
        self.step = NewsSignalsStep(FINDER, self.scoring, self.metrics, clock)

    def take(self, sent: Message) -> StepResult:
        return self.step(sent, self.states.setdefault(sent.key, MemoryState()))

    def take_all(self, rows: Iterable[News]) -> None:
        for row in rows:
            self.take(message([row]))
        self.scoring.flush()

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    def signals(self) -> Signals:
        return by_name(row for _, rows, _ in self.sent.messages for row in rows)


def by_name(rows: Iterable[NewsSignal]) -> Signals:
    """Signals by what names them, without the time of scoring; repeats must be equal."""
    found: Signals = {}
    for row in rows:
        values = msgspec.to_builtins(row)
        del values["scored_at_ms"]
        name = (row.coin, row.story_id, row.observed_at_ms)
        assert found.setdefault(name, values) == values
    return found
