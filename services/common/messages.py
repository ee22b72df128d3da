"""The contracts: what a row on each topic holds and which rows are refused. Pure.

A message is a JSON array of rows of one series, in order. Decoding checks types and simple bounds in
C; `check_*` hold the invariants that span fields. Whatever is refused raises `ContractError`.
Times are UTC epoch milliseconds, pairs are written ``BTC/USD``, `side` is the taker's.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, Literal

import msgspec

from services.common.columns import INDICATOR_NAMES
from services.common.errors import ContractError
from services.common.timeframes import FIXED_MS, Timeframe, is_aligned

#: Version that the messages of each topic carry in their `schema_version` header.
SCHEMA_VERSION = 1
SCHEMA_HEADER = "schema_version"
#: When the frame that caused a message reached us (epoch ms); every hop passes it on.
RECEIVED_HEADER = "received_at_ms"

#: How far ahead of its receipt an event may be stamped before we call its clock wrong.
MAX_CLOCK_SKEW_MS = 5_000
# Past this (year 2100) a time is in the wrong unit rather than late or early.
MAX_TIME_MS = 4_102_444_800_000

PAIR_PATTERN = r"^[A-Z0-9]{1,20}/[A-Z0-9]{1,20}$"
EXCHANGE_PATTERN = r"^[a-z][a-z0-9_]{0,30}$"
_PAIR = re.compile(PAIR_PATTERN)
_EXCHANGE = re.compile(EXCHANGE_PATTERN)

Side = Literal["buy", "sell"]
Exchange = Annotated[str, msgspec.Meta(pattern=EXCHANGE_PATTERN)]
Pair = Annotated[str, msgspec.Meta(pattern=PAIR_PATTERN)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
NonNegative = Annotated[float, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
TimeMs = Annotated[int, msgspec.Meta(ge=0, le=MAX_TIME_MS)]


class Trade(msgspec.Struct, frozen=True, gc=False):
    """One trade. `trade_id` is the exchange's own, unique and ascending per exchange and pair."""

    exchange: Exchange
    pair: Pair
    trade_id: Count
    side: Side
    price: Positive
    quantity: Positive
    event_time_ms: TimeMs
    received_at_ms: TimeMs


class Candle(msgspec.Struct, gc=False):
    """One candle of ``[start_ms, end_ms)``; `vwap` is null when `trade_count` is 0."""

    exchange: Exchange
    pair: Pair
    timeframe: Timeframe
    start_ms: TimeMs
    end_ms: TimeMs
    open: Positive
    high: Positive
    low: Positive
    close: Positive
    volume: NonNegative
    vwap: Positive | None
    buy_volume: NonNegative
    trade_count: Count
    closed: bool
    revision: Count


#: A candle and one nullable float for each indicator of `columns.INDICATOR_COLUMNS`.
TaRow: type[Any] = msgspec.defstruct(
    "TaRow",
    [(name, float | None, None) for name in INDICATOR_NAMES],
    bases=(Candle,),
    module=__name__,
    gc=False,
)


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A message or row that was refused. `value` is its bytes, ready to be sent to `topic` again."""

    topic: str
    partition: int
    offset: int
    row: int | None
    key: bytes | None
    value: bytes
    schema_version: str | None
    reason: str
    detail: str
    service: str
    timestamp_ms: int
    dead_at_ms: int


encode: Callable[[Any], bytes] = msgspec.json.Encoder().encode


def series_key(exchange: str, pair: str) -> bytes:
    """Key of a pair's messages on `trades`, `candles` and `ta`: ``kraken:BTC/USD``."""
    return f"{exchange}:{pair}".encode()


@lru_cache(maxsize=65_536)
def split_key(key: bytes) -> tuple[str, str]:
    """Exchange and pair of a message key. Raises `ContractError` on any other key."""
    try:
        exchange, _, pair = key.decode("ascii").partition(":")
    except UnicodeDecodeError as error:
        raise ContractError("bad_key", repr(key[:80])) from error
    if not _EXCHANGE.match(exchange) or not _PAIR.match(pair):
        raise ContractError("bad_key", f"{key[:80]!r}, expected exchange:BASE/QUOTE")
    return exchange, pair


@lru_cache(maxsize=4_096)
def row_decoder(row: Any, key: bytes) -> msgspec.json.Decoder[list[Any]]:
    """Decoder for a batch of `row` whose rows must all be of the series that `key` names.

    The exchange and the pair become literals, so that a row of another series is refused while it is
    decoded, at no cost a row.
    """
    exchange, pair = split_key(key)
    return literal_decoder(row, {"exchange": exchange, "pair": pair})


