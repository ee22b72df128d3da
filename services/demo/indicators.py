"""Which indicators the live ta service computes, for commands that run another one beside it."""

import os
from pathlib import Path

from services.common.columns import INDICATOR_NAMES
from services.ta.settings import TaSettings

VARIABLE = "TA_INDICATORS"
ENV_FILE = Path(__file__).parents[1] / "ta" / ".env"


def chosen_indicators() -> tuple[str, ...]:
    """What `TA_INDICATORS` says in the environment, else in the file that `make dev svc=ta` reads, else all.

    History that has more columns than live rows would end where these begin: a training set leaves out
    rows with nulls. Raises `SettingsError`.
    """
    # Alone: a port or a folder that is set for the live service is none of ours.
    given = {name: value for name, value in os.environ.items() if name.upper() == VARIABLE and value}
    return TaSettings.load(given, ENV_FILE if ENV_FILE.is_file() else None).indicators


def told(indicators: tuple[str, ...]) -> str:
    """A line that says which they are; empty where they are all."""
    if {*indicators} == {*INDICATOR_NAMES}:
        return ""
    return (
        f"{VARIABLE} chooses {len(indicators)} of {len(INDICATOR_NAMES)} indicators: "
        f"{', '.join(indicators)}; the others will be null\n"
    )
