"""Files of candles in, their candles with beginnings, holes and end out."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from services.candles import archive
from services.candles.archive import ArchivePipeline
from services.candles.settings import CandlesSettings
from services.common.errors import SourceError
from services.common.health import Health
from services.common.history_report import HistoryReport, Missing, load_report, time_text
from services.common.joints import ANEW, ENDS
from services.common.messages import Candle, header
from services.common.metrics import Metrics
from services.common.runner import Context
from services.common.settings import BrokerSettings

DAY_S = 86_400
T0_S = 1_704_067_200  # 2024-01-01, a Monday
NOW_MS = (T0_S + 400 * DAY_S) * 1000


class FakeDelivery:
    def __init__(self, _context: Context) -> None:
        self.messages: list[tuple[bytes, bytes, str | None, int]] = []

    def send(self, _topic: str, key: bytes, value: bytes, *, headers: Any, timestamp_ms: int) -> None:
        self.messages.append((key, value, header(headers, "history"), timestamp_ms))

    def poll(self) -> None:
        pass

    def flush(self, _within_s: float) -> None:
        pass


class Run:
    """One run over the files in `path`."""

    def __init__(self, folder: Path, path: Path, **values: str) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(archive, "ensure_topics", lambda *_: None)
            patch.setattr(archive, "Delivery", FakeDelivery)
            broker = BrokerSettings.load({"KAFKA_TOPIC_SUFFIX": "-h", "KAFKA_HISTORY_RUN": "run"})
            given = {"source": "archive", "archive_path": str(path), "state_dir": str(folder)} | values
            settings = CandlesSettings.load({f"CANDLES_{k.upper()}": v for k, v in given.items()})
            context = Context("candles", broker, Health(60.0), Metrics())
            pipeline = ArchivePipeline(settings, context, lambda: NOW_MS, max_rows=50)
        pipeline.run()
        delivery: Any = pipeline._delivery
        self.messages = delivery.messages
        report = load_report(folder / "candles" / "kraken-h.history.json")
        assert report is not None
        self.report: HistoryReport = report

    def marks(self) -> list[tuple[str | None, int]]:
        return [(mark, at_ms // 1000 - T0_S) for _, _, mark, at_ms in self.messages if mark is not None]

    def candles(self, timeframe: str) -> list[Candle]:
        rows = [row for m in self.messages for row in msgspec.json.decode(m[1], type=list[Candle])]
        return [row for row in rows if row.timeframe == timeframe]


def minutes(first_s: int, count: int, step_s: int = 60, price: int = 100) -> str:
    """Rows as Kraken offers them."""
    return "".join(
        f"{T0_S + first_s + n * step_s},{price},{price + 2},{price - 1},{price + 1},5,3\n"
        for n in range(count)
    )


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_file_from_the_middle_of_an_hour_gives_no_candle_that_began_before(tmp_path: Path) -> None:
    run = Run(tmp_path, write(tmp_path / "XBTUSD_1.csv", minutes(1_800, 180)))
    assert run.marks() == [("begin", 1_800), ("end run 1", 1_800 + 180 * 60)]
    assert [c.start_ms // 1000 - T0_S for c in run.candles("1h")] == [3_600, 7_200]
    assert len(run.candles("1m")) == 180
    assert any("candles (1h, 4h, 1d, 1w, 1M) of BTC/USD" in note for note in run.report.notes)


def test_a_file_from_a_border_on_gives_the_first_candle(tmp_path: Path) -> None:
    run = Run(tmp_path, write(tmp_path / "XBTUSD_60.csv", minutes(0, 7 * 24, 3_600)))
    assert [len(run.candles(timeframe)) for timeframe in ("1h", "1d", "1w", "1M")] == [168, 7, 1, 0]
    assert not any("left out" in note for note in run.report.notes)


@pytest.mark.parametrize(("since_s", "begin_s"), [(0, 0), (-3 * DAY_S, 1_800)])
def test_since_is_believed_when_the_first_candle_comes_soon_after(
    tmp_path: Path, since_s: int, begin_s: int
) -> None:
    path = write(tmp_path / "XBTUSD_1.csv", minutes(1_800, 180))
    run = Run(tmp_path, path, since=str((T0_S + since_s) * 1000))
    assert run.marks()[0] == ("begin", begin_s)
    assert len(run.candles("1h")) == (3 if begin_s == 0 else 2)


def test_a_hole_stays_empty_and_the_series_begins_anew_behind_it(tmp_path: Path) -> None:
    behind_s = 3 * DAY_S + 1_800
    path = write(tmp_path / "XBTUSD_1.csv", minutes(0, 90) + minutes(behind_s, 90))
    run = Run(tmp_path, path)
    assert run.marks() == [("begin", 0), ("begin", behind_s), ("end run 1", behind_s + 5_400)]
    behind_ms = (T0_S + behind_s) * 1000
    why = ANEW.format(time_text(behind_ms))
    assert run.report.pairs[0].missing == [
        Missing(why, from_ms=(T0_S + 5_400) * 1000, until_ms=behind_ms),
    ]
    assert [c.start_ms // 1000 - T0_S for c in run.candles("1h")] == [0, behind_s + 1_800]
    # That of the minute before the hole, too, and none in it.
    assert len(run.candles("1m")) == 180
    order = [m[2] or len(msgspec.json.decode(m[1], type=list[Candle])) for m in run.messages]
    assert order.index("begin", 1) > 1


def test_intervals_without_trades_for_less_than_a_day_are_no_hole(tmp_path: Path) -> None:
    run = Run(tmp_path, write(tmp_path / "XBTUSD_1.csv", minutes(0, 90) + minutes(DAY_S, 90)))
    assert run.report.pairs[0].missing == []
    assert len(run.candles("1h")) == 25


@pytest.mark.parametrize(
    ("until_s", "end_s", "missing", "note"),
    [
        (None, 5_400, False, "end where its files do, at 2024-01-01 01:30:00"),
        (7_200, 7_200, False, None),
        (6 * 3_600, 6 * 3_600, False, "until 2024-01-01 06:00:00 it is taken for quiet"),
        (3 * DAY_S, 5_400, True, None),
        (3_000, 3_000, False, None),
    ],
)
def test_until_is_believed_when_the_last_candle_comes_soon_before(
    tmp_path: Path, until_s: int | None, end_s: int, missing: bool, note: str | None
) -> None:
    path = write(tmp_path / "XBTUSD_1.csv", minutes(0, 90))
    asked = {} if until_s is None else {"until": str((T0_S + until_s) * 1000)}
    run = Run(tmp_path, path, **asked)
    assert run.marks()[-1] == ("end run 1", end_s)
    assert len(run.candles("1m")) == end_s // 60
    assert [m.reason for m in run.report.pairs[0].missing] == ([ENDS] if missing else [])
    assert run.report.until_ms == (T0_S + end_s) * 1000
    assert note is None or any(note in text for text in run.report.notes)


def test_files_of_a_pair_that_follow_each_other_are_one_series(tmp_path: Path) -> None:
    write(tmp_path / "f" / "q2" / "XBTUSD_1.csv", minutes(3_000, 100))
    write(tmp_path / "f" / "q1" / "XBTUSD_1.csv", minutes(0, 60))
    joined = Run(tmp_path / "a", tmp_path / "f")
    one = Run(tmp_path / "b", write(tmp_path / "g" / "XBTUSD_1.csv", minutes(0, 150)))
    for timeframe in ("1m", "1h"):
        assert joined.candles(timeframe) == one.candles(timeframe)


def test_files_that_differ_about_a_candle_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "f" / "a" / "XBTUSD_1.csv", minutes(0, 60))
    write(tmp_path / "f" / "b" / "XBTUSD_1.csv", minutes(3_000, 60, price=101))
    with pytest.raises(SourceError, match=r"differ about BTC/USD at 2024-01-01 00:50:00; keep one"):
        Run(tmp_path, tmp_path / "f")
