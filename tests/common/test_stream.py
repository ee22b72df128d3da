"""A stream on the embedded broker: what is refused, what is passed on, and what a restart repeats."""

import json
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from confluent_kafka import KafkaError
from quixstreams.kafka.exceptions import KafkaProducerDeliveryError

from services.common.broker import EmbeddedBroker
from services.common.errors import ContractError, MessageTooLargeError
from services.common.messages import DeadLetter, Trade, batch_headers, decode_rows, split_key
from services.common.settings import MIN_MESSAGE_BYTES
from services.common.step import Message, State, StepResult
from tests.common.support import KEY, Bus, Harness, Record

HEADERS = batch_headers(1_700_000_000_000)
OTHER_VERSION = [("schema_version", b"2"), ("received_at_ms", b"7")]
#: value, key, headers and, for those that are refused, why; all go to partition 0, in this order.
STORY: list[tuple[bytes | None, bytes | None, list[tuple[str, bytes]], str | None]] = [
    (b"[1]", KEY, HEADERS, None),
    (None, KEY, HEADERS, None),
    (None, None, HEADERS, None),
    (b"no json", KEY, HEADERS, "bad_json"),
    (b"\xff\xfe", KEY, HEADERS, "bad_json"),
    (b"[2]", KEY, OTHER_VERSION, "unknown_version"),
    (b"[2]", None, HEADERS, "null_key"),
    (b"[2]", b"BTC", HEADERS, "bad_key"),
    (b'[2,"bad"]', KEY, HEADERS, "bad_row"),
    (b"[3]", KEY, [], None),
]
REFUSED = [(offset, *said) for offset, said in enumerate(STORY) if said[3] is not None]


def counting(message: Message, state: State) -> StepResult:
    """Say how many messages of its key were good; refuses the rows that are no numbers."""
    split_key(message.key)
    try:
        rows = json.loads(message.value)
    except ValueError as error:
        raise ContractError("bad_json", str(error)) from error
    number = int(state.get_bytes("n") or 0) + 1
    state.set_bytes("n", str(number).encode())
    result = StepResult(outputs=[str(number).encode()], rows_in=len(rows), rows_out=1)
    for index, row in enumerate(rows):
        if not isinstance(row, int):
            result.refused.append((index, json.dumps([row]).encode(), ContractError("bad_row", "no number")))
    return result


class Told(NamedTuple):
    first: Harness
    second: Harness
    outputs: list[Record]
    letters: list[tuple[bytes, DeadLetter]]
    began_ms: int


@pytest.fixture(scope="module")
def told(broker: EmbeddedBroker, tmp_path_factory: pytest.TempPathFactory) -> Told:
    """The story, read by one group and then by another, as if nothing had been committed."""
    began_ms = time.time_ns() // 1_000_000
    bus = Bus(broker.address, "_told")
    for offset, (value, key, headers, _) in enumerate(STORY):
        bus.send("trades", value, key, headers=headers, timestamp_ms=1_700_000_000_000 + offset)
    harnesses = []
    for group in ("first", "second"):
        harness = Harness(bus, tmp_path_factory.mktemp(group), counting, group=group)
        harness.run_until(partial(harness.has_processed, 3))
        harnesses.append(harness)
    return Told(harnesses[0], harnesses[1], bus.read("candles", 6), bus.letters(12), began_ms)


def test_a_null_value_is_ignored_and_counted(told: Told) -> None:
    assert told.first.count("null_values_total", topic="trades") == 2


def test_the_stream_goes_on_after_every_refused_message(told: Told) -> None:
    assert told.first.count("rows_in_total", topic="trades") == 4
    assert [record.key for record in told.outputs] == [KEY] * 6


def test_a_refused_message_leaves_the_state_untouched(told: Told) -> None:
    # Three messages of this key were refused whole in between, and the counter does not know of them.
    assert [record.value for record in told.outputs] == [b"1", b"2", b"3"] * 2


