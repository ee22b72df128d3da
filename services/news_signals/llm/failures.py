"""What the errors of pydantic-ai mean for us. Pure."""

import re

from pydantic import ValidationError
from pydantic_ai.exceptions import (
    AgentRunError,
    ContentFilterError,
    ModelAPIError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelHTTPError,
    ModelNotFoundError,
    ModelQuotaExceededError,
    ModelRateLimitError,
    ModelRequestRejectedError,
    ModelRequestTimeout,
    ModelServerError,
    ModelTimeoutError,
    ModelUnavailableError,
    OutputTokenLimitExceeded,
    UnexpectedModelBehavior,
)

from services.news_signals.llm.errors import LlmError

MAX_DETAIL_CHARS = 200
#: Statuses that no category of pydantic-ai covers and that pass by themselves.
_PASSING = (408, 409, 425)


def failure_of(error: Exception, secret: str | None) -> LlmError:
    """What `error` means. Its text comes from a stranger: it is shortened, and never holds `secret`."""
    detail = shown(error, secret)
    retry_after_s = error.retry_after if isinstance(error, ModelAPIError) else None
    match error:
        case LlmRunError():
            return error.failure
        case ModelAuthenticationError():
            return LlmError("auth", f"the provider refuses the key; {detail}", pause=True)
        case ModelQuotaExceededError():
            return LlmError("quota", f"the account has no credit left; {detail}", pause=True)
        case ModelNotFoundError():
            return LlmError("model_not_found", f"check NEWS_SIGNALS_LLM_MODEL; {detail}", pause=True)
        case ModelRateLimitError():
            return LlmError("rate_limit", detail, retry=True, retry_after_s=retry_after_s)
        case TimeoutError() | ModelTimeoutError() | ModelRequestTimeout():
            return LlmError("timeout", detail, retry=True, billed=True)
        case ModelConnectionError():
            # A request that was written may have been worked on.
            billed = error.phase not in ("pool", "connect")
            return LlmError("connection", detail, retry=True, billed=billed)
        case ModelUnavailableError() | ModelServerError():
            return LlmError("server", detail, retry=True, retry_after_s=retry_after_s)
        case ModelRequestRejectedError():
            return LlmError("rejected", detail, split=True)
        case ModelHTTPError() if error.status_code in (401, 403):
            return LlmError("auth", f"the provider refuses the key; {detail}", pause=True)
        case ModelHTTPError() if error.status_code in _PASSING or error.status_code >= 500:
            return LlmError("server", detail, retry=True, retry_after_s=retry_after_s)
        case ModelHTTPError():
            return LlmError("rejected", detail, split=True)
        case ContentFilterError():
            return LlmError("refused", detail, split=True, billed=True)
        case OutputTokenLimitExceeded():
            return LlmError("truncated", detail, split=True, billed=True)
        case UnexpectedModelBehavior():
            return LlmError("invalid", detail, split=True, billed=True)
        case AgentRunError() if not isinstance(error, ModelAPIError):
            return LlmError("failed", detail, billed=True)
    # The body was no answer at all: a proxy's page, JSON that breaks off or holds something else.
    return LlmError("malformed", detail, retry=True, billed=True)


class LlmRunError(AgentRunError):
    """Carries a failure that is understood already through pydantic-ai."""

    def __init__(self, failure: LlmError) -> None:
        super().__init__(str(failure))
        self.failure = failure


def shown(error: BaseException, secret: str | None) -> str:
    """The text of an error for a log line."""
    text = str(error) or type(error).__name__
    if isinstance(error, ModelHTTPError):
        text = f"HTTP {error.status_code} {error.body or ''}"
    elif (refused := _refused(error)) is not None:
        text = "; ".join(
            sorted({item["msg"] for item in refused.errors(include_url=False, include_input=False)})
        )
    if secret:
        text = text.replace(secret, "***")
    text = re.sub(r"[^\x20-\x7e]+", " ", text).strip()
    return text if len(text) <= MAX_DETAIL_CHARS else text[:MAX_DETAIL_CHARS] + "…"


def _refused(error: BaseException | None) -> ValidationError | None:
    """What the answer broke, somewhere among the causes of `error`."""
    while error is not None and not isinstance(error, ValidationError):
        error = error.__cause__
    return error
