"""`make backfill` as its user runs it: an exchange or files in, a store and a report out."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.common.errors import ServiceError
from services.common.messages import Trade, series_key
from services.demo.processes import own_folder
from services.features import open_store
from services.features.groups import GROUPS, TA
from services.features.stores.sqlite import SqliteStore
from tests.features.rows import ta_row, tuples
from tests.pipeline.steps import Chain, live
from tests.trades.history_support import FakeKraken, Row, every
from tests.trades.support import T0_MS, RestServer, rest_server

ROOT = Path(__file__).parents[2]
PAIRS = ("BTC/USD", "ETH/USD")
SINCE_MS = T0_MS // 3_600_000 * 3_600_000
UNTIL_MS = SINCE_MS + 4 * 3_600_000
ROWS_OF = {
    pair: every(3_000, 4_321 + number, first_id=1_000, start_ms=SINCE_MS - T0_MS + 100)
    for number, pair in enumerate(PAIRS)
}
type Rows = dict[tuple[str, str, int], dict[str, Any]]


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("KAFKA_")}
    return subprocess.Popen(
        [
            sys.executable, "-m", "services.backfill.main", "--folder", str(folder / "work"),
            "--store", str(folder / "store.sqlite"), *options,
        ],
        cwd=ROOT, env=clean, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    text, _ = process.communicate(timeout=120)
    assert process.returncode == code, text
    return text


def rest_options(server: RestServer) -> tuple[str, ...]:
    return (
        "--pairs", ",".join(PAIRS), "--since", str(SINCE_MS), "--until", str(UNTIL_MS),
        "--rest-url", server.url,
    )  # fmt: skip


def stored(folder: Path) -> Rows:
    """Everything in the store but when it was written, newest rows under ``online``."""
    rows: Rows = {}
    with open_store(folder / "store.sqlite") as store:
        for series in store.describe()["series"]:
            for row in store.history(series["pair"], series["timeframe"], exchange="kraken").to_pylist():
                del row["ingested_at_ms"]
                rows[row["pair"], row["timeframe"], row["end_ms"]] = row
        for row in store.latest_all(exchange="kraken"):
            del row["ingested_at_ms"]
            rows[row["pair"], f"online {row['timeframe']}", 0] = row
    return rows


def as_trade(pair: str, row: Row) -> Trade:
    return Trade("kraken", pair, row.trade_id, "buy", row.price, row.quantity, row.event_ms, row.event_ms)


@pytest.fixture(scope="module")
def lived() -> Rows:
    """What live trading would have made of the same trades."""
    rows: Rows = {}
    for pair, of_pair in ROWS_OF.items():
        trades = [as_trade(pair, row) for row in of_pair]
        messages = live(trades, SINCE_MS, UNTIL_MS, range(1, len(trades), 7))
        chain = Chain(int(time.time() * 1000))
        rows |= {
            (pair, timeframe, end_ms): row
            for (timeframe, end_ms), row in chain.send(series_key("kraken", pair), messages).items()
        }
    return rows


@pytest.fixture(scope="module")
def kraken() -> Iterator[tuple[FakeKraken, RestServer]]:
    exchange = FakeKraken(dict(ROWS_OF))
    with rest_server(exchange.answer) as server:
        yield exchange, server


@pytest.fixture(scope="module")
def filled(
    kraken: tuple[FakeKraken, RestServer], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str, int]:
    """A backfill over REST: its folder, what it said, and how many pages it asked for."""
    exchange, server = kraken
    folder = tmp_path_factory.mktemp("rest")
    text = finish(start(folder, *rest_options(server)))
    return folder, text, len(exchange.requests)


def checksums(text: str) -> list[str]:
    """Pair, timeframe, rows and checksum of the report's series."""
    found = re.findall(
        r"^  (\S+/\S+) +(\w+) +([\d,]+)  [-\d: ]{19} +[\d,]+  ([0-9a-f]{16})$", text, re.MULTILINE
    )
    assert found
    return [" ".join(series) for series in found]


def test_the_store_holds_what_live_trading_would_have_made(
    filled: tuple[Path, str, int], lived: Rows
) -> None:
    folder, text, _ = filled
    rows = stored(folder)
    offline = {key: row for key, row in rows.items() if not key[1].startswith("online")}
    assert offline.keys() == lived.keys()
    assert [key for key in lived if offline[key] != lived[key]] == []
    for pair in PAIRS:
        assert rows[pair, "online 1m", 0]["end_ms"] == UNTIL_MS
        assert re.search(rf"{pair} +3,000 .* nothing", text)
    assert "4h" in text


