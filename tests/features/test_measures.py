"""What the health knows of a store that fails outside of a step."""

import pytest

from services.common.errors import StoreError
from services.common.health import Health
from services.common.metrics import Metrics
from services.features.measures import Measures


def test_a_store_that_fails_at_a_commit_is_not_ready_and_the_error_goes_on() -> None:
    health = Health(60)
    health.input_arrived()
    done: list[str] = []

    def fail() -> None:
        raise StoreError("cannot deliver rows")

    measures = Measures(Metrics(), health)
    measures.watched(lambda: done.append("a"), lambda: done.append("b"))()
    assert (done, health.not_ready()) == (["a", "b"], [])
    with pytest.raises(StoreError, match="cannot deliver rows"):
        measures.watched(fail, lambda: done.append("never"))()
    assert done == ["a", "b"]
    assert health.not_ready() == ["store: cannot deliver rows"]
