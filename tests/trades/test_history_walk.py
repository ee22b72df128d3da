"""The walk through a pair's pages, whatever the exchange does with them."""

from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.common.errors import SourceError
from services.common.history_report import Missing
from services.common.messages import Trade
from services.trades.exchanges import REGISTRY
from services.trades.exchanges.contract import Bad
from services.trades.history.walk import HOLE_TRIES, NOT_GIVEN, SETTLE_MS, UNPROVEN, Known, Step, Walk
from tests.trades.history_support import (
    HOUR_MS,
    NOW_MS,
    T0_NS,
    Answer,
    FakeKraken,
    Row,
    every,
    ids_between,
    rows_of,
)
from tests.trades.support import T0_MS

PAIR = "BTC/USD"
UNTIL_MS = T0_MS + HOUR_MS


class Way:
    """A walk through a fake exchange, and all that it brought."""

    def __init__(
        self,
        server: FakeKraken,
        since_ms: int = T0_MS,
        until_ms: int = UNTIL_MS,
        known: Known | None = None,
        now_ms: int = NOW_MS,
    ) -> None:
        self.server = server
        self.exchange = REGISTRY["kraken"]((PAIR,))
        self.walk = Walk(self.exchange, PAIR, since_ms, until_ms, known or Known(since_ms))
        self.now_ms = now_ms
        self.trades: list[Trade] = []
        self.bad: list[Bad] = []
        self.missing: list[Missing] = []
        self.requests = 0

    def step(self) -> Step:
        self.requests += 1
        assert self.requests < 3000, "it goes round in circles"
        request = self.walk.request
        _, _, body = self.server.answer(request.path, request.params)
        page = self.exchange.parse_page(self.walk.gap, request, body, self.now_ms)
        step = self.walk.on_page(page, self.now_ms)
        self.trades += step.trades
        self.bad += step.bad
        self.missing += step.missing
        return step

    def go(self) -> "Way":
        while not self.walk.done:
            self.step()
        return self

    @property
    def ids(self) -> list[int]:
        return [trade.trade_id for trade in self.trades]


def kraken(rows: list[Row], **values: object) -> FakeKraken:
    return FakeKraken({PAIR: rows}, **values)  # type: ignore[arg-type]


