"""Asking a model about many stories: batches side by side, answers put back by position."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_ai import Agent
from pydantic_ai.exceptions import AgentRunError, UserError
from pydantic_ai.models import Model
from pydantic_ai.settings import ModelSettings
from pydantic_ai.usage import UsageLimits

from services.common.errors import SettingsError
from services.news_signals.llm.answers import Answer, Probabilities, answer_type, asked_of, by_coin
from services.news_signals.llm.client import output_of
from services.news_signals.llm.errors import LlmError
from services.news_signals.llm.failures import failure_of
from services.news_signals.llm.guard import Guard, GuardedModel
from services.news_signals.llm.prompt import Question, batches, mark_of, system_text, user_text
from services.news_signals.llm.provider import Output

#: Pairs of story and coin in one request; more make answers long and models careless.
MAX_PAIRS = 40

type Outcome = dict[str, Probabilities] | LlmError


@dataclass(frozen=True)
class Asker:
    """Asks `model`; all its requests pass `guard`."""

    model: Model
    guard: Guard
    output: Output
    batch: int
    slots: asyncio.Semaphore

    async def ask(
        self,
        questions: Sequence[Question],
        deadline: float,
        answered: Callable[[int, dict[str, Probabilities]], None],
    ) -> list[Outcome]:
        """For each question the probabilities of its coins, or why there are none.

        All is over soon after `deadline` (the guard's clock). `answered` is called for each answer when it
        comes, with the question's position.
        """
        outcomes: list[Outcome] = [LlmError("failed", "")] * len(questions)

        async def one(positions: list[int]) -> None:
            for position, outcome in zip(
                positions, await self._batch([questions[p] for p in positions], deadline), strict=True
            ):
                outcomes[position] = outcome
                if not isinstance(outcome, LlmError):
                    answered(position, outcome)

        await _all(one(positions) for positions in batches(questions, self.batch, MAX_PAIRS))
        return outcomes

    async def _batch(self, questions: list[Question], deadline: float) -> Sequence[Outcome]:
        """One request for all; where one story may be to blame, one for each."""
        try:
            return await self._run(questions, deadline)
        except LlmError as error:
            failure = error
        if not failure.split or len(questions) == 1:
            return [failure] * len(questions)

        outcomes: list[Outcome] = [failure] * len(questions)

        async def alone(position: int) -> None:
            (outcomes[position],) = await self._batch([questions[position]], deadline)

        await _all(alone(position) for position in range(len(questions)))
        return outcomes

    async def _run(self, questions: list[Question], deadline: float) -> Sequence[Outcome]:
        guard = self.guard
        mark = mark_of(questions)
        settings = ModelSettings(
            temperature=0.0,
            max_tokens=guard.max_output_tokens,
            # Not worth its price here; a model that cannot do without takes the least that it can.
            thinking=False,
            parallel_tool_calls=False,
        )
        agent: Agent[None, Answer] = Agent(
            GuardedModel(self.model, guard, deadline),
            output_type=output_of(self.output, answer_type(asked_of(questions))),
            instructions=system_text(mark),
            model_settings=settings,
            deps_type=type(None),
            retries={"output": guard.retries},
            name="news_signals",
        )
        async with self.slots:
            try:
                result = await agent.run(
                    user_text(questions, mark), usage_limits=UsageLimits(request_limit=guard.retries + 1)
                )
            except AgentRunError as error:
                failure = failure_of(error, guard.secret)
                if failure.split and failure.reason != "rejected":
                    # The guard saw an answer; that it was none is known only here.
                    guard.counters.requests.labels(failure.reason).inc()
                    guard.breaker.failed(str(failure))
                raise failure from None
            except UserError as error:
                raise SettingsError(f"the model cannot be asked like this: {error}") from error
        guard.breaker.succeeded()
        return by_coin(result.output, questions)


async def _all(coroutines: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run them side by side; the first error cancels the others and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            for coroutine in coroutines:
                group.create_task(coroutine)
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
