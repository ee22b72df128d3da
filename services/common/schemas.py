"""JSON Schemas of the contracts, and what change of one would break a reader. Pure."""

from typing import Any

import msgspec

from services.common.messages import SCHEMA_VERSION, Candle, DeadLetter, TaRow, Trade
from services.common.news import News, NewsSignal

#: The row of each topic, which `docs/schemas/` is generated from.
ROWS: dict[str, type[Any]] = {
    "trades": Trade,
    "candles": Candle,
    "ta": TaRow,
    "news": News,
    "news_signals": NewsSignal,
    "dead_letters": DeadLetter,
}


def schema(topic: str) -> dict[str, Any]:
    """JSON Schema of a message on `topic`."""
    made = msgspec.json.schema(list[ROWS[topic]])  # type: ignore[valid-type]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"{topic}, version {SCHEMA_VERSION}",
        "version": SCHEMA_VERSION,
        **made,
    }


def file_name(topic: str) -> str:
    """Name of the schema's file in `docs/schemas/`."""
    return f"{topic}.v{SCHEMA_VERSION}.json"


def breaking_changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Why a reader of `old` messages or an `old` reader of new ones would fail; empty if none would.

    Adding an optional property is no break, nor is changing a description. Everything else is.
    """
    problems: list[str] = []
    for name, before in old["$defs"].items():
        after = new["$defs"].get(name)
        if after is None:
            problems.append(f"{name} is gone")
            continue
        known, now = before["properties"], after["properties"]
        problems += [f"{name}.{field} is gone" for field in known if field not in now]
        problems += [
            f"{name}.{field} was {_shape(known[field])} and is {_shape(now[field])}"
            for field in known
            if field in now and _shape(known[field]) != _shape(now[field])
        ]
        required, required_now = set(before["required"]), set(after["required"])
        problems += [f"{name}.{field} became required" for field in sorted(required_now - required)]
        problems += [
            f"{name}.{field} may now be missing" for field in sorted((required - required_now) & now.keys())
        ]
    return problems


def _shape(value: dict[str, Any]) -> dict[str, Any]:
    return {key: item for key, item in value.items() if key not in ("description", "title")}
