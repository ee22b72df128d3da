"""The contracts refuse what is wrong, keep what is good, and do not change under readers."""

import json
from typing import Any

import msgspec
import pytest

from docs.generate import ROOT, env_example, schema_text
from services.common.columns import INDICATOR_NAMES, TA_COLUMNS
from services.common.errors import ContractError
from services.common.messages import (
    Candle,
    TaRow,
    Trade,
    batch_headers,
    check_candle,
    check_trade,
    check_version,
    decode_rows,
    encode,
    received_at_ms,
    row_decoder,
    split_key,
)
from services.common.schemas import ROWS, breaking_changes, file_name, schema
from services.common.timeframes import MINUTE_MS

KEY = b"kraken:BTC/USD"
TRADE = Trade("kraken", "BTC/USD", 7, "buy", 10.5, 0.25, 1_700_000_000_000, 1_700_000_000_100)
CANDLE = Candle("kraken", "BTC/USD", "1m", 0, MINUTE_MS, 10.0, 12.0, 9.0, 11.0, 2.0, 10.5, 0.5, 3, True, 0)


def changed(row: Any, **fields: Any) -> bytes:
    return json.dumps([msgspec.to_builtins(row) | fields]).encode()


def test_a_batch_comes_back_as_it_went() -> None:
    assert row_decoder(Trade, KEY).decode(encode([TRADE]))[0].price == TRADE.price
    assert decode_rows(Candle, KEY, encode([CANDLE]), check_candle)[1] == []


@pytest.mark.parametrize(
    "fields",
    [
        {"price": 0},
        {"price": -1.0},
        {"price": "10"},
        {"price": None},
        {"quantity": 0},
        {"side": "bid"},
        {"pair": "ETH/USD"},
        {"exchange": "binance"},
        {"trade_id": -1},
        {"trade_id": 2**64},
        {"event_time_ms": 1.5},
        {"event_time_ms": 10**15},
    ],
)
def test_a_trade_with_a_wrong_field_is_refused_alone(fields: dict[str, Any]) -> None:
    bad = changed(TRADE, **fields)[1:-1]
    value = b"[" + bad + b"," + encode(TRADE) + b"]"
    good, refused = decode_rows(Trade, KEY, value)
    assert [row.trade_id for row in good] == [7]
    ((index, raw, error),) = refused
    assert (index, raw, error.reason) == (0, b"[" + bad + b"]", "bad_row")


@pytest.mark.parametrize("number", ["NaN", "1e999", "Infinity", "-Infinity"])
def test_a_number_that_is_none_is_refused(number: str) -> None:
    text = encode([TRADE]).replace(b"10.5", number.encode())
    with pytest.raises(msgspec.DecodeError):
        row_decoder(Trade, KEY).decode(text)


@pytest.mark.parametrize("value", [b"", b"{", b"\xff\xfe", b"{}", b"3", b'[{"price":1}'])
def test_a_value_that_is_no_json_array_is_refused_whole(value: bytes) -> None:
    with pytest.raises(ContractError) as error:
        decode_rows(Trade, KEY, value)
    assert error.value.reason == "bad_json"


def test_invalid_utf8_in_a_row_is_refused() -> None:
    value = encode([TRADE]).replace(b"buy", b"\xff\xfe\xfd")
    assert len(decode_rows(Trade, KEY, value)[1]) == 1


def test_extra_fields_are_accepted() -> None:
    assert decode_rows(Trade, KEY, changed(TRADE, liquidity="m"))[1] == []


@pytest.mark.parametrize("key", [b"", b"kraken", b"kraken:btc/usd", b"KRAKEN:BTC/USD", b"kraken:XX", b"\xff"])
def test_a_key_that_names_no_series_is_refused(key: bytes) -> None:
    with pytest.raises(ContractError) as error:
        split_key(key)
    assert error.value.reason == "bad_key"


def test_a_trade_may_be_ahead_of_its_receipt_by_five_seconds_only() -> None:
    check_trade(msgspec.structs.replace(TRADE, event_time_ms=TRADE.received_at_ms + 5_000))
    with pytest.raises(ContractError, match="future_event"):
        check_trade(msgspec.structs.replace(TRADE, event_time_ms=TRADE.received_at_ms + 5_001))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"start_ms": 1, "end_ms": 60_001}, "unaligned"),
        ({"end_ms": 120_000}, "unaligned"),
        ({"timeframe": "5m"}, "unaligned"),
        ({"high": 10.5}, "bad_prices"),
        ({"low": 10.5}, "bad_prices"),
        ({"buy_volume": 3.0}, "bad_volume"),
        ({"vwap": None}, "bad_vwap"),
        ({"trade_count": 0}, "bad_vwap"),
    ],
)
def test_a_candle_that_contradicts_itself_is_refused(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(ContractError) as error:
        check_candle(msgspec.structs.replace(CANDLE, **fields))
    assert error.value.reason == reason


def test_an_unknown_schema_version_is_refused_and_a_missing_one_is_ours() -> None:
    check_version(None)
    check_version(batch_headers(5))
    with pytest.raises(ContractError, match="unknown_version"):
        check_version([("schema_version", b"2")])


def test_the_time_of_receipt_travels_in_the_headers() -> None:
    assert received_at_ms(batch_headers(1234)) == 1234
    assert received_at_ms([("received_at_ms", b"soon")]) is None


def test_the_ta_row_is_the_candle_and_one_nullable_field_for_each_indicator() -> None:
    fields = [field.name for field in msgspec.structs.fields(TaRow)]
    assert fields == [column.name for column in TA_COLUMNS]
    row = TaRow(*msgspec.structs.astuple(CANDLE))
    assert {getattr(row, name) for name in INDICATOR_NAMES} == {None}


@pytest.mark.parametrize("topic", ROWS)
def test_the_committed_schemas_are_those_of_the_code(topic: str) -> None:
    path = ROOT / "docs" / "schemas" / file_name(topic)
    assert path.read_text() == schema_text(topic), "run make docs"


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (lambda d: d["properties"].pop("price"), "price is gone"),
        (lambda d: d["properties"].update(price={"type": "string"}), "price was"),
        (lambda d: d["required"].append("fee"), "fee became required"),
        (lambda d: d["required"].remove("price"), "price may now be missing"),
    ],
)
def test_a_change_that_breaks_a_reader_is_found(edit: Any, problem: str) -> None:
    old = schema("trades")
    new = json.loads(json.dumps(old))
    new["$defs"]["Trade"]["properties"]["fee"] = {"type": "number"}
    assert breaking_changes(old, new) == []
    edit(new["$defs"]["Trade"])
    assert any(problem in found for found in breaking_changes(old, new))


def test_the_example_settings_are_those_of_the_code() -> None:
    assert (ROOT / ".env.example").read_text() == env_example(), "run make docs"
