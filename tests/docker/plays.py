"""What is played through the clusters, and what must come of it."""

from pathlib import Path

from services.demo.market import simulate, write_csv
from tests.docker.clusters import Clusters
from tests.pipeline.support import BEGIN_MS, Rows

PAIRS = ("BTC/USD", "ETH/USD", "SOL/USD", "XRP/USD", "ADA/USD", "DOT/USD")
TIMEFRAMES = ("1m", "5m", "15m", "30m", "1h")
MINUTES = 60
UNTIL_MS = BEGIN_MS + MINUTES * 60_000 + 10_000
#: The hour takes a minute.
SPEED = 60.0


def market(folder: Path) -> None:
    """An hour of six pairs, with a trade every two seconds each."""
    folder.mkdir()
    for seed, pair in enumerate(PAIRS):
        made = simulate(pair, BEGIN_MS, [(MINUTES * 60_000, 0.5)], 100.0, seed)
        write_csv(made, folder / f"{pair.replace('/', '-')}.csv", 1)


def replay(exchange: str, path: str, until_ms: int, speed: float) -> dict[str, str]:
    """Settings of a trades service that plays a recording."""
    return {
        "TRADES_SOURCE": "replay",
        "TRADES_EXCHANGE": exchange,
        "TRADES_PAIRS": "",
        "TRADES_REPLAY_PATH": path,
        "TRADES_REPLAY_UNTIL": str(until_ms),
        "TRADES_REPLAY_SPEED": str(speed),
    }


def play(clusters: Clusters, exchange: str) -> None:
    """Start the market as if it were live."""
    clusters.configure(replay(exchange, "/data/market", UNTIL_MS, SPEED))
    clusters.make("up", "cluster=indicators", "svc=trades")


def assert_same(clusters: Clusters, exchange: str, undisturbed: Rows) -> None:
    """Wait for the end; the store holds what an undisturbed run left there."""
    clusters.wait_for(lambda: not clusters.containers("trades"), "the end of the replay", 150)
    hours = {("*", pair, "1h", BEGIN_MS + 3_600_000) for pair in PAIRS}

    def closed() -> bool:
        for service in ("candles", "ta", "features"):
            clusters.help_stand_in(service)
        return hours <= clusters.ta_rows(exchange, PAIRS, ("1h",)).keys()

    clusters.wait_for(closed, "the hours' candles", 240)
    rows = clusters.ta_rows(exchange, PAIRS, TIMEFRAMES)
    assert rows.keys() == undisturbed.keys()
    assert [key for key in rows if rows[key] != undisturbed[key]] == []
    services = ("candles", "ta", "features")
    samples = [clusters.metrics(container) for name in services for container in clusters.containers(name)]
    assert sum(v for s in samples for name, v in s.items() if name.startswith("dead_letters_total")) == 0
