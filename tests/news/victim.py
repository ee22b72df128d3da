"""Runs the news service again and again, each time to be killed with SIGKILL at a named point or not at all.

Each line of its input is one run: ``{"env": {…}, "point": "after_send" or null, "number": 3, "log": path}``;
it answers with the process id at once and with the exit code at the end. Runs are forks of one process, so
that only the first pays for the imports. The points are put in from outside, so that the service itself
knows nothing of them.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from itertools import count
from typing import Any, NoReturn

from services.common.runner import run_service
from services.news import intake, loop, publisher, registry
from services.news.pipeline import build_pipeline
from services.news.settings import NewsSettings
from services.news.sources import file

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


def at(owner: Any, name: str, number: int, *, after: bool) -> None:
    """Die before or after the call `number` of `owner.name`."""
    original: Callable[..., Any] = getattr(owner, name)
    calls = count(1)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        fatal = next(calls) == number
        if fatal and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **kwargs)
        if fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, wrapped)


def run(order: dict[str, Any]) -> NoReturn:
    """One run, in a process of its own."""
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 2)
    os.environ.update(order["env"])
    # Small batches and eager notes, so that there is much to be killed in between.
    setattr(file, "BATCH_ITEMS", 40)  # noqa: B010
    setattr(loop, "CONFIRM_EVERY_S", 0.0)  # noqa: B010
    if order["point"] is not None:
        owner, name, after = POINTS[order["point"]]
        at(owner, name, order["number"], after=after)
    code = run_service("news", NewsSettings, build_pipeline)
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            run(json.loads(line))
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        sys.stdout.write(f"{code}\n")
        sys.stdout.flush()
