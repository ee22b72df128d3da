"""An indicator is added: what a new service makes of an old store, and what is asked of both versions."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.common.columns import Column
from services.common.errors import QueryError, SchemaMismatchError
from services.common.timeframes import DAY_MS
from services.features import RowsLeftOutWarning
from services.features import migrate as command
from services.features.groups import NEWS_SIGNALS, SENTIMENT, TA, FeatureGroup
from services.features.layers import readable_as
from services.features.sentiment import SentimentWriter
from services.features.stores import sqlite_migrate
from services.features.stores.sqlite import SqliteStore
from services.features.stores.sqlite_migrate import migrate
from services.features.stores.sqlite_reader import SqliteReader
from services.features.stores.sqlite_roll import Roll
from tests.features.rows import MINUTE, T0, make_store, signal, ta_row, tuples

NEW = Column("moon_phase", "float", "ratio", "A new indicator", nullable=True)
#: As `INDICATOR_COLUMNS` has it: the new one last.
SECOND = replace(TA, version=2, columns=(*TA.columns, NEW))
LATER = T0 + 200 * DAY_MS


def second(rows: list[Any], moon: float | None) -> list[tuple[Any, ...]]:
    return [(*row, moon) for row in tuples(rows)]


@pytest.fixture
def old(path: Path) -> Path:
    """A store that a service of before has left: ten candles of a minute, and news."""
    with make_store(path) as store:
        store.write(TA, tuples(ta_row(i, close=100.0 + i, rsi_14=50.0) for i in range(10)))
        SentimentWriter(store, lambda: LATER).write("BTC", [signal(MINUTE)])
    return path


def renewed(path: Path, groups: tuple[FeatureGroup, ...] = (SECOND, NEWS_SIGNALS, SENTIMENT)) -> SqliteStore:
    """The store as a service of now opens it."""
    return make_store(path, groups)


def test_old_rows_are_there_with_nulls_and_new_rows_with_values(old: Path) -> None:
    with renewed(old) as store:
        assert store.groups()["ta"].version == 2
        assert store.latest("BTC/USD", "1m")["moon_phase"] is None  # type: ignore[index]
        store.write(SECOND, second([ta_row(i, close=100.0 + i, rsi_14=60.0) for i in (10, 11)], 0.25))
        table = store.history("BTC/USD", "1m", columns=["close", "moon_phase"])
        assert table["close"].to_pylist() == [100.0 + i for i in range(12)]
        assert table["moon_phase"].to_pylist() == [None] * 10 + [0.25] * 2
        assert store.latest("BTC/USD", "1m")["moon_phase"] == 0.25  # type: ignore[index]
        # The label of the last old row comes from a new one.
        training = store.training_set("BTC/USD", "1m", features=["rsi_14", "news_count_15m"], horizon=2)
        assert training["rsi_14"].to_pylist() == [50.0] * 10
        whole = store.vector_history(
            "BTC/USD", "1m", columns=["moon_phase", "news_count_15m"], limit=3, newest=True
        )
        assert whole["moon_phase"].to_pylist() == [None, 0.25, 0.25]
        assert store.describe()["rows"] == 12
        (null_rate,) = (c["null_rate"] for c in store.describe()["columns"] if c["name"] == "moon_phase")
        assert null_rate == pytest.approx(10 / 12)


def test_by_default_a_new_indicator_does_not_make_a_training_set_of_the_last_rows_alone(path: Path) -> None:
    values: dict[str, Any] = {
        name: 1.0 for name in TA.features if name not in ("open", "high", "low", "close")
    }
    with make_store(path) as store:
        store.write(TA, tuples(ta_row(i, **values) for i in range(500)))
        assert store.training_set("BTC/USD", "1m").num_rows == 499
    with renewed(path) as store:
        store.write(SECOND, second([ta_row(i, **values) for i in range(500, 510)], 0.5))
        says = r"only 9 of 509 rows are complete: null are moon_phase \(500\)\. .*make rebuild"
        with pytest.raises(QueryError, match=says):
            store.training_set("BTC/USD", "1m")
        # Each way out that it names.
        later = store.training_set("BTC/USD", "1m", T0 + 501 * MINUTE)
        assert (later.num_rows, "moon_phase" in later.column_names) == (9, True)
        assert store.training_set("BTC/USD", "1m", dropna=False).num_rows == 510
        assert store.training_set("BTC/USD", "1m", features=TA.features).num_rows == 509
        # Who asks for it means it.
        assert store.training_set("BTC/USD", "1m", features=["moon_phase"]).num_rows == 9
        store.write(SECOND, second([ta_row(i, **values) for i in range(500)], 0.5))
        assert store.training_set("BTC/USD", "1m").num_rows == 509


def test_a_training_set_that_loses_fewer_rows_than_half_to_a_new_indicator_says_so(path: Path) -> None:
    values: dict[str, Any] = {
        name: 1.0 for name in TA.features if name not in ("open", "high", "low", "close")
    }
    with make_store(path) as store:
        store.write(TA, tuples(ta_row(i, **values) for i in range(300)))
    with renewed(path) as store:
        store.write(SECOND, second([ta_row(i, **values) for i in range(300, 1_000)], 0.5))
        with pytest.warns(RowsLeftOutWarning, match=r"only 699 of 999 rows .* moon_phase \(300\)") as warned:
            assert store.training_set("BTC/USD", "1m").num_rows == 699
        # It points at the line that asked.
        assert [warning.filename for warning in warned] == [__file__]
        assert store.training_set("BTC/USD", "1m", features=["moon_phase"]).num_rows == 699


def test_what_indicators_take_to_be_warm_is_no_reason_to_refuse_a_training_set(path: Path) -> None:
    values: dict[str, Any] = {
        name: 1.0 for name in TA.features if name not in ("open", "high", "low", "close")
    }
    with make_store(path) as store:
        for pair in ("BTC/USD", "ETH/USD"):
            store.write(TA, tuples(ta_row(i, pair=pair, **values | {"macd": None}) for i in range(90)))
            store.write(TA, tuples(ta_row(i, pair=pair, **values) for i in range(90, 100)))
        assert store.training_set(["BTC/USD", "ETH/USD"], "1m").num_rows == 18


def test_a_training_set_has_the_sentiment_of_the_file_and_not_of_the_code(old: Path) -> None:
    mean = Column("sentiment_mean_7d", "float", "score", "Of seven days", nullable=True)
    newer = replace(
        SENTIMENT,
        version=2,
        columns=(*SENTIMENT.columns, mean),
        sparse=(*SENTIMENT.sparse, mean.name),
    )
    renewed(old, (newer,)).close()
    with SqliteReader(old) as reader:
        names = ["close", "news_count_15m", mean.name]
        table = reader.training_set("BTC/USD", "1m", features=names, dropna=False)
        assert table["news_count_15m"].to_pylist() == [1] * 10
        assert table[mean.name].null_count == 10
        with pytest.raises(QueryError, match=r"unknown feature news_count_7d; known: .*sentiment_mean_7d"):
            reader.training_set("BTC/USD", "1m", features=["news_count_7d"])


def test_a_reader_that_was_open_before_sees_the_new_version(old: Path) -> None:
    with SqliteReader(old) as reader:
        assert reader.history("BTC/USD", "1m").num_rows == 10
        with renewed(old) as store:
            store.write(SECOND, second([ta_row(10)], 0.5))
            assert reader.history("BTC/USD", "1m")["moon_phase"].to_pylist()[-2:] == [None, 0.5]


def test_rows_computed_anew_replace_the_old_ones_of_their_revision(old: Path) -> None:
    with renewed(old) as store:
        store.write(SECOND, second([ta_row(3, close=3.0), ta_row(4, close=4.0)], 0.5))
        # Of a series that comes again from its beginning the newest row stays the newest.
        assert store.latest("BTC/USD", "1m")["close"] == 109.0  # type: ignore[index]
        # A service of before that still runs corrects a candle.
        store.ensure_group(TA)
        store.write(TA, tuples([ta_row(4, close=44.0, revision=1)]))
        table = store.history("BTC/USD", "1m", columns=["close", "moon_phase"])
        assert table["close"].to_pylist()[2:6] == [102.0, 3.0, 44.0, 105.0]
        assert table["moon_phase"].to_pylist()[2:6] == [None, 0.5, None, None]


def test_the_same_version_with_another_column_is_refused_with_both_schemas(old: Path) -> None:
    with pytest.raises(SchemaMismatchError) as refused:
        renewed(old, (replace(SECOND, version=1),))
    text = str(refused.value)
    assert "raise the group's version" in text
    lines = text.splitlines()
    assert "  +moon_phase REAL" in lines
    assert "   flow_imbalance_14 REAL" in lines
    assert lines[-2].startswith("  table:    exchange, pair")
    assert lines[-1].endswith("moon_phase, ingested_at_ms")


def test_which_versions_can_be_read_together() -> None:
    assert readable_as(TA, SECOND)
    assert readable_as(SECOND, replace(TA, version=3))
    strict = replace(SECOND, columns=(*TA.columns, replace(NEW, nullable=False)))
    assert not readable_as(TA, strict)
    other_kind = replace(SECOND, columns=(*TA.columns[:-1], replace(TA.columns[-1], kind="int")))
    assert not readable_as(TA, other_kind)
    assert not readable_as(replace(TA, key=("exchange", "pair")), SECOND)
    assert not readable_as(SENTIMENT, SECOND)


def test_migrating_leaves_one_table_and_the_same_answers(
    old: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with renewed(old) as store:
        store.write(SECOND, second([ta_row(i, close=200.0) for i in (8, 9, 10)], 0.5))
        before = store.history("BTC/USD", "1m")
        latest = store.latest_all()
        assert command.main(["--store", str(old)]) == 0
        assert capsys.readouterr().out == "ta_1 → ta_2: 10 rows\n"
        assert store.sql("SELECT count(*), count(moon_phase) FROM ta")[1] == [(11, 3)]
        assert store.sql("SELECT count(*) FROM sqlite_schema WHERE name LIKE 'ta_1%'")[1] == [(0,)]
        assert store.history("BTC/USD", "1m").equals(before)
        assert store.latest_all() == latest
    assert command.main(["--store", str(old)]) == 0
    assert "nothing to move" in capsys.readouterr().out
    assert command.main(["--store", str(old.with_name("none"))]) == 1
    with renewed(old) as store:
        assert store.history("BTC/USD", "1m").equals(before)


def test_migrating_says_which_earlier_versions_stay_and_why(
    old: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    list(Roll(old, clock_ms=lambda: LATER).before(LATER))
    renewed(old).close()
    assert command.main(["--store", str(old)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "ta_1 → ta_2: 1 rows",
        "ta_1: its rows in Parquet files stay there; the newest has them",
    ]
    other_kind = replace(TA, version=3, columns=(*TA.columns[:-1], replace(TA.columns[-1], kind="int")))
    renewed(old, (other_kind,)).close()
    assert command.main(["--store", str(old)]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert lines == [
        "ta_2: cannot be read as ta_3 (other kinds of columns), so it stays; SQL has it",
        "ta_1: its rows in Parquet files stay there; no answer has them",
    ]
    assert last == "nothing to move"


def _rows() -> st.SearchStrategy[list[tuple[int, int, float]]]:
    row = st.tuples(st.integers(0, 40), st.integers(0, 2), st.sampled_from([1.0, 2.0]))
    return st.lists(row, max_size=12)


def _written(group: FeatureGroup) -> Callable[[SqliteStore, list[tuple[int, int, float]]], None]:
    def write(store: SqliteStore, rows: list[tuple[int, int, float]]) -> None:
        made = [ta_row(at, timeframe="1d", close=close, revision=revision) for at, revision, close in rows]
        if made:
            store.write(group, tuples(made) if group is TA else second(made, made[0].close / 8))

    return write


@settings(max_examples=40, deadline=None)
@given(
    first=_rows(),
    then=_rows(),
    last=_rows(),
    rolls=st.lists(st.integers(0, 50), max_size=2),
    third=st.booleans(),
    migrated_first=st.booleans(),
)
def test_rolled_or_not_migrated_or_not_every_version_answers_the_same(
    tmp_path_factory: pytest.TempPathFactory,
    first: list[tuple[int, int, float]],
    then: list[tuple[int, int, float]],
    last: list[tuple[int, int, float]],
    rolls: list[int],
    third: bool,
    migrated_first: bool,
) -> None:
    path = tmp_path_factory.mktemp("versions") / "store"
    now = LATER
    with make_store(path) as store:
        _written(TA)(store, first)
        store.ensure_group(SECOND)
        _written(SECOND)(store, then)
        for before in rolls:
            now += 1
            list(Roll(path, clock_ms=partial(int, now)).before(T0 + before * DAY_MS))
        # A service of before still writes, also what the newest version has in a file.
        _written(TA)(store, last)
        if third:
            store.ensure_group(replace(SECOND, version=3))

        def ask() -> list[Any]:
            asked: list[Any] = [store.latest_all(), store.describe(now=0)]
            if store.series():
                asked += [store.history("BTC/USD", "1d").to_pylist()]
                for newest in (False, True):
                    asked.append(store.history("BTC/USD", "1d", limit=4, newest=newest).to_pylist())
            return asked

        expected = ask()
        best: dict[int, tuple[int, int, float]] = {}
        for version, rows in ((1, first), (1, last), (2, then)):
            for at, revision, close in rows:
                if at not in best or (revision, version) >= best[at][:2]:
                    best[at] = (revision, version, close)
        found = expected[2] if store.series() else []
        assert [row["close"] for row in found] == [best[at][2] for at in sorted(best)]
        assert [row["moon_phase"] is not None for row in found] == [best[at][1] == 2 for at in sorted(best)]
        steps: list[Callable[[], Iterator[Any]]] = [
            lambda: migrate(path),
            lambda: Roll(path, clock_ms=lambda: now + 1).before(LATER),
        ]
        for step in steps if migrated_first else reversed(steps):
            list(step())
            assert ask() == expected


def test_between_any_two_steps_of_a_migration_the_answers_are_the_same(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_migrate, "MOVE_ROWS", 7)
    with make_store(path) as store:
        store.write(TA, tuples(ta_row(i, close=100.0 + i) for i in range(60)))
        store.ensure_group(SECOND)
        store.write(SECOND, second([ta_row(i, close=200.0 + i) for i in range(20, 70, 2)], 0.5))
        list(Roll(path, clock_ms=lambda: LATER).before(T0 + 30 * MINUTE))
        expected = store.history("BTC/USD", "1m")
        latest = store.latest_all()
        asked = 0

        @contextmanager
        def between() -> Iterator[None]:
            nonlocal asked
            yield
            with SqliteReader(path) as reader:
                assert reader.history("BTC/USD", "1m").equals(expected)
                assert reader.latest_all() == latest
            asked += 1
            if asked == 3:
                raise KeyboardInterrupt

        monkeypatch.setattr(sqlite_migrate, "pause_after", between)
        with pytest.raises(KeyboardInterrupt):
            list(migrate(path))
        # It goes on where it was.
        assert [*migrate(path)] == [("ta_1", "ta_2", 60 - 30 + 1 - 21)]
        assert asked == 3 + 2
        assert store.history("BTC/USD", "1m").equals(expected)
