"""Binance spot: the `@trade` streams and REST historicalTrades. Pure.

https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams and /rest-api
Gaps are filled, and histories read, from historicalTrades: aggTrades merges trades and has ids of its
own, so its rows would not be those that the stream sends. It only tells which id a time begins with, as
historicalTrades knows no times.
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
TRADES_PATH = "/api/v3/historicalTrades"
NEWEST_PATH = "/api/v3/trades"
LOCATE_PATH = "/api/v3/aggTrades"
#: From a time on, aggTrades has been seen to look no further than this.
LOCATE_MS = 3_600_000
# Cursors of requests that look for the beginning lie before all ids, in their order.
_FIRST, _NEWEST, _HOURS = -3 * 2**61, -2 * 2**61, -(2**61)
_KEY_CODES = {-2014, -2015, -1002}
SUBSCRIBE_ID = 1
# Too many requests, banned for a while, time-outs and overload of Binance's own.
_RETRY_CODES = {-1000, -1001, -1003, -1004, -1006, -1007, -1008, -1015, -1016, -1034}


class _AggTrade(msgspec.Struct):
    f: int
    T: int


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
_rest_trades = msgspec.json.Decoder(list[_RestTrade], strict=False)
_agg_trades = msgspec.json.Decoder(list[_AggTrade])
_raws = msgspec.json.Decoder(list[msgspec.Raw])
_error = msgspec.json.Decoder(_Error)


class Binance:
    """No snapshot and no heartbeat frames; the socket loop's own pings show that it lives."""

    name = "binance"
    ws_url = "wss://stream.binance.com:9443/stream"
    rest_url = "https://api.binance.com"
    has_snapshot = False
    no_history: str | None = None

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
        return self.page_at(gap, gap.first_id)

    def page_at(self, gap: Gap, cursor: int) -> PageRequest:
        """Trades from the id `cursor` on."""
        params = {"symbol": _symbol(gap.pair), "fromId": str(cursor), "limit": str(PAGE_ROWS)}
        return PageRequest(TRADES_PATH, params, cursor)

    def first_page_since(self, gap: Gap) -> PageRequest:
        """Which id does the time begin with?"""
        return self._locate(gap, gap.after_ms, _FIRST)

    def _locate(self, gap: Gap, from_ms: int, cursor: int) -> PageRequest:
        # With an endTime too, the limit counts from the end (binance-spot-api-docs#10).
        params = {"symbol": _symbol(gap.pair), "startTime": str(from_ms), "limit": "1"}
        return PageRequest(LOCATE_PATH, params, cursor)

    def _parse_located(self, gap: Gap, request: PageRequest, body: bytes, now_ms: int) -> Page:
        """A page without trades whose next one is nearer to the beginning, or is it.

        Where aggTrades finds nothing soon, the newest trade says whether there is anything at all, the
        first one whether the pair is younger than the time, and then hour after hour is asked for.
        """
        symbol = {"symbol": _symbol(gap.pair), "limit": "1"}
        if request.path == LOCATE_PATH:
            found = _decode(_agg_trades, body)
            if found and found[0].f >= 0:
                return Page([], next=self.page_at(gap, found[0].f))
            if request.cursor == _FIRST:
                return Page([], next=PageRequest(NEWEST_PATH, symbol, _NEWEST))
            # One without trades of its own has been seen; the next is after its time.
            asked_ms = int(request.params["startTime"])
            from_ms = found[0].T + 1 if found else asked_ms + LOCATE_MS
        else:
            rows = _decode(_rest_trades, body)
            if request.path == NEWEST_PATH:
                if not rows or rows[0].time < gap.after_ms:
                    return Page([])
                return Page([], next=PageRequest(TRADES_PATH, symbol | {"fromId": "0"}, _NEWEST + 1))
            if rows and rows[0].time >= gap.after_ms:
                return Page([], next=self.page_at(gap, rows[0].id))
            from_ms = gap.after_ms + LOCATE_MS
        return Page([], next=self._locate(gap, from_ms, _HOURS + from_ms) if from_ms <= now_ms else None)

    def parse_page(self, gap: Gap, request: PageRequest, body: bytes, received_at_ms: int) -> Page:
        """An array of trades, oldest first, or an object with `code` and `msg`."""
        if request.cursor < 0:
            return self._parse_located(gap, request, body, received_at_ms)
        raws = _decode(_raws, body)

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
        return Page(good, bad, self.page_at(gap, newest + 1))

    def parse_refusal(self, status: int, body: bytes) -> SourceError | None:
        """Whether it asks for an API key, which we do not have."""
        try:
            error = _error.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            error = _Error()
        return _no_key(error) if status == 401 or error.code in _KEY_CODES else None


def _symbol(pair: str) -> str:
    return pair.replace("/", "")


def _decode[T](decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError:
        raise _refusal(body) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SourceUnavailableError(f"binance: no JSON answer ({error})") from error


def _no_key(error: _Error) -> SourceError:
    return SourceError(
        f"binance: asks for an API key ({error.msg or 'unauthorized'}, {error.code}), which this service has "
        "none of; download its files from https://data.binance.vision and use TRADES_HISTORY=archive"
    )


def _refusal(body: bytes) -> SourceError:
    try:
        error = _error.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return SourceUnavailableError(f"binance: {body[:80].decode('utf-8', 'replace')}")
    if error.code in _KEY_CODES:
        return _no_key(error)
    text = f"binance: {error.msg or 'an answer without trades'} ({error.code})"
    return SourceUnavailableError(text) if error.code in _RETRY_CODES or not error.code else SourceError(text)
