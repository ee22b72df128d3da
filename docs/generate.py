"""Writes what comes from the code: `docs/schemas/*.json`, `.env.example`, the dashboard, the manifests.

`make docs` runs it; it refuses to replace a schema by one that breaks readers unless
`SCHEMA_VERSION` was raised. A test holds the files to the code.
"""

import json
import sys
from pathlib import Path

from docs.dashboard import dashboard_text
from docs.kubernetes import manifests_text
from services.candles.settings import CandlesSettings
from services.common.schemas import ROWS, breaking_changes, file_name, schema
from services.common.settings import BrokerSettings, EnvSettings
from services.features.settings import FeaturesSettings
from services.news.settings import NewsSettings
from services.news_signals.settings import NewsSignalsSettings
from services.ta.settings import TaSettings
from services.trades.settings import TradesSettings

ROOT = Path(__file__).resolve().parent.parent

SETTINGS: dict[str, type[EnvSettings]] = {
    "The message bus, the same for every service": BrokerSettings,
    "trades": TradesSettings,
    "candles": CandlesSettings,
    "ta": TaSettings,
    "news": NewsSettings,
    "news_signals": NewsSignalsSettings,
    "features": FeaturesSettings,
}

HEAD = """\
# Every setting with its default. The environment goes before a file given with --env-file.
# An unknown variable with one of these prefixes is an error.
"""


def env_example() -> str:
    """Text of `.env.example`."""
    lines = [HEAD]
    for title, settings in SETTINGS.items():
        lines.append(f"\n# --- {title} ---")
        prefix = settings.model_config["env_prefix"]
        for name, field in settings.model_fields.items():
            default = field.get_default(call_default_factory=True)
            if isinstance(default, tuple):
                default = ",".join(default)
            if isinstance(default, bool):
                default = str(default).lower()
            shown = "" if default is None else default
            lines.append(f"# {field.description}")
            lines.append(f"# {prefix}{name.upper()}={shown}")
    return "\n".join(lines) + "\n"


def schema_text(topic: str) -> str:
    """Text of the schema file of `topic`."""
    return json.dumps(schema(topic), indent=1) + "\n"


def main() -> int:
    """Write all files."""
    folder = ROOT / "docs" / "schemas"
    folder.mkdir(parents=True, exist_ok=True)
    for topic in ROWS:
        path = folder / file_name(topic)
        if path.exists():
            problems = breaking_changes(json.loads(path.read_text()), schema(topic))
            if problems:
                listed = "\n  ".join(problems)
                sys.stderr.write(
                    f"{path.name}: this breaks readers:\n  {listed}\nraise SCHEMA_VERSION in messages.py\n"
                )
                return 1
        path.write_text(schema_text(topic))
    (ROOT / ".env.example").write_text(env_example())
    (ROOT / "docs" / "grafana-dashboard.json").write_text(dashboard_text())
    (ROOT / "docs" / "kubernetes.yaml").write_text(manifests_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
