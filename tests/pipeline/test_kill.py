"""kill -9 of any service at any named point: the store ends equal to the undisturbed run's."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.demo.market import EXCHANGE, simulate, write_csv
from tests.pipeline.support import BEGIN_MS, PAIRS, Rows, World, wait_for

CONSUMERS = ("candles", "ta", "features")
KILLS = [
    ("candles", "candles_mid_batch", 150),
    ("candles", "before_changelog", 6),
    ("candles", "before_commit", 6),
    ("candles", "after_commit", 6),
    ("ta", "ta_mid_batch", 120),
    ("ta", "before_changelog", 6),
    ("ta", "before_commit", 6),
    ("ta", "after_commit", 6),
    ("features", "mid_transaction", 90),
    ("features", "after_store_write", 90),
    ("features", "before_commit", 6),
]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rows]:
    """The store's rows when nobody is killed."""
    with World(tmp_path_factory.mktemp("undisturbed")) as world:
        world.send_trades()
        for service in CONSUMERS:
            world.start(service)
        yield settled(world)


def settled(world: World) -> Rows:
    """The rows once the services have worked through everything that was sent."""
    last_ms = BEGIN_MS + 1_500 * 10_000

    def done() -> bool:
        world.cluster.check()
        newest = world.newest("1m")
        return all(newest.get(pair, 0) >= last_ms for pair in PAIRS)

    wait_for(done, "the last candles in the store")
    # SIGTERM: each commits what it has, so nothing is still on its way afterwards.
    world.cluster.stop()
    return world.rows()


def test_the_market_of_these_tests_has_corrections(undisturbed: Rows) -> None:
    assert sum(row["revision"] > 0 for row in undisturbed.values()) > 20
    assert len(undisturbed) > 3 * 250


@pytest.mark.parametrize(("service", "point", "number"), KILLS)
def test_a_service_killed_at_a_point_leaves_the_store_of_an_undisturbed_run(
    service: str, point: str, number: int, undisturbed: Rows, tmp_path: Path
) -> None:
    with World(tmp_path) as world:
        world.send_trades()
        for name in CONSUMERS:
            if name != service:
                world.start(name)
        victim = world.start(service, (point, number))
        wait_for(lambda: victim.process.poll() is not None, f"the death of {service}")
        assert victim.process.returncode == -signal.SIGKILL, victim.tail()
        world.cluster.services.remove(victim)
        world.start(service)
        rows = settled(world)
    assert rows.keys() == undisturbed.keys()
    different = [key for key in rows if rows[key] != undisturbed[key]]
    assert different == []


@pytest.mark.parametrize(
    ("point", "number"),
    [("trades_mid_batch", 40), ("after_publish", 41), ("before_progress", 2), ("after_progress", 2)],
)
def test_a_killed_replay_goes_on_where_it_was(point: str, number: int, tmp_path: Path) -> None:
    folder = tmp_path / "market"
    folder.mkdir()
    market = simulate("BTC/USD", BEGIN_MS, [(3_600_000, 10.0)], 100.0, 5)
    write_csv(market, folder / "BTC-USD.csv", 1)
    settings = {
        "EXCHANGE": EXCHANGE, "SOURCE": "replay", "PAIRS": "BTC/USD", "REPLAY_PATH": str(folder),
        "REPLAY_UNTIL": str(BEGIN_MS + 3_605_000), "REPLAY_SPEED": "1800", "BATCH_ROWS": "50",
    }  # fmt: skip
    with World(tmp_path / "world") as world:
        for name in CONSUMERS:
            world.start(name)
        command = ("tests.pipeline.victim", "trades", point, str(number))
        victim = world.cluster.start("trades", settings, "victim", command)
        wait_for(lambda: victim.process.poll() is not None, "the death of trades")
        assert victim.process.returncode == -signal.SIGKILL, victim.tail()
        world.cluster.services.remove(victim)
        again = world.cluster.start("trades", settings, "again")
        wait_for(lambda: again.process.poll() is not None, "the end of the replay")
        assert again.process.returncode == 0, again.tail()
        hour = (EXCHANGE, "BTC/USD", "1h", BEGIN_MS + 3_600_000)
        wait_for(lambda: hour in world.rows(), "the hour's candle")
        world.cluster.stop()
        rows = world.rows()
    assert rows[hour]["trade_count"] == len(market.times_ms)
    assert rows[hour]["close"] == market.prices[-1]
    minutes = [row for (_, _, timeframe, _), row in rows.items() if timeframe == "1m"]
    assert sum(row["trade_count"] for row in minutes) == len(market.times_ms)
    assert len(minutes) == 60