def literal_decoder(row: Any, literals: Mapping[str, str]) -> msgspec.json.Decoder[list[Any]]:
    """Decoder for a batch of `row` whose text fields named in `literals` must have these values."""
    narrowed: Any = msgspec.defstruct(
        row.__name__,
        [
            (name, annotation) if field.default is msgspec.NODEFAULT else (name, annotation, field.default)
            for field in msgspec.structs.fields(row)
            for name in (field.name,)
            # A type made of a value; mypy knows only those that are written out.
            for annotation in (Literal[literals[name]] if name in literals else field.type,)
        ],
        gc=False,
    )
    return msgspec.json.Decoder(list[narrowed])


def decode_rows(
    row: Any,
    key: bytes,
    value: bytes,
    check: Callable[[Any], None] | None = None,
    decoder: msgspec.json.Decoder[list[Any]] | None = None,
) -> tuple[list[Any], list[tuple[int, bytes, ContractError]]]:
    """Decode a batch row by row: the good rows, and ``(index, bytes, error)`` of the refused ones.

    The slow path: call it when decoding or checking the whole batch failed. `bytes` is a batch of the
    one refused row, so that it can be sent again as it is. `decoder` is for keys that name no pair.
    Raises `ContractError` when the value is no JSON array at all.
    """
    try:
        raws = msgspec.json.decode(value, type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ContractError("bad_json", str(error)) from error
    decoder = decoder or row_decoder(row, key)
    good: list[Any] = []
    refused: list[tuple[int, bytes, ContractError]] = []
    for index, raw in enumerate(raws):
        single = b"[" + bytes(raw) + b"]"
        try:
            (decoded,) = decoder.decode(single)
            if check is not None:
                check(decoded)
        except msgspec.ValidationError as error:
            refused.append((index, single, ContractError("bad_row", str(error))))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            refused.append((index, single, ContractError("bad_json", str(error))))
        except ContractError as error:
            refused.append((index, single, error))
        else:
            good.append(decoded)
    return good, refused


def check_trade(trade: Trade) -> None:
    """Refuse a trade stamped further ahead of its receipt than clocks differ."""
    ahead_ms = trade.event_time_ms - trade.received_at_ms
    if ahead_ms > MAX_CLOCK_SKEW_MS:
        raise ContractError("future_event", f"event {ahead_ms} ms after its receipt")


def check_candle(candle: Any) -> None:
    """Refuse a candle (or `ta` row) whose interval, prices or volumes contradict each other."""
    if not is_aligned(candle.start_ms, candle.end_ms, candle.timeframe):
        raise ContractError(
            "unaligned", f"[{candle.start_ms}, {candle.end_ms}) is no {candle.timeframe} interval"
        )
    if not (candle.low <= candle.open <= candle.high and candle.low <= candle.close <= candle.high):
        raise ContractError("bad_prices", "open and close must lie between low and high")
    if candle.buy_volume > candle.volume:
        raise ContractError("bad_volume", "buy_volume exceeds volume")
    if (candle.vwap is None) != (candle.trade_count == 0):
        raise ContractError("bad_vwap", "vwap is null exactly when there is no trade")


def candles_pass(candles: Sequence[Any]) -> bool:
    """Whether all candles (or `ta` rows) pass `check_candle`; may say no to a good batch.

    It is `check_candle` without its function calls, and leaves weeks and months to it.
    """
    for row in candles:
        length = FIXED_MS.get(row.timeframe)
        start, low, high = row.start_ms, row.low, row.high
        if (
            length is None
            or row.timeframe == "1w"
            or start % length
            or row.end_ms - start != length
            or not low <= row.open <= high
            or not low <= row.close <= high
            or row.buy_volume > row.volume
            or (row.vwap is None) != (row.trade_count == 0)
        ):
            return False
    return True


type Headers = Sequence[tuple[str, bytes | str | None]] | None


def header(headers: Headers, name: str) -> str | None:
    """Text of the first header called `name`, or None where there is none."""
    for key, value in headers or ():
        if key == name:
            return value.decode("ascii", "replace") if isinstance(value, bytes) else value
    return None


def check_version(headers: Headers) -> None:
    """Refuse a message that says it is of a schema version that we do not know."""
    version = header(headers, SCHEMA_HEADER)
    if version is not None and version != str(SCHEMA_VERSION):
        raise ContractError("unknown_version", f"schema_version {version!r}")


def received_at_ms(headers: Headers) -> int | None:
    """When the frame behind a message reached us, or None where nobody said."""
    text = header(headers, RECEIVED_HEADER)
    return int(text) if text is not None and text.isdigit() else None


def batch_headers(received_at: int) -> list[tuple[str, bytes]]:
    """Headers of a message that begins its way through the services."""
    return [
        (SCHEMA_HEADER, str(SCHEMA_VERSION).encode()),
        (RECEIVED_HEADER, str(received_at).encode()),
    ]
