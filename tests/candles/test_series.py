"""The candle core: any batching, order within grace, duplicates and restarts give the same rows."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.candles.bucket import Bucket, to_candles
from services.candles.series import PairCandles, Rules
from services.common.messages import Candle, Trade
from services.common.timeframes import TIMEFRAMES, floor_ms, next_ms
from tests.candles.reference import polars_candles

RULES = Rules(grace_ms=2_000, horizon_ms=300_000)
# Two minutes before a Monday, so that every timeframe up to the week closes nearby.
CLOSING_MS = 600_000
START_MS = floor_ms(1_700_000_000_000, "1w") - 120_000


def trade(
    trade_id: int, time_ms: int, price: float = 10.0, quantity: float = 1.0, side: Any = "buy"
) -> Trade:
    return Trade("kraken", "BTC/USD", trade_id, side, price, quantity, time_ms, time_ms)


@st.composite
def markets(draw: st.DrawFn) -> list[Trade]:
    """Trades with gapless ids and ascending times, some equal, some far apart."""
    gaps = draw(
        st.lists(st.sampled_from([0, 0, 1, 40, 900, 20_000, 70_000, 400_000]), min_size=1, max_size=60)
    )
    trades = []
    time_ms = START_MS
    for index, gap in enumerate(gaps):
        time_ms += gap
        price = draw(st.integers(1, 10_000)) / 10
        quantity = draw(st.integers(1, 10**10)) / 10**8
        trades.append(trade(index + 1, time_ms, price, quantity, draw(st.sampled_from(["buy", "sell"]))))
    return trades


type Rows = dict[tuple[str, int], Candle]


def run(batches: Sequence[Sequence[Trade]], rules: Rules = RULES, *, restart: bool = False) -> Rows:
    """The last emission of every candle, after each batch went through the state's bytes if asked."""
    rows: Rows = {}
    candles = PairCandles(rules)
    end_ms = 0
    for batch in batches:
        collect(rows, candles.trades(batch).closed)
        end_ms = max(end_ms, *(t.event_time_ms for t in batch))
        if restart:
            candles = PairCandles(rules, candles.dump())
    collect(rows, candles.heartbeat(end_ms + CLOSING_MS).closed)
    return rows


def collect(rows: Rows, closed: dict[str, list[Bucket]]) -> None:
    for timeframe, buckets in closed.items():
        assert [b.start_ms for b in buckets] == sorted(b.start_ms for b in buckets)
        for candle in to_candles(buckets, "kraken", "BTC/USD", timeframe, True):
            known = rows.get((timeframe, candle.start_ms))
            assert known is None or candle.revision > known.revision, "a candle went out twice"
            rows[timeframe, candle.start_ms] = candle


def cut(trades: Sequence[Trade], points: Sequence[int]) -> list[Sequence[Trade]]:
    edges = sorted({0, len(trades), *(point % (len(trades) + 1) for point in points)})
    return [trades[a:b] for a, b in pairwise(edges)]


def assert_equal_to_polars(rows: Rows, trades: Sequence[Trade]) -> None:
    clock_ms = max(t.event_time_ms for t in trades) + CLOSING_MS
    for timeframe in TIMEFRAMES:
        expected = {
            start: row
            for start, row in polars_candles(trades, timeframe).items()
            if next_ms(start, timeframe) + RULES.grace_ms <= clock_ms
        }
        ours = {start: candle for (name, start), candle in rows.items() if name == timeframe}
        assert {start for start, candle in ours.items() if candle.trade_count} == expected.keys()
        if not expected:
            continue
        assert sorted(ours) == _grid(min(expected), max(ours), timeframe), "a hole"
        close = 0.0
        for start in sorted(ours):
            candle = ours[start]
            if candle.trade_count:
                want = expected[start]
                for name in ("open", "high", "low", "close", "trade_count"):
                    assert getattr(candle, name) == want[name]
                for name in ("volume", "buy_volume", "vwap"):
                    assert getattr(candle, name) == pytest.approx(want[name], rel=1e-9)
            else:
                assert {candle.open, candle.high, candle.low, candle.close} == {close}
                assert (candle.volume, candle.buy_volume, candle.vwap) == (0, 0, None)
            close = candle.close


def _grid(first: int, last: int, timeframe: str) -> list[int]:
    starts = [first]
    while starts[-1] < last:
        starts.append(next_ms(starts[-1], timeframe))
    return starts


