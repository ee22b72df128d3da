"""What holds for all tests: their order, and that no property fails because the machine is busy."""

import pytest
from hypothesis import settings

# On top of what Hypothesis chooses for continuous integration, where every run takes the same examples.
settings.register_profile("ours", parent=settings(), deadline=None)
settings.load_profile("ours")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that mostly wait come first, so that all processes end at about the same time."""
    items.sort(key=lambda item: "tests/pipeline/" not in item.nodeid)