@pytest.mark.parametrize("said", REFUSED, ids=lambda said: f"{said[4]}-{said[0]}")
def test_a_refused_message_becomes_a_dead_letter_that_says_it_all(
    told: Told, said: tuple[int, bytes | None, bytes | None, list[tuple[str, bytes]], str]
) -> None:
    offset, value, key, headers, reason = said
    letter = next(letter for _, letter in told.letters if letter.offset == offset)
    assert (letter.topic, letter.partition, letter.reason) == ("trades_told", 0, reason)
    assert (letter.key, letter.timestamp_ms) == (key, 1_700_000_000_000 + offset)
    assert letter.schema_version == dict(headers)["schema_version"].decode()
    assert letter.service == "test"
    assert told.began_ms <= letter.dead_at_ms <= time.time_ns() // 1_000_000
    if reason == "bad_row":
        assert (letter.row, letter.value) == (1, b'["bad"]')
    else:
        assert (letter.row, letter.value) == (None, value)


def test_refusals_are_counted_by_reason(told: Told) -> None:
    for reason, count in {"bad_json": 2, "null_key": 1, "bad_key": 1, "unknown_version": 1}.items():
        assert told.first.count("dead_letters_total", reason=reason) == count


def test_headers_are_passed_on_to_outputs_but_not_to_dead_letters(told: Told, broker: EmbeddedBroker) -> None:
    assert [record.headers for record in told.outputs[:3]] == [dict(HEADERS), dict(HEADERS), {}]
    assert [record.headers for record in Bus(broker.address, "_told").read("dead_letters")] == [{}] * 12


def test_outputs_are_stamped_when_they_are_made_however_old_their_input_is(told: Told) -> None:
    now_ms = time.time_ns() // 1_000_000
    assert all(told.began_ms <= record.timestamp_ms <= now_ms for record in told.outputs)


def test_a_redelivered_poison_message_has_the_same_dead_letter_key(told: Told) -> None:
    keys = [key for key, _ in told.letters]
    assert all(keys.count(key) == 2 for key in keys)
    assert set(keys) == {
        f"trades_told/0/{offset}{'/1' if reason == 'bad_row' else ''}".encode()
        for offset, _, _, _, reason in REFUSED
    }


def test_a_message_of_the_largest_size_fits_into_a_dead_letter(
    broker: EmbeddedBroker, tmp_path: Path
) -> None:
    # In base64 it is a third longer; were the limits the same, it would end the service at each start.
    bus = Bus(broker.address, "_large", KAFKA_MAX_MESSAGE_BYTES="1000000")
    bus.send("trades", b"x" * 990_000)
    harness = Harness(bus, tmp_path, counting)
    harness.run_until(lambda: harness.count("dead_letters_total", reason="bad_json") == 1)
    ((_, letter),) = bus.letters(1)
    assert len(letter.value) == 990_000


SMALL = {"KAFKA_MAX_MESSAGE_BYTES": str(MIN_MESSAGE_BYTES)}


