"""An indicator is added to the real services: its values for old candles come from these candles alone."""

import random
import subprocess
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import msgspec
import numpy as np
import pytest
import talib

from services.common.columns import INDICATOR_NAMES
from services.common.history import begins, ending
from services.common.messages import Candle
from services.demo import indicators
from services.demo import rebuild as demo_rebuild
from services.demo.processes import Cluster, DemoError
from services.features import open_store, rebuild
from services.features.groups import NEWS_SIGNALS, SENTIMENT, TA
from services.features.stores.hopsworks_outbox import Outbox
from services.features.stores.sqlite import SqliteStore
from services.features.stores.sqlite_migrate import migrate
from services.features.stores.sqlite_reader import SqliteReader
from tests.features.rows import T0, make_store, ta_row, tuples

ROOT = Path(__file__).parents[2]
ADDED = "flow_imbalance_14"
#: `ta` as it was before the last indicator was added.
BEFORE = replace(TA, version=0, columns=TA.columns[:-1])
MINUTES = 300


def random_walk(seed: int) -> list[Any]:
    rng = random.Random(seed)
    close, rows = 100.0, []
    for i in range(MINUTES):
        close *= 1 + rng.uniform(-0.01, 0.01)
        buys = rng.uniform(0, 5)
        rows.append(ta_row(i, pair=f"P{seed}/USD", close=close, buy_volume=buys, volume=5.0))
    return rows


@pytest.fixture
def old(path: Path) -> Path:
    with make_store(path, (BEFORE, NEWS_SIGNALS, SENTIMENT)) as store:
        for seed in (1, 2):
            store.write(BEFORE, [row[:-1] for row in tuples(random_walk(seed))])
        store.write(BEFORE, [row[:-1] for row in tuples([ta_row(0, pair="P1/USD", timeframe="1h")])])
    return path


def test_the_source_sends_each_series_between_a_begin_and_an_end(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuild, "PAGE_ROWS", 70)
    monkeypatch.setattr(rebuild, "MESSAGE_ROWS", 50)
    sent: list[tuple[bytes, bytes, Any]] = []
    with SqliteReader(old) as store:
        count = rebuild.send_candles(store, store.series(), lambda *message: sent.append(message), T0)
        expected = store.history("P2/USD", "1m", columns=["close"])["close"].to_pylist()
    assert count == 2 * MINUTES + 1
    ends = [ending(value, headers) for _, value, headers in sent]
    assert [end.series for end in ends if end is not None] == [2, 2]
    assert [key for key, value, headers in sent if begins(value, headers)] == [
        b"kraken:P1/USD",
        b"kraken:P2/USD",
    ]
    candles = [
        candle
        for key, value, _ in sent
        if key == b"kraken:P2/USD"
        for candle in msgspec.json.decode(value, type=list[Candle])
    ]
    assert [candle.close for candle in candles] == expected
    assert max(len(msgspec.json.decode(value)) for _, value, _ in sent) <= 50


