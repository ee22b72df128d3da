"""Replays: recordings in, messages out, and what is said about files that are wrong."""

import gzip
import threading
import time
from pathlib import Path

import pytest

from services.common.errors import SourceError
from services.trades.sources import csv_file
from tests.trades.support import (
    RECORDINGS,
    T0_MS,
    kraken_frame,
    kraken_row,
    replay,
)

HEADER = "time_ms,side,price,quantity\n"


class StopAfterMessages(threading.Event):
    """Is set once it was asked for the given number of times, which happens after every message."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self._left = count

    def is_set(self) -> bool:
        self._left -= 1
        return self._left <= 0


def rows(count: int, start: int = 0, step_ms: int = 10) -> str:
    return "".join(f"{T0_MS + (start + i) * step_ms},buy,{100 + i % 7}.5,0.25\n" for i in range(count))


def write(path: Path, text: str | bytes) -> Path:
    data = text.encode() if isinstance(text, str) else text
    path.write_bytes(gzip.compress(data) if path.name.endswith(".gz") else data)
    return path


def test_the_recorded_hour_is_replayed_whole_with_ids_by_row(tmp_path: Path) -> None:
    path = RECORDINGS / "kraken-btcusd-2019-07-01T00.csv.gz"
    run = replay(tmp_path, path, exchange="kraken", pairs="BTC/USD", batch_rows="500")
    assert run.publisher.ids() == list(range(1, 2673))
    sizes = [len(message[2]) for message in run.publisher.messages if message[0] == "trades"]
    assert sizes == [500, 500, 500, 500, 500, 172]
    first = run.publisher.rows()[0]
    assert (first.event_time_ms, first.side, first.price, first.quantity) == (
        1561939203172,
        "sell",
        10749.4,
        0.004,
    )
    assert abs(first.received_at_ms - time.time() * 1000) < 60_000
    # It ends with one heartbeat at the last trade, and begins with none.
    assert run.publisher.messages[-1][:3] == ("heartbeat", "BTC/USD", run.publisher.rows()[-1].event_time_ms)
    assert len(run.publisher.heartbeats()) == 1


@pytest.mark.parametrize("block_bytes", [64, 1000, 1_000_000])
def test_blocks_of_any_size_give_the_same_trades(tmp_path: Path, block_bytes: int) -> None:
    path = write(tmp_path / "BTC-USD-x.csv", HEADER + rows(300).rstrip("\n"))
    file = csv_file.CsvFile(path)
    times = [
        time_ms
        for by_pair, _ in file.read("BTC/USD", lambda: T0_MS, block_bytes)
        for columns in by_pair.values()
        for time_ms in columns.times
    ]
    assert times == [T0_MS + i * 10 for i in range(300)]
    assert file.read_bytes == file.total_bytes


def test_byte_order_mark_crlf_quotes_blank_lines_and_other_columns_are_accepted(tmp_path: Path) -> None:
    text = f'time_ms,venue,side,price,quantity\r\n{T0_MS},a,"buy",1.5,2\r\n\r\n{T0_MS},b,sell,1e3,+.5\r\n'
    run = replay(tmp_path, write(tmp_path / "BTC-USD.csv", b"\xef\xbb\xbf" + text.encode()))
    assert [(r.side, r.price, r.quantity) for r in run.publisher.rows()] == [
        ("buy", 1.5, 2.0),
        ("sell", 1000.0, 0.5),
    ]


def test_ids_of_the_file_are_kept_and_duplicates_are_ignored(tmp_path: Path) -> None:
    body = "".join(f"{T0_MS + i},buy,1,1,{trade_id}\n" for i, trade_id in enumerate([5, 6, 6, 8, 7, 5, 9]))
    run = replay(tmp_path, write(tmp_path / "BTC-USD.csv", HEADER.strip() + ",trade_id\n" + body))
    assert run.publisher.ids() == [5, 6, 7, 8, 9]
    assert run.value("trades_duplicate_total") == 2


def test_several_pairs_in_a_file_are_numbered_and_sent_apart(tmp_path: Path) -> None:
    body = "".join(f"{T0_MS + i},sell,{i + 1},1,{'BTC/USD' if i % 3 else 'ETH/USD'}\n" for i in range(30))
    run = replay(tmp_path, write(tmp_path / "all.csv", HEADER.strip() + ",pair\n" + body))
    assert run.publisher.ids() == list(range(1, 21))
    assert run.publisher.ids("ETH/USD") == list(range(1, 11))
    assert {pair: run.publisher.heartbeats(pair) for pair in ("BTC/USD", "ETH/USD")} == {
        "BTC/USD": [T0_MS + 29],
        "ETH/USD": [T0_MS + 29],
    }


def test_only_the_pairs_of_the_settings_are_sent(tmp_path: Path) -> None:
    body = "".join(f"{T0_MS + i},sell,1,1,{'BTC/USD' if i % 3 else 'ETH/USD'}\n" for i in range(30))
    path = write(tmp_path / "all.csv", HEADER.strip() + ",pair\n" + body)
    run = replay(tmp_path, path, pairs="ETH/USD")
    assert run.publisher.ids() == []
    assert len(run.publisher.ids("ETH/USD")) == 10


def test_a_folder_is_merged_by_time_and_a_pairs_files_follow_each_other(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    # Named against their order in time, and overlapping by ten rows.
    write(folder / "BTC-USD-a.csv", HEADER + rows(20, 10))
    write(folder / "BTC-USD-b.csv.gz", HEADER + rows(20, 0))
    write(folder / "ETH-USD.csv", HEADER + rows(3, 5))
    run = replay(tmp_path, folder)
    times = [r.event_time_ms for r in run.publisher.rows() if r.pair == "BTC/USD"]
    assert times == sorted(times)
    assert run.publisher.ids() == list(range(1, 41))
    assert run.publisher.ids("ETH/USD") == [1, 2, 3]


def test_quiet_pairs_get_heartbeats_while_the_files_go_on(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write(folder / "BTC-USD.csv", HEADER + rows(30_000, step_ms=100))
    write(folder / "ETH-USD.csv", HEADER + rows(1))
    run = replay(tmp_path, folder)
    quiet = run.publisher.heartbeats("ETH/USD")
    assert len(quiet) > 3
    assert quiet == sorted(quiet)
    # A heartbeat never speaks of a time whose trades are still to come.
    latest = 0
    for message in run.publisher.messages:
        if message[0] == "trades" and message[1] == "ETH/USD":
            assert message[2][0].event_time_ms > latest
        elif message[1] == "ETH/USD":
            latest = message[2]
    assert run.publisher.messages[0][0] == "trades"


def test_until_says_how_far_the_recording_is_complete(tmp_path: Path) -> None:
    path = write(tmp_path / "BTC-USD.csv", HEADER + rows(3))
    run = replay(tmp_path, path, replay_until="2026-12-01T00:00:00Z")
    assert run.publisher.heartbeats() == [1_796_083_200_000]


def test_recorded_frames_go_through_the_mapper_of_the_live_feed(tmp_path: Path) -> None:
    path = RECORDINGS / "coinbase-ws-2026-07-07.ndjson.gz"
    run = replay(tmp_path, path, exchange="coinbase", pairs="BTC/USD,ETH/USD")
    ids = run.publisher.ids()
    assert ids == list(range(ids[0], ids[0] + 345))
    assert len(run.publisher.ids("ETH/USD")) == 92
    assert run.value("ignored_total", reason="unknown_channel") == 1900


def test_bad_frames_of_a_recording_are_put_aside(tmp_path: Path) -> None:
    frames = [
        kraken_frame(kraken_row(1)),
        "nonsense",
        kraken_frame(kraken_row(1), kraken_row(2, qty=0), kraken_row(3)),
    ]
    path = write(tmp_path / "x.ndjson", "\n".join(frames))
    run = replay(tmp_path, path, exchange="kraken", pairs="BTC/USD")
    assert run.publisher.ids() == [1, 3]
    assert [bad.error.reason for bad in run.publisher.dead] == ["bad_json", "bad_quantity"]


def test_a_replay_goes_on_after_the_last_confirmed_trade(tmp_path: Path) -> None:
    path = write(tmp_path / "BTC-USD.csv", HEADER + rows(3000))

    first = replay(tmp_path, path, StopAfterMessages(2), batch_rows="1000")
    assert first.publisher.ids() == list(range(1, 2001))
    assert first.publisher.heartbeats() == []
    second = replay(tmp_path, path, batch_rows="1000")
    assert second.publisher.ids() == list(range(2001, 3001))
    # Complete: a third run is a new replay, under the same ids.
    assert replay(tmp_path, path).publisher.ids() == list(range(1, 3001))


# --- paced ----------------------------------------------------------------------------------------


def test_a_paced_replay_keeps_the_recorded_times(tmp_path: Path) -> None:
    times = [0, 10, 60, 61, 200, 400]
    text = HEADER + "".join(f"{T0_MS + at},buy,1,1\n" for at in times)
    run = replay(tmp_path, write(tmp_path / "BTC-USD.csv", text), replay_speed="1", heartbeat_s="0.1")
    sent = [(m[2][-1].event_time_ms - T0_MS, m[4]) for m in run.publisher.messages if m[0] == "trades"]
    start = sent[0][1]
    for at_ms, sent_s in sent:
        lag_ms = (sent_s - start) * 1000 - at_ms
        # Never early; lateness is bounded loosely here, since the machine is shared.
        assert -3 <= lag_ms < 50
    assert run.publisher.ids() == [1, 2, 3, 4, 5, 6]
    assert len(run.publisher.heartbeats()) >= 3
    # Simulated time, and all trades up to it went before.
    for index, message in enumerate(run.publisher.messages):
        if message[0] == "heartbeat":
            before = [r for m in run.publisher.messages[:index] if m[0] == "trades" for r in m[2]]
            due = [at for at in times if T0_MS + at <= message[2]]
            assert len(before) >= len(due)


def test_a_fast_paced_replay_compresses_time(tmp_path: Path) -> None:
    path = write(tmp_path / "BTC-USD.csv", HEADER + rows(600, step_ms=100))
    began = time.monotonic()
    run = replay(tmp_path, path, replay_speed="200")
    assert 0.28 < time.monotonic() - began < 3
    assert run.publisher.ids() == list(range(1, 601))
    assert len([m for m in run.publisher.messages if m[0] == "trades"]) > 50


def test_a_paced_replay_resumes_past_blocks_that_were_sent(tmp_path: Path) -> None:
    path = write(tmp_path / "BTC-USD.csv", HEADER + rows(3000, step_ms=1))
    stop = threading.Event()
    timer = threading.Timer(0.4, stop.set)
    timer.start()
    first = replay(tmp_path, path, stop, replay_speed="5")
    timer.join()
    second = replay(tmp_path, path, replay_speed="50")
    assert first.publisher.ids() + second.publisher.ids() == list(range(1, 3001))


# --- files that are wrong -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("time_ms,side,price\n1,buy,2\n", r":1: no column quantity; the header must name"),
        (HEADER + "1780000000,buy,1,1\n", r":2: time_ms 1780000000; write milliseconds"),
        (HEADER + rows(3) + f"{T0_MS},buy,1,1\n", r":5: .* after .*; sort the file"),
        (HEADER + rows(3) + "4102444800001,buy,1,1\n", r":5: .* lies in the future"),
        (HEADER + rows(2) + f"{T0_MS + 90},buy,0,1\n", r":4: price '0'"),
        (HEADER + rows(2) + f"{T0_MS + 90},buy,nan,1\n", r":4: price 'nan'"),
        (HEADER + rows(2) + f"{T0_MS + 90},buy,1e999,1\n", r":4: price '1e999'"),
        (HEADER + rows(2) + f"{T0_MS + 90},buy,1_0,1\n", r":4: price '1_0'"),
        (HEADER + rows(2) + f"{T0_MS + 90},buy,1,-1\n", r":4: quantity '-1'"),
        (HEADER + rows(2) + f"{T0_MS + 90},b,1,1\n", r":4: side 'b'; write buy or sell"),
        (HEADER + rows(2) + f"{T0_MS + 90},buy,1\n", r":4: 3 fields instead of 4"),
        (HEADER + rows(2) + "garbage\n" + rows(3), r":4: 1 fields instead of 4"),
        (HEADER + rows(2) + "x,buy,1,1\n", r":4: time_ms 'x'"),
        (HEADER.strip() + f",pair\n{T0_MS},buy,1,1,btcusd\n", r":2: pair 'btcusd'; write it like"),
        (HEADER.strip() + f",trade_id\n{T0_MS},buy,1,1,-4\n", r":2: trade_id '-4'"),
        (HEADER, "no trades"),
    ],
)
def test_a_wrong_line_is_named_with_what_to_do(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "BTC-USD.csv", text)
    with pytest.raises(SourceError, match=message) as caught:
        replay(tmp_path, path)
    assert str(path) in str(caught.value)


def test_a_truncated_gzip_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "BTC-USD.csv.gz"
    path.write_bytes(gzip.compress((HEADER + rows(5000)).encode())[:-500])
    with pytest.raises(SourceError, match="ends early"):
        replay(tmp_path, path)


def test_what_is_no_gzip_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "BTC-USD.csv.gz"
    path.write_bytes(b"PK\x03\x04 nonsense")
    with pytest.raises(SourceError, match="cannot be read"):
        replay(tmp_path, path)


def test_binary_garbage_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "BTC-USD.csv", HEADER.encode() + b"\xff\xfe\x00\n")
    with pytest.raises(SourceError, match=":2: no UTF-8"):
        replay(tmp_path, path)


def test_a_decompression_bomb_is_refused_early(tmp_path: Path) -> None:
    path = write(tmp_path / "BTC-USD.csv.gz", b"\0" * 50_000_000)
    with pytest.raises(SourceError, match="no recording of trades"):
        replay(tmp_path, path)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("trades.csv", {}, "which pair is this"),
        ("trades.csv", {"pairs": "BTC/USD,ETH/USD"}, "which pair is this"),
        ("trades.parquet", {}, "unknown kind"),
        ("x.ndjson", {}, "TRADES_EXCHANGE to be one of"),
        ("x.ndjson", {"exchange": "kraken"}, "need TRADES_PAIRS"),
    ],
)
def test_a_file_that_does_not_say_enough_is_refused(
    tmp_path: Path, name: str, values: dict[str, str], message: str
) -> None:
    path = write(tmp_path / name, HEADER + rows(2))
    with pytest.raises(SourceError, match=message):
        replay(tmp_path, path, **values)


def test_missing_files_and_empty_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        replay(tmp_path, tmp_path / "nowhere.csv")
    with pytest.raises(SourceError, match="in this folder"):
        replay(tmp_path, tmp_path)
