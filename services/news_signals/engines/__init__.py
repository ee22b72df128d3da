"""The engines, one file each; `REGISTRY` names those that can be chosen."""

from collections.abc import Mapping
from importlib import import_module

from services.common.errors import SettingsError
from services.news_signals.engines.contract import Engine, EngineContext

#: Module of each engine, with its function `build`. Loaded when chosen, since each has heavy dependencies.
REGISTRY: Mapping[str, str] = {
    "embedded": "services.news_signals.engines.embedded",
    "llm": "services.news_signals.engines.llm",
}


def build_engine(name: str, context: EngineContext) -> Engine:
    """The engine called `name`. Raises `SettingsError`."""
    if name not in REGISTRY:
        raise SettingsError(f"unknown engine {name!r}; known: {', '.join(REGISTRY)}")
    engine: Engine = import_module(REGISTRY[name]).build(context)
    return engine
