"""Which service the history comes in by: trades from REST or files, or candles from files."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from services.candles.files import ENDINGS
from services.candles.ohlcvt import holds_candles
from services.candles.settings import CandlesSettings
from services.common.errors import SettingsError, SourceError
from services.common.settings import ServiceSettings
from services.common.text_files import Location, TextFile, locate
from services.trades.history.formats import exchange_of
from services.trades.settings import TradesSettings

#: Where neither options nor files say another.
DEFAULT_EXCHANGE = "kraken"
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


def source_settings(asked: argparse.Namespace, state: Path, now_ms: int) -> SourceService:
    """Trades from REST or files, or candles from files. Raises `SettingsError`, `SourceError`."""
    history = asked.source or ("archive" if asked.path else "rest")
    if history == "rest" and asked.path:
        raise SettingsError("--path: with --source rest no file is read; leave out one of the two")
    heads = first_lines(Path(asked.path)) if history == "archive" and asked.path else {}
    settings = {
        "EXCHANGE": exchange_of_files(heads, asked.exchange),
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
    if offers_candles(heads):
        service, own = "candles", {"SOURCE": "archive"}
    given = {name: value for name, value in {**settings, **own}.items() if value}
    # Here, so that a typing error shows at once and not in a log.
    kind: type[ServiceSettings] = TradesSettings if service == "trades" else CandlesSettings
    loaded: Any = kind.load({f"{service.upper()}_{name}": value for name, value in given.items()})
    if loaded.since is not None and loaded.since >= now_ms:
        raise SettingsError(
            f"{service.upper()}_SINCE: {asked.since} lies in the future; there is no history yet"
        )
    return SourceService(service, given)


def first_lines(path: Path) -> dict[Location, str]:
    """The first line of each file under `path` that holds one. Raises `SourceError`."""
    heads = ((location, TextFile(location).first_line()) for location in locate(path, ENDINGS))
    return {location: head for location, head in heads if head is not None}


def offers_candles(heads: Mapping[Location, str]) -> bool:
    """Whether files are candles (OHLCVT) rather than trades; the first one that holds a line tells."""
    return any(map(holds_candles, islice(heads.values(), 1)))


def exchange_of_files(heads: Mapping[Location, str], asked: str) -> str:
    """The exchange to store under: `asked`, or what the files say. Raises `SourceError` when these differ."""
    named = {location: exchange_of(head) for location, head in heads.items()}
    for location, exchange in named.items():
        if exchange is not None and asked not in ("", exchange):
            raise SourceError(
                f"{location}: is of {exchange} by its format, and {asked} is asked for; leave out --exchange"
            )
    found = set(named.values()) - {None}
    if found and None in named.values() and not asked:
        other = next(location for location, exchange in named.items() if exchange is None)
        raise SourceError(
            f"{other}: does not say whose it is, and others here are of {', '.join(map(str, found))}; keep "
            "them apart"
        )
    return asked or next(iter(map(str, found)), DEFAULT_EXCHANGE)
