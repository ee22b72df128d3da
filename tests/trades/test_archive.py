"""Downloaded files in, a whole history out."""

import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.common.errors import SourceError
from services.common.history_report import Missing, time_text
from services.common.joints import ANEW, ENDS, HOLE
from services.trades.sources.archive import MAX_PAIRS
from tests.trades.archive_support import DAY_MS, T0_MS, T0_S, Run, binance, kraken, write


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


def test_of_many_pairs_only_some_are_open_at_a_time_and_all_end(tmp_path: Path) -> None:
    pairs = [f"Q{chr(65 + n // 26)}{chr(65 + n % 26)}" for n in range(40)]
    for number, name in enumerate(pairs):
        write(tmp_path / "f" / f"{name}USD.csv", kraken(100 + number))
    run = Run(tmp_path, tmp_path / "f", batch_rows="30")
    open_now: set[str] = set()
    most = 0
    for kind, pair, _, series, *_ in run.publisher.messages:
        if kind == "end":
            assert series == 40
            open_now.remove(pair)
        else:
            open_now.add(pair)
        most = max(most, len(open_now))
    assert (most, open_now) == (MAX_PAIRS, set())
    assert [len(run.publisher.ids(f"{name}/USD")) for name in pairs] == [100 + n for n in range(40)]
    assert len([note for note in run.report.notes if "tick rule" in note]) == 1


def test_a_pair_without_file_is_named_with_what_there_is(tmp_path: Path) -> None:
    path = write(tmp_path / "f" / "XBTUSD.csv", kraken(3)).parent
    with pytest.raises(SourceError, match=r"no file of ETH/USD; there are XBTUSD\.csv"):
        Run(tmp_path, path, pairs="BTC/USD,ETH/USD")
    write(path / "notes.csv", "x")
    (path / "XBTUSD.csv").unlink()
    with pytest.raises(SourceError, match="no file whose name says its pair"):
        Run(tmp_path, path)


def test_a_file_of_another_pair_is_never_taken_for_the_asked_one(tmp_path: Path) -> None:
    path = write(tmp_path / "f" / "XBTUSD.csv", kraken(3))
    with pytest.raises(SourceError, match=r"no file of ETH/USD; there are XBTUSD\.csv"):
        Run(tmp_path, path.parent, pairs="ETH/USD")
    with pytest.raises(SourceError, match=r"XBTUSD\.csv: is of BTC/USD by its name, and ETH/USD is asked"):
        Run(tmp_path, path, pairs="ETH/USD")


def test_one_file_whose_name_tells_no_pair_is_of_the_asked_one(tmp_path: Path) -> None:
    path = write(tmp_path / "f" / "download.csv", kraken(3))
    assert Run(tmp_path, path, pairs="ETH/USD").publisher.ids("ETH/USD") == [1, 2, 3]


