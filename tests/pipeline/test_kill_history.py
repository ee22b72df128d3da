"""kill -9 of a service in a historical run: it goes on, everything ends by itself, the store is the same."""

import signal
from pathlib import Path
from typing import Any

import pytest

from services.common.broker import EMBEDDED_ENV, EmbeddedBroker
from services.demo.market import simulate, write_csv
from services.demo.processes import Cluster, Service
from services.features import open_store
from tests.common.forks import forked
from tests.pipeline.support import BEGIN_MS, FAST, wait_for

CONSUMERS = ("candles", "ta", "features")
#: The short one ends long before the other, and its end is committed when a service dies later on.
COUNTS = {"BTC/USD": 60, "ETH/USD": 12_000}
HOLE, HOLE_MS, PART_MS = "SOL/USD", 5 * 86_400_000, 7_200_000
KILLS = [
    ("candles", "after_commit", 5),
    ("candles", "before_commit", 10),
    ("features", "after_store_write", 60),
    # The last of three ends is noted, but not committed; then committed, but the process has not ended.
    ("ta", "after_end", 3),
    ("ta", "after_run", 1),
]
type Rows = dict[tuple[str, str, int], dict[str, Any]]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    for seed, (pair, count) in enumerate(COUNTS.items()):
        market = simulate(pair, BEGIN_MS, [(count * 2_000, 0.5)], 100.0, seed)
        write_csv(market, folder / f"{pair.replace('/', '-')}.csv", 1)
    # Its files lack days, so its series begins anew in the middle of the run.
    for part in range(2):
        market = simulate(HOLE, BEGIN_MS + part * HOLE_MS, [(PART_MS, 0.5)], 100.0, 7 + part)
        name = folder / str(part) / f"{HOLE.replace('/', '-')}.csv"
        name.parent.mkdir()
        write_csv(market, name, 1 + part * 100_000)
    return folder


def history(folder: Path, archive: Path, kill: tuple[str, str, int] | None = None) -> Rows:
    """Run it to its end, which every service finds by itself."""
    folder.mkdir()
    with EmbeddedBroker() as broker:
        run = {"KAFKA_TOPIC_SUFFIX": "-historical", "KAFKA_HISTORY_RUN": folder.name}
        cluster = Cluster(folder, {**EMBEDDED_ENV, **run, "KAFKA_BROKERS": broker.address}, forked)

        def start(name: str, as_name: str | None = None, command: tuple[str, ...] = ()) -> Service:
            own = {"STORE_PATH": str(folder / "store.sqlite")} if name == "features" else {}
            return cluster.start(name, {**FAST, **own}, as_name, command)

        try:
            services = {name: start(name) for name in CONSUMERS if kill is None or name != kill[0]}
            if kill is not None:
                name, point, number = kill
                victim = start(name, "victim", ("tests.pipeline.victim", name, point, str(number)))
            settings = {
                "SOURCE": "historical",
                "HISTORY": "archive",
                "EXCHANGE": "kraken",
                "BATCH_ROWS": "40",
            }
            services["trades"] = cluster.start("trades", {**settings, "ARCHIVE_PATH": str(archive)})
            if kill is not None:
                wait_for(lambda: victim.process.poll() is not None, f"the death of {name}")
                assert victim.process.returncode == -signal.SIGKILL, victim.tail()
                services[name] = start(name, "again")
            ended = {name: service.process for name, service in services.items()}
            wait_for(lambda: all(p.poll() is not None for p in ended.values()), "the end of all services")
            assert {name: process.returncode for name, process in ended.items()} == dict.fromkeys(ended, 0)
        finally:
            cluster.stop()
    return stored(folder / "store.sqlite")


def stored(path: Path) -> Rows:
    rows: Rows = {}
    with open_store(path) as store:
        for series in store.describe()["series"]:
            pair, timeframe = series["pair"], series["timeframe"]
            for row in store.history(pair, timeframe, exchange="kraken").to_pylist():
                del row["ingested_at_ms"]
                rows[pair, timeframe, row["end_ms"]] = row
        for row in store.latest_all():
            del row["ingested_at_ms"]
            rows[row["pair"], f"online {row['timeframe']}", 0] = row
    return rows


@pytest.fixture(scope="module")
def undisturbed(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Rows:
    return history(tmp_path_factory.mktemp("world") / "undisturbed", archive)


def test_the_history_of_these_tests_is_whole(undisturbed: Rows) -> None:
    counts = {
        pair: sum(
            row["trade_count"]
            for (of, timeframe, _), row in undisturbed.items()
            if (of, timeframe) == (pair, "1m")
        )
        for pair in COUNTS
    }
    ends = {end_ms - BEGIN_MS for pair, timeframe, end_ms in undisturbed if (pair, timeframe) == (HOLE, "1m")}
    assert min(end for end in ends if end > PART_MS) == HOLE_MS + 60_000
    assert 2 * PART_MS // 60_000 - 4 <= len(ends) <= 2 * PART_MS // 60_000
    # All but those of the minute in which each pair ends.
    assert all(0 <= COUNTS[pair] - count < 120 for pair, count in counts.items()), counts


@pytest.mark.parametrize(("service", "point", "number"), KILLS)
def test_a_killed_service_leaves_the_store_of_an_undisturbed_history_and_everything_ends(
    service: str, point: str, number: int, undisturbed: Rows, archive: Path, tmp_path: Path
) -> None:
    rows = history(tmp_path / "killed", archive, (service, point, number))
    assert rows.keys() == undisturbed.keys()
    assert [key for key in rows if rows[key] != undisturbed[key]] == []
