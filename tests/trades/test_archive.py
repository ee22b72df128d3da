"""Downloaded files in, a whole history out; and what is said about files that are wrong."""

import gzip
import threading
import zipfile
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.common.errors import SourceError
from services.common.health import Health
from services.common.history_report import HistoryReport, Missing, load_report
from services.common.messages import Trade
from services.common.metrics import Metrics
from services.common.symbols import pair_of_stem
from services.trades.counters import TradeMetrics
from services.trades.history.archive import ENDS, HOLE
from services.trades.history.formats import complete_until_ms, parser_for
from services.trades.progress import Progress
from services.trades.sources.archive import ArchiveSource, archive_identity
from tests.trades.support import RECORDINGS, FakePublisher
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


def binance(ids: range, start_ms: int = T0_MS, *, micro: bool = False) -> str:
    unit = 1000 if micro else 1
    return "".join(
        f"{i},{100 + i % 7}.5,0.25,25.1,{(start_ms + i * 10) * unit},{bool(i % 3)},True\n" for i in ids
    )


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.name.endswith(".gz") else data)
    return path


# --- what the files say ---------------------------------------------------------------------------


def test_krakens_rows_are_numbered_and_their_sides_follow_the_tick_rule(tmp_path: Path) -> None:
    prices = ["10.0", "11.0", "11.0", "10.5", "10.5", "12.0"]
    path = write(tmp_path / "XBTUSD.csv", "".join(f"{T0_S + i},{p},1\n" for i, p in enumerate(prices)))
    run = Run(tmp_path, path)
    assert [row.side for row in run.publisher.rows()] == ["buy", "buy", "buy", "sell", "sell", "buy"]
    assert run.publisher.ids() == [1, 2, 3, 4, 5, 6]
    assert run.publisher.rows()[1] == Trade(
        "kraken", "BTC/USD", 2, "buy", 11.0, 1.0, (T0_S + 1) * 1000, NOW_MS
    )
    (end, note) = run.report.notes
    assert "end with its last trade at 2024-01-01 00:00:05" in end
    assert "BTC/USD" in note
    assert "tick rule" in note


def test_identical_rows_of_kraken_are_distinct_trades(tmp_path: Path) -> None:
    run = Run(tmp_path, write(tmp_path / "XBTUSD.csv", f"{T0_S},10,1\n" * 3))
    assert run.publisher.ids() == [1, 2, 3]


@pytest.mark.parametrize(
    ("text", "ms"),
    [("1672531436", 1672531436000), ("1381095255.0951", 1381095255095), ("1672531436.9999", 1672531436999)],
)
def test_krakens_seconds_become_milliseconds(text: str, ms: int) -> None:
    parser = parser_for("f", f"{text},1,1", "BTC/USD")
    assert parser is not None
    by_pair, _ = parser.parse(f"{text},1,1\n", 1, NOW_MS)
    assert by_pair["BTC/USD"].times == [ms]


@pytest.mark.parametrize("micro", [False, True])
def test_binances_rows_keep_ids_and_the_takers_side_in_both_units_of_time(
    tmp_path: Path, micro: bool
) -> None:
    path = write(tmp_path / "BTCUSDT-trades-2024-01-01.csv", binance(range(5, 11), micro=micro))
    run = Run(tmp_path, path, exchange="binance", pairs="BTC/USDT")
    assert run.publisher.ids("BTC/USDT") == list(range(5, 11))
    first = run.publisher.rows()[0]
    assert (first.side, first.event_time_ms) == ("sell", T0_MS + 50)
    assert run.publisher.rows()[1].side == "buy"  # 6 % 3 is 0: the seller was the maker
    assert run.report.notes == []


def test_a_header_and_odd_notation_are_accepted(tmp_path: Path) -> None:
    text = "id,price,qty,quote_qty,time,is_buyer_maker,is_best_match\r\n"
    text += f'5,"100.5",1e-3,1,{T0_MS},true,true\r\n\r\n6,100.5,2,1,{T0_MS + 1},FALSE,true\r\n'
    path = write(tmp_path / "BTCUSDT-trades-2024-01-01.csv", text)
    rows = Run(tmp_path, path, exchange="binance").publisher.rows()
    assert [(row.trade_id, row.side, row.quantity) for row in rows] == [(5, "sell", 1e-3), (6, "buy", 2.0)]


