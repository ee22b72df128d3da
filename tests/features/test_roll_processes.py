"""Rolling in a process of its own: killed at any point, beside readers, beside a writer."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from services.common.timeframes import DAY_MS
from services.features.groups import TA
from services.features.stores.sqlite import SqliteStore
from services.features.stores.sqlite_reader import SqliteReader
from services.features.stores.sqlite_roll import Roll
from tests.features.roll_process import POINTS
from tests.features.rows import T0, make_store, ta_row, tuples

ROOT = Path(__file__).parents[2]
LATER = T0 + 24 * DAY_MS
MINUTES = 1_000


def filled(path: Path) -> SqliteStore:
    store = make_store(path)
    for timeframe in ("1m", "30m"):
        rows = [ta_row(i, timeframe=timeframe, close=100.0 + i, rsi_14=i / 3) for i in range(MINUTES)]
        store.write(TA, tuples(rows))
    return store


def start(path: Path, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.features.roll_process", str(path), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


@pytest.mark.parametrize("point", POINTS)
def test_a_roll_killed_at_any_point_loses_and_doubles_nothing(path: Path, point: str) -> None:
    with filled(path) as store:
        expected = {timeframe: store.history("BTC/USD", timeframe) for timeframe in ("1m", "30m")}
        described = store.describe(now=0)
    for number in (1, 3):
        process = start(path, LATER, point, number)
        errors = process.communicate(timeout=60)[1]
        # Later kills may find nothing left to do.
        assert process.returncode in {-signal.SIGKILL, 0}, errors
        assert number > 1 or process.returncode == -signal.SIGKILL, errors
        with SqliteReader(path) as reader:
            assert reader.sql("PRAGMA integrity_check")[1] == [("ok",)]
            for timeframe, table in expected.items():
                assert reader.history("BTC/USD", timeframe).equals(table)
            assert reader.describe(now=0) == described
    list(Roll(path, clock_ms=lambda: LATER).before(LATER))
    with SqliteReader(path) as reader:
        assert reader.sql("SELECT count(*) FROM ta")[1] == [(2,)]
        assert reader.history("BTC/USD", "1m").equals(expected["1m"])


def test_readers_never_see_a_row_missing_or_twice_while_another_process_rolls(path: Path) -> None:
    with filled(path) as store, SqliteReader(path) as reader:
        expected = store.history("BTC/USD", "30m")
        process = start(path, LATER)
        asked = 0
        while process.poll() is None:
            assert reader.history("BTC/USD", "30m").equals(expected)
            assert reader.history("BTC/USD", "30m", limit=50, newest=True).equals(
                expected.slice(MINUTES - 50)
            )
            asked += 1
        assert process.returncode == 0, process.communicate()[1]
        process.communicate()
        assert asked > 5
        assert store.sql("SELECT count(*) FROM ta")[1] == [(2,)]
        assert reader.history("BTC/USD", "30m").equals(expected)


def test_a_writer_goes_on_while_another_process_rolls_and_keeps_what_it_corrects(path: Path) -> None:
    with filled(path) as store:
        process = start(path, LATER)
        revision, longest = 0, 0.0
        while process.poll() is None:
            revision += 1
            begun = time.perf_counter()
            rows = [ta_row(at, timeframe="30m", close=float(revision), revision=revision) for at in (3, 500)]
            store.write(TA, tuples(rows))
            longest = max(longest, time.perf_counter() - begun)
        assert process.returncode == 0, process.communicate()[1]
        process.communicate()
        found = store.history("BTC/USD", "30m", columns=["close"])["close"].to_pylist()
        assert [found[3], found[500]] == [revision, revision]
        assert len(found) == MINUTES
    # SQLite gives up after 10 s; a roll is to be far from that.
    assert longest < 2
