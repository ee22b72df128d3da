"""Dead letters go back to their topics once, as they were."""

import sys
import time
from collections import Counter
from subprocess import run
from typing import NamedTuple

import pytest

from services.common.broker import EmbeddedBroker
from services.common.dead_letters import REDRIVEN_HEADER, dead_letter, redrive
from services.common.errors import ContractError
from services.common.messages import DeadLetter, encode
from tests.common.support import KEY, Bus, Record

NOW_MS = time.time_ns() // 1_000_000


def refuse(
    bus: Bus, offset: int, *, reason: str = "late", version: str | None = "1", **fields: object
) -> bytes:
    """Put the dead letter of a message on the bus; returns its key."""
    position, value = dead_letter(
        ContractError(reason),
        service="test",
        topic=str(fields.get("topic", bus.settings.topic("trades"))),
        partition=0 if "topic" not in fields else -1,
        offset=offset,
        key=KEY if fields.get("keyed", True) else None,
        value=b"\xff" + str(offset).encode(),
        timestamp_ms=NOW_MS - 60_000 + offset,
        schema_version=version,
    )
    bus.send("dead_letters", value, position)
    return position


class Redriven(NamedTuple):
    counts: list[Counter[str]]
    sent: list[list[Record]]


@pytest.fixture(scope="module")
def redriven(broker: EmbeddedBroker) -> Redriven:
    """Letters after a dry run, a run, and a second run."""
    bus = Bus(broker.address, "_redrive")
    refuse(bus, 0)
    refuse(bus, 0)
    refuse(bus, 1, version="2", reason="unknown_version")
    refuse(bus, 2, version=None, keyed=False)
    refuse(bus, 3, topic="kraken websocket", reason="bad_frame")
    ahead = DeadLetter(
        topic=bus.settings.topic("trades"),
        partition=0,
        offset=4,
        row=None,
        key=KEY,
        value=b"refused again meanwhile",
        schema_version="1",
        reason="late",
        detail="",
        service="test",
        timestamp_ms=NOW_MS,
        dead_at_ms=NOW_MS + 3_600_000,
    )
    bus.send("dead_letters", encode([ahead]), b"trades_redrive/0/4")
    counts, sent = [], []
    for dry_run in (True, False, False):
        counts.append(redrive(bus.settings, reason=None, dry_run=dry_run, idle_s=0.3))
        sent.append(bus.read("trades"))
    return Redriven(counts, sent)


def test_a_dry_run_counts_and_sends_nothing(redriven: Redriven) -> None:
    assert redriven.counts[0] == redriven.counts[1]
    assert redriven.sent[0] == []


def test_letters_are_counted_by_topic_and_reason(redriven: Redriven) -> None:
    assert redriven.counts[1] == {
        "trades_redrive late": 2,
        "trades_redrive unknown_version": 1,
        "kraken websocket bad_frame (not redriven: came from no topic)": 1,
    }


def test_a_redriven_message_is_the_one_that_was_refused(redriven: Redriven) -> None:
    by_value = {record.value or b"": record for record in redriven.sent[1]}
    assert set(by_value) == {b"\xff0", b"\xff1", b"\xff2"}
    assert [by_value[value].key for value in sorted(by_value)] == [KEY, KEY, None]
    times = [by_value[value].timestamp_ms - NOW_MS for value in sorted(by_value)]
    assert times == [-60_000, -59_999, -59_998]


def test_a_redriven_message_has_its_schema_version_and_says_where_it_was(redriven: Redriven) -> None:
    headers = {record.value: record.headers for record in redriven.sent[1]}
    assert headers == {
        b"\xff0": {REDRIVEN_HEADER: b"trades_redrive/0/0", "schema_version": b"1"},
        b"\xff1": {REDRIVEN_HEADER: b"trades_redrive/0/1", "schema_version": b"2"},
        b"\xff2": {REDRIVEN_HEADER: b"trades_redrive/0/2"},
    }


def test_a_letter_is_sent_once_over_two_runs(redriven: Redriven) -> None:
    assert redriven.sent[2] == redriven.sent[1]
    assert len(redriven.sent[1]) == 3


def test_what_is_refused_during_a_run_waits_for_the_next(redriven: Redriven) -> None:
    assert b"refused again meanwhile" not in [record.value for record in redriven.sent[2]]


def test_only_the_letters_with_the_asked_reason_are_redriven(broker: EmbeddedBroker) -> None:
    bus = Bus(broker.address, "_reason")
    refuse(bus, 0, reason="bad_json")
    refuse(bus, 1)
    counts = redrive(bus.settings, reason="late", dry_run=False, idle_s=0.3)
    assert counts == {"trades_reason late": 1}
    assert [record.value for record in bus.read("trades", 1)] == [b"\xff1"]


def test_without_a_broker_the_command_ends_with_1_and_says_what_to_do() -> None:
    env = {"KAFKA_BROKERS": "127.0.0.1:1", "KAFKA_CONNECT_TIMEOUT_S": "0.2"}
    command = [sys.executable, "-m", "services.common.dead_letters", "--dry-run"]
    ended = run(command, env=env, capture_output=True, text=True, timeout=30)
    assert ended.returncode == 1
    assert "redrive: no broker answers at 127.0.0.1:1; set KAFKA_BROKERS" in ended.stderr
