"""The conformance suite on the SQLite store."""

import os
import sys
from pathlib import Path

import pytest

from services.features.groups import FeatureGroup
from services.features.stores import REGISTRY
from services.features.stores.sqlite import SqliteStore
from services.features.stores.sqlite_reader import SqliteReader
from tests.features.rows import make_store
from tests.features.store_conformance import Row, StoreConformance


class SqliteSubject:
    keeps_open_rows = True

    def __init__(self, path: Path) -> None:
        self._path = path

    def open(self) -> SqliteStore:
        return make_store(self._path)

    def _rows(self, table: str, order: tuple[str, ...]) -> list[Row]:
        with SqliteReader(self._path) as reader:
            return reader.sql(f"SELECT * FROM {table} ORDER BY {', '.join(order)}")[1]

    def offline(self, group: FeatureGroup) -> list[Row]:
        return self._rows(group.table, group.primary_key)

    def online(self, group: FeatureGroup) -> list[Row]:
        return self._rows(f"{group.table}_online", group.key)

    def writer(self) -> tuple[list[str], dict[str, str]]:
        return [sys.executable, "-m", "tests.features.writer_process", str(self._path)], {**os.environ}


@pytest.mark.parametrize("name", REGISTRY)
def test_every_store_of_the_registry_is_held_to_the_suite(name: str) -> None:
    suites = Path(__file__).parents[1].glob("*/test_*conformance.py")
    classes = f"class Test{name.capitalize()}(StoreConformance)"
    assert [file for file in suites if classes in file.read_text()]


class TestSqlite(StoreConformance):
    @pytest.fixture
    def subject(self, path: Path) -> SqliteSubject:
        return SqliteSubject(path)
