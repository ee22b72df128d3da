"""Runs the news service, to be killed with SIGKILL at a named point: ``victim [POINT NUMBER]``.

The points are put in from outside, so that the service itself knows nothing of them.
"""

import sys
from typing import Any

from services.common.runner import run_service
from services.news import intake, loop, publisher, registry
from services.news.pipeline import build_pipeline
from services.news.settings import NewsSettings
from services.news.sources import file
from tests.pipeline.victim import at

#: Owner, name of the call, and whether to die after it instead of before.
POINTS: dict[str, tuple[Any, str, bool]] = {
    "before_decision": (intake.Intake, "take", False),
    "within_decision": (registry.Registry, "put", True),
    "after_decision": (intake.Intake, "take", True),
    "after_send": (publisher.KafkaPublisher, "send", True),
    "before_confirm": (registry.Registry, "confirm", False),
    "after_confirm": (registry.Registry, "confirm", True),
    "before_forget": (registry.Registry, "forget", False),
    "after_forget": (registry.Registry, "forget", True),
}


if __name__ == "__main__":
    # Small batches and eager notes, so that there is much to be killed in between.
    setattr(file, "BATCH_ITEMS", 40)  # noqa: B010
    setattr(loop, "CONFIRM_EVERY_S", 0.0)  # noqa: B010
    if sys.argv[1:]:
        owner, name, after = POINTS[sys.argv[1]]
        at(owner, name, int(sys.argv[2]), after=after)
    sys.exit(run_service("news", NewsSettings, build_pipeline))
