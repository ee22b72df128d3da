"""A model behind a guard: every request of it passes the breaker and the budget, in time, with retries."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import httpx2
import msgspec
from prometheus_client import Counter
from pydantic_ai.exceptions import AgentRunError
from pydantic_ai.messages import ModelMessage, ModelMessagesTypeAdapter, ModelResponse
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings

from services.common.metrics import Metrics
from services.news_signals.llm.breaker import LONG_PAUSE_S, Breaker
from services.news_signals.llm.budget import OVERHEAD_TOKENS, Budget, CapReachedError
from services.news_signals.llm.errors import LlmError
from services.news_signals.llm.failures import LlmRunError, failure_of

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 8.0
# What a stranger's answer can raise on its way through the libraries: they do not check all of its shape.
_FAILURES = (
    AgentRunError,
    TimeoutError,
    OSError,
    httpx2.HTTPError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
)


class Counters:
    """What the engine counts."""

    def __init__(self, metrics: Metrics) -> None:
        self.requests: Counter = metrics.counter("llm_requests_total", "Requests to the model", "result")
        self.tokens: Counter = metrics.counter("llm_tokens_total", "Tokens that the model counted", "kind")
        self.cost: Counter = metrics.counter("llm_cost_usd_total", "US dollars spent, by our prices")
        self.cache_hits: Counter = metrics.counter("llm_cache_hits_total", "Stories answered by the cache")
        self.fallbacks: Counter = metrics.counter(
            "llm_fallbacks_total", "Stories that the fallback engine answered", "reason"
        )


@dataclass(frozen=True)
class Guard:
    """What all requests share. `clock` is monotonic, in seconds; `random` gives [0, 1)."""

    breaker: Breaker
    budget: Budget
    counters: Counters
    timeout_s: float
    retries: int
    max_output_tokens: int
    secret: str | None = field(repr=False)
    clock: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]
    random: Callable[[], float]


class GuardedModel(WrapperModel):
    """The model within one round of stories, which must be over at `deadline` (the guard's clock)."""

    def __init__(self, wrapped: Model, guard: Guard, deadline: float) -> None:
        super().__init__(wrapped)
        self._guard = guard
        self._deadline = deadline

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """Ask, again where that may help. Raises `LlmRunError`."""
        guard = self._guard
        attempt = 0
        while True:
            try:
                return await self._once(messages, model_settings, model_request_parameters)
            except LlmError as failure:
                wait_s = wait_before(attempt, failure.retry_after_s, guard.random)
                too_late = guard.clock() + wait_s >= self._deadline
                if not failure.retry or attempt >= guard.retries or too_late:
                    raise LlmRunError(failure) from None
                attempt += 1
                await guard.sleep(wait_s)

    async def _once(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        parameters: ModelRequestParameters,
    ) -> ModelResponse:
        guard, counters = self._guard, self._guard.counters
        timeout_s = min(guard.timeout_s, self._deadline - guard.clock())
        if timeout_s <= 0:
            raise LlmError("deadline", "no time is left for this round")
        if not guard.breaker.admit():
            raise LlmError("breaker", f"the model is left alone for {guard.breaker.wait_s():.0f} s more")
        bound = input_bound(messages, parameters)
        try:
            charge = guard.budget.charge(bound, guard.max_output_tokens)
        except CapReachedError as error:
            guard.breaker.not_sent()
            raise LlmError("budget", f"{error}; until {error.until:%Y-%m-%d %H:%M} UTC") from None
        try:
            async with asyncio.timeout(timeout_s):
                response = await self.wrapped.request(messages, model_settings, parameters)
        except _FAILURES as error:
            failure = failure_of(error, guard.secret)
            if failure.reason == "invalid":
                # No answer of the model's: the library found another shape than the protocol's.
                failure = LlmError("malformed", failure.detail, retry=True, billed=True)
            if not failure.billed:
                guard.budget.settle(charge, 0, 0)
            counters.requests.labels(failure.reason).inc()
            guard.breaker.failed(str(failure), self._pause_s(failure))
            raise failure from None
        guard.breaker.answered()
        counters.requests.labels("ok").inc()
        usage = response.usage
        if usage.total_tokens == 0:
            # The provider does not count: the bound stays charged.
            return response
        price = guard.budget.settle(charge, usage.input_tokens, usage.output_tokens)
        counters.tokens.labels("input").inc(usage.input_tokens)
        counters.tokens.labels("output").inc(usage.output_tokens)
        counters.cost.inc(price / 1e9)
        return response

    def _pause_s(self, failure: LlmError) -> float | None:
        """How long no request can work, where that is known and longer than this round lasts."""
        if failure.pause:
            return LONG_PAUSE_S
        asked_s = failure.retry_after_s or 0.0
        return asked_s if self._guard.clock() + asked_s >= self._deadline else None


def wait_before(attempt: int, retry_after_s: float | None, random: Callable[[], float]) -> float:
    """Seconds to wait before the next attempt: doubling, jittered, and never less than was asked for."""
    wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0**attempt) * (0.5 + random() / 2)
    return max(wait_s, retry_after_s or 0.0)


def input_bound(messages: list[ModelMessage], parameters: ModelRequestParameters) -> int:
    """More tokens than the request can have: a byte of it as one, and what the provider may add."""
    schemas = [tool.parameters_json_schema for tool in parameters.output_tools]
    if parameters.output_object is not None:
        schemas.append(parameters.output_object.json_schema)
    # A prompted schema stands in the instructions, which the messages hold, and is counted twice.
    size = len(ModelMessagesTypeAdapter.dump_json(messages)) + len(msgspec.json.encode(schemas))
    return size + OVERHEAD_TOKENS
