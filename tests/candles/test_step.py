"""The candles step: bad input goes to the dead letters, the rest of the batch goes on."""

import msgspec
import pytest

from services.candles.pipeline import MAX_ROWS, CandlesStep
from services.candles.series import Rules
from services.common.errors import ContractError
from services.common.messages import Candle, Trade, encode
from services.common.metrics import Metrics
from services.common.step import Message, StepResult
from services.common.timeframes import MINUTE_MS, TIMEFRAMES

KEY = b"kraken:BTC/USD"
NOW_MS = 1_700_000_400_000
DECODER = msgspec.json.Decoder(list[Candle])


class MemoryState(dict[str, bytes]):
    def get_bytes(self, key: str) -> bytes | None:
        return self.get(key)

    def set_bytes(self, key: str, value: bytes) -> None:
        self[key] = value


class Bench:
    def __init__(self, timeframes: tuple[str, ...] = TIMEFRAMES, rules: Rules | None = None) -> None:
        self.metrics = Metrics()
        self.state = MemoryState()
        self.step = CandlesStep(rules or Rules(), timeframes, self.metrics, clock_ms=lambda: NOW_MS)

    def send(self, value: bytes, timestamp_ms: int = NOW_MS, key: bytes = KEY) -> StepResult:
        return self.step(Message(key, value, timestamp_ms, None), self.state)

    def metric(self, name: str) -> float:
        return self.metrics.registry.get_sample_value(name) or 0.0


def trade(trade_id: int, time_ms: int, received_at_ms: int = NOW_MS) -> Trade:
    return Trade("kraken", "BTC/USD", trade_id, "buy", 10.0 + trade_id, 1.0, time_ms, received_at_ms)


def rows(result: StepResult) -> list[Candle]:
    return [row for value in result.outputs for row in DECODER.decode(value)]


def test_each_message_holds_the_candles_of_one_timeframe() -> None:
    bench = Bench()
    start_ms = NOW_MS // 86_400_000 * 86_400_000 - 86_400_000
    result = bench.send(encode([trade(1, start_ms), trade(2, start_ms + 7_200_000)]))
    kinds = [{row.timeframe for row in DECODER.decode(value)} for value in result.outputs]
    assert kinds == [{"1m"}, {"5m"}, {"15m"}, {"30m"}, {"1h"}]
    assert result.rows_out == len(rows(result)) == 119 + 23 + 7 + 3 + 1


def test_only_the_asked_timeframes_are_sent() -> None:
    bench = Bench(("5m",))
    result = bench.send(encode([trade(1, NOW_MS - 900_000), trade(2, NOW_MS)]))
    assert {row.timeframe for row in rows(result)} == {"5m"}


def test_a_bad_row_is_refused_and_the_others_count() -> None:
    bench = Bench()
    good = encode([trade(1, NOW_MS)])[1:-1]
    bad = good.replace(b'"price":11.0', b'"price":0')
    result = bench.send(b"[" + bad + b"," + good + b"]")
    assert [(index, error.reason) for index, _, error in result.refused] == [(0, "bad_row")]
    assert result.rows_in == 1


@pytest.mark.parametrize("value", [b"no json", b"\xff", b"{}"])
def test_a_value_that_is_no_batch_is_refused_and_leaves_the_state_alone(value: bytes) -> None:
    bench = Bench()
    with pytest.raises(ContractError, match="bad_json"):
        bench.send(value)
    assert bench.state == {}


def test_a_key_that_contradicts_the_rows_is_refused() -> None:
    bench = Bench()
    result = bench.send(encode([trade(1, NOW_MS)]), key=b"kraken:ETH/USD")
    assert [error.reason for _, _, error in result.refused] == ["bad_row"]
    with pytest.raises(ContractError, match="bad_key"):
        bench.send(encode([trade(1, NOW_MS)]), key=b"nonsense")


def test_a_trade_from_the_future_is_refused_and_does_not_make_others_late() -> None:
    bench = Bench()
    day_ahead = trade(1, NOW_MS + 86_400_000, received_at_ms=NOW_MS + 86_400_000)
    result = bench.send(encode([day_ahead, trade(2, NOW_MS)]))
    assert [error.reason for _, _, error in result.refused] == ["future_event"]
    assert bench.send(encode([trade(3, NOW_MS + 1)])).refused == []
    ahead_of_receipt = trade(4, NOW_MS, received_at_ms=NOW_MS - 5_001)
    assert [e.reason for _, _, e in bench.send(encode([ahead_of_receipt])).refused] == ["future_event"]


def test_a_heartbeat_from_the_future_is_refused() -> None:
    bench = Bench()
    with pytest.raises(ContractError, match="future_event"):
        bench.send(b"[]", timestamp_ms=NOW_MS + 5_001)
    assert bench.state == {}


def test_a_late_trade_is_refused_with_its_own_bytes_and_counted() -> None:
    bench = Bench()
    late = trade(1, NOW_MS - 600_000)
    result = bench.send(encode([trade(2, NOW_MS), late]))
    ((index, raw, error),) = result.refused
    assert (index, error.reason) == (1, "late")
    assert msgspec.json.decode(raw, type=list[Trade]) == [late]
    assert bench.metric("late_trades_total") == 1


def test_duplicates_are_counted_and_change_nothing() -> None:
    bench = Bench()
    value = encode([trade(1, NOW_MS - MINUTE_MS), trade(2, NOW_MS)])
    bench.send(value)
    before = dict(bench.state)
    result = bench.send(value)
    assert (result.outputs, bench.metric("duplicate_trades_total")) == ([], 2)
    assert bench.state == before


def test_a_heartbeat_closes_a_quiet_pairs_candle() -> None:
    bench = Bench(("1m",))
    bench.send(encode([trade(1, NOW_MS - 61_000)]))
    result = bench.send(b"[]", timestamp_ms=NOW_MS + 3_000)
    assert [row.trade_count for row in rows(result)] == [1, 0]
    assert result.rows_in == 0


def test_a_long_gap_is_sent_in_messages_of_bounded_size() -> None:
    bench = Bench(("1m",))
    result = bench.send(encode([trade(1, NOW_MS - 5_000 * MINUTE_MS), trade(2, NOW_MS)]))
    sizes = [len(DECODER.decode(value)) for value in result.outputs]
    assert max(sizes) == MAX_ROWS
    assert sum(sizes) == 4_999


def test_open_candles_are_sent_as_such() -> None:
    bench = Bench(("1m", "1d"), Rules(update_every_ms=100))
    result = bench.send(encode([trade(1, NOW_MS)]))
    assert [(row.timeframe, row.closed) for row in rows(result)] == [("1m", False), ("1d", False)]
