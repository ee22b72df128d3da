"""Order of the tests: those that mostly wait come first, so that all processes end at about the same time."""

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: "tests/pipeline/" not in item.nodeid)