def test_live_topics_are_refused(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rebuild.main(["--store", str(old)]) == 1
    assert "KAFKA_TOPIC_SUFFIX" in capsys.readouterr().err


@pytest.mark.parametrize("command", [rebuild, demo_rebuild])
def test_a_working_copy_is_not_rebuilt_from_its_last_days(
    old: Path, command: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KAFKA_TOPIC_SUFFIX", "-rebuild")
    with make_store(old) as store:
        with store.transaction():
            Outbox(store._writer, TA)
        before = store.history("P1/USD", "1m")
        assert command.main(["--store", str(old)]) == 1
        assert store.history("P1/USD", "1m").equals(before)
    error = capsys.readouterr().err
    assert "working copy of another store" in error
    assert "last days of ta_1" in error


class Noted(Cluster):
    """Notes the settings that services are given, and starts none."""

    given: ClassVar[dict[str, Mapping[str, str]]] = {}

    def start(self, service: str, settings: Mapping[str, str], *_: Any, **__: Any) -> Any:
        self.given[service] = settings

    def wait_until_up(self) -> None:
        raise DemoError("enough seen")


@pytest.mark.parametrize(
    ("exported", "in_file", "chosen", "says"),
    [
        ("", "", INDICATOR_NAMES, ""),
        ("rsi_14, obv", "", ("rsi_14", "obv"), "chooses 2 of 43 indicators: rsi_14, obv; the others"),
        ("", "rsi_14", ("rsi_14",), "chooses 1 of 43 indicators: rsi_14; the others"),
        ("obv", "rsi_14", ("obv",), "chooses 1 of 43"),
    ],
)
def test_what_the_live_service_leaves_null_is_not_computed_for_old_candles(
    old: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    exported: str,
    in_file: str,
    chosen: tuple[str, ...],
    says: str,
) -> None:
    env_file = old.with_name(".env")
    env_file.write_text(f"TA_INDICATORS={in_file}\nTA_HTTP_PORT=8003\n" if in_file else "# none\n")
    monkeypatch.setenv("TA_INDICATORS", exported)
    monkeypatch.setenv("TA_HTTP_PORT", "1")
    monkeypatch.setattr(indicators, "ENV_FILE", env_file)
    monkeypatch.setattr(demo_rebuild, "EmbeddedBroker", lambda: nullcontext(SimpleNamespace(address="a:1")))
    monkeypatch.setattr(demo_rebuild, "Cluster", Noted)
    assert demo_rebuild.main(["--store", str(old)]) == 1
    assert Noted.given["ta"] == {"INDICATORS": ",".join(chosen)}
    captured = capsys.readouterr()
    assert says in captured.out
    assert bool(captured.out) == bool(says)
    assert "enough seen" in captured.err


def test_an_indicator_that_there_is_not_is_refused_before_anything_starts(
    old: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TA_INDICATORS", "rsi_15")
    assert demo_rebuild.main(["--store", str(old)]) == 1
    assert "unknown indicator rsi_15" in capsys.readouterr().err


@pytest.mark.timeout(170)
def test_old_candles_get_the_new_indicator_from_the_real_services(old: Path) -> None:
    with SqliteStore(old) as store:
        before = store.history("P1/USD", "1m", columns=["close", "buy_volume"])
        ran = subprocess.run(
            [sys.executable, "-m", "services.demo.rebuild", "--store", str(old)],
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=False,
            timeout=150,
        )
        assert ran.returncode == 0, ran.stderr
        assert "601 candles of 3 series" in ran.stdout
    with open_store(old) as reader:
        assert reader.groups()["ta"] == TA
        for seed in (1, 2):
            table = reader.history(f"P{seed}/USD", "1m", columns=["close", "rsi_14", ADDED])
            assert table[ADDED].null_count == 13
            closes = np.array(table["close"].to_pylist())
            found = np.array(table["rsi_14"].to_pylist(), float)
            np.testing.assert_allclose(found, talib.RSI(closes, 14), rtol=1e-9)
        buys = np.array(before["buy_volume"].to_pylist()[-14:])
        last = reader.latest("P2/USD", "1m")
        assert last is not None
        flow = reader.history("P1/USD", "1m", columns=[ADDED])[ADDED].to_pylist()[-1]
        assert flow == pytest.approx((2 * buys.sum() - 70) / 70)
        assert reader.training_set(["P1/USD", "P2/USD"], "1m", features=[ADDED]).num_rows == 2 * (
            MINUTES - 14
        )
        expected = reader.history("P1/USD", "1m")
    # The old table holds nothing more that anybody needs.
    (moved,) = migrate(old)
    assert moved == ("ta_0", "ta_1", 2 * MINUTES + 1)
    with open_store(old) as reader:
        assert reader.history("P1/USD", "1m").equals(expected)


def test_a_store_that_does_not_exist_is_said_to_be_missing(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "services.demo.rebuild", "--store", str(tmp_path / "none")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert ran.returncode == 1
    assert "there is no feature store" in ran.stderr
