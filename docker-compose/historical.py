"""What a historical run in Docker is told: options as of `make backfill` to settings of its services."""

import gzip
import re
import zipfile
import zlib
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import IO

from checks import USER, Settings, UsageError, open_to_containers

#: Options, and the setting that each becomes behind TRADES_, or CANDLES_ where the files hold candles.
OPTIONS = {
    "exchange": "EXCHANGE",
    "pairs": "PAIRS",
    "since": "SINCE",
    "until": "UNTIL",
    "source": "HISTORY",
    "path": "ARCHIVE_PATH",
}
# datetime.UTC needs a newer Python than the rest of this.
UTC = timezone.utc  # noqa: UP017
FILES = (".csv", ".csv.gz", ".zip")


def environment(given: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """Compose's variables for a run of `given` options. Raises `UsageError`."""
    asked = {option: given.get(option) or settings.given(f"TRADES_{OPTIONS[option]}") for option in OPTIONS}
    asked["exchange"] = asked["exchange"] or settings.of("trades", "TRADES_EXCHANGE")
    asked["source"] = given.get("source") or ("archive" if "path" in given else asked["source"] or "rest")
    service = "TRADES"
    more = {}
    if asked["source"] == "rest":
        asked["pairs"] = asked["pairs"] or settings.of("trades", "TRADES_PAIRS")
        _check_rest(given, asked)
    elif asked["source"] != "archive":
        raise UsageError(f"unknown source={asked['source']}; source=rest|archive")
    else:
        # An archive knows its own pairs; those in a file are of the live feed.
        asked["pairs"] = given.get("pairs") or settings.environ.get("TRADES_PAIRS")
        if "path" in given:
            path = Path(given["path"]).resolve()
            line = first_line(path)
            service = "CANDLES" if holds_candles(line) else "TRADES"
            exchange = exchange_of(line)
            if exchange and given.get("exchange") not in (None, "", exchange):
                raise UsageError(
                    f"path={path}: is of {exchange} by its format; leave out exchange={given['exchange']}"
                )
            asked["exchange"] = exchange or asked["exchange"]
            asked["path"] = f"/archive/{path.name}"
            more = {"HISTORY_PATH": str(path), "HISTORY_NAME": path.name}
        elif not asked["path"]:
            raise UsageError("source=archive needs path=, a file or folder")
    _check_times(asked["since"], asked["until"])
    if service == "CANDLES":
        asked["source"] = None
        more["CANDLES_SOURCE"] = "archive"
    # No other run's end, which a topic may still hold, must stop the services of this one.
    more["KAFKA_HISTORY_RUN"] = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    # Empty ones too, or Compose would take the live feed's.
    return more | {f"{service}_{name}": asked[option] or "" for option, name in OPTIONS.items()}


def _check_rest(given: Mapping[str, str], asked: Mapping[str, str | None]) -> None:
    if "path" in given:
        raise UsageError("path= goes with source=archive")
    if not asked["since"]:
        raise UsageError("since= says where to begin, like since=2024-01-01")
    if not asked["pairs"]:
        raise UsageError("pairs= names what to fetch, like pairs=BTC/USD,ETH/USD")


def _check_times(since: str | None, until: str | None) -> None:
    begin, end = (_ms(name, text) if text else None for name, text in (("since", since), ("until", until)))
    if begin is not None and end is not None and begin >= end:
        raise UsageError(f"until={until} must be after since={since}")


def _ms(option: str, text: str) -> float:
    if re.fullmatch(r"\d{12,13}", text):
        return int(text)
    try:
        if text.isdigit():
            raise ValueError
        # Older Pythons do not know the Z.
        moment = datetime.fromisoformat(re.sub("Z$", "+00:00", text))
    except ValueError:
        raise UsageError(f"{option}={text}: write an ISO time like 2024-01-01, or epoch ms") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000


def first_line(path: Path) -> str:
    """The first one that is in the files that `path` names, a file or folder. Raises `UsageError`."""
    if not path.exists():
        raise UsageError(f"path={path}: does not exist; name a file or folder")
    found = [path]
    if path.is_dir():
        found = [item for item in sorted(path.rglob("*")) if not _is_hidden(str(item.relative_to(path)))]
    files = [item for item in found if item.is_file() and item.name.lower().endswith(FILES)]
    if not files:
        raise UsageError(f"path={path}: no {', '.join(FILES)} there")
    closed = [str(item) for item in dict.fromkeys((path, *files)) if not open_to_containers(item)]
    if closed:
        more = f" and {len(closed) - 1} more" if len(closed) > 1 else ""
        remedy = f"chmod -R o+rX {path}"
        raise UsageError(f"user {USER}, who runs the services, may not read {closed[0]}{more}: {remedy}")
    return next(filter(None, map(_first_line, files)), "")


def _first_line(path: Path) -> str:
    try:
        with path.open("rb") as file:
            if not path.name.lower().endswith(".zip"):
                return _read_line(path.name, file)
            with zipfile.ZipFile(file) as packed:
                for name in packed.namelist():
                    if name.lower().endswith(FILES[:2]) and not _is_hidden(name):
                        with packed.open(name) as member:
                            line = _read_line(name, member)
                        if line:
                            return line
    except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise UsageError(f"path={path}: cannot be read ({error}); copy it again") from None
    return ""


def _read_line(name: str, file: IO[bytes]) -> str:
    if name.lower().endswith(".gz"):
        with gzip.open(file) as unpacked:
            return _first_that_says_something(unpacked)
    return _first_that_says_something(file)


def _first_that_says_something(lines: IO[bytes] | gzip.GzipFile) -> str:
    while line := lines.readline(4_096):
        if text := line.decode("utf-8-sig", errors="replace").strip():
            return text
    return ""


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in re.split(r"[/\\]", name))


def _cells(line: str) -> list[str]:
    return [cell.strip().strip('"').lower() for cell in line.split(",")]


def holds_candles(line: str) -> bool:
    """Whether a file that begins so holds Kraken's candles (OHLCVT), as in `services.candles.ohlcvt`."""
    cells = _cells(line)
    if cells[1:6] == ["open", "high", "low", "close", "volume"]:
        return len(cells) == 7
    number = r"\s*\+?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?\s*"
    return len(cells) == 7 and all(re.fullmatch(number, cell, re.ASCII) for cell in line.split(","))


def exchange_of(line: str) -> str | None:
    """The exchange whose file begins so, as in `services.trades.history.formats`."""
    cells = _cells(line)
    if len(cells) == 7 and cells[5].replace("_", "") in ("true", "false", "isbuyermaker"):
        return "binance"
    return None
