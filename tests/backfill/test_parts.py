"""What a backfill reads from its options, says while it runs and reports in the end."""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from services.backfill.coverage import have_earlier, series_coverage
from services.backfill.main import is_complete, main
from services.backfill.report import report_text
from services.backfill.source import source_settings
from services.backfill.watch import progress_text
from services.common.errors import SettingsError, SourceError
from services.common.history_report import HistoryReport, Missing, PairHistory
from services.demo.processes import DemoError, RefusedError, Service
from services.features.groups import TA
from services.features.stores.sqlite import SqliteStore
from tests.features.rows import MINUTE, T0, ta_row, tuples

NOW_MS = T0 + 300 * 86_400_000


def asked(**given: str) -> argparse.Namespace:
    names = ("exchange", "pairs", "since", "until", "source", "path", "rest_url")
    return argparse.Namespace(**{name: given.get(name, "") for name in names})


def test_without_a_path_the_exchange_is_asked_and_with_one_the_files_are_read(tmp_path: Path) -> None:
    rest = source_settings(asked(pairs="BTC/USD", since="2024-01-01"), tmp_path, NOW_MS)
    assert (rest.name, rest.settings["HISTORY"]) == ("trades", "rest")
    file = tmp_path / "XBTUSD.csv"
    file.write_text("1704067200,10,1\n")
    archive = source_settings(asked(path=str(file)), tmp_path, NOW_MS)
    assert (archive.name, archive.settings["HISTORY"]) == ("trades", "archive")
    file.rename(tmp_path / "XBTUSD_1.csv")
    (tmp_path / "XBTUSD_1.csv").write_text("1704067200,10,12,9,11,5,3\n")
    candles = source_settings(asked(path=str(tmp_path)), tmp_path, NOW_MS)
    assert (candles.name, candles.settings["SOURCE"]) == ("candles", "archive")
    assert candles.report_path("-x") == tmp_path / "candles" / "kraken-x.history.json"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"pairs": "BTC/USD"}, "TRADES_SINCE: say where to begin"),
        ({"since": "2024-01-01"}, "TRADES_PAIRS: name at least one pair"),
        ({"pairs": "BTCUSD", "since": "2024-01-01"}, "'BTCUSD' is no pair"),
        ({"pairs": "XBT/USD", "since": "2024-01-01"}, "bitcoin is written BTC"),
        ({"pairs": "BTC/USD", "since": "yesterday"}, "TRADES_SINCE: write an ISO time"),
        ({"pairs": "BTC/USD", "since": "1704067200"}, "this looks like another unit"),
        ({"pairs": "BTC/USD", "since": "2024-02-01", "until": "2024-01-01"}, "TRADES_UNTIL: must be after"),
        ({"pairs": "BTC/USD", "since": "2024-01-01", "exchange": "mtgox"}, "'mtgox' has no REST history"),
        ({"pairs": "BTC/USD", "since": "2024-01-01", "exchange": "coinbase"}, "TRADES_EXCHANGE: .*backwards"),
        ({"pairs": "BTC/USD", "since": "2025-01-01"}, "TRADES_SINCE: 2025-01-01 lies in the future"),
        ({"source": "archive"}, "TRADES_ARCHIVE_PATH: an archive needs"),
    ],
)
def test_wrong_options_are_refused_by_name(tmp_path: Path, given: dict[str, str], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        source_settings(asked(**given), tmp_path, NOW_MS)


BINANCE = "1,100.5,0.25,25.1,1704067200000,True,True\n"


def test_files_that_say_whose_they_are_are_stored_under_that_exchange(tmp_path: Path) -> None:
    path = tmp_path / "BTCUSDT-trades-2024-01-01.csv"
    path.write_text(BINANCE)
    assert source_settings(asked(path=str(path)), tmp_path, NOW_MS).settings["EXCHANGE"] == "binance"
    assert (
        source_settings(asked(path=str(path), exchange="binance"), tmp_path, NOW_MS).settings["EXCHANGE"]
        == "binance"
    )
    with pytest.raises(SourceError, match="is of binance by its format, and kraken is asked for"):
        source_settings(asked(path=str(path), exchange="kraken"), tmp_path, NOW_MS)
    (tmp_path / "XBTUSD.csv").write_text("1704067200,10,1\n")
    with pytest.raises(SourceError, match=r"XBTUSD\.csv: does not say whose it is.*keep them apart"):
        source_settings(asked(path=str(tmp_path)), tmp_path, NOW_MS)
    kraken = source_settings(asked(path=str(tmp_path / "XBTUSD.csv")), tmp_path, NOW_MS)
    assert kraken.settings["EXCHANGE"] == "kraken"
    own = source_settings(asked(path=str(tmp_path / "XBTUSD.csv"), exchange="bitstamp"), tmp_path, NOW_MS)
    assert own.settings["EXCHANGE"] == "bitstamp"


def test_a_path_that_would_not_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--path: with --source rest no file is read"):
        source_settings(
            asked(source="rest", path="x.csv", pairs="BTC/USD", since="2024-01-01"), tmp_path, NOW_MS
        )


def test_a_path_that_is_not_there_ends_with_2_and_starts_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SourceError):
        source_settings(asked(path=str(tmp_path / "none.csv")), tmp_path, NOW_MS)
    assert main(["--path", str(tmp_path / "none.csv"), "--folder", str(tmp_path / "f")]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert not (tmp_path / "f").exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    options = ["--pairs", "BTC/USD", "--since", "2024-01-01", "--folder", str(tmp_path / "file" / "f")]
    assert main(options) == 1
    said = capsys.readouterr().err
    assert f"cannot use the folder {tmp_path / 'file' / 'f'}: Not a directory" in said
    assert "goes on" not in said


@pytest.mark.parametrize(("code", "refused"), [(1, False), (2, True)])
def test_a_service_that_refuses_its_input_is_told_from_one_that_died(
    tmp_path: Path, code: int, refused: bool
) -> None:
    log = tmp_path / "trades.log"
    log.write_text("why")
    process = subprocess.Popen([sys.executable, "-c", f"raise SystemExit({code})"])
    process.wait()
    with pytest.raises(DemoError, match="why") as caught:
        Service("trades", process, "", log).check()
    assert isinstance(caught.value, RefusedError) == refused


def test_the_progress_line_shows_share_rate_rows_and_time_left() -> None:
    text = progress_text({"trades": 200_000, "features": 5_000}, 0.5, 60.0)
    assert text == (
        "[##########..........]  50%  200,000 trades (3,333/s), 5,000 rows stored, about 1 min 00 s left"
    )
    assert progress_text({"candles": 10, "features": 5}, None, 1.0) == "10 candles (10/s), 5 rows stored"


def report(*missing: Missing, ended: bool = True) -> HistoryReport:
    pairs = [PairHistory("BTC/USD", 1_234, 1, 1_234, T0, T0 + MINUTE, list(missing))]
    return HistoryReport("kraken", "rest", T0, T0 + 2 * MINUTE, pairs, ended=ended, notes=["mind the gap"])


def test_the_report_says_what_is_missing_and_why() -> None:
    gaps = [Missing("not given", first_id=n, last_id=n + 2) for n in range(5)]
    text = report_text(report(*gaps), [], 12.0)
    assert "1,234 trades in 12 s" in text
    assert "ids 0 to 2: not given; ids 1 to 3: not given; ids 2 to 4: not given; 2 more" in text
    assert text.endswith("note: mind the gap\n")
    assert "nothing" in report_text(report(), [], 12.0)


def test_only_a_whole_history_is_complete() -> None:
    assert is_complete(report())
    assert not is_complete(report(ended=False))
    assert not is_complete(report(Missing("why")))


@pytest.fixture
def store(tmp_path: Path) -> SqliteStore:
    opened = SqliteStore(tmp_path / "s.sqlite")
    opened.ensure_group(TA)
    return opened


def cover(store: SqliteStore, timeframe: str = "1m") -> Any:
    return series_coverage(store, "kraken", "BTC/USD", timeframe, T0, T0 + 100 * MINUTE)


def test_coverage_counts_rows_and_the_intervals_between_that_are_missing(store: SqliteStore) -> None:
    assert cover(store) is None
    store.write(TA, tuples(ta_row(n) for n in (0, 1, 4, 5, 9)))
    found = cover(store)
    assert (found.rows, found.gaps) == (5, 5)


@pytest.mark.parametrize(
    ("since_ms", "first_ms", "found"),
    [
        (T0, T0 + 5, []),
        # Since lies before the trades, so the series began with these, behind the rows of an earlier run.
        (T0, T0 + 3 * MINUTE + 5, ["BTC/USD"]),
        (T0 + 3 * MINUTE, None, ["BTC/USD"]),
        (T0, None, []),
    ],
)
def test_rows_of_an_earlier_run_count_from_where_the_series_of_this_one_really_begins(
    store: SqliteStore, since_ms: int, first_ms: int | None, found: list[str]
) -> None:
    pairs = [PairHistory("BTC/USD", first_ms=first_ms), PairHistory("ETH/USD", first_ms=first_ms)]
    run = HistoryReport("kraken", "archive", since_ms, T0 + 9 * MINUTE, pairs)
    store.write(TA, tuples(ta_row(n) for n in range(9)))
    assert have_earlier(store, run) == found


def test_a_checksum_tells_rows_apart_and_not_when_they_were_written(store: SqliteStore) -> None:
    rows = tuples(ta_row(n) for n in range(50))
    store.write(TA, rows)
    first = cover(store)
    store.write(TA, rows)
    assert cover(store) == first
    store.write(TA, tuples([ta_row(3, close=100.0001)]))
    assert cover(store).checksum != first.checksum
