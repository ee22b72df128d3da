"""A historical run that is killed at any point goes on without a hole, a double or a second download."""

import gzip
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.common.errors import SourceError
from services.trades.history.spool import HEADER, Spool, spool_folder
from services.trades.history.walk import Known
from services.trades.progress import Progress
from tests.trades.history_support import HOUR_MS, FakeKraken, backfill, every, prepare, spooled
from tests.trades.support import T0_MS, FakePublisher, rest_server, trade, wait_until

ROWS = every(120, 1000)


class KilledError(Exception):
    """Stands for the end of the process."""


class Dying(FakePublisher):
    """Dies before or after a message is out, when its turn comes."""

    def trades(self, *arguments: object) -> None:
        Kill.step()
        super().trades(*arguments)  # type: ignore[arg-type]
        Kill.step()

    def begin(self, *arguments: object) -> None:
        Kill.step()
        super().begin(*arguments)  # type: ignore[arg-type]

    def end(self, *arguments: object) -> None:
        super().end(*arguments)  # type: ignore[arg-type]
        Kill.step()


class Kill:
    """Raises at the n-th of all steps that write or send, and at every later one."""

    left = 0
    lock = threading.Lock()

    @classmethod
    def step(cls) -> None:
        with cls.lock:
            cls.left -= 1
            if cls.left <= 0:
                raise KilledError

    @classmethod
    @contextmanager
    def at(cls, number: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        cls.left = number
        fsync, replace, save = os.fsync, Path.replace, Progress.save

        def dying_fsync(handle: int) -> None:
            cls.step()
            fsync(handle)

        def dying_replace(path: Path, target: Path) -> Path:
            cls.step()
            replaced = replace(path, target)
            cls.step()
            return replaced

        def dying_save(progress: Progress) -> None:
            cls.step()
            save(progress)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", dying_fsync)
            patch.setattr(Path, "replace", dying_replace)
            patch.setattr(Progress, "save", dying_save)
            yield


def test_a_kill_at_any_step_costs_no_trade_and_no_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with rest_server(FakeKraken({"BTC/USD": ROWS}).answer) as rest:
        backfill(tmp_path / "whole", rest.url)
    whole = spooled(tmp_path / "whole")
    number = 0
    while True:
        number += 1
        state = tmp_path / str(number)
        server = FakeKraken({"BTC/USD": ROWS}, page_rows=40)
        with rest_server(server.answer) as rest:
            run = prepare(state, rest.url, publisher=Dying, batch_rows="25")
            try:
                with Kill.at(number, monkeypatch):
                    run.source.run(run.stop)
            except KilledError:
                pass
            else:
                break
            kept = spooled(state)
            assert kept == whole[: len(kept)]
            asked = len(server.requests)
            again = backfill(state, rest.url, batch_rows="25")
        before = run.publisher.ids()
        assert before == list(range(1, len(before) + 1))
        after = again.publisher.ids()
        if not after:
            assert len(before) == 120
        elif "begin" in again.kinds():
            # No position was saved: the series begins anew.
            assert after == list(range(1, 121))
        else:
            assert after == list(range(after[0], 121))
            # At least once: a page that was out and not on disk as confirmed goes again.
            assert len(before) - 40 <= after[0] - 1 <= len(before)
        assert again.kinds()[-1] == "end"
        assert [t.trade_id for t in spooled(state)] == [t.trade_id for t in whole]
        assert spooled(state) == whole
        if kept:
            since = min((since for _, since in server.requests[asked:]), default=None)
            assert since is None or since >= ROWS[len(kept) - 1].ns - 1_001_000_000
        assert again.report().ended
        assert again.report().pairs[0].trades == 120
    assert number > 40


def test_kill_9_of_the_process_again_and_again(tmp_path: Path) -> None:
    rows = every(3000, 100)
    server = FakeKraken({"BTC/USD": rows}, page_rows=60)
    out = tmp_path / "out"
    out.touch()
    with rest_server(server.answer) as rest:
        until = str(T0_MS + HOUR_MS)
        command = [sys.executable, "-m", "tests.trades.history_process", str(tmp_path / "state"), rest.url]
        command += [str(out), until]
        for kills in range(3):
            enough = out.read_text().count("\n") + 12
            with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
                wait_until(lambda: out.read_text().count("\n") >= enough, "messages", 30)  # noqa: B023
                process.kill()
            assert process.wait() == -9, kills
            asked = len(server.requests)
        subprocess.run(command, check=True, timeout=60)
    lines = out.read_text().splitlines()
    sent: list[int] = []
    for line in lines:
        kind, _, values = line.partition(" ")
        if kind == "begin":
            sent = []
        elif kind == "trades":
            ids = [int(value) for value in values.split(",")]
            # A message that was out when its confirmation was not goes again, nothing else.
            sent = sent[: sent.index(ids[0])] if ids[0] in sent else sent
            sent += ids
    assert sent == list(range(1, 3001))
    assert lines[-1] == f"end {until}"
    assert [t.trade_id for t in spooled(tmp_path / "state")] == sent
    # The last run did not begin from the beginning.
    assert min(since for _, since in server.requests[asked:]) > rows[300].ns


# --- the spool ------------------------------------------------------------------------------------


def spool_of(state: Path) -> Spool:
    return Spool(spool_folder(state, "kraken", "BTC/USD", T0_MS), "kraken", "BTC/USD", T0_MS)


def filled(state: Path) -> Path:
    """Two pages; returns the folder."""
    spool = spool_of(state)
    spool.append([trade(1), trade(2)], [], Known(T0_MS, 2, T0_MS + 20, "7"))
    spool.append([trade(3)], [], Known(T0_MS + 1, 3, T0_MS + 30, "8"))
    spool.close()
    return spool.folder


@pytest.mark.parametrize("tail", [b"\x1f\x8b\x08", gzip.compress(b"1,buy,1,1,4\n", mtime=0), b"\0" * 5000])
def test_what_a_kill_left_behind_the_valid_bytes_is_cut_off(tmp_path: Path, tail: bytes) -> None:
    folder = filled(tmp_path)
    good = (folder / "trades.csv.gz").read_bytes()
    with (folder / "trades.csv.gz").open("ab") as file:
        file.write(tail)
    (folder / "cursor.tmp").write_bytes(b"half a curs")
    spool = spool_of(tmp_path)
    assert (folder / "trades.csv.gz").read_bytes() == good
    assert spool.cursor.known == Known(T0_MS + 1, 3, T0_MS + 30, "8")
    spool.append([trade(4)], [], Known(T0_MS + 2, 4, T0_MS + 40, "9"))
    spool.close()
    assert [t.trade_id for t in spooled(tmp_path)] == [1, 2, 3, 4]
    text = gzip.decompress((folder / "trades.csv.gz").read_bytes()).decode()
    assert text.startswith(HEADER)
    assert text.count(HEADER) == 1


def test_trades_without_a_cursor_were_never_valid(tmp_path: Path) -> None:
    folder = filled(tmp_path)
    (folder / "cursor.json").unlink()
    assert spooled(tmp_path) == []
    assert (folder / "trades.csv.gz").read_bytes() == b""


def damage_cursor(folder: Path) -> None:
    (folder / "cursor.json").write_text('{"known": ')


def damage_number(folder: Path) -> None:
    path = folder / "cursor.json"
    path.write_text(path.read_text().replace('"cursor":"8"', '"cursor":"eight"'))


def cut_short(folder: Path) -> None:
    path = folder / "trades.csv.gz"
    path.write_bytes(path.read_bytes()[:-3])


def remove_trades(folder: Path) -> None:
    (folder / "trades.csv.gz").unlink()


def flip_bits(folder: Path) -> None:
    path = folder / "trades.csv.gz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(bytes(data))


def claim_more(folder: Path) -> None:
    path = folder / "cursor.json"
    path.write_text(path.read_text().replace('"trades":3', '"trades":4'))


@pytest.mark.parametrize(
    "damage", [damage_cursor, damage_number, cut_short, remove_trades, flip_bits, claim_more]
)
def test_a_damaged_spool_is_refused_with_what_to_delete(tmp_path: Path, damage: object) -> None:
    folder = filled(tmp_path)
    assert callable(damage)
    damage(folder)
    with pytest.raises(SourceError) as caught:
        backfill(tmp_path, "http://127.0.0.1:9")
    assert f"delete the folder {folder}" in str(caught.value)


def test_a_spool_belongs_to_one_process_at_a_time(tmp_path: Path) -> None:
    spool = spool_of(tmp_path)
    with pytest.raises(SourceError, match="another process fetches the same history"):
        spool_of(tmp_path)
    spool.close()
    spool_of(tmp_path).close()


def test_what_is_read_is_not_touched_by_what_is_appended_meanwhile(tmp_path: Path) -> None:
    filled(tmp_path)
    spool = spool_of(tmp_path)
    reading = spool.read(lambda: T0_MS)
    spool.append([trade(4)], [], Known(T0_MS + 2, 4, T0_MS + 40, "9"))
    assert [t.trade_id for t in reading.trades] == [1, 2, 3]
    assert reading.cursor.trades == 3
    spool.close()
