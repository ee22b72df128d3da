"""One set of clusters for all tests that need an engine; nothing of it stays."""

import shutil
import subprocess
from collections.abc import Iterator

import pytest

from services.demo import scenario
from tests.docker.clusters import Clusters
from tests.docker.plays import PAIRS, TIMEFRAMES, UNTIL_MS, market, replay
from tests.pipeline.support import BEGIN_MS, Rows, World, wait_for

HELP = """no Docker engine answers, and these tests run in one.
Start it (on most systems: `sudo systemctl start docker`), or Docker Desktop, and try again."""


@pytest.fixture(scope="session")
def engine() -> None:
    """An engine that answers. Its absence is an error, so that nobody takes nothing for a success."""
    try:
        answer = subprocess.run(["docker", "compose", "ls"], capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        pytest.exit(f"docker is not installed; {HELP}", returncode=1)
    if answer.returncode:
        pytest.exit(f"{HELP}\n{answer.stderr}", returncode=1)


@pytest.fixture(scope="session")
def clusters(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clusters]:
    """The images built and the message bus up."""
    with Clusters(tmp_path_factory.mktemp("clusters")) as running:
        yield running


@pytest.fixture(scope="session")
def undisturbed(clusters: Clusters, tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """The rows of the market when it goes through the services on this machine at full speed."""
    market(clusters.data / "market")
    settings = replay("simulated", str(clusters.data / "market"), UNTIL_MS, 0)
    with World(tmp_path_factory.mktemp("undisturbed")) as world:
        for service in ("candles", "ta", "features"):
            world.start(service)
        own = {name.removeprefix("TRADES_"): value for name, value in settings.items()}
        trades = world.cluster.start("trades", own)
        wait_for(lambda: trades.process.poll() is not None, "the end of the replay")
        hours = {("simulated", pair, "1h", BEGIN_MS + 3_600_000) for pair in PAIRS}
        wait_for(lambda: hours <= world.rows().keys(), "the hours' candles")
        world.cluster.stop()
        rows = world.rows()
    closed = {key: row for key, row in rows.items() if key[2] in TIMEFRAMES}
    assert len(closed) == len(PAIRS) * (60 + 12 + 4 + 2 + 1)
    return {("*", *key[1:]): {**row, "exchange": "*"} for key, row in closed.items()}


@pytest.fixture(scope="session")
def everything(clusters: Clusters) -> None:
    """All clusters up, with the real hour and the news of the demo replayed through them."""
    (clusters.data / "kraken").mkdir()
    shutil.copy(scenario.SAMPLE, clusters.data / "kraken" / "BTC-USD.csv.gz")
    (clusters.data / "headlines.csv").write_bytes(scenario.HEADLINES.read_bytes())
    for path in clusters.data.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    until_ms = scenario.SAMPLE_BEGIN_MS + 3_600_000 + 10_000
    news = {
        "NEWS_SOURCES": "file",
        "NEWS_FILE_PATH": "/data/headlines.csv",
        "NEWS_FILE_COLUMNS": "published=published_at,observed=observed_at",
    }
    clusters.configure({**replay("kraken", "/data/kraken", until_ms, 0), **news})
    clusters.make("up", "cluster=indicators")
    clusters.make("up", "cluster=sentiment_signals")
