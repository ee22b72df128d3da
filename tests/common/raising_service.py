"""The candles service with a step that has a bug: `python -m tests.common.raising_service`."""

import sys

from services.candles.settings import CandlesSettings
from services.common.runner import Context, run_service
from services.common.step import Message, State, StepResult
from services.common.stream import Stream


def step(message: Message, state: State) -> StepResult:
    password = "canary-" + "in-a-variable"
    raise RuntimeError(f"a bug in the step, not in the {len(password)} letters")


def build_pipeline(settings: CandlesSettings, context: Context) -> Stream:
    stream = Stream(settings, context, ("trades", "candles"))
    stream.add_step("trades", step, destination="candles")
    return stream


if __name__ == "__main__":
    sys.exit(run_service("candles", CandlesSettings, build_pipeline))