def reachable(server: FakeKraken) -> set[int]:
    """Ids that some `since` shows."""
    rows, unit = server.rows[PAIR], server.resolution_ns
    starts = {row.ns // unit for row in rows}
    return {
        row.trade_id
        for start in starts
        for row in [row for row in rows if row.ns // unit >= start][: server.page_rows]
    }


@settings(max_examples=300)
@given(
    steps=st.lists(st.sampled_from([0, 0, 0, 1, 2, 300, 1_000_000, 40_000_000_000]), max_size=60),
    page_rows=st.integers(1, 12),
    coarse=st.booleans(),
    inclusive=st.booleans(),
    with_last=st.booleans(),
    first_id=st.integers(0, 2**53),
    since_s=st.integers(-100, 200),
    length_s=st.integers(1, 2000),
)
def test_any_cut_into_pages_gives_every_trade_that_the_exchange_gives_and_names_the_rest(
    steps: list[int],
    page_rows: int,
    coarse: bool,
    inclusive: bool,
    with_last: bool,
    first_id: int,
    since_s: int,
    length_s: int,
) -> None:
    rows = rows_of(accumulate(steps), first_id)
    # A coarse server that also excludes `since` skips trades of its own accord.
    server = kraken(
        rows,
        page_rows=page_rows,
        resolution_ns=1_000_000 if coarse else 1,
        inclusive=inclusive or coarse,
        with_last=with_last,
    )
    since_ms = T0_MS + since_s * 1000
    until_ms = since_ms + length_s * 1000
    way = Way(server, since_ms, until_ms).go()
    lacking = {i for one in way.missing for i in range(one.first_id or 0, (one.last_id or 0) + 1)}
    got = [trade.trade_id for trade in way.trades if trade.event_time_ms < until_ms]
    # At the very end nothing shows that a page at one time was cut short; those of the exchange are full.
    tail = {
        row.trade_id for row in rows if row.ns // server.resolution_ns == rows[-1].ns // server.resolution_ns
    }
    hidden = tail - reachable(server)
    assert [i for i in got if i not in hidden] == [
        i for i in ids_between(rows, since_ms, until_ms) if i not in lacking | hidden
    ]
    assert not lacking & set(way.ids)
    if with_last:
        assert not lacking & reachable(server)
    by_id = {row.trade_id: row for row in rows}
    for trade in way.trades:
        row = by_id[trade.trade_id]
        assert (trade.price, trade.quantity, trade.event_time_ms) == (row.price, row.quantity, row.event_ms)


@settings(max_examples=200)
@given(
    steps_ms=st.lists(st.sampled_from([1, 5, 50, 900, 5000]), min_size=2, max_size=40),
    swaps=st.lists(st.integers(0, 38)),
    page_rows=st.integers(3, 10),
)
def test_ids_and_times_may_swap_places_across_a_cut(
    steps_ms: list[int], swaps: list[int], page_rows: int
) -> None:
    times = [ms * 1_000_000 for ms in accumulate(steps_ms)]
    ids = list(range(1, len(times) + 1))
    for at in swaps:
        if at + 1 < len(ids) and times[at + 1] - times[at] < 1_000_000_000 and ids[at] == at + 1:
            ids[at], ids[at + 1] = ids[at + 1], ids[at]
    rows = [Row(trade_id, T0_NS + ns) for trade_id, ns in zip(ids, times, strict=True)]
    way = Way(kraken(rows, page_rows=page_rows)).go()
    assert way.ids == sorted(ids)
    assert way.missing == []


@settings(max_examples=100)
@given(cut=st.integers(0, 40), page_rows=st.integers(2, 9), steps=st.lists(st.integers(0, 9), max_size=40))
def test_a_walk_goes_on_from_what_is_known_as_if_it_had_not_stopped(
    cut: int, page_rows: int, steps: list[int]
) -> None:
    rows = rows_of(accumulate(step * 333_333_333 for step in steps))
    whole = Way(kraken(rows, page_rows=page_rows)).go()
    first = Way(kraken(rows, page_rows=page_rows))
    for _ in range(cut):
        if not first.walk.done:
            first.step()
    second = Way(kraken(rows, page_rows=page_rows), known=first.walk.known).go()
    assert first.ids + second.ids == whole.ids


def test_1500_trades_in_one_millisecond_are_all_fetched() -> None:
    block = [1_000_000 + i * 600 for i in range(1500)]
    rows = rows_of([0, *block, 3_000_000, 60_000_000_000])
    for inclusive in (False, True):
        way = Way(kraken(rows, inclusive=inclusive)).go()
        assert way.ids == list(range(1, 1504))
        assert way.missing == []


@pytest.mark.parametrize("inclusive", [False, True])
def test_more_trades_at_one_time_than_a_page_holds_are_named_and_passed(inclusive: bool) -> None:
    rows = rows_of([0, *[1_000_000] * 1500, 1_000_300, *(2_000_000 + i for i in range(1200))])
    way = Way(kraken(rows, inclusive=inclusive)).go()
    assert way.missing == [Missing(NOT_GIVEN, 1002, 1501, T0_MS + 1, T0_MS + 1)]
    assert way.ids == [*range(1, 1002), *range(1502, 2703)]
    assert way.requests < 60


def test_a_server_that_reads_milliseconds_only_is_passed_too() -> None:
    rows = rows_of([0, *(1_000_000 + i for i in range(1500)), *(2_000_000 + i for i in range(900))])
    way = Way(kraken(rows, inclusive=True, resolution_ns=1_000_000)).go()
    assert way.missing == [Missing(NOT_GIVEN, 1002, 1501, T0_MS + 1, T0_MS + 2)]
    assert way.ids == [*range(1, 1002), *range(1502, 2402)]


def test_more_trades_at_the_last_time_than_a_page_holds_may_be_missing() -> None:
    way = Way(kraken(rows_of([0, *[5_000_000] * 1500]))).go()
    assert way.ids == list(range(1, 1002))
    assert way.missing == [Missing(UNPROVEN, from_ms=T0_MS + 5, until_ms=T0_MS + 5)]
    again = Way(way.server, until_ms=UNTIL_MS, known=way.walk.known)
    assert again.walk.done
    assert Way(kraken(rows_of([0, *[5_000_000] * 900]))).go().missing == []


def test_a_cursor_that_is_not_heeded_is_an_error() -> None:
    server = kraken(every(5))
    body = server.answer("/0/public/Trades", {"pair": "XBTUSD", "since": str(T0_NS), "count": "1000"})
    server.instead = [body] * 500
    with pytest.raises(SourceError, match="cursor does not advance"):
        Way(server).go()


def test_a_cursor_that_runs_ahead_loses_nothing() -> None:
    rows = every(30, 1000)
    server = kraken(rows, page_rows=10)
    status, headers, body = server.answer(
        "/0/public/Trades", {"pair": "XBTUSD", "since": str(T0_NS - 1), "count": "1000"}
    )
    wrong = body.replace(f'"{rows[9].ns}"'.encode(), f'"{rows[24].ns}"'.encode())
    assert wrong != body
    # Past the next trades: ids jump. Past all trades: the page is empty.
    far = body.replace(f'"{rows[9].ns}"'.encode(), b'"1999999999999999999"')
    for first in (wrong, far):
        server.instead = [(status, headers, first)]
        way = Way(server).go()
        assert way.ids == list(range(1, 31))
        assert way.missing == []


def test_a_hole_is_asked_for_again_and_then_recorded() -> None:
    rows = [row for row in every(50, 100) if row.trade_id not in (20, 21)]
    way = Way(kraken(rows, page_rows=7))
    tries = []
    while not way.walk.done:
        tries.append(way.step().tries)
    assert [number for number in tries if number] == list(range(1, HOLE_TRIES + 1))
    assert way.ids == [i for i in range(1, 51) if i not in (20, 21)]
    assert way.missing == [Missing(NOT_GIVEN, 20, 21, T0_MS + 1800, T0_MS + 2100)]


def test_a_hole_that_is_filled_late_is_none() -> None:
    server = kraken(every(50, 100), page_rows=20, late_ids={20: 4, 21: 4})
    way = Way(server).go()
    assert way.ids == list(range(1, 51))
    assert way.missing == []


def test_several_holes_are_recorded_each() -> None:
    rows = [row for row in every(60, 100) if row.trade_id not in (1, 10, 11, 13, 40)]
    way = Way(kraken(rows)).go()
    assert [(one.first_id, one.last_id) for one in way.missing] == [(10, 11), (13, 13), (40, 40)]
    assert way.ids == [row.trade_id for row in rows]


def test_trades_seen_behind_a_hole_are_kept_when_the_exchange_forgets_them() -> None:
    rows = [row for row in every(10, 100) if row.trade_id != 5]
    server = kraken(rows)
    seen = server.answer("/0/public/Trades", {"pair": "XBTUSD", "since": str(T0_NS - 1), "count": "1000"})
    less = kraken(rows[:4])
    less.instead = [seen]
    way = Way(less).go()
    assert way.ids == [1, 2, 3, 4, 6, 7, 8, 9, 10]
    assert [(one.first_id, one.last_id) for one in way.missing] == [(5, 5)]


def test_an_empty_answer_is_no_end_when_the_next_is_not_empty() -> None:
    empty: Answer = (200, {}, b'{"error":[],"result":{"XXBTZUSD":[],"last":"1999999999999999999"}}')
    server = kraken(every(40, 1000), page_rows=15, instead=[empty, None, empty, None, None, empty])
    way = Way(server).go()
    assert way.ids == list(range(1, 41))


def test_the_present_is_complete_only_when_it_has_settled() -> None:
    server = kraken(every(10, 100))
    until_ms = T0_MS + 5000
    way = Way(server, until_ms=until_ms, now_ms=until_ms + 1000)
    steps = [way.step() for _ in range(12)]
    assert not way.walk.done
    waits = [step.pause_s for step in steps if step.pause_s]
    assert waits[0] == pytest.approx((SETTLE_MS - 1000) / 1000)
    server.rows[PAIR] += every(1, first_id=11, start_ms=4000)
    way.now_ms = until_ms + SETTLE_MS
    assert way.go().ids == list(range(1, 12))


def test_bad_rows_are_told_once_and_their_ids_are_missing() -> None:
    rows = every(30, 100)
    rows[14] = Row(15, rows[14].ns, price=-1.0)
    way = Way(kraken(rows, page_rows=10)).go()
    assert [bad.error.reason for bad in way.bad] == ["bad_price"]
    assert way.ids == [i for i in range(1, 31) if i != 15]
    assert [(one.first_id, one.last_id) for one in way.missing] == [(15, 15)]
    assert "bad_price" in way.missing[0].reason


def test_pages_of_nothing_but_bad_rows_are_an_error() -> None:
    rows = [Row(i, T0_NS + i, price=-1.0) for i in range(1, 50)]
    with pytest.raises(SourceError, match="changed its format"):
        Way(kraken(rows)).go()


def test_without_trades_it_ends_too() -> None:
    way = Way(kraken([])).go()
    assert (way.ids, way.missing) == ([], [])
    assert way.walk.known == Known(NOW_MS - SETTLE_MS)
