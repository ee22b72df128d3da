"""Writing to SQLite: what `store_conformance.py` does not say of every store."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.common.columns import Column
from services.common.errors import SchemaMismatchError, StoreError
from services.features.groups import TA
from services.features.stores import REGISTRY, open_for_reading, open_for_writing
from services.features.stores.sqlite import SqliteStore
from services.features.stores.sqlite_connection import check_version
from services.features.stores.sqlite_reader import SqliteReader
from tests.features.rows import T0, contents, make_store, ta_row, tuples


def _versions() -> st.SearchStrategy[list[Any]]:
    """Rows whose content follows from their time, state and revision, as the services make them."""

    def make(pair: str, at: int, revision: int, closed: bool) -> Any:
        close = 50.0 + at * 10 + revision * 2 + closed
        return ta_row(at, pair=pair, revision=revision, closed=closed, close=close)

    rows = st.builds(
        make,
        st.sampled_from(["BTC/USD", "ETH/USD"]),
        st.integers(0, 3),
        st.integers(0, 2),
        st.booleans(),
    )
    return st.lists(rows, min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(rows=_versions(), data=st.data())
def test_any_order_duplication_and_batching_gives_the_same_tables(rows: list[Any], data: Any) -> None:
    shuffled = data.draw(st.permutations(rows + data.draw(st.lists(st.sampled_from(rows), max_size=5))))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(shuffled)), max_size=4)))
    batches = [shuffled[a:b] for a, b in zip([0, *cuts], [*cuts, len(shuffled)], strict=True)]
    with (
        tempfile.TemporaryDirectory() as folder,
        make_store(Path(folder, "one")) as one,
        make_store(Path(folder, "other")) as other,
    ):
        one.write(TA, tuples(rows))
        for batch in batches:
            other.write(TA, tuples(batch))
        assert contents(one) == contents(other)


def test_a_batch_with_a_row_that_cannot_be_stored_leaves_nothing(store: SqliteStore) -> None:
    good = tuples([ta_row(0)])[0]
    bad = ("kraken", "BTC/USD", "1m", "not a time", *good[4:])
    with pytest.raises(StoreError, match="cannot write"):
        store.write(TA, [good, bad])
    assert contents(store) == ([], [])
    store.write(TA, [good])
    assert len(contents(store)[0]) == 1


def test_a_store_with_other_columns_is_refused_and_both_are_shown(store: SqliteStore, path: Path) -> None:
    changed = replace(
        TA, columns=(*TA.columns[:-1], Column("moon_phase", "float", "ratio", "x", nullable=True))
    )
    with pytest.raises(SchemaMismatchError) as refused:
        store.ensure_group(changed)
    assert "flow_imbalance_14 REAL" in str(refused.value)
    assert "moon_phase REAL" in str(refused.value)


def test_a_reader_refuses_a_file_whose_table_was_altered(store: SqliteStore, path: Path) -> None:
    store._writer.execute('ALTER TABLE ta_1 ADD COLUMN "extra" REAL')
    with pytest.raises(SchemaMismatchError, match="extra REAL"):
        SqliteReader(path)


def test_a_second_version_of_a_group_lives_beside_the_first(store: SqliteStore) -> None:
    store.write(TA, tuples([ta_row(0)]))
    second = replace(TA, version=2, columns=TA.columns[:-1])
    store.ensure_group(second)
    store.write(second, [row[:-1] for row in tuples([ta_row(0), ta_row(1)])])
    assert store.sql("SELECT (SELECT count(*) FROM ta_1), (SELECT count(*) FROM ta)")[1] == [(1, 2)]
    assert store.groups()["ta"].version == 2


def test_opening_again_keeps_the_rows(path: Path) -> None:
    with make_store(path) as store:
        store.write(TA, tuples([ta_row(0)]))
    with make_store(path) as store:
        assert store.history("BTC/USD", "1m").num_rows == 1


def test_rows_are_stamped_with_the_time_of_the_write(store: SqliteStore) -> None:
    store.write(TA, tuples([ta_row(0)]))
    assert store.latest("BTC/USD", "1m")["ingested_at_ms"] == T0  # type: ignore[index]


def test_flush_works_before_and_after_writes_and_at_both_levels(tmp_path: Path) -> None:
    for level in ("normal", "full"):
        with open_for_writing("sqlite", tmp_path / level, level) as store:
            store.flush()
            store.ensure_group(TA)
            store.write(TA, tuples([ta_row(0)]))
            store.flush()
            store.flush()


@pytest.mark.parametrize("version", ["3.51.3", "3.54.1", "4.0.0", "3.50.7", "3.50.9", "3.44.6"])
def test_a_safe_sqlite_is_accepted(version: str) -> None:
    check_version(version)


@pytest.mark.parametrize("version", ["3.51.2", "3.50.6", "3.49.9", "3.44.5", "3.40.1"])
def test_an_sqlite_with_the_wal_reset_bug_is_refused(version: str) -> None:
    with pytest.raises(StoreError, match=version):
        check_version(version)


def test_a_file_that_is_no_database_is_one_clear_error(path: Path) -> None:
    path.write_text("this is no database, but it is long enough to look like one " * 20)
    with pytest.raises(StoreError, match="not a database"):
        SqliteStore(path)
    with pytest.raises(StoreError, match="not a database"):
        SqliteReader(path)


def test_the_registry_and_the_folder_agree() -> None:
    folder = Path(__file__).parents[2] / "services" / "features" / "stores"
    # Files like sqlite_reader.py are parts of sqlite.py.
    files = {file.stem for file in folder.glob("*.py")} - {"__init__", "contract", "location"}
    assert {name for name in files if "_" not in name} == set(REGISTRY)
    with pytest.raises(StoreError, match="known: sqlite"):
        open_for_reading("oracle", Path("x"))
