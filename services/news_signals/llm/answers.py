"""What a model must answer, and what is refused. Pure but for pydantic, whose words the model is shown.

One object with a list, never a list by itself: constrained decoders of small models begin with an object.
"""

from collections.abc import Sequence
from functools import lru_cache
from math import fsum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator

from services.news_signals.llm.prompt import Question, name_of

#: Raise it with every change of what is asked for.
SCHEMA_VERSION = 1
#: Models round; three probabilities that add up to something further off are no probabilities.
SUM_TOLERANCE = 0.05

Probability = Annotated[float, Field(ge=0, le=1)]
#: p_pos, p_neu, p_neg; they add up to 1.
type Probabilities = tuple[float, float, float]


class Rating(BaseModel):
    """One coin in one story."""

    model_config = ConfigDict(extra="forbid", strict=True)

    story: int
    coin: str
    p_pos: Probability
    p_neu: Probability
    p_neg: Probability

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        total = fsum((self.p_pos, self.p_neu, self.p_neg))
        if abs(total - 1) > SUM_TOLERANCE:
            raise ValueError(f"p_pos, p_neu and p_neg must add up to 1, not {total:.3f}")
        return self

    def probabilities(self) -> Probabilities:
        """The three, made to add up to 1."""
        total = fsum((self.p_pos, self.p_neu, self.p_neg))
        return self.p_pos / total, self.p_neu / total, self.p_neg / total


class Answer(BaseModel):
    """A rating for each asked pair of story and coin."""

    model_config = ConfigDict(extra="forbid", strict=True)

    ratings: list[Rating]


type Asked = tuple[tuple[str, ...], ...]


def asked_of(questions: Sequence[Question]) -> Asked:
    """Names of the coins asked about in each story."""
    return tuple(tuple(name_of(coin) for coin in question.coins) for question in questions)


@lru_cache(maxsize=256)
def answer_type(asked: Asked) -> type[Answer]:
    """The type of an answer about `asked`: its coins are an enum, and every pair must come exactly once."""
    wanted = {(number, coin) for number, coins in enumerate(asked, start=1) for coin in coins}
    names = tuple(sorted({coin for _, coin in wanted}))
    numbers = tuple(range(1, len(asked) + 1))
    # Types made of values; mypy knows only those that are written out.
    coin_type: Any = Literal[names]
    story_type: Any = Literal[numbers]
    rating: Any = create_model("Rating", __base__=Rating, story=(story_type, ...), coin=(coin_type, ...))

    class Complete(Answer):
        ratings: list[rating] = Field(max_length=4 * len(wanted))

        @model_validator(mode="after")
        def _each_once(self) -> Self:
            given = [(item.story, item.coin) for item in self.ratings]
            problems = [
                f"{text}: {_list(pairs)}"
                for text, pairs in (
                    ("not answered", sorted(wanted.difference(given))),
                    ("not asked", sorted(set(given) - wanted)),
                    ("answered more than once", sorted({pair for pair in given if given.count(pair) > 1})),
                )
                if pairs
            ]
            if problems:
                raise ValueError("; ".join(problems))
            return self

    Complete.__name__ = Complete.__qualname__ = "Answer"
    Complete.__doc__ = Answer.__doc__
    return Complete


def by_coin(answer: Answer, questions: Sequence[Question]) -> list[dict[str, Probabilities]]:
    """For each question the probabilities of each coin. `answer` is of the `answer_type` of the questions."""
    given = {(item.story, item.coin): item.probabilities() for item in answer.ratings}
    return [
        {coin: given[number, name_of(coin)] for coin in question.coins}
        for number, question in enumerate(questions, start=1)
    ]


def _list(pairs: Sequence[tuple[int, str]]) -> str:
    shown = ", ".join(f"{coin} of story {number}" for number, coin in pairs[:10])
    return f"{shown} and {len(pairs) - 10} more" if len(pairs) > 10 else shown
