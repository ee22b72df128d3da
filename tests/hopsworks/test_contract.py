"""The real client against a stub of Hopsworks and a real broker: what it is told, and which rows arrive."""

import stat
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from loguru import logger

from services.common.errors import SchemaMismatchError, StoreError
from services.features import migrate as migrate_command
from services.features.groups import GROUPS, NEWS_SIGNALS, SENTIMENT, TA
from services.features.sentiment import SentimentWriter
from services.features.settings import FeaturesSettings
from services.features.stores import hopsworks
from services.features.stores.contract import Store
from services.features.stores.hopsworks import DAY_MS, HopsworksStore
from services.features.stores.sqlite_migrate import migrate
from services.features.stores.sqlite_roll import Roll
from services.features.stores.sqlite_schema import working_copies
from tests.features.rows import MINUTE, T0, make_store, signal, ta_row, tuples
from tests.hopsworks.conftest import open_groups
from tests.hopsworks.model import Model, read_topic
from tests.hopsworks.stub import Stub


def write_market_and_news(store: Store) -> None:
    """Corrections, an open candle, quiet ones, two exchanges, late and repeated news."""
    for pair, exchange in (("BTC/USD", "kraken"), ("ETH/USD", "kraken"), ("BTC/USD", "zeta")):
        rows = [
            ta_row(i, pair=pair, exchange=exchange, close=100 / (i + 1), rsi_14=i or None) for i in range(30)
        ]
        store.write(TA, tuples([*rows, ta_row(30, pair=pair, exchange=exchange, closed=False)]))
        quiet: dict[str, Any] = {"vwap": None, "trade_count": 0, "volume": 0.0, "buy_volume": 0.0}
        store.write(TA, tuples([ta_row(7, pair=pair, exchange=exchange, close=7.5, revision=1, **quiet)]))
    store.write(TA, tuples([ta_row(0, timeframe="1M"), ta_row(1, timeframe="1M")]))
    writer = SentimentWriter(store, lambda: T0 + 90 * MINUTE)
    writer.write("BTC", [signal(i * MINUTE, f"s{i}", (i - 5) / 10) for i in range(10)])
    writer.write("BTC", [signal(3 * MINUTE + 1, "late", 1.0), signal(MINUTE, "s1", -1.0)])
    # Two stories of one moment.
    writer.write("ETH", [signal(MINUTE, "a", coin="ETH"), signal(MINUTE, "b", coin="ETH")])
    store.flush()


@pytest.mark.parametrize("name", GROUPS)
def test_the_rows_in_the_topic_are_those_of_the_sqlite_store(
    store: HopsworksStore, stub: Stub, tmp_path: Path, name: str
) -> None:
    group = GROUPS[name]
    write_market_and_news(store)
    with make_store(tmp_path / "sqlite") as sqlite:
        write_market_and_news(sqlite)
        names, expected = sqlite.sql(f"SELECT * FROM {group.name} ORDER BY {', '.join(group.primary_key)}")
    assert expected
    table = Model(group, read_topic(stub, group)).offline
    rows = sorted(table.values(), key=lambda row: tuple(row[name] for name in group.primary_key))
    assert [tuple(row[name] for name in names) for row in rows] == expected
    # In the types of the group, not ones that merely compare equal.
    for row in rows:
        for column in group.stored:
            kinds = {"text": str, "int": int, "float": float, "bool": bool}
            assert row[column.name] is None or type(row[column.name]) is kinds[column.kind]


def test_groups_are_made_with_keys_formats_and_descriptions(store: HopsworksStore, stub: Stub) -> None:
    made = {name: group for (name, _), group in stub.groups.items()}
    assert set(made) == set(GROUPS)
    for name, group in made.items():
        described = {feature["name"]: feature for feature in group["features"]}
        assert group["timeTravelFormat"] == "DELTA"
        assert group["eventTime"] == GROUPS[name].event_time
        assert group["onlineEnabled"] is (name != "news_signals")
        for column in GROUPS[name].columns:
            assert described[column.name]["description"].startswith(column.description)
    primary = {n: {f["name"] for f in g["features"] if f["primary"]} for n, g in made.items()}
    assert primary == {
        "ta": {"exchange", "pair", "timeframe"},
        "news_signals": {"coin", "story_id"},
        "sentiment": {"coin"},
    }
    assert "[percent]" in next(f for f in made["ta"]["features"] if f["name"] == "rsi_14")["description"]


