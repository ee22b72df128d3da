"""The errors of the services: each name says what failed, each message what to do.

Errors are caught at the edges only (`runner`, the HTTP face, the exchange sockets). Anything that is
not one of these is a bug, ends the process and shows its traceback.
"""

#: The libraries that decode repeat what they found, which may be as large as a message.
MAX_DETAIL_CHARS = 500


class ServiceError(Exception):
    """Root of every error that a user of a service can meet."""


class SettingsError(ServiceError):
    """A setting is unknown, missing or out of range."""


class BrokerUnavailableError(ServiceError):
    """The message bus cannot be reached or refuses the client."""


class MessageTooLargeError(ServiceError):
    """A message is larger than the producer or its topic takes."""


class TopicError(ServiceError):
    """A topic is missing or exists with a different number of partitions."""


class ContractError(ServiceError):
    """A message or a row breaks its contract; it belongs in the dead letters.

    `reason` is a short constant such as ``bad_json`` that labels the metric; the text says the rest, cut to
    `MAX_DETAIL_CHARS`.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        if len(detail) > MAX_DETAIL_CHARS:
            detail = detail[:MAX_DETAIL_CHARS] + "…"
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class StateError(ServiceError):
    """A file in which a service keeps what it knows cannot be read or written."""


class SourceError(ServiceError):
    """A source of trades or news failed for good: an unknown pair, a malformed file, a refused request."""


class SourceUnavailableError(SourceError):
    """A source of trades or news cannot be reached now; trying again later may work.

    `retry_after_s` is what the source asked for, if it did.
    """

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class StoreError(ServiceError):
    """The feature store refused a write or cannot be opened."""


class SchemaMismatchError(StoreError):
    """A feature group in the store has other columns than the code expects."""


class QueryError(ServiceError):
    """A question to the feature store that cannot be answered as asked."""


class UnknownSeriesError(QueryError):
    """The feature store has no such group, exchange, pair or timeframe."""
