"""The pipeline's step: what each bad input gets, and what is measured."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from services.common.errors import ContractError, StoreError
from services.common.health import Health
from services.common.messages import TaRow, batch_headers, check_candle, series_key
from services.common.metrics import Metrics
from services.common.step import Message, StepResult
from services.common.timeframes import TIMEFRAMES
from services.features.groups import TA
from services.features.pipeline import is_loopback
from services.features.steps import FeaturesStep, plausible
from services.features.stores.sqlite import SqliteStore
from tests.features.rows import MINUTE, T0, ta_row

NOW = T0 + 10_000 * MINUTE


class NoState:
    def get_bytes(self, key: str) -> bytes | None:
        raise AssertionError("this step keeps no state")

    def set_bytes(self, key: str, value: bytes) -> None:
        raise AssertionError("this step keeps no state")


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def step(store: SqliteStore, metrics: Metrics) -> Callable[[Message], StepResult]:
    made = FeaturesStep(TA, TaRow, store, metrics, Health(60), clock_ms=lambda: NOW)
    return lambda sent: made(sent, NoState())


def message(rows: Any, key: bytes | None = None, received_ms: int = T0) -> Message:
    """A message of rows, or of raw bytes."""
    if isinstance(rows, bytes):
        return Message(b"kraken:BTC/USD" if key is None else key, rows, T0, batch_headers(received_ms))
    if key is None:
        key = series_key(rows[0].exchange, rows[0].pair)
    return Message(key, msgspec.json.encode(rows), T0, batch_headers(received_ms))


def count(store: SqliteStore) -> int:
    (row,) = store.sql("SELECT count(*) FROM ta")[1]
    number: int = row[0]
    return number


def test_a_batch_is_stored_and_can_be_read_at_once(step: Any, store: SqliteStore) -> None:
    result = step(message([ta_row(i, rsi_14=50.5) for i in range(80)]))
    assert (result.rows_in, result.rows_out, result.refused, result.outputs) == (80, 80, [], [])
    assert count(store) == 80
    assert store.latest("BTC/USD", "1m")["rsi_14"] == 50.5  # type: ignore[index]


def test_an_empty_batch_is_nothing_to_write(step: Any, store: SqliteStore) -> None:
    assert step(message(b"[]", b"kraken:BTC/USD")) == StepResult()
    assert count(store) == 0


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"\xff\xfe", "bad_json"),
        (b"", "bad_json"),
        (b"{}", "bad_json"),
        (b"[1, 2", "bad_json"),
        (b"null", "bad_json"),
        (b'{"pair": "BTC/USD"}', "bad_json"),
    ],
)
def test_what_is_no_json_array_is_refused_whole(step: Any, value: bytes, reason: str) -> None:
    with pytest.raises(ContractError) as refused:
        step(message(value))
    assert refused.value.reason == reason


@pytest.mark.parametrize("key", [b"", b"BTC/USD", b"kraken:btc/usd", b"\xff", b"kraken:BTC/USD; DROP"])
def test_a_key_that_names_no_series_is_refused(step: Any, key: bytes) -> None:
    with pytest.raises(ContractError) as refused:
        step(message([ta_row(0)], key))
    assert refused.value.reason == "bad_key"


def broken(**values: Any) -> bytes:
    row = msgspec.to_builtins(ta_row(1))
    return msgspec.json.encode(row | values)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (broken(pair="ETH/USD"), "bad_row"),
        (broken(exchange="coinbase"), "bad_row"),
        (broken(timeframe="7m"), "bad_row"),
        (broken(close=-1.0), "bad_row"),
        (broken(close="100"), "bad_row"),
        (broken(closed=1), "bad_row"),
        (broken(revision=-1), "bad_row"),
        (broken(rsi_14="high"), "bad_row"),
        (broken(end_ms=10**18), "bad_row"),
        (b"7", "bad_row"),
        (broken(high=10.0), "bad_prices"),
        (broken(low=101.0, high=102.0), "bad_prices"),
        (broken(start_ms=T0 + 1), "unaligned"),
        (broken(end_ms=T0), "unaligned"),
        (broken(timeframe="1h"), "unaligned"),
        (broken(buy_volume=6.0), "bad_volume"),
        (broken(vwap=None), "bad_vwap"),
        (broken(trade_count=0), "bad_vwap"),
        (broken(start_ms=NOW + MINUTE, end_ms=NOW + 2 * MINUTE), "future_event"),
        (broken().replace(b'"close":100.0', b'"close":NaN'), "bad_json"),
        (broken().replace(b'"close":100.0', b'"close":1e999'), "bad_row"),
        (broken().replace(b'"close":100.0', b'"close":null'), "bad_row"),
    ],
)
def test_a_bad_row_is_refused_alone_and_the_others_are_stored(
    step: Any, store: SqliteStore, raw: bytes, reason: str
) -> None:
    good = msgspec.json.encode(ta_row(0))
    last = msgspec.json.encode(ta_row(2))
    if reason == "bad_json":
        # A value that is no JSON at all spoils the whole message.
        with pytest.raises(ContractError, match="bad_json"):
            step(message(b"[" + good + b"," + raw + b"]"))
        return
    result = step(message(b"[" + b",".join((good, raw, last)) + b"]"))
    assert [(index, error.reason) for index, _, error in result.refused] == [(1, reason)]
    assert result.refused[0][1] == b"[" + raw + b"]"
    assert count(store) == 2
    assert result.rows_in == 2


def test_extra_fields_are_accepted(step: Any, store: SqliteStore) -> None:
    step(message(b"[" + broken(moon_phase=0.5) + b"]"))
    assert count(store) == 1


def test_a_candle_of_now_is_not_from_the_future(step: Any) -> None:
    start = NOW - NOW % MINUTE
    row = ta_row(0, closed=False)
    row.start_ms, row.end_ms = start, start + MINUTE
    assert step(message([row])).refused == []


@pytest.mark.parametrize("timeframe", TIMEFRAMES)
def test_every_timeframe_is_stored(step: Any, store: SqliteStore, timeframe: str) -> None:
    result = step(message([ta_row(0, timeframe=timeframe)]))
    assert result.refused == []
    assert count(store) == 1


def test_the_quick_check_passes_nothing_that_the_full_one_refuses() -> None:
    for name, value in (
        ("start_ms", T0 + 1),
        ("end_ms", T0),
        ("high", 1.0),
        ("low", 1000.0),
        ("open", 1000.0),
        ("close", 1000.0),
        ("buy_volume", 99.0),
        ("vwap", None),
        ("trade_count", 0),
    ):
        row = ta_row(0)
        setattr(row, name, value)
        with pytest.raises(ContractError):
            check_candle(row)
        assert not plausible([ta_row(1), row], NOW)
    assert plausible([ta_row(i, timeframe=t) for i in range(3) for t in ("1m", "4h", "1d")], NOW)


def test_latency_runs_from_the_frame_to_the_row(step: Any, metrics: Metrics) -> None:
    step(message([ta_row(0)], received_ms=NOW - 70))
    value = metrics.registry.get_sample_value
    assert value("frame_to_row_seconds_sum") == pytest.approx(0.07)
    assert value("frame_to_row_seconds_bucket", {"le": "0.08"}) == 1
    assert value("frame_to_row_seconds_bucket", {"le": "0.06"}) == 0
    assert value("store_write_seconds_count") == 1
    assert value("last_write_success_timestamp_seconds") == NOW / 1000
    assert value("last_event_timestamp_seconds", {"exchange": "kraken"}) == (T0 + MINUTE) / 1000


def test_a_message_without_the_header_is_stored_and_not_measured(step: Any, metrics: Metrics) -> None:
    step(message([ta_row(0)])._replace(headers=None))
    assert metrics.registry.get_sample_value("frame_to_row_seconds_count") == 0


def test_a_store_that_fails_ends_the_stream_and_is_not_ready(store: SqliteStore) -> None:
    health = Health(60)
    step = FeaturesStep(TA, TaRow, store, Metrics(), health, clock_ms=lambda: NOW)
    store._writer.execute("DROP TABLE ta_1_online")
    with pytest.raises(StoreError):
        step(message([ta_row(0)]), NoState())
    assert any("store" in reason for reason in health.not_ready())
    assert count(store) == 0


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("10.0.0.5", False)],
)
def test_loopback_addresses_are_told_from_open_ones(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
