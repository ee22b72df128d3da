"""The conformance suite on the Hopsworks store: the real client, a real broker, and a model of the cluster.

It is a contract test. What it calls offline and online rows is what `model.py` makes of the records that were
delivered.
"""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from services.features.groups import FeatureGroup
from services.features.settings import FeaturesSettings
from services.features.stores.hopsworks import HopsworksStore
from services.features.stores.hopsworks_types import COIN
from tests.features.store_conformance import Row, StoreConformance
from tests.hopsworks.conftest import environment, open_groups
from tests.hopsworks.model import Model, read_topic
from tests.hopsworks.stub import Stub


class HopsworksSubject:
    keeps_open_rows = False

    def __init__(self, stub: Stub, settings: FeaturesSettings, ca_file: Path, folder: Path) -> None:
        self._stub = stub
        self._settings = settings
        self._environment = environment(stub, ca_file, folder)

    def open(self) -> HopsworksStore:
        return open_groups(self._settings)

    def _model(self, group: FeatureGroup) -> Model:
        return Model(group, read_topic(self._stub, group))

    def offline(self, group: FeatureGroup) -> list[Row]:
        return _rows(self._model(group).offline, group)

    def online(self, group: FeatureGroup) -> list[Row]:
        return _rows(self._model(group).online, group)

    def writer(self) -> tuple[list[str], dict[str, str]]:
        command = [sys.executable, "-W", "ignore", "-m", "tests.hopsworks.writer_process"]
        return command, os.environ | self._environment


def _rows(table: dict[tuple[Any, ...], dict[str, Any]], group: FeatureGroup) -> list[Row]:
    """Rows of the model as the store has them; the column for joins follows from the others."""
    rows = sorted(table.values(), key=lambda row: tuple(row[name] for name in group.primary_key))
    for row in rows:
        assert set(row) - {COIN.name} <= set(group.names)
        assert COIN.name in group.names or row.get(COIN.name) == row["pair"].split("/")[0]
    return [tuple(row[name] for name in group.names) for row in rows]


class TestHopsworks(StoreConformance):
    @pytest.fixture
    def subject(
        self, stub: Stub, settings: FeaturesSettings, certificates: tuple[Path, Path], tmp_path: Path
    ) -> HopsworksSubject:
        return HopsworksSubject(stub, settings, certificates[0], tmp_path)