def test_one_feature_view_joins_the_sentiment_of_the_base_coin(store: HopsworksStore, stub: Stub) -> None:
    (view,) = stub.views.values()
    (join,) = view["query"]["joins"]
    assert view["query"]["leftFeatureGroup"]["name"] == "ta"
    assert join["query"]["leftFeatureGroup"]["name"] == "sentiment"
    assert (join["type"], [on["name"] for on in join["leftOn"]]) == ("LEFT", ["coin"])
    added = {feature["name"] for feature in join["query"]["leftFeatures"]}
    assert added == {*SENTIMENT.features, "last_news_at_ms"}


def test_rows_reach_the_offline_store_by_a_schedule_and_not_by_a_job_an_insert(
    store: HopsworksStore, stub: Stub, settings: FeaturesSettings
) -> None:
    write_market_and_news(store)
    crons = {job: schedule["cronExpression"] for job, schedule in stub.schedules.items()}
    assert crons == {f"{name}_1_offline_fg_materialization": "0 7 * ? * * *" for name in GROUPS}
    assert not [request for request in stub.requests if "executions" in request]
    # The next start finds them as they are.
    before = stub.requests.count("POST project/119/jobs/ta_1_offline_fg_materialization/schedule/v2")
    store.close()
    open_groups(settings).close()
    after = stub.requests.count("POST project/119/jobs/ta_1_offline_fg_materialization/schedule/v2")
    assert (before, after) == (1, 1)


def test_schedules_are_left_alone_when_that_is_asked_for(settings: FeaturesSettings, stub: Stub) -> None:
    open_groups(settings.model_copy(update={"hopsworks_materialize_cron": "off"})).close()
    assert stub.schedules == {}


def test_rows_go_without_counting_and_an_older_one_never_over_a_newer(
    store: HopsworksStore, stub: Stub
) -> None:
    write_market_and_news(store)
    records = read_topic(stub, TA)
    assert {record.headers["upsertIfNewer"] for record in records} == {b"1"}
    counts = [body for called, body in stub.bodies if called.endswith("online_ingestion")]
    assert counts
    assert {body.get("numEntries") for body in counts} == {None}


def test_an_idle_commit_asks_hopsworks_nothing(store: HopsworksStore, stub: Stub) -> None:
    write_market_and_news(store)
    before = len(stub.requests)
    for _ in range(3):
        store.flush()
    assert len(stub.requests) == before


def test_where_equal_times_count_as_not_newer_a_correction_shows_online_with_the_next_candle(
    store: HopsworksStore, stub: Stub
) -> None:
    def closes(*, strict: bool) -> tuple[list[Any], list[Any]]:
        model = Model(TA, read_topic(stub, TA), strict=strict)
        return [row["close"] for row in model.offline.values()], [
            row["close"] for row in model.online.values()
        ]

    for close, revision in ((100, 0), (101, 1)):
        store.write(TA, tuples([ta_row(0, close=close, revision=revision)]))
        store.flush()
    assert closes(strict=False) == ([101], [101])
    assert closes(strict=True) == ([101], [100])
    store.write(TA, tuples([ta_row(1, close=102)]))
    store.flush()
    assert closes(strict=True) == closes(strict=False) == ([101, 102], [102])


def test_certificates_are_for_nobody_else_and_not_in_the_temporary_folder(
    store: HopsworksStore, settings: FeaturesSettings
) -> None:
    folder = settings.state_dir / "hopsworks"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert {path.name for path in folder.iterdir()} >= {"keyStore.jks", "client_key.pem", "material_passwd"}
    assert not (Path(tempfile.gettempdir()) / "127.0.0.1").exists()


