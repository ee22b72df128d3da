"""What a step of a stream is: key, value and state in, messages out. Knows nothing of the engine."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from services.common.errors import ContractError
from services.common.messages import Headers


class State(Protocol):
    """What a step may keep for its key between messages."""

    def get_bytes(self, key: str) -> bytes | None:
        """Value of `key`, or None."""

    def set_bytes(self, key: str, value: bytes) -> None:
        """Set the value of `key`."""


class Message(NamedTuple):
    """One message as a step sees it. `timestamp_ms` is its Kafka timestamp."""

    key: bytes
    value: bytes
    timestamp_ms: int
    headers: Headers


@dataclass(slots=True)
class StepResult:
    """What became of one message."""

    #: Batches to send, in order, to the step's output topic under the same key; large ones are split.
    outputs: list[bytes] = field(default_factory=list)
    #: Key and batch of what is to be sent under keys of its own.
    keyed_outputs: list[tuple[bytes, bytes]] = field(default_factory=list)
    #: Refused rows: index in the batch, bytes of a batch with that row alone, why.
    refused: list[tuple[int, bytes, ContractError]] = field(default_factory=list)
    rows_in: int = 0
    rows_out: int = 0


#: A step validates before it touches the state; a `ContractError` refuses the whole message.
type Step = Callable[[Message, State], StepResult]