def test_running_it_again_asks_for_nothing_old_and_changes_nothing(
    filled: tuple[Path, str, int], kraken: tuple[FakeKraken, RestServer]
) -> None:
    folder, text, _ = filled
    exchange, server = kraken
    before, asked = stored(folder), len(exchange.requests)
    again = finish(start(folder, *rest_options(server)))
    assert len(exchange.requests) == asked
    assert stored(folder) == before
    assert checksums(again) == checksums(text)


def test_killed_and_run_again_it_goes_on_without_asking_twice(
    filled: tuple[Path, str, int], kraken: tuple[FakeKraken, RestServer], tmp_path: Path
) -> None:
    folder, text, pages = filled
    exchange, server = kraken
    begun = len(exchange.requests)
    process = start(tmp_path, *rest_options(server))
    deadline = time.monotonic() + 60
    while len(exchange.requests) < begun + pages // 2:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    # Its services die with it; a new run may begin when they have let go of the folder.
    for _ in range(100):
        text_again, code = try_again(tmp_path, server)
        if code != 1 or "in use" not in text_again:
            break
    assert code == 0, text_again
    # One page a pair may have been on its way when it was killed. Where the end is, is asked again.
    last_page_ns = ROWS_OF["BTC/USD"][2_000].ns
    old = [request for request in exchange.requests[begun:] if request[1] < last_page_ns]
    assert len(old) <= len(set(old)) + len(PAIRS)
    assert stored(tmp_path) == stored(folder)
    assert checksums(text_again) == checksums(text)


def try_again(folder: Path, server: RestServer) -> tuple[str, int]:
    process = start(folder, *rest_options(server))
    text, _ = process.communicate(timeout=120)
    return text, process.returncode


def test_files_of_the_same_trades_give_the_same_rows_beside_a_live_cluster_whose_newer_row_stays(
    filled: tuple[Path, str, int], tmp_path: Path
) -> None:
    folder, text, _ = filled
    for pair, rows in ROWS_OF.items():
        lines = [f"{r.event_ms},buy,{r.price!r},{r.quantity!r},{r.trade_id}\n" for r in rows]
        name = tmp_path / "files" / f"{pair.replace('/', '-')}.csv"
        name.parent.mkdir(exist_ok=True)
        name.write_text("time_ms,side,price,quantity,trade_id\n" + "".join(lines))
    options = ("--path", str(tmp_path / "files"), "--since", str(SINCE_MS), "--until", str(UNTIL_MS))
    # The live cluster's writer stays open meanwhile.
    live_writer = SqliteStore(tmp_path / "store.sqlite")
    for group in GROUPS.values():
        live_writer.ensure_group(group)
    newer = ta_row(start_ms=UNTIL_MS + 60_000, end_ms=UNTIL_MS + 120_000)
    live_writer.write(TA, tuples([newer]))
    again = finish(start(tmp_path, *options))
    rows_of_both = stored(tmp_path)
    live_writer.close()
    assert checksums(again) == checksums(text)
    online = rows_of_both.pop(("BTC/USD", "online 1m", 0))
    assert rows_of_both.pop(("BTC/USD", "1m", newer.end_ms)) == online
    others = stored(folder)
    del others["BTC/USD", "online 1m", 0]
    assert rows_of_both == others


def test_a_refused_pair_leaves_the_others_whole_and_the_reason_in_the_report(
    filled: tuple[Path, str, int], kraken: tuple[FakeKraken, RestServer], tmp_path: Path
) -> None:
    folder, _, _ = filled
    options = rest_options(kraken[1])
    text = finish(start(tmp_path, "--pairs", "BTC/USD,XYZ/USD", *options[2:]), 1)
    assert "EQuery:Unknown asset pair" in text
    assert stored(tmp_path) == {key: row for key, row in stored(folder).items() if key[0] == "BTC/USD"}


def test_a_folder_is_for_one_run_at_a_time(tmp_path: Path) -> None:
    with own_folder(tmp_path / "work"):
        text = finish(start(tmp_path, "--pairs", "BTC/USD", "--since", "2024-01-01"), 1)
    assert "another run is using" in text
    assert "goes on" not in text


def test_a_file_that_cannot_be_read_is_refused_without_a_promise(tmp_path: Path) -> None:
    path = tmp_path / "XBTUSD.csv"
    path.write_text("1704067200,10,1\n1704067200,10\n")
    text = finish(start(tmp_path, "--path", str(path)), 2)
    assert "XBTUSD.csv:2: 2 fields instead of 3; repair the line" in text
    assert "goes on" not in text


def test_no_store_is_left_by_a_run_that_was_refused(tmp_path: Path) -> None:
    text = finish(start(tmp_path, "--pairs", "BTC/USD"), 2)
    assert "TRADES_SINCE: say where to begin" in text
    with pytest.raises(ServiceError):
        open_store(tmp_path / "store.sqlite")
