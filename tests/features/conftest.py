from collections.abc import Iterator
from pathlib import Path

import pytest

from services.features.stores.sqlite import SqliteStore
from tests.features.rows import make_store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "features.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    with make_store(path) as opened:
        yield opened