def test_days_within_a_month_are_told_apart_by_id(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    step_ms = 32 * DAY_MS // 120
    write(folder / "BTCUSDT-trades-2024-01.csv", binance(range(117), step_ms=step_ms))
    write(folder / "BTCUSDT-trades-2024-01-01.csv", binance(range(4), step_ms=step_ms))
    write(folder / "BTCUSDT-trades-2024-02-01.csv", binance(range(110, 120), step_ms=step_ms))
    run = Run(tmp_path, folder, exchange="binance")
    assert run.publisher.ids("BTC/USDT") == list(range(120))
    assert run.report.pairs[0].missing == []
    assert run.begins("BTC/USDT") == [T0_MS]
    assert run.end_ms("BTC/USDT") == T0_MS + 32 * DAY_MS


def test_a_day_file_of_a_month_does_not_cut_the_end_of_the_month(tmp_path: Path) -> None:
    # The day begins after the month, and so is the last one.
    folder = tmp_path / "f"
    step_ms = DAY_MS // 3
    write(folder / "BTCUSDT-trades-2024-01.csv", binance(range(93), step_ms=step_ms))
    write(folder / "BTCUSDT-trades-2024-01-15.csv", binance(range(42, 45), step_ms=step_ms))
    run = Run(tmp_path, folder, exchange="binance")
    assert run.end_ms("BTC/USDT") == T0_MS + 31 * DAY_MS
    assert run.report.pairs[0].missing == []


def test_a_missing_day_is_reported_with_its_ids(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    step_ms = DAY_MS // 20
    write(folder / "BTCUSDT-trades-2024-01-01.csv", binance(range(20), step_ms=step_ms))
    write(folder / "BTCUSDT-trades-2024-01-03.csv", binance(range(40, 60), step_ms=step_ms))
    run = Run(tmp_path, folder, exchange="binance", pairs="BTC/USDT")
    anew = T0_MS + 2 * DAY_MS
    assert run.report.pairs[0].missing == [Missing(ANEW.format(time_text(anew)), 20, 39)]
    assert [m[:3] for m in run.publisher.messages if m[0] != "trades"] == [
        ("begin", "BTC/USDT", T0_MS),
        # The day is whole, so its candle is one.
        ("pause", "BTC/USDT", T0_MS + DAY_MS),
        ("begin", "BTC/USDT", anew),
        ("end", "BTC/USDT", T0_MS + 3 * DAY_MS),
    ]
    assert run.metrics.registry.get_sample_value("trades_missing_total", {"pair": "BTC/USDT"}) == 20


def test_a_missing_quarter_is_reported_with_its_time(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    write(folder / "1" / "XBTUSD.csv", kraken(10))
    later_s = T0_S + 90 * 86_400
    write(folder / "3" / "XBTUSD.csv", kraken(10, later_s))
    run = Run(tmp_path, folder)
    anew = ANEW.format(time_text(later_s * 1000))
    assert run.report.pairs[0].missing == [Missing(anew, from_ms=T0_MS + 9_000, until_ms=later_s * 1000)]
    assert run.kinds("BTC/USD") == ["begin", "trades", "pause", "begin", "trades", "end"]
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
    assert run.begins() == [T0_MS]
    assert run.end_ms("BTC/USD") == T0_MS + 9_000
    path = write(tmp_path / "BTCUSDT-trades-2024-01-01.csv", binance(range(10)))
    run = Run(tmp_path, path, exchange="binance")
    assert run.end_ms("BTC/USDT") == T0_MS + DAY_MS
    assert run.report.until_ms == T0_MS + DAY_MS


def test_a_month_that_was_cut_short_is_not_believed_by_its_name(tmp_path: Path) -> None:
    path = write(tmp_path / "a" / "BTCUSDT-trades-2024-01.csv", binance(range(100), step_ms=3_600_000))
    run = Run(tmp_path / "a", path, exchange="binance")
    last = T0_MS + 99 * 3_600_000
    assert run.end_ms("BTC/USDT") == last
    assert run.report.pairs[0].missing == [Missing(ENDS, from_ms=last, until_ms=T0_MS + 31 * DAY_MS)]
    path = write(tmp_path / "b" / "BTCUSDT-trades-2024-01.csv", binance(range(740), step_ms=3_600_000))
    run = Run(tmp_path / "b", path, exchange="binance")
    assert run.end_ms("BTC/USDT") == T0_MS + 31 * DAY_MS
    assert run.report.pairs[0].missing == []
    assert any("until 2024-02-01 00:00:00 it is taken for quiet" in note for note in run.report.notes)


# --- where the series begins ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first_s", "since", "begin_ms"),
    [
        (14.5 * 86_400 + 30, None, T0_MS + 14 * DAY_MS + 12 * 3_600_000),
        (0, None, T0_MS),
        (5, T0_MS, T0_MS),
        (20 * 3_600, T0_MS, T0_MS),
        (2 * 86_400, T0_MS, T0_MS + 2 * DAY_MS),
    ],
)
def test_candles_count_from_where_the_trades_are_known(
    tmp_path: Path, first_s: float, since: int | None, begin_ms: int
) -> None:
    path = write(tmp_path / "XBTUSD.csv", kraken(10, T0_S + first_s))
    run = Run(tmp_path, path, None, **({} if since is None else {"since": str(since)}))
    assert run.begins() == [begin_ms]


def test_a_file_that_begins_in_the_middle_of_a_month_says_which_candles_are_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "XBTUSD.csv", kraken(10, T0_S + 14 * 86_400 + 3_600))
    assert any(
        "first candles (4h, 1d, 1w, 1M) of BTC/USD, which began before 2024-01-15 01:00:00, are left out"
        in note
        for note in Run(tmp_path, path).report.notes
    )
    border = write(tmp_path / "b" / "XBTUSD.csv", kraken(10))
    assert not any("left out" in note for note in Run(tmp_path, border).report.notes)


def test_since_within_the_files_is_where_candles_count_from(tmp_path: Path) -> None:
    # Nothing traded in the two days around it, which the file knows.
    rows = kraken(10) + kraken(10, T0_S + 3 * 86_400)
    path = write(tmp_path / "XBTUSD.csv", rows)
    assert Run(tmp_path, path, since=str(T0_MS + DAY_MS)).begins() == [T0_MS + DAY_MS]


@pytest.mark.parametrize(("first_id", "begin_ms"), [(3, T0_MS), (30, T0_MS + 30 * 3_600_000)])
def test_a_day_begins_where_its_name_says_unless_its_beginning_was_cut_off(
    tmp_path: Path, first_id: int, begin_ms: int
) -> None:
    path = write(tmp_path / "BTCUSDT-trades-2024-01.csv", binance(range(first_id, 740), step_ms=3_600_000))
    assert Run(tmp_path, path, exchange="binance").begins("BTC/USDT") == [begin_ms]


# --- holes ----------------------------------------------------------------------------------------


def test_missing_ids_of_an_hour_are_reported_and_the_series_goes_on(tmp_path: Path) -> None:
    rows = binance(range(20), step_ms=3_600_000) + binance(range(21, 24), step_ms=3_600_000)
    run = Run(tmp_path, write(tmp_path / "BTCUSDT-trades-2024-01-01.csv", rows), exchange="binance")
    assert run.report.pairs[0].missing == [Missing(HOLE, 20, 20)]
    assert run.begins("BTC/USDT") == [T0_MS]


def test_missing_ids_of_days_within_a_file_begin_the_series_anew(tmp_path: Path) -> None:
    rows = binance(range(100), step_ms=3_600_000) + binance(range(200, 744), step_ms=3_600_000)
    run = Run(tmp_path, write(tmp_path / "BTCUSDT-trades-2024-01.csv", rows), exchange="binance")
    assert [m[:3] for m in run.publisher.messages if m[0] not in ("trades", "end")] == [
        ("begin", "BTC/USDT", T0_MS),
        ("pause", "BTC/USDT", T0_MS + 99 * 3_600_000),
        ("begin", "BTC/USDT", T0_MS + 200 * 3_600_000),
    ]


def test_a_hole_at_the_end_of_the_range_is_no_quiet_end(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    write(folder / "1" / "XBTUSD.csv", kraken(10))
    write(folder / "3" / "XBTUSD.csv", kraken(10, T0_S + 90 * 86_400))
    until = T0_MS + 50 * DAY_MS
    run = Run(tmp_path, folder, until=str(until))
    assert run.report.pairs[0].missing == [Missing(ENDS, from_ms=T0_MS + 9_000, until_ms=until)]
    assert run.end_ms("BTC/USD") == T0_MS + 9_000


def test_ahead_of_a_hole_at_the_end_of_the_range_a_month_is_whole(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    write(folder / "BTCUSDT-trades-2024-01.csv", binance(range(744), step_ms=3_600_000))
    write(folder / "BTCUSDT-trades-2024-03.csv", binance(range(1_440, 2_184), step_ms=3_600_000))
    until = T0_MS + 40 * DAY_MS
    run = Run(tmp_path, folder, exchange="binance", until=str(until))
    february = T0_MS + 31 * DAY_MS
    assert run.end_ms("BTC/USDT") == february
    assert run.report.pairs[0].missing == [Missing(ENDS, from_ms=february, until_ms=until)]


def test_a_hole_ahead_of_the_range_is_missing_as_far_as_it_reaches_in(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    write(folder / "1" / "XBTUSD.csv", kraken(10))
    write(folder / "3" / "XBTUSD.csv", kraken(10, T0_S + 90 * 86_400))
    run = Run(tmp_path / "a", folder, since=str(T0_MS + 50 * DAY_MS))
    assert [missing.reason for missing in run.report.pairs[0].missing] == [HOLE]
    assert run.begins() == [T0_MS + 90 * DAY_MS]
    run = Run(tmp_path / "b", folder, since=str(T0_MS + 90 * DAY_MS - 60_000))
    assert run.report.pairs[0].missing == []
    assert run.begins() == [T0_MS + 90 * DAY_MS - 60_000]


@settings(max_examples=25, deadline=None)
@given(kill=st.integers(1, 12), batch_rows=st.integers(20, 60))
def test_after_a_kill_the_series_begins_anew_at_a_hole_unless_a_trade_behind_it_is_out(
    tmp_path_factory: pytest.TempPathFactory, kill: int, batch_rows: int
) -> None:
    folder = tmp_path_factory.mktemp("run")
    write(folder / "f" / "1" / "XBTUSD.csv", kraken(100))
    write(folder / "f" / "3" / "XBTUSD.csv", kraken(100, T0_S + 90 * 86_400))
    undisturbed = Run(folder / "whole", folder / "f", batch_rows=str(batch_rows))
    first = Run(folder, folder / "f", kill, batch_rows=str(batch_rows))
    second = None if first.report.ended else Run(folder, folder / "f", batch_rows=str(batch_rows))

    def said(run: Run | None) -> list[tuple[str, object]]:
        # Only the end may come twice.
        return [
            (kind, [row.trade_id for row in what] if kind == "trades" else what)
            for kind, _, what, *_ in (run.publisher.messages if run else ())
            if kind != "end"
        ]

    assert [kind for kind, _ in said(undisturbed) if kind != "trades"] == ["begin", "pause", "begin"]
    assert said(first) + said(second) == said(undisturbed)


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
