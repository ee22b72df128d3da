"""Kraken: WebSocket API v2 and REST Trades. Pure.

https://docs.kraken.com/api/docs/websocket-v2/trade and /rest-api/get-recent-trades
"""

import re

import msgspec

from services.common.errors import ContractError, SourceError, SourceUnavailableError
from services.common.messages import Side, Trade
from services.common.symbols import kraken_name
from services.trades.exchanges.contract import (
    Ack,
    Alive,
    Bad,
    Event,
    Gap,
    Ignored,
    Page,
    PageRequest,
    Refused,
    Status,
    by_pair,
    parse_time_ms,
    read_rows,
)

PAGE_ROWS = 1000
OVERLAP_MS = 1000
# REST errors come with HTTP 200; these pass, any other is final.
_RETRY = re.compile(
    r"EAPI:Rate limit|EService:|EGeneral:(Too many requests|Temporary lockout|Internal error)"
)
_TRANSIENT_REFUSAL = re.compile(r"rate|unavailable|busy|throttled|maintenance", re.IGNORECASE)


class _Result(msgspec.Struct):
    channel: str | None = None
    symbol: str | None = None


class _StatusRow(msgspec.Struct):
    system: str = "unknown"


class _Frame(msgspec.Struct):
    channel: str | None = None
    type: str | None = None
    method: str | None = None
    success: bool | None = None
    error: str | None = None
    # Rate limit refusals spell it so, and name no method.
    capital_error: str | None = msgspec.field(name="Error", default=None)
    symbol: str | None = None
    result: _Result | None = None
    data: msgspec.Raw = msgspec.Raw(b"[]")


class _Row(msgspec.Struct):
    symbol: str
    side: Side
    price: float
    qty: float
    trade_id: int
    timestamp: str


class _Answer(msgspec.Struct):
    error: list[str] = []
    result: dict[str, msgspec.Raw] | None = None


_frame = msgspec.json.Decoder(_Frame)
_row = msgspec.json.Decoder(_Row)
_raws = msgspec.json.Decoder(list[msgspec.Raw])
_statuses = msgspec.json.Decoder(list[_StatusRow])
_answer = msgspec.json.Decoder(_Answer)
_rest_row = msgspec.json.Decoder(tuple[str, str, float, str, str, str, int])
_cursor = msgspec.json.Decoder(str | int)


