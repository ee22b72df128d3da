"""How asking a model can fail. None of it leaves the engine: the fallback answers instead."""

from services.common.errors import ServiceError


class LlmError(ServiceError):
    """A model gave no usable answer.

    `reason` is a short constant that labels metrics. `retry`: the same request may work in a moment
    (`retry_after_s` is what the provider asked for). `split`: one story of the batch may be to blame.
    `pause`: no request will work until somebody acts. `billed`: it may have cost what it would have.
    """

    def __init__(
        self,
        reason: str,
        detail: str,
        *,
        retry: bool = False,
        retry_after_s: float | None = None,
        split: bool = False,
        pause: bool = False,
        billed: bool = False,
    ) -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail
        self.retry = retry
        self.retry_after_s = retry_after_s
        self.split = split
        self.pause = pause
        self.billed = billed
