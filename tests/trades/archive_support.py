"""Downloaded files, and runs of the archive source over them."""

import gzip
import threading
from pathlib import Path

from services.common.health import Health
from services.common.history_report import HistoryReport, load_report
from services.common.metrics import Metrics
from services.trades.counters import TradeMetrics
from services.trades.progress import Progress
from services.trades.sources.archive import ArchiveSource, archive_identity
from tests.trades.support import FakePublisher
from tests.trades.support import settings as trades_settings

DAY_MS = 86_400_000
T0_S = 1_704_067_200  # 2024-01-01
T0_MS = T0_S * 1000
NOW_MS = T0_MS + 400 * DAY_MS


class Run:
    """One run over files; its state lies in `folder`."""

    def __init__(self, folder: Path, path: Path, stop_after: int | None = None, **values: str) -> None:
        chosen = trades_settings(
            **{"source": "historical", "history": "archive", "archive_path": str(path)} | values
        )
        ticks = iter(range(0, 10**9, 10))
        self.progress = Progress(
            folder / "progress.json", archive_identity(chosen), clock=lambda: float(next(ticks))
        )
        self.publisher = FakePublisher(self.progress)
        self.metrics = Metrics()
        report_path = folder / "report.json"
        source = ArchiveSource(
            chosen,
            self.publisher,
            self.progress,
            Health(60.0),
            TradeMetrics(self.metrics),
            lambda: NOW_MS,
            report_path,
        )
        stop = threading.Event() if stop_after is None else StopAfter(self.publisher, stop_after)
        source.run(stop)
        report = load_report(report_path)
        assert report is not None
        self.report: HistoryReport = report

    def kinds(self, pair: str) -> list[str]:
        return [kind for kind, of, *_ in self.publisher.messages if of == pair]

    def begins(self, pair: str = "BTC/USD") -> list[int]:
        return [int(m[2]) for m in self.publisher.messages if m[:2] == ("begin", pair)]

    def end_ms(self, pair: str) -> int:
        (end,) = [message[2] for message in self.publisher.messages if message[:2] == ("end", pair)]
        return int(end)


class StopAfter(threading.Event):
    """Is set when so many messages have gone out."""

    def __init__(self, publisher: FakePublisher, messages: int) -> None:
        super().__init__()
        self._publisher = publisher
        self._messages = messages

    def is_set(self) -> bool:
        return len(self._publisher.messages) >= self._messages


def kraken(count: int, start_s: float = T0_S, step_s: float = 1.0) -> str:
    """Rows as Kraken offers them, prices going up, down and nowhere."""
    return "".join(f"{start_s + i * step_s:.4f},{100 + (i * 7 % 5)}.5,0.25\n" for i in range(count))


def binance(ids: range, start_ms: int = T0_MS, *, step_ms: int = 10, micro: bool = False) -> str:
    """Rows as Binance offers them; that of id 0 would be at `start_ms`."""
    unit = 1000 if micro else 1
    return "".join(
        f"{i},{100 + i % 7}.5,0.25,25.1,{(start_ms + i * step_ms) * unit},{bool(i % 3)},True\n" for i in ids
    )


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.name.endswith(".gz") else data)
    return path
