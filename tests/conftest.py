"""What holds for all tests: their order, and that no property fails because the machine is busy."""

import pytest

try:
    from hypothesis import settings
except ImportError:  # The environment of the Hopsworks tests has no properties to test.
    pass
else:
    # On top of what it chooses for continuous integration, where every run takes the same examples.
    settings.register_profile("ours", parent=settings(), deadline=None)
    settings.load_profile("ours")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that mostly wait come first, so that all processes end at about the same time."""
    items.sort(key=lambda item: "tests/pipeline/" not in item.nodeid)
