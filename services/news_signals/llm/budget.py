"""What a model may cost in a UTC day, counted in a file that survives restarts.

Before a request its upper bound is charged: every UTF-8 byte of it as one token (a tokenizer makes no token
of less than a byte), a fixed overhead for what the provider adds, and the longest answer that is allowed.
When the bound does not fit under the caps any more, the request is not sent. After the answer the bound is
replaced by what the provider counted. So the caps hold as long as the provider's count stays under the
bound, whatever is in flight; and a process that dies between the two has charged too much, never too little.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import ceil
from pathlib import Path

from services.common.errors import ServiceError
from services.news_signals.llm.files import open_file, transaction

#: Tokens that a provider may add to a request: its own instructions for tools, the frame of each message.
OVERHEAD_TOKENS = 1_000
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS spent "
    "(day TEXT PRIMARY KEY, tokens INTEGER NOT NULL, nano_usd INTEGER NOT NULL)"
)


class CapReachedError(ServiceError):
    """A request does not fit under a cap until `until`."""

    def __init__(self, message: str, until: datetime) -> None:
        super().__init__(message)
        self.until = until


@dataclass(frozen=True, slots=True)
class Caps:
    """The caps of a day, and the prices of a million tokens in US dollars; None where nothing is known."""

    tokens: int
    usd: float | None = None
    input_usd: float | None = None
    output_usd: float | None = None

    def nano_usd(self, input_tokens: int, output_tokens: int) -> int:
        """Price of a request in 1e-9 US dollars, rounded up; 0 where prices are unknown."""
        return ceil(1_000 * (input_tokens * (self.input_usd or 0) + output_tokens * (self.output_usd or 0)))


@dataclass(frozen=True, slots=True)
class Charge:
    """What was charged before a request, to the day on which it was sent."""

    day: str
    tokens: int
    nano_usd: int


class Budget:
    """The caps and the file in which spending is counted. `clock` gives Unix seconds.

    Several processes may share the file. Raises `StoreError`.
    """

    def __init__(self, path: Path, caps: Caps, clock: Callable[[], float]) -> None:
        self.caps = caps
        self._path = path
        self._clock = clock
        self._connection = open_file(path, _SCHEMA)

    def charge(self, input_tokens: int, output_tokens: int) -> Charge:
        """Charge the upper bound of a request. Raises `CapReachedError` when it does not fit."""
        now = datetime.fromtimestamp(self._clock(), UTC)
        charge = Charge(
            now.date().isoformat(),
            input_tokens + output_tokens,
            self.caps.nano_usd(input_tokens, output_tokens),
        )
        with transaction(self._connection, self._path):
            tokens, nano_usd = self.spent(charge.day)
            self._check(now, tokens, nano_usd, charge)
            self._add(charge.day, charge.tokens, charge.nano_usd)
        return charge

    def settle(self, charge: Charge, input_tokens: int, output_tokens: int) -> int:
        """Replace a charge by what the request took; returns its price in 1e-9 US dollars."""
        price = self.caps.nano_usd(input_tokens, output_tokens)
        with transaction(self._connection, self._path):
            self._add(charge.day, input_tokens + output_tokens - charge.tokens, price - charge.nano_usd)
        return price

    def spent(self, day: str) -> tuple[int, int]:
        """Tokens and 1e-9 US dollars charged to a day, written ``2026-07-07``."""
        row = self._connection.execute("SELECT tokens, nano_usd FROM spent WHERE day = ?", (day,)).fetchone()
        return (int(row[0]), int(row[1])) if row else (0, 0)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _check(self, now: datetime, tokens: int, nano_usd: int, charge: Charge) -> None:
        until = datetime.combine(now.date() + timedelta(days=1), datetime.min.time(), UTC)
        if tokens + charge.tokens > self.caps.tokens:
            raise CapReachedError(
                f"{tokens:,} of {self.caps.tokens:,} tokens of the day are charged "
                f"and a request may take {charge.tokens:,}",
                until,
            )
        usd = self.caps.usd
        if usd is not None and nano_usd + charge.nano_usd > usd * 1e9:
            raise CapReachedError(
                f"{nano_usd / 1e9:.4f} of {usd:.4f} US dollars of the day are charged "
                f"and a request may cost {charge.nano_usd / 1e9:.4f}",
                until,
            )

    def _add(self, day: str, tokens: int, nano_usd: int) -> None:
        self._connection.execute(
            "INSERT INTO spent VALUES (:day, max(0, :tokens), max(0, :nano_usd)) ON CONFLICT (day) DO UPDATE "
            "SET tokens = max(0, tokens + :tokens), nano_usd = max(0, nano_usd + :nano_usd)",
            {"day": day, "tokens": tokens, "nano_usd": nano_usd},
        )
