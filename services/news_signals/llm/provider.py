"""From settings to a model that can be asked: the provider's client, its key, the kind of its answers.

Retries, time-outs and addresses are ours: the providers' libraries would retry behind the budget's back, and
would take addresses and keys from the environment.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal
from urllib.parse import urlsplit

from loguru import logger

from services.common.errors import SettingsError
from services.news_signals.llm_settings import LlmSettings

EXTRA = "pip install 'crypto-price-predictor[llm]'"
ADDRESSES = {
    "anthropic": "https://api.anthropic.com",
    "openai": "https://api.openai.com/v1",
    "ollama": "http://localhost:11434/v1",
}
MAX_ANSWER_BYTES = 2_000_000
_LOCAL = ("localhost", "127.0.0.1", "::1")

type Output = Literal["tool", "json", "prompt"]


@dataclass(frozen=True, slots=True)
class Target:
    """Which model is asked where; `name` is what signals call it. Its text shows no key."""

    #: A provider of `ADDRESSES`, or ``compatible``.
    kind: str
    name: str
    model: str
    base_url: str
    output: Output
    key: str | None

    def __repr__(self) -> str:
        return f"Target({self.name!r} at {self.base_url!r}, {self.output})"


def target_of(settings: LlmSettings) -> Target:
    """What the settings ask for. Raises `SettingsError`."""
    name = settings.llm_model
    if name is None:
        raise SettingsError(
            "NEWS_SIGNALS_LLM_MODEL: the engine llm needs a model, like anthropic:claude-haiku-4-5, "
            "openai:gpt-4.1-mini or ollama:llama3.1"
        )
    given = settings.llm_base_url
    prefix, _, model = name.partition(":")
    if prefix not in ADDRESSES or not model:
        if given is None:
            raise SettingsError(
                f"NEWS_SIGNALS_LLM_MODEL: {name!r} names no provider; write "
                f"{', '.join(f'{known}:…' for known in ADDRESSES)}, "
                "or set NEWS_SIGNALS_LLM_BASE_URL to an OpenAI-compatible endpoint"
            )
        prefix, model = "compatible", name
    key = settings.llm_api_key.get_secret_value().strip() if settings.llm_api_key else None
    # Behind an address of one's own may be a server without keys.
    if not key and (prefix == "anthropic" or (prefix == "openai" and given is None)):
        raise SettingsError(f"NEWS_SIGNALS_LLM_API_KEY: {prefix} needs a key")
    if key and not (key.isascii() and key.isprintable()):
        raise SettingsError("NEWS_SIGNALS_LLM_API_KEY: a key holds printable ASCII characters only")
    base_url = given or ADDRESSES[prefix]
    if key and base_url.startswith("http://") and urlsplit(base_url).hostname not in _LOCAL:
        logger.warning(
            "the LLM key goes to {} without encryption; use https unless that is your own", base_url
        )
    output: Output = settings.llm_output if settings.llm_output != "auto" else _best_output(prefix)
    return Target(prefix, name, model, base_url, output, key or None)


def _best_output(prefix: str) -> Output:
    # Many models on Ollama know no tools, and its JSON schemas bind what the model can write.
    return "json" if prefix == "ollama" else "tool"


def require_extra(target: Target) -> None:
    """Raise `SettingsError` unless the libraries that `target` needs are installed."""
    for library in ("pydantic_ai", "anthropic" if target.kind == "anthropic" else "openai"):
        if find_spec(library) is None:
            raise SettingsError(f"the engine llm needs {library}: {EXTRA}")
