"""A market whose trades arrive in disorder, the four services, and the store they end in."""

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from confluent_kafka import Producer

from services.common.broker import EMBEDDED_ENV, EmbeddedBroker
from services.common.errors import ServiceError
from services.common.messages import Trade, batch_headers, encode, series_key
from services.common.settings import BrokerSettings
from services.common.topics import ensure_topics, producer_config
from services.demo.market import EXCHANGE, simulate
from services.demo.processes import Cluster, Service
from services.features import open_store
from tests.common.forks import forked

BEGIN_MS = 1_704_067_200_000
PAIRS = ("BTC/USD", "ETH/USD", "SOL/USD")
#: Commits come often, so that a run of a second has many of them.
FAST = {"COMMIT_INTERVAL_S": "0.02"}
type Rows = dict[tuple[str, str, str, int], dict[str, Any]]


def disordered(pair: str, seed: int, count: int = 1_500, per_batch: int = 12) -> list[list[Trade]]:
    """Batches of a pair: most in order, some trades late enough to correct candles, some twice."""
    market = simulate(pair, BEGIN_MS, [(count * 10_000, 0.1)], 100.0, seed)
    rng = random.Random(seed)
    now_ms = time.time_ns() // 1_000_000
    trades = [
        Trade(EXCHANGE, pair, number, "buy" if buy else "sell", price, quantity, at, now_ms)
        for number, (at, price, quantity, buy) in enumerate(
            zip(
                market.times_ms.tolist(),
                market.prices.tolist(),
                market.quantities.tolist(),
                market.buys.tolist(),
                strict=True,
            ),
            start=1,
        )
    ]
    trades.sort(key=lambda t: t.event_time_ms + (rng.random() < 0.03) * rng.randrange(240_000))
    batches = [trades[at : at + per_batch] for at in range(0, len(trades), per_batch)]
    return [batch for b in batches for batch in ([b, b] if rng.random() < 0.05 else [b])]


class World:
    """A broker and services of one test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.broker = EmbeddedBroker()

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.broker.start()
        env = {**EMBEDDED_ENV, "KAFKA_BROKERS": self.broker.address}
        self.settings = BrokerSettings.load(env)
        self.cluster = Cluster(self.folder, env, forked)
        return self

    def __exit__(self, *_: object) -> None:
        self.cluster.stop()
        self.broker.stop()

    def start(self, service: str, victim: tuple[str, int] | None = None) -> Service:
        """Start a service, as usual or to be killed at a point."""
        settings = dict(FAST) if service != "trades" else {}
        if service == "features":
            settings["STORE_PATH"] = str(self.folder / "store.sqlite")
        command = ("tests.pipeline.victim", service, victim[0], str(victim[1])) if victim else ()
        name = f"{service}-{len(self.cluster.services)}"
        return self.cluster.start(service, settings, name, command)

    def send_trades(self) -> None:
        """Put the disordered market on the bus, and heartbeats that close its last candles."""
        ensure_topics(self.settings, ("trades",))
        producer = Producer({**self.settings.client_config(), **producer_config(self.settings)})
        markets = {pair: disordered(pair, seed) for seed, pair in enumerate(PAIRS)}
        topic = self.settings.topic("trades")
        headers = batch_headers(time.time_ns() // 1_000_000)
        for turn in range(max(map(len, markets.values()))):
            for pair, batches in markets.items():
                if turn < len(batches):
                    key = series_key(EXCHANGE, pair)
                    producer.produce(topic, key=key, value=encode(batches[turn]), headers=headers)
            producer.poll(0)
        for pair in PAIRS:
            end_ms = BEGIN_MS + 1_500 * 10_000 + 60_000
            producer.produce(topic, key=series_key(EXCHANGE, pair), value=b"[]", timestamp=end_ms)
        assert producer.flush(30) == 0

    def rows(self) -> Rows:
        """Everything in the store but the time of writing, by key; latest rows under timeframe ``online``."""
        path = self.folder / "store.sqlite"
        found: Rows = {}
        if not path.exists():
            return found
        try:
            with open_store(path) as store:
                for series in store.describe()["series"]:
                    exchange, pair, timeframe = (series[k] for k in ("exchange", "pair", "timeframe"))
                    for row in store.history(pair, timeframe, exchange=exchange).to_pylist():
                        row.pop("ingested_at_ms", None)
                        found[exchange, pair, timeframe, row["end_ms"]] = row
                for row in store.latest_all():
                    row.pop("ingested_at_ms", None)
                    found[row["exchange"], row["pair"], f"online {row['timeframe']}", 0] = row
        except ServiceError:
            return {}
        return found

    def newest(self, timeframe: str) -> dict[str, int]:
        """End of each pair's newest row of `timeframe`."""
        path = self.folder / "store.sqlite"
        if not path.exists():
            return {}
        try:
            with open_store(path) as store:
                return {row["pair"]: row["end_ms"] for row in store.latest_all(timeframe=timeframe)}
        except ServiceError:
            return {}


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = 60.0) -> None:
    """Poll `condition` until it holds; an AssertionError after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {what}"
        time.sleep(0.25)
