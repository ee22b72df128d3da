"""Binance spot: the `@trade` streams and REST historicalTrades. Pure.

https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams and /rest-api
Gaps are filled from historicalTrades, since aggTrades merges trades and has ids of its own.
"""

import msgspec

from services.common.errors import ContractError, SourceError, SourceUnavailableError
from services.common.messages import Trade
from services.trades.exchanges.contract import (
    Ack,
    Bad,
    Event,
    Gap,
    Ignored,
    Page,
    PageRequest,
    Refused,
    Status,
    Trades,
    read_rows,
)

PAGE_ROWS = 1000
SUBSCRIBE_ID = 1
# Too many requests, banned for a while, time-outs and overload of Binance's own.
_RETRY_CODES = {-1000, -1001, -1003, -1004, -1006, -1007, -1008, -1015, -1016, -1034}


class _Error(msgspec.Struct):
    code: int = 0
    msg: str = ""


class _Frame(msgspec.Struct):
    stream: str | None = None
    data: msgspec.Raw = msgspec.Raw(b"")
    id: int | str | None = None
    error: _Error | None = None
    e: str | None = None


class _EventType(msgspec.Struct):
    e: str | None = None


class _Trade(msgspec.Struct):
    s: str
    t: int
    p: float
    q: float
    T: int
    m: bool


class _RestTrade(msgspec.Struct):
    id: int
    price: float
    qty: float
    time: int
    is_buyer_maker: bool = msgspec.field(name="isBuyerMaker")


_frame = msgspec.json.Decoder(_Frame)
_event_type = msgspec.json.Decoder(_EventType)
# Not strict: prices and quantities come as text.
_trade = msgspec.json.Decoder(_Trade, strict=False)
_rest_trade = msgspec.json.Decoder(_RestTrade, strict=False)
_raws = msgspec.json.Decoder(list[msgspec.Raw])
_error = msgspec.json.Decoder(_Error)


class Binance:
    """No snapshot and no heartbeat frames; the socket loop's own pings show that it lives."""

    name = "binance"
    ws_url = "wss://stream.binance.com:9443/stream"
    rest_url = "https://api.binance.com"
    has_snapshot = False

    def __init__(self, pairs: tuple[str, ...]) -> None:
        self._pair_of = {_symbol(pair): pair for pair in pairs}

    def subscribe_frames(self) -> list[str]:
        """One request for all streams; it is answered once."""
        streams = [f"{symbol.lower()}@trade" for symbol in self._pair_of]
        request = {"method": "SUBSCRIBE", "params": streams, "id": SUBSCRIBE_ID}
        return [msgspec.json.encode(request).decode()]

    def parse_frame(self, frame: bytes, received_at_ms: int) -> list[Event]:
        """Events of a frame, of a combined stream or a bare one."""
        try:
            head = _frame.decode(frame)
            kind = _event_type.decode(head.data).e if bytes(head.data) else head.e
        except msgspec.ValidationError as error:
            return [Bad(ContractError("bad_frame", str(error)), frame)]
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return [Bad(ContractError("bad_json", str(error)), frame)]
        if kind == "trade":
            return self._trade_event(head.data, frame, received_at_ms)
        if head.error is not None:
            reason = f"{head.error.msg} ({head.error.code})"
            return [Refused(None, reason, "too many" in reason.lower())]
        if kind == "serverShutdown":
            return [Status("serverShutdown", reconnect=True)]
        if head.id == SUBSCRIBE_ID:
            return [Ack(pair) for pair in self._pair_of.values()]
        return [Ignored("unknown_channel")]

    def _trade_event(self, data: msgspec.Raw, frame: bytes, received_at_ms: int) -> list[Event]:
        def to_trade(row: _Trade) -> Trade | None:
            pair = self._pair_of.get(row.s)
            if pair is None:
                return None
            return Trade(
                self.name, pair, row.t, "sell" if row.m else "buy", row.p, row.q, row.T, received_at_ms
            )

        raw = data if bytes(data) else msgspec.Raw(frame)
        good, bad, unwanted = read_rows([raw], _trade, to_trade)
        if unwanted:
            return [Ignored("unconfigured_pair")]
        return [*bad] if bad else [Trades(good[0].pair, good)]

    def first_page(self, gap: Gap) -> PageRequest:
        """Trades from the first missing id on."""
        return self._page(gap, gap.first_id)

    def _page(self, gap: Gap, from_id: int) -> PageRequest:
        params = {"symbol": _symbol(gap.pair), "fromId": str(from_id), "limit": str(PAGE_ROWS)}
        return PageRequest("/api/v3/historicalTrades", params, from_id)

    def parse_page(self, gap: Gap, request: PageRequest, body: bytes, received_at_ms: int) -> Page:
        """An array of trades, oldest first, or an object with `code` and `msg`."""
        try:
            raws = _raws.decode(body)
        except msgspec.ValidationError:
            raise _refusal(body) from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise SourceUnavailableError(f"binance: no JSON answer ({error})") from error

        def to_trade(row: _RestTrade) -> Trade:
            return Trade(
                self.name,
                gap.pair,
                row.id,
                "sell" if row.is_buyer_maker else "buy",
                row.price,
                row.qty,
                row.time,
                received_at_ms,
            )

        good, bad, _ = read_rows(raws, _rest_trade, to_trade)
        newest = max((trade.trade_id for trade in good), default=request.cursor - 1)
        reached = gap.last_id is not None and newest >= gap.last_id
        if reached or (gap.last_id is None and len(raws) < PAGE_ROWS):
            return Page(good, bad)
        return Page(good, bad, self._page(gap, newest + 1))


def _symbol(pair: str) -> str:
    return pair.replace("/", "")


def _refusal(body: bytes) -> SourceError:
    try:
        error = _error.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return SourceUnavailableError(f"binance: {body[:80].decode('utf-8', 'replace')}")
    text = f"binance: {error.msg or 'an answer without trades'} ({error.code})"
    return SourceUnavailableError(text) if error.code in _RETRY_CODES or not error.code else SourceError(text)
