"""The metrics that only this service has."""

from services.common.metrics import Metrics


class TradeMetrics:
    """Counters of the live feed, the replay and the historical run."""

    def __init__(self, metrics: Metrics) -> None:
        self.reconnects = metrics.counter("reconnects_total", "Connections after the first")
        self.gaps = metrics.counter("trade_gaps_total", "Gaps in trade ids that could not be filled", "pair")
        self.missing = metrics.counter("trades_missing_total", "Trades in those gaps", "pair")
        self.duplicates = metrics.counter("trades_duplicate_total", "Trades seen twice, sent once")
        self.filled = metrics.counter("trades_filled_total", "Trades fetched by REST", "pair")
        self.frames = metrics.counter("frames_total", "Data frames received")
        self.ignored = metrics.counter("ignored_total", "Frames or rows that were not ours", "reason")
        self.history_done = metrics.gauge(
            "history_done_ratio", "Share of a pair's time range that went out, 0 to 1", "pair"
        )
