"""Which service the history comes in by: trades from REST or files, or candles from files."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from services.candles.files import ENDINGS
from services.candles.ohlcvt import holds_candles
from services.candles.settings import CandlesSettings
from services.common.settings import ServiceSettings
from services.common.text_files import TextFile, locate
from services.trades.settings import TradesSettings

CHAIN = ("trades", "candles", "ta", "features")


@dataclass(frozen=True, slots=True)
class SourceService:
    """The service that the history comes in by, and its settings without their prefix."""

    name: str
    settings: Mapping[str, str]

    def report_path(self, suffix: str) -> Path:
        """Where it leaves its report."""
        folder = Path(self.settings["STATE_DIR"]) / self.name
        return folder / f"{self.settings['EXCHANGE']}{suffix}.history.json"


def source_settings(asked: argparse.Namespace, state: Path) -> SourceService:
    """Trades from REST or files, or candles from files. Raises `SettingsError`, `SourceError`."""
    history = asked.source or ("archive" if asked.path else "rest")
    settings = {
        "EXCHANGE": asked.exchange,
        "PAIRS": asked.pairs,
        "SINCE": asked.since,
        "UNTIL": asked.until,
        "ARCHIVE_PATH": str(Path(asked.path).resolve()) if asked.path else "",
        "STATE_DIR": str(state),
    }
    of_trades = {
        "SOURCE": "historical",
        "HISTORY": history,
        "BATCH_ROWS": "13000",
        "REST_URL": asked.rest_url,
    }
    service, own = "trades", of_trades
    if history == "archive" and asked.path and offers_candles(Path(asked.path)):
        service, own = "candles", {"SOURCE": "archive"}
    given = {name: value for name, value in {**settings, **own}.items() if value}
    # Here, so that a typing error shows at once and not in a log.
    kind: type[ServiceSettings] = TradesSettings if service == "trades" else CandlesSettings
    kind.load({f"{service.upper()}_{name}": value for name, value in given.items()})
    return SourceService(service, given)


def offers_candles(path: Path) -> bool:
    """Whether the files are candles (OHLCVT) rather than trades; the first one that holds a line tells."""
    for location in locate(path, ENDINGS):
        for _, text in TextFile(location).texts(4_096):
            return holds_candles(text.partition("\n")[0])
    return False
