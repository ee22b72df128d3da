from collections.abc import Iterator
from pathlib import Path

import pytest

from services.common.broker import EmbeddedBroker
from services.features.groups import GROUPS
from services.features.settings import FeaturesSettings
from services.features.stores.hopsworks import HopsworksStore
from tests.features.rows import T0
from tests.hopsworks.certificates import make_certificates
from tests.hopsworks.stub import API_KEY, PROJECT, Stub


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="session")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as running:
        yield running


@pytest.fixture
def stub(certificates: tuple[Path, Path], broker: EmbeddedBroker) -> Iterator[Stub]:
    with Stub(certificates[1], broker.address) as running:
        yield running


def environment(stub: Stub, ca_file: Path, folder: Path, **changed: str) -> dict[str, str]:
    """Variables under which the service writes to the stub."""
    return {
        "FEATURES_STORE": "hopsworks",
        "FEATURES_STORE_PATH": str(folder / "copy.sqlite"),
        "FEATURES_STATE_DIR": str(folder / "state"),
        "FEATURES_HOPSWORKS_HOST": "127.0.0.1",
        "FEATURES_HOPSWORKS_PORT": str(stub.port),
        "FEATURES_HOPSWORKS_PROJECT": PROJECT,
        "FEATURES_HOPSWORKS_API_KEY": API_KEY,
        "FEATURES_HOPSWORKS_CA_FILE": str(ca_file),
        "FEATURES_HOPSWORKS_TIMEOUT_S": "5",
    } | changed


@pytest.fixture
def settings(stub: Stub, certificates: tuple[Path, Path], tmp_path: Path) -> FeaturesSettings:
    return FeaturesSettings.load(environment(stub, certificates[0], tmp_path))


def open_groups(settings: FeaturesSettings) -> HopsworksStore:
    """A store with all groups, whose clock stands still."""
    store = HopsworksStore(settings.store_path, settings=settings, clock_ms=lambda: T0)
    try:
        for group in GROUPS.values():
            store.ensure_group(group)
    except BaseException:
        store._failed = True
        store.close()
        raise
    return store


@pytest.fixture
def store(settings: FeaturesSettings) -> Iterator[HopsworksStore]:
    opened = open_groups(settings)
    yield opened
    opened.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        # The stub's Kafka is one of its own, so that no key stores are needed; the client warns of that.
        item.add_marker(pytest.mark.filterwarnings("ignore:Getting connection details:UserWarning"))