def test_our_own_recordings_are_archives_too(tmp_path: Path) -> None:
    recording = RECORDINGS / "kraken-btcusd-2019-07-01T00.csv.gz"
    run = Run(tmp_path, recording, pairs="BTC/USD")
    assert run.publisher.ids() == list(range(1, 2673))
    assert not any("tick rule" in note for note in run.report.notes)


def test_a_kraken_row_means_the_same_as_in_a_recording(tmp_path: Path) -> None:
    rows = Run(tmp_path / "a", write(tmp_path / "XBTUSD.csv", kraken(500))).publisher.rows()
    recorded = "time_ms,side,price,quantity\n" + "".join(
        f"{row.event_time_ms},{row.side},{row.price!r},{row.quantity!r}\n" for row in rows
    )
    again = Run(tmp_path / "b", write(tmp_path / "BTC-USD.csv", recorded)).publisher.rows()
    assert again == rows


# --- which files --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stem", "pairs", "pair"),
    [
        ("XBTUSD", (), "BTC/USD"),
        ("XBTUSD", ("BTC/USD",), "BTC/USD"),
        ("BTCUSD", ("BTC/USD",), "BTC/USD"),
        ("XBTUSD", ("ETH/USD",), None),
        ("XDGEUR_60", (), "DOGE/EUR"),
        ("ETHXBT", (), "ETH/BTC"),
        ("DOTUSD", (), "DOT/USD"),
        ("USDTUSD", (), "USDT/USD"),
        ("USDCUSDT", (), "USDC/USDT"),
        ("BTCTUSD", ("BTC/TUSD",), "BTC/TUSD"),
        ("BTCUSDT-trades-2024-01", (), "BTC/USDT"),
        ("ETHFDUSD-trades-2024-01-05", (), "ETH/FDUSD"),
        ("BTC-USD-2024", (), "BTC/USD"),
        ("USD", (), None),
        ("readme", (), None),
    ],
)
def test_names_tell_the_pair(stem: str, pairs: tuple[str, ...], pair: str | None) -> None:
    assert pair_of_stem(stem, pairs) == pair


@pytest.mark.parametrize(
    ("stem", "until"),
    [
        ("BTCUSDT-trades-2024-01", T0_MS + 31 * DAY_MS),
        ("BTCUSDT-trades-2024-02", T0_MS + 60 * DAY_MS),
        ("BTCUSDT-trades-2024-01-05", T0_MS + 5 * DAY_MS),
        ("BTCUSDT-trades-2024-13", None),
        ("BTCUSDT-trades-2024-02-30", None),
        ("XBTUSD", None),
    ],
)
def test_names_of_a_day_or_a_month_tell_up_to_when_they_are_complete(stem: str, until: int | None) -> None:
    assert complete_until_ms(stem) == until