@given(markets(), st.lists(st.integers(0, 60), max_size=8), st.booleans())
@settings(max_examples=100, deadline=None)
def test_candles_equal_polars_under_any_batching_and_restarts(
    trades: list[Trade], points: list[int], restart: bool
) -> None:
    rows = run(cut(trades, points), restart=restart)
    assert_equal_to_polars(rows, trades)
    assert rows == run([trades]), "batching changed a bit somewhere"
    assert all(bucket.revision == 0 for bucket in rows.values())


@given(markets(), st.lists(st.integers(0, 60), max_size=8), st.data())
@settings(max_examples=100, deadline=None)
def test_duplicates_change_nothing(trades: list[Trade], points: list[int], data: st.DataObject) -> None:
    batches = cut(trades, points)
    again: list[Sequence[Trade]] = []
    for batch in batches:
        again.append(batch)
        again.append(data.draw(st.sampled_from(batches[: len(again) // 2 + 1])))
    assert run(again, restart=True) == run([trades])


@given(markets(), st.lists(st.integers(0, 60), max_size=8), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_order_within_the_grace_changes_nothing(trades: list[Trade], points: list[int], random: Any) -> None:
    shuffled = sorted(trades, key=lambda t: t.event_time_ms + random.uniform(0, 1_900))
    rows = run(cut(shuffled, points), restart=True)
    assert rows == run([trades])


@given(markets(), st.lists(st.integers(0, 60), max_size=8), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_late_trades_within_the_horizon_end_in_the_same_candles_with_later_revisions(
    trades: list[Trade], points: list[int], random: Any
) -> None:
    disturbed = sorted(trades, key=lambda t: t.event_time_ms + random.uniform(0, 290_000))
    rows = run(cut(disturbed, points), restart=True)
    assert_equal_to_polars(rows, trades)
    assert rows == run([[t] for t in disturbed]), "revisions depend on the batching"


def test_a_trade_for_a_closed_candle_re_emits_it_and_the_flat_ones_after_it() -> None:
    candles = PairCandles(RULES)
    candles.trades([trade(1, START_MS, 10.0)])
    candles.heartbeat(START_MS + 182_500)
    applied = candles.trades([trade(2, START_MS + 30_000, 12.0)])
    minutes = applied.closed["1m"]
    assert [(b.start_ms - START_MS, b.close, b.count, b.revision) for b in minutes] == [
        (0, 12.0, 2, 1),
        (60_000, 12.0, 0, 1),
        (120_000, 12.0, 0, 1),
    ]
    assert applied.corrections == 1
    assert candles.heartbeat(START_MS + 250_000).closed["1m"][0].close == 12.0


def test_a_trade_beyond_the_horizon_is_late_and_may_come_again_under_wider_rules() -> None:
    candles = PairCandles(RULES)
    candles.trades([trade(2, START_MS + 1_000_000)])
    late = trade(1, START_MS)
    applied = candles.trades([late])
    assert [(index, error.reason) for index, error in applied.late] == [(0, "late")]
    assert applied.closed == {}
    wider = PairCandles(Rules(2_000, 10_000_000), candles.dump())
    assert wider.trades([late]).duplicates == 0


def test_heartbeats_close_a_quiet_pairs_candle_after_the_grace() -> None:
    candles = PairCandles(RULES)
    candles.trades([trade(1, START_MS + 1)])
    assert candles.heartbeat(START_MS + 61_999).closed == {}
    assert [b.count for b in candles.heartbeat(START_MS + 62_000).closed["1m"]] == [1]
    assert [b.count for b in candles.heartbeat(START_MS + 122_000).closed["1m"]] == [0]


def test_a_candle_that_watching_began_in_the_middle_of_is_not_sent() -> None:
    candles = PairCandles(RULES)
    candles.heartbeat(START_MS + 5_000)
    candles.trades([trade(1, START_MS + 6_000)])
    first = candles.heartbeat(START_MS + 62_000)
    assert first.closed["1m"] == []
    assert first.partial == 1
    assert [b.count for b in candles.heartbeat(START_MS + 122_000).closed["1m"]] == [0]


def test_open_candles_are_sent_at_most_as_often_as_asked() -> None:
    candles = PairCandles(Rules(update_every_ms=1_000))
    assert candles.trades([trade(1, START_MS, 5.0)]).updates["1m"].close == 5.0
    assert candles.trades([trade(2, START_MS + 999, 6.0)]).updates == {}
    assert candles.trades([trade(3, START_MS + 1_000, 7.0)]).updates["1d"].close == 7.0
    assert PairCandles(RULES).trades([trade(1, START_MS)]).updates == {}