def test_the_key_for_kafka_is_unpacked_into_the_private_folder(
    store: HopsworksStore, settings: FeaturesSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hopsworks_common import client

    instance = client._get_instance()
    monkeypatch.setattr(instance, "_load_jks", lambda *_: ([], []))
    paths = instance._write_pem("keys", "secret", "trust", "secret", "prefix")
    assert {Path(path).parent for path in paths} == {settings.state_dir / "hopsworks"}
    assert all(Path(path).is_file() for path in paths)


def test_a_group_in_hopsworks_with_other_columns_is_refused_and_both_are_shown(
    store: HopsworksStore, stub: Stub, settings: FeaturesSettings
) -> None:
    store.close()
    features = stub.groups["ta", 1]["features"]
    features[-1] = features[-1] | {"name": "moon_phase"}
    features[5]["type"] = "bigint"
    with pytest.raises(SchemaMismatchError) as refused:
        open_groups(settings)
    assert "only in Hopsworks: open bigint, moon_phase string" in str(refused.value)
    assert "only in the code:  open double, coin string" in str(refused.value)


def test_a_working_copy_that_was_a_store_of_its_own_sends_what_it_has(
    stub: Stub, settings: FeaturesSettings
) -> None:
    with make_store(settings.store_path) as sqlite:
        sqlite.write(TA, tuples(ta_row(i) for i in range(3)))
    with open_groups(settings) as store:
        store.flush()
    assert len(Model(TA, read_topic(stub, TA)).offline) == 3


def test_a_backlog_of_before_goes_in_pieces_while_new_rows_go_with_their_commit(
    stub: Stub, settings: FeaturesSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hopsworks, "SEND_ROWS", 5)
    monkeypatch.setattr(hopsworks, "BACKLOG_ROWS", 10)
    monkeypatch.setattr(hopsworks, "PRUNE_ROWS", 4)
    old = 25
    with make_store(settings.store_path) as sqlite:
        sqlite.write(TA, tuples(ta_row(i) for i in range(old)))
    minutes = settings.hopsworks_keep_days * DAY_MS // MINUTE
    seen = []
    with open_groups(settings) as store:
        for fresh in range(6):
            row = ta_row(0)
            row.start_ms, row.end_ms = (time + (minutes + 99 + fresh) * MINUTE for time in (T0, row.end_ms))
            store.write(TA, tuples([row]))
            store.flush()
            ends = {row["end_ms"] for row in Model(TA, read_topic(stub, TA)).offline.values()}
            assert row.end_ms in ends
            seen.append((len(ends) - fresh - 1, store.history("BTC/USD", "1m").num_rows - fresh - 1))
        assert [outbox.waiting() for _, outbox in store._outboxes.values()] == [0, 0, 0]
    # Delivered in all; and gone from the copy, as much as one call removes.
    assert seen == [(10, 25), (20, 25), (25, 25), (25, 21), (25, 17), (25, 13)]


def test_rows_that_wait_under_an_earlier_version_go_there_after_an_upgrade(
    stub: Stub, settings: FeaturesSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_groups(settings) as store:
        store.write(TA, tuples(ta_row(i) for i in range(3)))
        store._failed = True
    second = replace(TA, version=2)
    warnings: list[str] = []
    sink = logger.add(lambda text: warnings.append(str(text)), level="WARNING")
    try:
        with HopsworksStore(settings.store_path, settings=settings, clock_ms=lambda: T0) as store:
            store.ensure_group(second)
            store.write(second, tuples([ta_row(3)]))
            store.flush()
            assert "ta_1" not in working_copies(store._writer)
    finally:
        logger.remove(sink)
    assert len(Model(TA, read_topic(stub, TA)).offline) == 3
    assert len(Model(second, read_topic(stub, second)).offline) == 1
    assert "ta version 1 in Hopsworks stays as it is" in "".join(warnings)
    # Nothing is left to do at the next start, and nothing is sent twice.
    with HopsworksStore(settings.store_path, settings=settings, clock_ms=lambda: T0) as store:
        store.ensure_group(second)
        store.flush()
        assert "ta_1" not in working_copies(store._writer)
    assert len(read_topic(stub, TA)) == 3


def test_a_store_with_rolled_rows_or_an_earlier_version_is_refused_and_stays_as_it_was(
    stub: Stub, settings: FeaturesSettings
) -> None:
    path = settings.store_path
    with make_store(path) as sqlite:
        SentimentWriter(sqlite, lambda: T0 + 2 * DAY_MS).write(
            "BTC", [signal(i * MINUTE, f"s{i}") for i in range(3)]
        )
    list(Roll(path, clock_ms=lambda: T0 + 9 * DAY_MS).before(T0 + 9 * DAY_MS))
    with pytest.raises(StoreError, match=r"rolled rows of news_signals .*services.features.rebuild --store"):
        open_groups(settings)
    other = settings.model_copy(update={"store_path": path.with_name("other")})
    before = replace(TA, version=0, columns=TA.columns[:-1])
    with make_store(other.store_path, (before,)) as sqlite:
        sqlite.write(before, [row[:-1] for row in tuples([ta_row(0)])])
    with pytest.raises(StoreError, match=r"has rows in ta_0.*run `make migrate store=.*other`"):
        open_groups(other)
    for refused in (path, other.store_path):
        # No trigger was made, so an SQLite store it can remain.
        make_store(refused).close()
    assert len([*migrate(other.store_path)]) == 1
    with open_groups(other) as store:
        store.flush()
    assert len(Model(TA, read_topic(stub, TA)).offline) == 1


def test_a_working_copy_becomes_an_sqlite_store_by_one_command(
    settings: FeaturesSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--leave-hopsworks", "--store", str(settings.store_path)]
    with open_groups(settings) as store:
        store.write(TA, tuples([ta_row(0)]))
        assert migrate_command.main(command) == 1
        assert "another process writes" in capsys.readouterr().err
        store._failed = True
    with pytest.raises(StoreError, match="make migrate leave=hopsworks"):
        make_store(settings.store_path)
    assert migrate_command.main(command) == 0
    assert "ta_1: changes are no longer noted; 1 had not reached Hopsworks" in capsys.readouterr().out
    with make_store(settings.store_path) as store:
        store.write(TA, tuples([ta_row(1)]))
        assert store.history("BTC/USD", "1m").num_rows == 2
        assert store.sql("SELECT count(*) FROM sqlite_schema WHERE name LIKE '%unsent%'")[1] == [(0,)]
    assert migrate_command.main(command) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_old_delivered_rows_leave_the_working_copy_and_nothing_else_does(
    stub: Stub, settings: FeaturesSettings
) -> None:
    minutes = settings.hopsworks_keep_days * DAY_MS // MINUTE
    with open_groups(settings) as store:
        store.write(TA, tuples([ta_row(0), ta_row(1), ta_row(1, pair="ETH/USD")]))
        late = ta_row(0)
        late.start_ms += (minutes + 1) * MINUTE
        late.end_ms += (minutes + 1) * MINUTE
        store.write(TA, tuples([late]))
        SentimentWriter(store, lambda: T0).write("BTC", [signal(0)])
        store.flush()
        assert store.history("BTC/USD", "1m")["end_ms"].to_pylist() == [T0 + 2 * MINUTE, late.end_ms]
        assert store.history("ETH/USD", "1m").num_rows == 1
        assert store.history(group="news_signals").num_rows == 1
    assert len(Model(TA, read_topic(stub, TA)).offline) == 4
    assert len(Model(NEWS_SIGNALS, read_topic(stub, NEWS_SIGNALS)).offline) == 1


def test_a_second_process_cannot_fill_hopsworks_from_the_same_copy(
    store: HopsworksStore, settings: FeaturesSettings
) -> None:
    with pytest.raises(StoreError, match="another process writes the working copy"):
        open_groups(settings)
    store.close()
    open_groups(settings).close()