def test_files_of_a_folder_and_of_zips_go_by_pair_and_time(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    write(folder / "later" / "XBTUSD.csv", kraken(100, T0_S + 1000))
    write(folder / "XBTUSD.csv.gz", kraken(100))
    with zipfile.ZipFile(folder / "all.zip", "w") as packed:
        packed.writestr("q/ETHUSD.csv", kraken(50))
        packed.writestr("q/SOLEUR.csv", kraken(50))
    run = Run(tmp_path, folder, pairs="ETH/USD,BTC/USD", batch_rows="40")
    assert run.publisher.ids() == list(range(1, 201))
    assert run.publisher.ids("ETH/USD") == list(range(1, 51))
    times = [row.event_time_ms for row in run.publisher.rows() if row.pair == "BTC/USD"]
    assert times == sorted(times)
    assert [pair.pair for pair in run.report.pairs] == ["ETH/USD", "BTC/USD"]
    assert {len(m[2]) for m in run.publisher.messages if m[0] == "trades"} == {40, 10}


def test_pairs_take_turns_so_that_they_share_what_follows(tmp_path: Path) -> None:
    write(tmp_path / "f" / "XBTUSD.csv", kraken(300))
    write(tmp_path / "f" / "ETHUSD.csv", kraken(300))
    run = Run(tmp_path, tmp_path / "f", batch_rows="100")
    order = [message[1] for message in run.publisher.messages if message[0] == "trades"]
    assert order == ["BTC/USD", "ETH/USD"] * 3


def test_a_pair_without_file_is_named_with_what_there_is(tmp_path: Path) -> None:
    path = write(tmp_path / "f" / "XBTUSD.csv", kraken(3)).parent
    with pytest.raises(SourceError, match=r"no file of ETH/USD; there are XBTUSD\.csv"):
        Run(tmp_path, path, pairs="BTC/USD,ETH/USD")
    write(path / "notes.csv", "x")
    (path / "XBTUSD.csv").unlink()
    with pytest.raises(SourceError, match="no file whose name says its pair"):
        Run(tmp_path, path)


def test_days_within_a_month_are_told_apart_by_id(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    write(folder / "BTCUSDT-trades-2024-01.csv", binance(range(100)))
    write(folder / "BTCUSDT-trades-2024-01-01.csv", binance(range(40)))
    write(folder / "BTCUSDT-trades-2024-02-01.csv", binance(range(90, 120)))
    run = Run(tmp_path, folder, exchange="binance")
    assert run.publisher.ids("BTC/USDT") == list(range(120))
    assert run.report.pairs[0].missing == []


def test_a_missing_day_is_reported_with_its_ids(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    write(folder / "BTCUSDT-trades-2024-01-01.csv", binance(range(40)))
    write(folder / "BTCUSDT-trades-2024-01-03.csv", binance(range(60, 80)))
    run = Run(tmp_path, folder, exchange="binance", pairs="BTC/USDT")
    assert run.report.pairs[0].missing == [Missing(HOLE, 40, 59)]
    assert run.metrics.registry.get_sample_value("trades_missing_total", {"pair": "BTC/USDT"}) == 20


def test_a_missing_quarter_is_reported_with_its_time(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    write(folder / "1" / "XBTUSD.csv", kraken(10))
    later_s = T0_S + 90 * 86_400
    write(folder / "3" / "XBTUSD.csv", kraken(10, later_s))
    run = Run(tmp_path, folder)
    assert run.report.pairs[0].missing == [Missing(HOLE, from_ms=T0_MS + 9_000, until_ms=later_s * 1000)]
    assert Run(tmp_path, folder, since=str(later_s * 1000)).report.pairs[0].missing == []


def test_files_without_ids_that_overlap_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    write(folder / "1" / "XBTUSD.csv", kraken(100))
    write(folder / "2" / "XBTUSD.csv", kraken(100, T0_S + 50))
    with pytest.raises(SourceError, match=r"begins before the file ahead of it ends.*keep only one"):
        Run(tmp_path, folder)


def test_files_with_and_without_ids_do_not_mix(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    write(folder / "1" / "XBTUSD.csv", kraken(10))
    write(folder / "2" / "XBTUSD-trades-2024-01.csv", binance(range(10)))
    with pytest.raises(SourceError, match="some files have trade ids and some have not"):
        Run(tmp_path, folder)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1,2,3,4,5,1704067200000,True,True\n", "aggTrades merge trades.*download the files called trades"),
        (",".join(["1"] * 12) + "\n", "klines"),
        ("1704067200,1,1,1,1,5,2\n", "OHLCVT of Kraken.*make backfill chooses"),
        ("a,b\n", "2 columns, of no known kind"),
        ("", "no trades of BTC/USD"),
        (f"{T0_S},1\n", "2 columns"),
        (f"{T0_S},1,1\n{T0_S},1\n", ":2: 2 fields instead of 3"),
        (f"{T0_S},1,1\n{T0_S - 1},1,1\n", ":2: time_ms .* after .*sort the file"),
        (f"{T0_MS},1,1\n", ":1: time .*write seconds, not milliseconds"),
        (f"{T0_S},-1,1\n", ":1: price '-1'"),
        (f"{T0_S},nan,1\n", ":1: price 'nan'"),
        (f"{T0_S},1,0\n", ":1: quantity '0'"),
        (f"{T0_S},1e999,1\n", ":1: price '1e999'"),
        ("1e400,1,1\n", ":1: time '1e400'"),
        ("inf,1,1\n", "of no known kind"),
        ("time,open,high,low,close,volume,count\n", "OHLCVT of Kraken"),
        (f"{T0_S},1_0,1\n", ":1: price '1_0'"),
        (f"{NOW_MS},1,1\n", "write seconds"),
        (f"{NOW_MS // 1000 + 60},1,1\n", "lies in the future"),
        (f"1,1,1,1,{T0_MS},maybe,True\n", "OHLCVT|isBuyerMaker"),
        (f"1,1,1,1,{T0_MS},True,True\n2,1,1,1,{T0_MS},maybe,True\n", ":2: isBuyerMaker 'maybe'"),
        (f"1,1,1,1,{T0_S},True,True\n", "write milliseconds"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_with_file_line_and_remedy(
    tmp_path: Path, text: str, says: str
) -> None:
    path = write(tmp_path / "XBTUSD.csv", text)
    with pytest.raises(SourceError, match=says) as caught:
        Run(tmp_path, path, pairs="BTC/USD")
    assert str(path) in str(caught.value)


# --- range and end --------------------------------------------------------------------------------


def test_only_trades_from_since_to_before_until_go_out_under_the_numbers_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "XBTUSD.csv", kraken(1000))
    run = Run(tmp_path, path, since=str(T0_MS + 100_000), until=str(T0_MS + 200_000))
    assert run.publisher.ids() == list(range(101, 201))
    assert run.publisher.messages[0][:3] == ("begin", "BTC/USD", T0_MS + 100_000)
    assert run.end_ms("BTC/USD") == T0_MS + 200_000
    assert run.report.pairs[0].trades == 100


def test_without_until_a_pair_ends_with_its_last_trade_or_what_its_name_says(tmp_path: Path) -> None:
    path = write(tmp_path / "XBTUSD.csv", kraken(10))
    run = Run(tmp_path, path)
    assert run.publisher.messages[0][:3] == ("begin", "BTC/USD", 0)
    assert run.end_ms("BTC/USD") == T0_MS + 9_000
    path = write(tmp_path / "BTCUSDT-trades-2024-01-01.csv", binance(range(10)))
    run = Run(tmp_path, path, exchange="binance")
    assert run.end_ms("BTC/USDT") == T0_MS + DAY_MS
    assert run.report.until_ms == T0_MS + DAY_MS


def test_a_quiet_end_is_believed_and_a_long_one_is_missing(tmp_path: Path) -> None:
    path = write(tmp_path / "XBTUSD.csv", kraken(10))
    run = Run(tmp_path / "a", path, until=str(T0_MS + 3_600_000))
    assert run.end_ms("BTC/USD") == T0_MS + 3_600_000
    assert run.report.pairs[0].missing == []
    until = T0_MS + 30 * DAY_MS
    run = Run(tmp_path / "b", path, until=str(until))
    assert run.end_ms("BTC/USD") == T0_MS + 9_000
    assert run.report.pairs[0].missing == [Missing(ENDS, from_ms=T0_MS + 9_000, until_ms=until)]
    run = Run(tmp_path / "c", path, until=str(T0_MS + 6 * 3_600_000))
    assert any("it is taken for quiet" in note for note in run.report.notes)


def test_a_day_that_its_name_says_is_over_leaves_nothing_to_believe(tmp_path: Path) -> None:
    path = write(tmp_path / "BTCUSDT-trades-2024-01-01.csv", binance(range(10)))
    until = T0_MS + 2 * DAY_MS
    run = Run(tmp_path, path, exchange="binance", until=str(until))
    assert run.end_ms("BTC/USDT") == T0_MS + DAY_MS
    assert run.report.pairs[0].missing == [Missing(ENDS, from_ms=T0_MS + DAY_MS, until_ms=until)]


def test_files_that_begin_long_after_since_are_noted(tmp_path: Path) -> None:
    path = write(tmp_path / "XBTUSD.csv", kraken(10))
    run = Run(tmp_path, path, since=str(T0_MS - 30 * DAY_MS))
    assert any("begin at 2024-01-01 00:00:00 only" in note for note in run.report.notes)


@pytest.mark.parametrize(("since", "until"), [(T0_MS + DAY_MS, None), (None, T0_MS - DAY_MS)])
def test_files_without_a_trade_in_the_asked_time_are_refused(
    tmp_path: Path, since: int | None, until: int | None
) -> None:
    path = write(tmp_path / "XBTUSD.csv", kraken(10))
    asked = {name: str(at) for name, at in (("since", since), ("until", until)) if at is not None}
    with pytest.raises(SourceError, match=r"no trades of BTC/USD in the asked time; .* 2024-01-01"):
        Run(tmp_path, path, None, **asked)


# --- restarts -------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(kills=st.lists(st.integers(1, 12), max_size=4), batch_rows=st.integers(20, 400))
def test_stopping_anywhere_and_going_on_sends_every_trade_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, kills: list[int], batch_rows: int
) -> None:
    folder = tmp_path_factory.mktemp("run")
    write(folder / "f" / "XBTUSD.csv", kraken(1000))
    write(folder / "f" / "BTCUSDT-trades-2024-01-01.csv", binance(range(500)))
    runs = []
    for kill in [*kills, None]:
        run = Run(folder, folder / "f", kill, batch_rows=str(batch_rows))
        runs.append(run)
        if run.report.ended:
            break
    for pair, ids in (("BTC/USD", range(1, 1001)), ("BTC/USDT", range(500))):
        sent = [trade_id for run in runs for trade_id in run.publisher.ids(pair)]
        assert sent == list(ids)
        kinds = [kind for run in runs for kind in run.kinds(pair)]
        assert kinds[0] == "begin"
        assert kinds.count("begin") == 1
        assert kinds[-1] == "end"
    assert [pair.trades for pair in runs[-1].report.pairs] == [1000, 500]


def test_a_run_that_is_complete_is_forgotten_and_gives_the_same_again(tmp_path: Path) -> None:
    path = write(tmp_path / "XBTUSD.csv", kraken(100))
    first, second = Run(tmp_path, path), Run(tmp_path, path)
    assert first.publisher.rows() == second.publisher.rows()
    assert [m[:3] for m in first.publisher.messages if m[0] != "trades"] == [
        m[:3] for m in second.publisher.messages if m[0] != "trades"
    ]


def test_other_files_begin_anew(tmp_path: Path) -> None:
    path = write(tmp_path / "XBTUSD.csv", kraken(100))
    Run(tmp_path, path, stop_after=2, batch_rows="30")
    write(path, kraken(101))
    run = Run(tmp_path, path, batch_rows="30")
    assert run.publisher.ids() == list(range(1, 102))
    assert run.kinds("BTC/USD")[0] == "begin"


# --- any cut into blocks --------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(
    steps=st.lists(st.integers(0, 90_000), min_size=1, max_size=120),
    prices=st.lists(st.sampled_from(["1.5", "2", "1.0", "3e1"]), min_size=120, max_size=120),
    cuts=st.lists(st.integers(1, 119), max_size=10, unique=True),
)
def test_any_cut_of_a_kraken_file_into_blocks_gives_the_same_rows(
    steps: list[int], prices: list[str], cuts: list[int]
) -> None:
    lines, at = [], T0_MS
    for step, price in zip(steps, prices, strict=False):
        at += step
        lines.append(f"{at / 1000},{price},0.5\n")

    def parse(edges: list[int]) -> list[tuple[int, str, float]]:
        parser = parser_for("f", lines[0], "BTC/USD")
        assert parser is not None
        found = []
        for begin, end in pairwise(edges):
            by_pair, _ = parser.parse("".join(lines[begin:end]), begin + 1, NOW_MS)
            columns = by_pair["BTC/USD"]
            found += list(zip(columns.times, columns.sides, columns.prices, strict=True))
        return found

    inner = sorted(cut for cut in cuts if cut < len(lines))
    assert parse([0, *inner, len(lines)]) == parse([0, len(lines)])