class Kraken:
    """Trade ids are a gapless sequence per pair, shared by WebSocket and REST."""

    name = "kraken"
    ws_url = "wss://ws.kraken.com/v2"
    rest_url = "https://api.kraken.com"
    has_snapshot = True
    no_history: str | None = None

    def __init__(self, pairs: tuple[str, ...]) -> None:
        # WebSocket v2 writes pairs as we do; the names of AssetPairs (XBT/USD) are refused there.
        self._pairs = pairs

    def subscribe_frames(self) -> list[str]:
        """One subscription of all pairs, with the last 50 trades of each as a snapshot."""
        params = {"channel": "trade", "symbol": list(self._pairs), "snapshot": True}
        request = {"method": "subscribe", "params": params, "req_id": 1}
        return [msgspec.json.encode(request).decode()]

    def parse_frame(self, frame: bytes, received_at_ms: int) -> list[Event]:
        """Events of a frame; a `trade` frame can hold many rows, of several pairs."""
        try:
            head = _frame.decode(frame)
        except msgspec.ValidationError as error:
            return [Bad(ContractError("bad_frame", str(error)), frame)]
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return [Bad(ContractError("bad_json", str(error)), frame)]
        if head.channel == "trade":
            return self._trades(head, frame, received_at_ms)
        if head.channel == "heartbeat" or head.method == "pong":
            return [Alive()]
        reason = head.error or head.capital_error
        if head.method == "subscribe" or (reason and head.method is None):
            return [self._answer_to_subscribe(head, reason)]
        if head.channel == "status":
            return _status(head)
        return [Ignored("unknown_channel")]

    def _trades(self, head: _Frame, frame: bytes, received_at_ms: int) -> list[Event]:
        try:
            raws = _raws.decode(head.data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return [Bad(ContractError("bad_frame", f"data: {error}"), frame)]

        def to_trade(row: _Row) -> Trade | None:
            if row.symbol not in self._pairs:
                return None
            event_ms = parse_time_ms(row.timestamp)
            return Trade(
                self.name,
                row.symbol,
                row.trade_id,
                row.side,
                row.price,
                row.qty,
                event_ms,
                received_at_ms,
            )

        good, bad, unwanted = read_rows(raws, _row, to_trade)
        return [
            *by_pair(good, is_snapshot=head.type == "snapshot"),
            *bad,
            *[Ignored("unconfigured_pair")] * unwanted,
        ]

    def _answer_to_subscribe(self, head: _Frame, reason: str | None) -> Event:
        symbol = head.symbol or (head.result.symbol if head.result else None)
        if head.success and symbol is not None:
            if head.result is not None and head.result.channel not in ("trade", None):
                return Ignored("other_channel_ack")
            return Ack(symbol) if symbol in self._pairs else Ignored("unconfigured_pair")
        reason = reason or "no reason given"
        if reason == "Already subscribed" and symbol in self._pairs:
            return Ack(symbol)
        transient = _TRANSIENT_REFUSAL.search(reason) is not None
        return Refused(symbol if symbol in self._pairs else None, reason, transient)

    def first_page(self, gap: Gap) -> PageRequest:
        """Trades from shortly before the last known one on: ids and times may swap places."""
        return self.page_at(gap, max(0, gap.after_ms - OVERLAP_MS) * 1_000_000)

    def first_page_since(self, gap: Gap) -> PageRequest:
        """The same: pages go by time anyway."""
        return self.first_page(gap)

    def page_at(self, gap: Gap, cursor: int) -> PageRequest:
        """Trades from `cursor` on, in nanoseconds."""
        # Sources disagree on whether `since` is exclusive, so ask from one earlier; ids dedupe.
        since = str(max(0, cursor - 1))
        params = {"pair": kraken_name(gap.pair), "since": since, "count": str(PAGE_ROWS)}
        return PageRequest("/0/public/Trades", params, cursor)

    def parse_page(self, gap: Gap, request: PageRequest, body: bytes, received_at_ms: int) -> Page:
        """Rows are ``[price, volume, time, b|s, m|l, misc, trade_id]``; the key's name varies."""
        try:
            answer = _answer.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise SourceUnavailableError(f"kraken: no JSON answer ({error})") from error
        if answer.error:
            text = ", ".join(answer.error)
            if all(_RETRY.search(item) for item in answer.error):
                raise SourceUnavailableError(f"kraken: {text}", _throttled_s(text, received_at_ms))
            raise SourceError(f"kraken: {text}")
        if not answer.result:
            raise SourceUnavailableError("kraken: an answer without a result")
        rows = next((raw for key, raw in answer.result.items() if key != "last"), None)
        try:
            raws = _raws.decode(rows) if rows is not None else []
            last = answer.result.get("last")
            # Nanoseconds do not fit a float: the cursor stays text and integer.
            cursor = int(_cursor.decode(last)) if last is not None else None
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
            raise SourceUnavailableError(f"kraken: malformed page ({error})") from error

        def to_trade(row: tuple[str, str, float, str, str, str, int]) -> Trade:
            price, volume, time_s, side, _, _, trade_id = row
            if side not in ("b", "s"):
                raise ContractError("bad_row", f"side {side!r}")
            try:
                # A float holds this time to 240 ns; rounding to µs first keeps the millisecond.
                event_ms = round(time_s * 1e6) // 1000
                values = float(price), float(volume)
            except (ValueError, OverflowError) as error:
                raise ContractError("bad_row", str(error)) from error
            return Trade(
                self.name,
                gap.pair,
                trade_id,
                "buy" if side == "b" else "sell",
                *values,
                event_ms,
                received_at_ms,
            )

        good, bad, _ = read_rows(raws, _rest_row, to_trade)
        if cursor is None or not raws:
            # Without rows, nothing proves that a cursor skips none; without a cursor, their times do.
            cursor = max([request.cursor, *(trade.event_time_ms * 1_000_000 for trade in good)])
        reached = bool(good) and gap.last_id is not None and good[-1].trade_id >= gap.last_id
        # Up to now: a page that is not full is the newest one.
        full = len(raws) >= PAGE_ROWS
        newest = gap.last_id is None and not full
        return Page(good, bad, None if reached or newest else self.page_at(gap, cursor), full)

    def parse_refusal(self, status: int, body: bytes) -> SourceError | None:  # noqa: ARG002
        """Refusals come with status 200."""
        return None


def _status(head: _Frame) -> list[Event]:
    try:
        rows = _statuses.decode(head.data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        rows = []
    return [Status(row.system) for row in rows] or [Status("unknown")]


def _throttled_s(text: str, now_ms: int) -> float | None:
    """How long ``EService: Throttled: <unix time>`` asks us to wait."""
    match = re.search(r"Throttled: ?(\d{10})", text)
    return max(0.0, int(match[1]) - now_ms / 1000) if match else None
