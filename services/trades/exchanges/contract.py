"""What an exchange's file provides: frames and REST pages in, trades out. Pure.

An exchange is one file with one class that satisfies `Exchange`, one line in `REGISTRY`, and a
recording under `tests/recordings/`. Nothing here or there opens a socket or looks at a clock.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import isfinite
from typing import Any, Protocol

import msgspec

from services.common.errors import ContractError, SourceError
from services.common.messages import MAX_CLOCK_SKEW_MS, MAX_TIME_MS, Side, Trade

MAX_TRADE_ID = 2**62
_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00Z")
_MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Trades:
    """Trades of one pair, as the exchange sent them; a snapshot is what happened before we came."""

    pair: str
    trades: list[Trade]
    is_snapshot: bool = False


@dataclass(frozen=True, slots=True)
class Ack:
    """The exchange confirms that it will send the trades of `pair`."""

    pair: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The exchange will not send `pair` (None: it did not say which one)."""

    pair: str | None
    reason: str
    #: Trying the same again later may work, e.g. after a rate limit.
    transient: bool = False


@dataclass(frozen=True, slots=True)
class Alive:
    """The exchange says that it is there, and perhaps the id of each pair's latest trade."""

    last_trade_ids: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Status:
    """News about the exchange; `reconnect` when this connection is about to end."""

    text: str
    reconnect: bool = False


@dataclass(frozen=True, slots=True)
class Ignored:
    """A frame or row that is none of our business, e.g. of a channel that we did not ask for."""

    reason: str


@dataclass(frozen=True, slots=True)
class Bad:
    """A frame or row that breaks the exchange's own format: it belongs in the dead letters."""

    error: ContractError
    raw: bytes
    pair: str | None = None


type Event = Trades | Ack | Refused | Alive | Status | Ignored | Bad


@dataclass(frozen=True, slots=True)
class Gap:
    """Trade ids of a pair that we miss, both ends included; `last_id` None means up to now.

    `after_ms` is the event time of the last trade that we have, for exchanges that page by time.
    """

    pair: str
    first_id: int
    last_id: int | None
    after_ms: int


@dataclass(frozen=True, slots=True)
class PageRequest:
    """One REST request; `cursor` moves in one direction from page to page."""

    path: str
    params: dict[str, str]
    cursor: int


@dataclass(frozen=True, slots=True)
class Page:
    """Trades of one REST page in the exchange's order, and the request for the next one."""

    trades: list[Trade]
    bad: list[Bad] = field(default_factory=list)
    #: None when the gap is covered or the exchange has no more.
    next: PageRequest | None = None
    #: Whether it holds as many rows as a page can, so that more may have had to wait for the next.
    full: bool = False


class Exchange(Protocol):
    """The members of an exchange; built with the pairs that are wanted, written ``BTC/USD``."""

    name: str
    ws_url: str
    rest_url: str
    #: Whether a subscription begins with the latest trades, so that a reconnect can compare ids.
    has_snapshot: bool
    #: Why REST cannot begin at a time, so that there is no historical run by it; None where it can.
    no_history: str | None

    def __init__(self, pairs: tuple[str, ...]) -> None: ...

    def subscribe_frames(self) -> list[str]:
        """What to send after connecting."""

    def parse_frame(self, frame: bytes, received_at_ms: int) -> list[Event]:
        """The events of one frame; never raises on what an exchange may send."""

    def first_page(self, gap: Gap) -> PageRequest:
        """The request that begins to fill a gap."""

    def first_page_since(self, gap: Gap) -> PageRequest:
        """The request that begins a history whose ids are unknown, with the trades at `gap.after_ms`.

        It may take several pages without trades to find them. Raises `SourceError` with `no_history`.
        """

    def page_at(self, gap: Gap, cursor: int) -> PageRequest:
        """The request with this cursor."""

    def parse_page(self, gap: Gap, request: PageRequest, body: bytes, received_at_ms: int) -> Page:
        """Read the answer to `request`.

        Raises `SourceUnavailableError` when asking again may help, `SourceError` when it can't.
        """

    def parse_refusal(self, status: int, body: bytes) -> SourceError | None:
        """What an HTTP status other than 200 means here; None where the status says it all."""


def parse_time_ms(text: str) -> int:
    """Epoch ms of an ISO time with 0 to 9 fraction digits. Raises `ContractError`."""
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ContractError("bad_time", f"{text[:40]!r} has no time zone")
        return (moment - _EPOCH) // _MILLISECOND
    except (ValueError, OverflowError) as error:
        raise ContractError("bad_time", repr(text[:40])) from error


def check_trade_row(trade: Trade) -> Trade:
    """Refuse with `ContractError` what the contract of `trades` refuses: the same bounds, named."""
    if not (isfinite(trade.price) and trade.price > 0):
        raise ContractError("bad_price", repr(trade.price))
    if not (isfinite(trade.quantity) and trade.quantity > 0):
        raise ContractError("bad_quantity", repr(trade.quantity))
    if not 0 <= trade.trade_id <= MAX_TRADE_ID:
        raise ContractError("bad_trade_id", repr(trade.trade_id))
    if not 0 <= trade.event_time_ms <= MAX_TIME_MS:
        raise ContractError("bad_time", repr(trade.event_time_ms))
    if trade.event_time_ms - trade.received_at_ms > MAX_CLOCK_SKEW_MS:
        ahead_ms = trade.event_time_ms - trade.received_at_ms
        raise ContractError("future_event", f"event {ahead_ms} ms after its receipt")
    return trade


def read_rows(
    raws: list[msgspec.Raw],
    decoder: msgspec.json.Decoder[Any],
    to_trade: Callable[[Any], Trade | None],
    wrap: Callable[[bytes], bytes] = bytes,
) -> tuple[list[Trade], list[Bad], int]:
    """Decode rows one by one: good trades, bad rows, and how many were of pairs that we do not want.

    One bad row must not cost its neighbours. `to_trade` returns None for an unwanted pair; `wrap`
    makes of a row's bytes what goes into the dead letter.
    """
    good: list[Trade] = []
    bad: list[Bad] = []
    unwanted = 0
    for raw in raws:
        try:
            trade = to_trade(decoder.decode(raw))
            if trade is None:
                unwanted += 1
            else:
                good.append(check_trade_row(trade))
        except msgspec.ValidationError as error:
            bad.append(Bad(ContractError("bad_row", str(error)), wrap(bytes(raw))))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            bad.append(Bad(ContractError("bad_json", str(error)), wrap(bytes(raw))))
        except ContractError as error:
            bad.append(Bad(error, wrap(bytes(raw))))
    return good, bad, unwanted


def by_pair(trades: list[Trade], is_snapshot: bool = False) -> list[Event]:
    """One `Trades` event for each pair among `trades`, which keep their order."""
    pairs: dict[str, list[Trade]] = {}
    for trade in trades:
        pairs.setdefault(trade.pair, []).append(trade)
    return [Trades(pair, rows, is_snapshot) for pair, rows in pairs.items()]


def flip(side: Side) -> Side:
    """The taker's side, given the maker's."""
    return "sell" if side == "buy" else "buy"
