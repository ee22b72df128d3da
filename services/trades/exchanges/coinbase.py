"""Coinbase Exchange: the `matches` and `heartbeat` channels and REST trades. Pure.

https://docs.cdp.coinbase.com/exchange/websocket-feed/channels#matches-channel
The side is the **maker's**, on both, and is turned round here.
"""

import msgspec

from services.common.errors import ContractError, SourceError, SourceUnavailableError
from services.common.messages import Side, Trade
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
    Trades,
    flip,
    parse_time_ms,
    read_rows,
)

PAGE_ROWS = 1000


class _Channel(msgspec.Struct):
    name: str = ""
    product_ids: list[str] = []


class _Frame(msgspec.Struct):
    type: str | None = None
    product_id: str | None = None
    last_trade_id: int | None = None
    message: str | None = None
    reason: str | None = None
    channels: list[_Channel] = []


class _Match(msgspec.Struct):
    trade_id: int
    side: Side
    size: float
    price: float
    time: str
    product_id: str = ""


_frame = msgspec.json.Decoder(_Frame)
# Not strict: numbers come as text.
_match = msgspec.json.Decoder(_Match, strict=False)
_raws = msgspec.json.Decoder(list[msgspec.Raw])
_error = msgspec.json.Decoder(_Frame)


class Coinbase:
    """A subscription begins with `last_match`; each second's heartbeat names the last trade id."""

    name = "coinbase"
    ws_url = "wss://ws-feed.exchange.coinbase.com"
    rest_url = "https://api.exchange.coinbase.com"
    has_snapshot = True
    no_history: str | None = (
        "coinbase gives trades backwards from the newest only, not from a time on: record them and use "
        "TRADES_SOURCE=replay, or get files and use TRADES_HISTORY=archive"
    )

    def __init__(self, pairs: tuple[str, ...]) -> None:
        self._pair_of = {pair.replace("/", "-"): pair for pair in pairs}

    def subscribe_frames(self) -> list[str]:
        """One subscription of all pairs to both channels."""
        request = {
            "type": "subscribe",
            "product_ids": list(self._pair_of),
            "channels": ["matches", "heartbeat"],
        }
        return [msgspec.json.encode(request).decode()]

    def parse_frame(self, frame: bytes, received_at_ms: int) -> list[Event]:
        """Events of a frame; one trade a frame."""
        try:
            head = _frame.decode(frame)
        except msgspec.ValidationError as error:
            return [Bad(ContractError("bad_frame", str(error)), frame)]
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return [Bad(ContractError("bad_json", str(error)), frame)]
        if head.type in ("match", "last_match"):
            return self._trade(frame, head.type == "last_match", received_at_ms)
        if head.type == "heartbeat":
            pair = self._pair_of.get(head.product_id or "")
            if pair is None or head.last_trade_id is None:
                return [Alive()]
            return [Alive(((pair, head.last_trade_id),))]
        if head.type == "subscriptions":
            named = {
                symbol for item in head.channels if item.name == "matches" for symbol in item.product_ids
            }
            return [Ack(pair) for symbol, pair in self._pair_of.items() if symbol in named]
        if head.type == "error":
            reason = ": ".join(text for text in (head.message, head.reason) if text) or "no reason"
            named_pair = next((p for s, p in self._pair_of.items() if s in reason), None)
            transient = "rate limit" in reason.lower() or "too many" in reason.lower()
            return [Refused(named_pair, reason, transient)]
        if head.type == "status":
            return [Status(head.message or "status")]
        return [Ignored("unknown_channel")]

    def _trade(self, frame: bytes, is_snapshot: bool, received_at_ms: int) -> list[Event]:
        def to_trade(row: _Match) -> Trade | None:
            pair = self._pair_of.get(row.product_id)
            return None if pair is None else self._to_trade(row, pair, received_at_ms)

        good, bad, unwanted = read_rows([msgspec.Raw(frame)], _match, to_trade)
        if unwanted:
            return [Ignored("unconfigured_pair")]
        if bad:
            return [*bad]
        return [Trades(good[0].pair, good, is_snapshot)]

    def _to_trade(self, row: _Match, pair: str, received_at_ms: int) -> Trade:
        return Trade(
            self.name,
            pair,
            row.trade_id,
            flip(row.side),
            row.price,
            row.size,
            parse_time_ms(row.time),
            received_at_ms,
        )

    def first_page(self, gap: Gap) -> PageRequest:
        """The newest trades of the gap; pages go back from there."""
        # `after` means older than: https://docs.cdp.coinbase.com/exchange/rest-api/pagination
        return self._page(gap, None if gap.last_id is None else gap.last_id + 1)

    def first_page_since(self, gap: Gap) -> PageRequest:  # noqa: ARG002
        """There is none. Raises `SourceError`."""
        raise SourceError(self.no_history)

    def page_at(self, gap: Gap, cursor: int) -> PageRequest:
        """Trades before the id ``-cursor``."""
        return self._page(gap, -cursor)

    def _page(self, gap: Gap, after: int | None) -> PageRequest:
        params = {"limit": str(PAGE_ROWS)} | ({} if after is None else {"after": str(after)})
        # The cursor falls from page to page, so its negative rises.
        cursor = -(2**62) if after is None else -after
        return PageRequest(f"/products/{gap.pair.replace('/', '-')}/trades", params, cursor)

    def parse_page(self, gap: Gap, request: PageRequest, body: bytes, received_at_ms: int) -> Page:  # noqa: ARG002
        """An array of trades, newest first, or an object with a `message`."""
        try:
            raws = _raws.decode(body)
        except msgspec.ValidationError:
            raise _refusal(body) from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise SourceUnavailableError(f"coinbase: no JSON answer ({error})") from error
        good, bad, _ = read_rows(raws, _match, lambda row: self._to_trade(row, gap.pair, received_at_ms))
        if not good or len(raws) < PAGE_ROWS:
            # Nothing older exists.
            return Page(good, bad)
        oldest = min(trade.trade_id for trade in good)
        done = oldest <= gap.first_id
        return Page(good, bad, None if done else self._page(gap, oldest))

    def parse_refusal(self, status: int, body: bytes) -> SourceError | None:  # noqa: ARG002
        """The status says it all."""
        return None


def _refusal(body: bytes) -> SourceError:
    try:
        message = _error.decode(body).message or ""
    except (msgspec.DecodeError, UnicodeDecodeError):
        message = body[:80].decode("utf-8", "replace")
    if "notfound" in message.lower().replace(" ", ""):
        return SourceError(f"coinbase: {message}")
    return SourceUnavailableError(f"coinbase: {message or 'an answer without trades'}")
