"""The HTTP client and the pydantic-ai model of a target."""

import warnings
from collections.abc import AsyncIterator
from typing import Any

import httpx2
from pydantic_ai import NativeOutput, PromptedOutput, ToolOutput
from pydantic_ai.models import Model
from pydantic_ai.profiles import merge_profile

from services.news_signals.llm.answers import Answer
from services.news_signals.llm.provider import MAX_ANSWER_BYTES, Output, Target

CONNECT_TIMEOUT_S = 5.0


def http_client(timeout_s: float, max_bytes: int = MAX_ANSWER_BYTES) -> httpx2.AsyncClient:
    """A client that follows no redirects (they could carry the key away) and reads no endless answer."""

    async def bounded(response: httpx2.Response) -> None:
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            # Not asked for, and a few bytes could unpack to any size.
            raise httpx2.RemoteProtocolError("the answer is compressed, which was not asked for")
        response.stream = _Bounded(response.stream, max_bytes)

    return httpx2.AsyncClient(
        timeout=httpx2.Timeout(timeout_s, connect=min(timeout_s, CONNECT_TIMEOUT_S)),
        headers={"Accept-Encoding": "identity"},
        follow_redirects=False,
        event_hooks={"response": [bounded]},
    )


class _Bounded(httpx2.AsyncByteStream):
    """At most so many bytes of a stream."""

    def __init__(self, stream: Any, max_bytes: int) -> None:
        self._stream = stream
        self._max_bytes = max_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in self._stream:
            size += len(chunk)
            if size > self._max_bytes:
                raise httpx2.RemoteProtocolError(f"the answer is longer than {self._max_bytes} bytes")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


def build_model(target: Target, client: httpx2.AsyncClient) -> Model:
    """The model of `target`, asked through `client`. Each provider's library is loaded when it is needed."""
    # pydantic-ai leaves the temperature out where a model takes none, and says so each time.
    warnings.filterwarnings("ignore", "Sampling parameters", UserWarning)
    if target.kind == "anthropic":
        from anthropic import AsyncAnthropic
        from pydantic_ai.models.anthropic import AnthropicModel
        from pydantic_ai.providers.anthropic import AnthropicProvider

        anthropic = AsyncAnthropic(
            api_key=target.key, base_url=target.base_url, http_client=client, max_retries=0
        )
        return AnthropicModel(target.model, provider=AnthropicProvider(anthropic_client=anthropic))
    return _openai_model(target, client)


def _openai_model(target: Target, client: httpx2.AsyncClient) -> Model:
    from openai import AsyncOpenAI
    from pydantic_ai.models.ollama import OllamaModel
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.profiles.openai import OpenAIModelProfile
    from pydantic_ai.providers.ollama import OllamaProvider
    from pydantic_ai.providers.openai import OpenAIProvider
    from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider

    # Local endpoints need no key but the library does, and without one it would look in the environment.
    openai = AsyncOpenAI(
        api_key=target.key or "none", base_url=target.base_url, http_client=client, max_retries=0
    )
    # OpenAI alone insists on the new name of this limit; others ignore that name, and with it the limit.
    older = OpenAIModelProfile(openai_chat_supports_max_completion_tokens=False)
    if target.kind == "openai":
        # Chat completions rather than responses: one protocol for OpenAI and all that is compatible.
        return OpenAIChatModel(target.model, provider=OpenAIProvider(openai_client=openai))
    if target.kind == "ollama":
        ollama = OllamaModel(target.model, provider=OllamaProvider(openai_client=openai))
        return OllamaModel(
            target.model,
            provider=OllamaProvider(openai_client=openai),
            profile=merge_profile(ollama.profile, older),
        )
    return OpenAIChatModel(
        target.model,
        provider=OpenAICompatibleProvider("compatible", openai_client=openai, profile=older),
    )


def output_of(output: Output, answer: type[Answer]) -> Any:
    """How pydantic-ai is to ask for `answer`."""
    if output == "json":
        return NativeOutput(answer, name="ratings")
    if output == "prompt":
        return PromptedOutput(answer, name="ratings")
    # Not strict: OpenAI compiles every new schema for seconds, and ours changes with the coins asked about.
    # What the schema does not force is checked here and asked again.
    return ToolOutput(answer, name="ratings", strict=False)
