"""The id sequence and the feed of one pair, whatever comes in whatever order."""

from hypothesis import given
from hypothesis import strategies as st

from services.trades.ids import IdSequence
from services.trades.pair_feed import Outcome, PairFeed
from tests.trades.support import T0_MS, trade

#: Frames of ids 1…n that together hold every id, split, repeated and overlapping.
LAST = 40
spans = st.tuples(st.integers(1, LAST), st.integers(1, 12))


def feed(last_id: int | None = None, *, has_snapshot: bool = True, buffer_rows: int = 1000) -> PairFeed:
    result = PairFeed(
        "BTC/USD",
        last_id,
        T0_MS,
        has_snapshot=has_snapshot,
        buffer_rows=buffer_rows,
        snapshot_wait_s=1.0,
    )
    result.on_connect()
    return result


def ids(outcome: Outcome) -> list[int]:
    return [row.trade_id for row in outcome.publish]


@given(st.lists(spans, max_size=30), st.integers(0, 10))
def test_the_sequence_lets_every_id_through_once_and_in_order(
    frames: list[tuple[int, int]], overlap: int
) -> None:
    sequence = IdSequence(0)
    out: list[int] = []
    held: list[int] = []
    # Whatever the frames are, the last ones cover everything.
    cover = [(start, 5 + overlap) for start in range(1, LAST + 1, 5)]
    for start, length in frames + cover:
        accepted = sequence.accept([trade(i) for i in (*range(start, start + length), start)])
        out += [row.trade_id for row in accepted.fresh]
        held += [row.trade_id for row in accepted.held]
        assert len(accepted.fresh) + len(accepted.held) + accepted.duplicates == length + 1
    assert out == list(range(1, len(out) + 1))
    assert out[-1] >= LAST


@given(st.lists(spans, min_size=1, max_size=25), st.data())
def test_a_feed_publishes_every_id_once_and_in_order_with_rest_behind_it(
    frames: list[tuple[int, int]], data: st.DataObject
) -> None:
    pair = feed(0)
    out: list[int] = []

    def take(outcome: Outcome) -> None:
        assert not outcome.lost
        out.extend(ids(outcome))

    def run_fill() -> None:
        gap = pair._gap
        assert gap is not None
        assert gap.last_id is not None
        # Pages of any size, forward or backward, with rows from outside the gap.
        wanted = list(range(max(1, gap.first_id - 2), gap.last_id + 3))
        size = data.draw(st.integers(1, 10))
        pages = [wanted[i : i + size] for i in range(0, len(wanted), size)]
        if data.draw(st.booleans()):
            pages.reverse()
        number = pair.fill_number
        for page in pages:
            take(pair.on_page(number, [trade(i) for i in page]))
        take(pair.on_fill_end(number, None))

    for start, length in frames:
        take(pair.on_trades([trade(i) for i in range(start, start + length)]))
        if pair.is_filling and data.draw(st.booleans()):
            run_fill()
    while pair.is_filling:
        run_fill()
    top = max(start + length - 1 for start, length in frames)
    assert out[: top + 1] == list(range(1, len(out) + 1))[: top + 1]
    assert out == sorted(set(out))
    assert len(out) >= top


def test_ids_that_history_lacks_are_recorded_and_passed() -> None:
    pair = feed(1)
    outcome = pair.on_trades([trade(6)])
    assert outcome.fill is not None
    assert (outcome.fill.first_id, outcome.fill.last_id) == (2, 5)
    assert ids(pair.on_page(1, [trade(2), trade(4)])) == [2]
    end = pair.on_fill_end(1, None)
    assert ids(end) == [4, 6]
    assert [(lost.first_id, lost.last_id) for lost in end.lost] == [(3, 3), (5, 5)]
    assert pair.may_heartbeat()


def test_a_jump_during_a_fill_is_a_gap_of_its_own() -> None:
    pair = feed(1)
    pair.on_trades([trade(3)])
    assert ids(pair.on_trades([trade(6)])) == []
    assert ids(pair.on_page(1, [trade(2)])) == [2, 3]
    end = pair.on_fill_end(1, None)
    assert end.lost == []
    assert end.fill is not None
    assert (end.fill.first_id, end.fill.last_id) == (4, 5)
    # What a fill that is over still says is not listened to.
    assert pair.on_page(1, [trade(4)]).publish == []
    assert ids(pair.on_page(2, [trade(4), trade(5)])) == [4, 5, 6]


def test_a_full_buffer_ends_the_fill_and_records_the_gap() -> None:
    pair = feed(1, buffer_rows=3)
    pair.on_trades([trade(10)])
    pair.on_trades([trade(11), trade(13)])
    outcome = pair.on_trades([trade(14)])
    assert ids(outcome) == [10, 11, 13, 14]
    assert [(lost.first_id, lost.last_id) for lost in outcome.lost] == [(2, 9), (12, 12)]
    assert "waited" in outcome.lost[0].why
    assert not pair.is_filling


def test_a_fill_up_to_now_that_fails_is_recorded_up_to_what_live_brought() -> None:
    pair = feed(1, has_snapshot=False)
    outcome = pair.on_ack(T0_MS, 0.0)
    assert outcome.fill is not None
    assert outcome.fill.last_id is None
    pair.on_trades([trade(5)])
    end = pair.on_fill_end(1, "HTTP 500")
    assert ids(end) == [5]
    assert [(lost.first_id, lost.last_id, lost.why) for lost in end.lost] == [(2, 4, "HTTP 500")]


def test_a_snapshot_that_does_not_come_is_replaced_by_rest() -> None:
    pair = feed(7)
    pair.on_ack(T0_MS, 0.0)
    assert pair.on_tick(0.5).fill is None
    assert not pair.may_heartbeat()
    fill = pair.on_tick(1.5).fill
    assert fill is not None
    assert (fill.first_id, fill.last_id) == (8, None)
    assert ids(pair.on_page(1, [trade(7), trade(8)])) == [8]
    assert pair.on_fill_end(1, None).lost == []
    assert pair.may_heartbeat()


def test_a_first_start_without_a_snapshot_begins_with_the_subscription() -> None:
    assert feed(None, has_snapshot=False).on_ack(T0_MS, 0.0).start_ms == T0_MS
    waiting = feed(None)
    waiting.on_ack(T0_MS, 0.0)
    assert waiting.on_tick(1.5).start_ms == T0_MS
    assert waiting.on_trades([trade(3)]).start_ms is None


def test_a_claimed_trade_is_fetched_only_when_it_does_not_arrive() -> None:
    pair = feed(None)
    pair.on_trades([trade(5)])
    pair.on_claim(6, 0.0)
    assert not pair.may_heartbeat()
    pair.on_trades([trade(6)])
    assert pair.on_tick(5.0).fill is None
    assert pair.may_heartbeat()
    pair.on_claim(8, 5.0)
    fill = pair.on_tick(9.0).fill
    assert fill is not None
    assert (fill.first_id, fill.last_id) == (7, 8)
    end = pair.on_fill_end(pair.fill_number, "HTTP 500")
    assert [(lost.first_id, lost.last_id) for lost in end.lost] == [(7, 8)]


def test_a_reconnect_stops_heartbeats_until_ids_show_what_was_missed() -> None:
    pair = feed(None)
    pair.on_trades([trade(5)])
    assert pair.may_heartbeat()
    pair.on_connect()
    assert not pair.may_heartbeat()
    assert pair.on_trades([trade(4), trade(5)]).duplicates == 2
    assert pair.may_heartbeat()