def test_an_output_larger_than_a_message_is_split_and_a_row_larger_than_one_set_aside(
    broker: EmbeddedBroker, tmp_path: Path
) -> None:
    bus = Bus(broker.address, "_split", **SMALL)
    rows: list[str] = [f"{number}" * 2_000 for number in range(1_000)]
    rows.insert(500, "huge" * 60_000)
    bus.send("trades", b"[1]", headers=HEADERS)
    bus.send("trades", b"[2]", headers=HEADERS)

    def step(message: Message, state: State) -> StepResult:
        if message.value == b"[2]":
            return StepResult(outputs=[b"[]"], rows_in=1)
        return StepResult(outputs=[json.dumps(rows).encode()], keyed_outputs=[(b"other", b"[7]")], rows_in=1)

    harness = Harness(bus, tmp_path, step, stateful=False)
    harness.run_until(partial(harness.has_processed, 2))
    records = bus.read("candles", 10)
    sent = [row for record in records if record.key == KEY for row in json.loads(record.value or b"")]
    assert sent == rows[:500] + rows[501:]
    assert max(len(record.value or b"") for record in records) < MIN_MESSAGE_BYTES
    assert [record.value for record in records if record.key == b"other"] == [b"[7]"]
    assert all(record.headers == dict(HEADERS) for record in records)
    ((_, letter),) = bus.letters(1)
    assert (letter.topic, letter.partition, letter.reason) == ("candles_split", -1, "too_large")
    assert letter.detail == "a row of 240004 bytes; KAFKA_MAX_MESSAGE_BYTES is 200000; cut from 240004 bytes"
    assert letter.value == json.dumps(["huge" * 60_000]).encode()[:MIN_MESSAGE_BYTES]
    assert harness.count("dead_letters_total", reason="too_large") == 1


def test_a_bad_message_larger_than_ours_may_be_is_a_letter_with_its_beginning(
    broker: EmbeddedBroker, tmp_path: Path
) -> None:
    """As from a service that is allowed larger messages than this one."""
    large = Bus(broker.address, "_larger")
    large.send("trades", b"x" * 900_000)
    # The decoder's words repeat what it found.
    large.send("trades", b'[{"side":"' + b"x" * 900_000 + b'"}]')
    small = Bus(broker.address, "_larger", **SMALL)

    def step(message: Message, state: State) -> StepResult:
        good, refused = decode_rows(Trade, message.key, message.value)
        return StepResult(refused=refused, rows_in=len(good))

    harness = Harness(small, tmp_path, step, stateful=False)
    harness.run_until(lambda: harness.count("dead_letters_total", reason="bad_row") == 1)
    (_, whole), (_, row) = small.letters(2)
    assert (whole.value, whole.offset) == (b"x" * MIN_MESSAGE_BYTES, 0)
    assert whole.detail.endswith("; cut from 900000 bytes")
    assert (len(row.value), row.row) == (MIN_MESSAGE_BYTES, 0)
    assert row.detail.startswith("Invalid enum value 'xxx")
    assert len(row.detail) < 600


def test_an_output_that_its_topic_refuses_ends_the_stream_with_what_to_set(
    broker: EmbeddedBroker, tmp_path: Path
) -> None:
    stream = Harness(Bus(broker.address, "_refused"), tmp_path, counting)._stream

    # The embedded broker keeps no limits; this is what the engine raises where another refuses.
    def refused() -> None:
        raise KafkaProducerDeliveryError(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))

    setattr(stream.app, "run", refused)  # noqa: B010
    with pytest.raises(MessageTooLargeError, match=r"set KAFKA_MAX_MESSAGE_BYTES .* max\.message\.bytes"):
        stream.run()


def test_offsets_are_committed_only_after_a_flush_that_succeeded(
    broker: EmbeddedBroker, tmp_path: Path
) -> None:
    bus = Bus(broker.address, "_flush")
    bus.send("trades", b"[1]")
    events: list[str] = []

    def step(message: Message, state: State) -> StepResult:
        events.append("step")
        return StepResult(rows_in=1)

    def fail() -> None:
        events.append(f"flush at {bus.committed('g', 'trades')}")
        if "step" in events:
            raise OSError("disk full")

    harness = Harness(bus, tmp_path, step, stateful=False, flush=fail)
    with pytest.raises(OSError, match="disk full"):
        harness.run_until(lambda: False)
    assert bus.committed("g", "trades") < 0

    def flush() -> None:
        events.append(f"flush at {bus.committed('g', 'trades')}")

    events.clear()
    again = Harness(bus, tmp_path, step, stateful=False, flush=flush)
    again.run_until(lambda: bus.committed("g", "trades") == 1)
    # The message came again, and its flush saw no commit yet.
    assert events[events.index("step") + 1].startswith("flush at -")
