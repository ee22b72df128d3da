"""Recordings of raw exchange frames, one JSON a line, read by the same mapper as the live feed."""

from collections.abc import Callable, Iterator

from services.common.messages import Trade
from services.common.text_files import BLOCK_BYTES, TextFile
from services.trades.exchanges.contract import Bad, Exchange, Ignored, Trades
from services.trades.sources.files import Block, Columns


class FramesFile(TextFile):
    """One recorded session."""

    def read(
        self,
        exchange: Exchange,
        now_ms: Callable[[], int],
        on_bad: Callable[[Bad], None],
        on_ignored: Callable[[str], None],
        block_bytes: int = BLOCK_BYTES,
    ) -> Iterator[Block]:
        """Blocks of trades in the order of the frames. Raises `SourceError`."""
        last_ms = 0
        for _, block in self.blocks(block_bytes):
            by_pair: dict[str, Columns] = {}
            for line in block.splitlines():
                if not line.strip():
                    continue
                for event in exchange.parse_frame(line, now_ms()):
                    if isinstance(event, Trades):
                        last_ms = _append(by_pair, event.pair, event.trades, last_ms)
                    elif isinstance(event, Bad):
                        on_bad(event)
                    elif isinstance(event, Ignored):
                        on_ignored(event.reason)
            yield by_pair, last_ms


def _append(by_pair: dict[str, Columns], pair: str, trades: list[Trade], last_ms: int) -> int:
    columns = by_pair.setdefault(pair, Columns([], [], [], [], [], []))
    assert columns.ids is not None
    for trade in trades:
        # A snapshot goes back in time; its trades are due when their frame came.
        last_ms = max(last_ms, trade.event_time_ms)
        columns.ids.append(trade.trade_id)
        columns.sides.append(trade.side)
        columns.prices.append(trade.price)
        columns.quantities.append(trade.quantity)
        columns.events.append(trade.event_time_ms)
        columns.times.append(last_ms)
    return last_ms
