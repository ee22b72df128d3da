"""The same trades through live and through backfill give the same rows, in every column, to the bit."""

import csv
import gzip

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.common.messages import Trade
from services.common.timeframes import floor_ms
from tests.pipeline.steps import Chain, historical, live, pause
from tests.trades.support import RECORDINGS

KEY = b"kraken:BTC/USD"
SINCE_MS = floor_ms(1_700_000_000_000, "1w") - 3 * 86_400_000
NOW_MS = SINCE_MS + 400 * 86_400_000


def trade(number: int, time_ms: int, price: float, quantity: float, buy: bool) -> Trade:
    side = "buy" if buy else "sell"
    return Trade("kraken", "BTC/USD", number, side, price, quantity, time_ms, time_ms + 40)  # type: ignore[arg-type]


@st.composite
def markets(draw: st.DrawFn) -> list[Trade]:
    """Some hours to some weeks of trades with bursts, quiet stretches and equal times."""
    gaps = draw(
        st.lists(
            st.sampled_from([0, 1, 300, 9_000, 61_000, 400_000, 4_000_000, 200_000_000]),
            min_size=1,
            max_size=80,
        )
    )
    time_ms, trades = SINCE_MS + draw(st.integers(0, 100_000)), []
    for number, gap in enumerate(gaps, start=1):
        time_ms += gap
        trades.append(
            trade(
                number,
                time_ms,
                draw(st.integers(1, 10_000)) / 7,
                draw(st.integers(1, 10**9)) / 3e7,
                draw(st.booleans()),
            )
        )
    return trades


@settings(max_examples=40, deadline=None)
@given(
    market=markets(),
    cuts=st.lists(st.integers(1, 80), max_size=40),
    size=st.integers(1, 100),
    quiet_ms=st.integers(1, 10_000_000),
)
def test_a_generated_market_gives_the_same_rows_live_and_historical(
    market: list[Trade], cuts: list[int], size: int, quiet_ms: int
) -> None:
    until_ms = market[-1].event_time_ms + quiet_ms
    lived = Chain(NOW_MS).send(KEY, live(market, SINCE_MS, until_ms, cuts))
    told = Chain(NOW_MS).send(KEY, historical(market, SINCE_MS, until_ms, size))
    # Live, a grace later than the end, may know of one that ends between the two.
    lived = {key: row for key, row in lived.items() if key[1] <= until_ms}
    assert told.keys() == lived.keys()
    assert [key for key in told if told[key] != lived[key]] == []


def recorded() -> list[Trade]:
    with gzip.open(RECORDINGS / "kraken-btcusd-2019-07-01T00.csv.gz", "rt") as file:
        return [
            trade(
                number,
                int(row["time_ms"]),
                float(row["price"]),
                float(row["quantity"]),
                row["side"] == "buy",
            )
            for number, row in enumerate(csv.DictReader(file), start=1)
        ]


@pytest.mark.parametrize("size", [1, 700, 5_000])
def test_a_recorded_hour_gives_the_same_rows_live_and_historical(size: int) -> None:
    trades = recorded()
    since_ms = floor_ms(trades[0].event_time_ms, "1h")
    until_ms = since_ms + 3_600_000
    lived = Chain(NOW_MS).send(KEY, live(trades, since_ms, until_ms, range(1, len(trades), 3)))
    told = Chain(NOW_MS).send(KEY, historical(trades, since_ms, until_ms, size))
    assert len(told) == 60 + 12 + 4 + 2 + 1
    assert told == lived


def test_a_history_that_is_run_twice_over_the_same_state_gives_the_same_rows() -> None:
    trades = recorded()
    since_ms = floor_ms(trades[0].event_time_ms, "1h")
    messages = historical(trades, since_ms, since_ms + 3_600_000, 500)
    chain = Chain(NOW_MS)
    first = chain.send(KEY, messages)
    again = Chain(NOW_MS, chain.states).send(KEY, messages)
    assert again == first


@settings(max_examples=40, deadline=None)
@given(market=markets(), size=st.integers(1, 100), days=st.integers(2, 70), past_ms=st.integers(0, 59_999))
def test_a_history_with_a_hole_is_one_series_before_it_and_another_behind_it(
    market: list[Trade], size: int, days: int, past_ms: int
) -> None:
    before_ms = market[-1].event_time_ms
    anew_ms = floor_ms(before_ms + days * 86_400_000, "1m")
    behind = [
        trade(
            n.trade_id + 1_000,
            n.event_time_ms - market[0].event_time_ms + anew_ms + past_ms,
            n.price,
            1.0,
            True,
        )
        for n in market
    ]
    until_ms = behind[-1].event_time_ms
    one = historical(market, SINCE_MS, before_ms, size)
    other = historical(behind, anew_ms, until_ms, size)
    whole = Chain(NOW_MS + NOW_MS).send(KEY, [*one[:-1], pause(before_ms), *other])
    apart = Chain(NOW_MS + NOW_MS).send(KEY, one) | Chain(NOW_MS + NOW_MS).send(KEY, other)
    assert whole == apart
    assert not [key for key in whole if before_ms < key[1] <= anew_ms]
    assert all(row["start_ms"] >= anew_ms for key, row in whole.items() if key[1] > anew_ms)


def test_a_history_that_goes_on_live_is_one_series() -> None:
    trades = recorded()
    since_ms = floor_ms(trades[0].event_time_ms, "1h")
    until_ms = since_ms + 3_600_000
    whole = Chain(NOW_MS).send(KEY, historical(trades, since_ms, until_ms, 500))
    # As a warm start sends it: the history's beginning, no end, and then what live trading brings.
    warm = historical(trades[:1_800], since_ms, until_ms, 700)[:-1]
    lived = live(trades[1_790:], since_ms, until_ms, range(1, 900, 2))[1:]
    assert Chain(NOW_MS).send(KEY, [*warm, *lived]) == whole
