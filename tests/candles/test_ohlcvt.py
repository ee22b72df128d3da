"""Kraken's downloadable candles in place of trades, and the end of a history."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.candles.bucket import Bucket
from services.candles.files import candle_files
from services.candles.ohlcvt import IntervalParser, holds_candles, timeframe_of
from services.candles.series import PairCandles
from services.common.errors import SourceError
from services.common.messages import Candle, Trade
from services.common.timeframes import TIMEFRAMES
from tests.candles.test_series import CLOSING_MS, RULES, START_MS, Rows, collect, markets, run

NOW_MS = START_MS + 10 * 365 * 86_400_000
ESTIMATED = ("vwap", "buy_volume")
T0 = 1_704_067_200
ROW = f"{T0},10,12,9,11,5,3\n"


def as_file(rows: Rows, timeframe: str) -> str:
    """What Kraken would offer of these candles: without empty ones."""
    return "".join(
        f"{c.start_ms // 1000},{c.open!r},{c.high!r},{c.low!r},{c.close!r},{c.volume!r},{c.trade_count}\n"
        for (name, _), c in sorted(rows.items())
        if name == timeframe and c.trade_count
    )


def read(text: str, timeframe: str = "1m") -> list[Bucket]:
    return IntervalParser("f.csv", timeframe).parse(text, 1, NOW_MS)


def known(candle: Candle) -> tuple[object, ...]:
    """What a file of candles can tell; sums to ten digits, as those of doubles depend on their grouping."""
    return (*(candle.open, candle.high, candle.low, candle.close), f"{candle.volume:.9e}", candle.trade_count)


@settings(max_examples=60, deadline=None)
@given(market=markets(), timeframe=st.sampled_from(["1m", "5m", "1h"]), cuts=st.lists(st.integers(1, 40)))
def test_candles_of_a_file_make_the_longer_candles_that_their_trades_make(
    market: list[Trade], timeframe: str, cuts: list[int]
) -> None:
    end_ms = market[-1].event_time_ms + CLOSING_MS
    expected = {
        key: known(candle)
        for key, candle in run([market]).items()
        if TIMEFRAMES.index(key[0]) >= TIMEFRAMES.index(timeframe)
    }
    lines = as_file(run([market]), timeframe).splitlines(keepends=True)
    parser = IntervalParser("f.csv", timeframe)
    candles = PairCandles(RULES)
    rows: Rows = {}
    edges = [0, *sorted({cut for cut in cuts if cut < len(lines)}), len(lines)]
    for begin, end in pairwise(edges):
        parts = parser.parse("".join(lines[begin:end]), begin + 1, NOW_MS)
        if parts:
            collect(rows, candles.intervals(parts, timeframe).closed)
    collect(rows, candles.heartbeat(end_ms).closed)
    found = {key: known(candle) for key, candle in rows.items()}
    # What is not closed in the file is not in it, so the last longer candles may lack it.
    complete = {key for key in found if rows[key].end_ms <= floor_of(expected, timeframe)}
    assert {key: found[key] for key in complete} == {
        key: value for key, value in expected.items() if key in complete
    }
    assert {key for key in found if key[0] == timeframe} <= expected.keys()


def floor_of(expected: dict[tuple[str, int], tuple[object, ...]], timeframe: str) -> int:
    """The end of what the file holds."""
    return max((start for name, start in expected if name == timeframe), default=0)


def test_vwap_and_buys_are_estimates_within_their_bounds() -> None:
    (bucket,) = read(ROW)
    assert bucket.quote / bucket.volume == pytest.approx((12 + 9 + 11) / 3)
    assert bucket.buy == 2.5
    assert (bucket.start_ms, bucket.end_ms, bucket.count) == (T0 * 1000, T0 * 1000 + 60_000, 3)


@pytest.mark.parametrize("volume", ["5e-05", "1E3", ".5", "+2"])
def test_whatever_number_tells_a_file_of_candles_is_read_as_one(volume: str) -> None:
    row = f"{T0},10,12,9,11,{volume},3"
    assert holds_candles(row)
    assert read(row + "\n")[0].volume == float(volume)


def test_a_header_is_passed_and_counts_as_a_line() -> None:
    head = "time,open,high,low,close,volume,trades\n"
    assert read(head + ROW) == read(ROW)
    with pytest.raises(SourceError, match=":3: 'x' is no number"):
        read(head + ROW + f"{T0 + 60},x,12,9,11,5,3\n")


def test_rows_without_trades_are_left_to_be_made_anew() -> None:
    assert read(f"{T0},10,10,10,10,0,0\n") == []


@pytest.mark.parametrize(
    ("head", "yes"),
    [
        (ROW.strip(), True),
        ("5,100.5,0.25,25.1,1704067200000,True,True", False),
        (f"{T0},1,1", False),
        ("time,open,high,low,close,volume,count", True),
        ('"Timestamp","Open","High","Low","Close","Volume","Trades"', True),
        (f"{T0},10,12,9,11,5e-05,3", True),
        (f"{T0},10,12,9,11,.5,3", True),
        (f"{T0},1.2.3,12,9,11,5,3", False),
        ("time,price,volume", False),
    ],
)
def test_files_of_candles_are_known_by_their_first_line(head: str, yes: bool) -> None:
    assert holds_candles(head) is yes


@pytest.mark.parametrize(
    ("stem", "timeframe"),
    [("XBTUSD_1", "1m"), ("XBTUSD_1440", "1d"), ("XBTUSD_240", "4h"), ("XBTUSD_720", None), ("XBTUSD", None)],
)
def test_names_tell_the_timeframe(stem: str, timeframe: str | None) -> None:
    assert timeframe_of(stem) == timeframe


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"{T0},1,1,1,1,1\n", ":1: not 7 fields"),
        (ROW + "x\n", ":2: not 7 fields"),
        (f"{T0},a,12,9,11,5,3\n", ":1: 'a' is no number"),
        (f"{T0},nan,12,9,11,5,3\n", ":1: 'nan' is no number"),
        (f"{T0},1_0,12,9,11,5,3\n", ":1: '1_0' is no number"),
        (f"{T0},1e999,12,9,11,5,3\n", ":1: '1e999' is no number"),
        (f"{T0},-1,12,9,11,5,3\n", ":1: '-1' is no number"),
        (f"{T0},10,12,10.5,11,5,3\n", ":1: open and close must lie between"),
        (f"{T0},10,12,9,13,5,3\n", ":1: open and close must lie between"),
        (f"{T0},0,12,0,11,5,3\n", "above 0"),
        (f"{T0 + 1},10,12,9,11,5,3\n", "is no start of 1m"),
        (ROW + ROW, ":2: time .* is not after the one before; sort"),
        (f"{NOW_MS // 60_000_000 * 60_000 + 60_000},10,12,9,11,5,3\n", "lies in the future"),
    ],
)
def test_bad_candles_are_refused_with_their_line(text: str, says: str) -> None:
    with pytest.raises(SourceError, match=says):
        read(text)


def test_each_pair_takes_the_shortest_of_its_files(tmp_path: Path) -> None:
    for name in ("XBTUSD_60", "XBTUSD_5", "XBTUSD_720", "ETHUSD_1440"):
        (tmp_path / f"{name}.csv").write_text(ROW)
    found = candle_files(tmp_path, ())
    assert {pair: files.timeframe for pair, files in found.items()} == {"BTC/USD": "5m", "ETH/USD": "1d"}
    assert list(candle_files(tmp_path, ("ETH/USD",))) == ["ETH/USD"]
    with pytest.raises(SourceError, match=r"no candles of SOL/USD; there are"):
        candle_files(tmp_path, ("SOL/USD",))


# --- the end of a history -------------------------------------------------------------------------


def closed(candles: PairCandles, time_ms: int, *, final: bool) -> Sequence[str]:
    return list(candles.heartbeat(time_ms, final=final).closed)


def test_at_the_end_of_a_history_an_interval_closes_without_grace() -> None:
    trade = Trade("kraken", "BTC/USD", 1, "buy", 10.0, 1.0, START_MS, START_MS)
    candles = PairCandles(RULES)
    candles.trades([trade])
    assert closed(candles, START_MS + 60_000, final=False) == []
    assert closed(candles, START_MS + 60_000, final=True) == ["1m"]
    # Nothing comes twice.
    assert closed(candles, START_MS + 60_000, final=True) == []


def test_a_final_heartbeat_closes_nothing_that_has_not_ended() -> None:
    trade = Trade("kraken", "BTC/USD", 1, "buy", 10.0, 1.0, START_MS, START_MS)
    candles = PairCandles(RULES)
    candles.trades([trade])
    assert closed(candles, START_MS + 59_999, final=True) == []
