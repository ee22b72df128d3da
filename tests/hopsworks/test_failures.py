"""When something fails on the way to Hopsworks: a clear error, no secret in it, and no row lost."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from services.common.broker import EmbeddedBroker
from services.common.errors import StoreError
from services.features.groups import TA
from services.features.settings import FeaturesSettings
from services.features.stores import hopsworks
from services.features.stores.hopsworks import HopsworksStore
from services.features.stores.hopsworks_client import RemoteGroup
from tests.features.rows import make_store, ta_row, tuples
from tests.hopsworks import deadly_process
from tests.hopsworks.certificates import make_certificates
from tests.hopsworks.conftest import environment, open_groups
from tests.hopsworks.model import Model, read_topic
from tests.hopsworks.stub import API_KEY, CERTIFICATE_PASSWORD, Fault, Stub

ROOT = Path(__file__).parents[2]
LOGIN = "getProjectInfo"
#: What a commit with rows asks for first.
COMMIT = "kafka_connector"


def refused(settings: FeaturesSettings) -> str:
    """The error with which the store does not open, without secrets."""
    with pytest.raises(StoreError) as error:
        open_groups(settings)
    text = str(error.value)
    assert API_KEY not in text
    assert CERTIFICATE_PASSWORD not in text
    assert error.value.__cause__ is None, "what a log shows of a cause is the server's"
    return text


def changed(settings: FeaturesSettings, **values: Any) -> FeaturesSettings:
    return settings.model_copy(update=values)


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (401, "refused the API key; set FEATURES_HOPSWORKS_API_KEY"),
        (403, "takes the scopes featurestore, project, job and kafka"),
        (404, "see that FEATURES_HOPSWORKS_PROJECT exists"),
        (500, "failed; see its log, or try again later"),
        (503, "failed; see its log, or try again later"),
    ],
)
@pytest.mark.parametrize("called", [LOGIN, "POST .*featuregroups$", "POST .*featureview$", "schedule"])
def test_an_answer_that_is_no_success_is_one_clear_error(
    settings: FeaturesSettings, stub: Stub, status: int, says: str, called: str
) -> None:
    stub.faults.append(Fault(called, status))
    text = refused(settings)
    assert says in text
    # What the server says is told, without the key that it repeats.
    assert f"(HTTP {status}: no, ApiKey ***)" in text
    assert f"127.0.0.1:{stub.port}" in text


def test_a_wrong_key_a_wrong_project_and_a_wrong_port_are_told_apart(
    settings: FeaturesSettings, certificates: tuple[Path, Path], tmp_path: Path, stub: Stub
) -> None:
    for change, says in (
        ({"FEATURES_HOPSWORKS_API_KEY": "nonsense"}, "refused the API key"),
        ({"FEATURES_HOPSWORKS_PROJECT": "another"}, "FEATURES_HOPSWORKS_PROJECT exists"),
        ({"FEATURES_HOPSWORKS_PORT": str(free_port())}, "cannot be reached"),
        ({"FEATURES_HOPSWORKS_HOST": "does-not-exist.invalid"}, "cannot be reached"),
        ({"FEATURES_HOPSWORKS_CA_FILE": str(tmp_path / "none.pem")}, "there is no file"),
    ):
        settings = FeaturesSettings.load(environment(stub, certificates[0], tmp_path, **change))
        assert says in refused(settings)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_a_server_that_is_silent_is_left_after_the_time_out(settings: FeaturesSettings, stub: Stub) -> None:
    stub.faults.append(Fault(LOGIN, delay_s=60))
    begun = time.monotonic()
    text = refused(changed(settings, hopsworks_timeout_s=0.5))
    assert "did not answer within 0.5 s" in text
    assert time.monotonic() - begun < 10


def test_a_server_that_takes_no_connection_is_left_after_the_time_out(settings: FeaturesSettings) -> None:
    # It listens and never speaks TLS.
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        begun = time.monotonic()
        text = refused(changed(settings, hopsworks_timeout_s=0.5, hopsworks_port=port))
    assert "did not answer within 0.5 s" in text
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize("switched_off", [False, True])
def test_a_certificate_of_another_authority_is_refused(
    settings: FeaturesSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stub: Stub,
    switched_off: bool,
) -> None:
    if switched_off:
        # To the client this counts more than what it is told.
        monkeypatch.setenv("HOPSWORKS_HOSTNAME_VERIFICATION", "false")
    other, _ = make_certificates(tmp_path / "other")
    for ca_file in (None, other):
        text = refused(changed(settings, hopsworks_ca_file=ca_file))
        assert "not trusted or is for another name" in text
        assert "FEATURES_HOPSWORKS_CA_FILE" in text
    # The key was never sent to whoever that is.
    assert stub.requests == []
    assert os.environ.get("HOPSWORKS_HOSTNAME_VERIFICATION") == ("false" if switched_off else None)


def test_a_certificate_for_another_host_is_refused(
    tmp_path: Path, broker: EmbeddedBroker, settings: FeaturesSettings
) -> None:
    ca_file, server_file = make_certificates(tmp_path / "other", "127.0.0.9")
    with Stub(server_file, broker.address) as stub:
        text = refused(changed(settings, hopsworks_port=stub.port, hopsworks_ca_file=ca_file))
        assert "not trusted or is for another name" in text
        assert stub.requests == []


def test_a_folder_for_certificates_that_cannot_be_made_is_one_clear_error(
    settings: FeaturesSettings, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot keep certificates in"):
        open_groups(changed(settings, state_dir=tmp_path / "file"))


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Fault(COMMIT, 401), "refused the API key"),
        (Fault(COMMIT, 500), "HTTP 500"),
        (Fault(COMMIT, delay_s=60), "did not answer within"),
        (Fault("online_ingestion", 500), "HTTP 500"),
        (Fault("subjects", 404), "HTTP 404"),
    ],
)
def test_rows_of_a_commit_that_fails_wait_and_go_with_the_next(
    settings: FeaturesSettings, stub: Stub, fault: Fault, says: str
) -> None:
    with open_groups(changed(settings, hopsworks_timeout_s=1.0)) as store:
        stub.faults.append(fault)
        store.write(TA, tuples([ta_row(0)]))
        with pytest.raises(StoreError, match=says) as error:
            store.flush()
        assert API_KEY not in str(error.value)
        store.write(TA, tuples([ta_row(1)]))
        # They can be read all the same.
        assert store.history("BTC/USD", "1m").num_rows == 2
        assert read_topic(stub, TA) == []
        stub.faults.clear()
        store.flush()
        assert len(Model(TA, read_topic(stub, TA)).offline) == 2


def test_rows_of_a_store_that_was_closed_while_hopsworks_was_away_go_after_the_next_start(
    settings: FeaturesSettings, stub: Stub
) -> None:
    with open_groups(settings) as store:
        stub.faults.append(Fault(COMMIT, 500))
        store.write(TA, tuples([ta_row(0)]))
        with pytest.raises(StoreError):
            store.flush()
        before = len(stub.requests)
    # Closing does not try again what just failed.
    assert len(stub.requests) == before
    stub.faults.clear()
    with open_groups(settings) as store:
        store.flush()
    assert len(Model(TA, read_topic(stub, TA)).offline) == 1


def test_rows_that_were_lost_on_the_way_before_a_failure_go_again_with_the_others(
    settings: FeaturesSettings, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hopsworks, "SEND_ROWS", 10)
    insert, frames = RemoteGroup.insert, 0

    def lose_then_fail(group: RemoteGroup, frame: Any) -> None:
        nonlocal frames
        frames += 1
        if frames == 2:
            # As the client does when it hears of the first frame's fate.
            raise StoreError("not delivered")
        if frames > 2:
            insert(group, frame)

    monkeypatch.setattr(RemoteGroup, "insert", lose_then_fail)
    with open_groups(settings) as store:
        with pytest.raises(StoreError, match="not delivered"):
            store.write(TA, tuples(ta_row(i) for i in range(25)))
        store.flush()
    assert len(Model(TA, read_topic(stub, TA)).offline) == 25


def test_a_backlog_that_fails_in_its_midst_goes_on_where_it_was(
    settings: FeaturesSettings, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hopsworks, "SEND_ROWS", 10)
    monkeypatch.setattr(hopsworks, "BACKLOG_ROWS", 20)
    with make_store(settings.store_path) as sqlite:
        sqlite.write(TA, tuples(ta_row(i) for i in range(50)))
    insert, frames = RemoteGroup.insert, 0

    def fail_once(group: RemoteGroup, frame: Any) -> None:
        nonlocal frames
        frames += 1
        if frames == 4:
            raise StoreError("broken off")
        insert(group, frame)

    monkeypatch.setattr(RemoteGroup, "insert", fail_once)
    with open_groups(settings) as store:
        _, outbox = store._outboxes[TA.table]
        store.flush()
        with pytest.raises(StoreError, match="broken off"):
            store.flush()
        assert outbox.waiting() == 30
        store.flush()
        store.flush()
        assert outbox.waiting() == 0
    assert len(Model(TA, read_topic(stub, TA)).offline) == 50


def test_rows_wait_while_the_broker_is_away(
    certificates: tuple[Path, Path], tmp_path: Path, settings: FeaturesSettings
) -> None:
    broker = EmbeddedBroker()
    with Stub(certificates[1], broker.address) as stub:
        with (
            broker,
            open_groups(changed(settings, hopsworks_port=stub.port, hopsworks_timeout_s=2.0)) as store,
        ):
            store.write(TA, tuples([ta_row(0)]))
            store.flush()
            assert len(read_topic(stub, TA)) == 1
            broker.stop()
            store.write(TA, tuples([ta_row(1)]))
            begun = time.monotonic()
            with pytest.raises(StoreError, match="Kafka that did not take the rows"):
                store.flush()
            assert time.monotonic() - begun < 20
        # The embedded broker forgot everything; what it had taken is no longer our matter.
        with EmbeddedBroker(broker.port) as again:
            admin = AdminClient({"bootstrap.servers": again.address})
            for group in stub.groups.values():
                # The client that waited may have asked for one already.
                with suppress(KafkaException):
                    topic = group["onlineTopicName"]
                    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(20)
            with open_groups(changed(settings, hopsworks_port=stub.port)) as store:
                store.flush()
            ends = [row["end_ms"] for row in Model(TA, read_topic(stub, TA)).offline.values()]
            assert ends == [ta_row(1).end_ms]


@pytest.mark.parametrize("point", ["stored", "handed", "delivered"])
def test_a_kill_at_any_point_repeats_rows_and_loses_none(
    settings: FeaturesSettings, stub: Stub, certificates: tuple[Path, Path], tmp_path: Path, point: str
) -> None:
    for first in (0, 5):
        ran = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "tests.hopsworks.deadly_process", point, str(first)],
            env=os.environ | environment(stub, certificates[0], tmp_path),
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=False,
            timeout=60,
        )
        assert ran.returncode == -signal.SIGKILL, ran.stderr
    with open_groups(settings) as store:
        store.flush()
        assert [outbox.waiting() for _, outbox in store._outboxes.values()] == [0, 0, 0]
    records = read_topic(stub, TA)
    model = Model(TA, records)
    expected = [100.0 + i for i in range(2 * deadly_process.ROWS)]
    assert sorted(row["close"] for row in model.offline.values()) == expected
    assert [row["close"] for row in model.online.values()] == expected[-1:]
    if point == "delivered":
        assert len(records) > len(expected)


def test_a_store_without_the_lock_of_its_copy_does_not_log_in(
    store: HopsworksStore, settings: FeaturesSettings, stub: Stub
) -> None:
    before = len(stub.requests)
    with pytest.raises(StoreError, match="another process"):
        HopsworksStore(settings.store_path, settings=settings)
    assert len(stub.requests) == before
