"""Old rows in Parquet: which ones, how corrections reach them, and that no answer changes."""

import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw
import duckdb
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import generate_latest

from services.common.errors import StoreError
from services.common.metrics import Metrics
from services.common.timeframes import DAY_MS
from services.features import export, open_store, roll
from services.features.groups import NEWS_SIGNALS, SENTIMENT, TA
from services.features.partitions import period_of
from services.features.retention import Retention, before_ms
from services.features.sentiment import SentimentWriter
from services.features.stores.sqlite import SqliteStore
from services.features.stores.sqlite_migrate import migrate
from services.features.stores.sqlite_reader import SqliteReader
from services.features.stores.sqlite_roll import Roll, RolledPeriod
from services.features.stores.sqlite_rolled import rolled_folder
from tests.features.rows import MINUTE, T0, make_store, signal, ta_row, tuples

LATER = T0 + 200 * DAY_MS


def roll_before(path: Path, time_ms: int, now_ms: int = LATER) -> list[RolledPeriod]:
    return [*Roll(path, clock_ms=lambda: now_ms).before(time_ms)]


def in_sqlite(store: SqliteReader, table: str = "ta") -> int:
    return int(store.sql(f"SELECT count(*) FROM {table}")[1][0][0])


def closes(store: SqliteReader, **options: Any) -> list[Any]:
    return store.history("BTC/USD", "1d", columns=["close"], **options)["close"].to_pylist()


@pytest.fixture
def days(store: SqliteStore) -> SqliteStore:
    """100 days, the last of which ends on 2024-04-10."""
    store.write(TA, tuples(ta_row(i, timeframe="1d", close=100.0 + i) for i in range(100)))
    return store


def test_rows_before_the_time_are_in_parquet_and_are_read_as_before(days: SqliteStore, path: Path) -> None:
    before = days.history("BTC/USD", "1d")
    (done,) = roll_before(path, T0 + 60 * DAY_MS)
    assert (done.rows, done.taken) == (59, 59)
    assert in_sqlite(days) == 41
    assert days.history("BTC/USD", "1d").equals(before)
    with open_store(path) as reader:
        assert reader.history("BTC/USD", "1d").equals(before)
    relative = done.path.relative_to(rolled_folder(path))
    assert str(relative.parent) == "ta_1/exchange=kraken/pair=BTC%2FUSD/timeframe=1d"
    assert relative.name == f"2024.{LATER}.parquet"
    # The newest row of a series stays, however old it is.
    roll_before(path, LATER)
    assert in_sqlite(days) == 1
    assert days.latest("BTC/USD", "1d")["close"] == 199  # type: ignore[index]
    assert days.history("BTC/USD", "1d").equals(before)


def test_a_file_grows_by_what_has_become_old_since(days: SqliteStore, path: Path) -> None:
    roll_before(path, T0 + 10 * DAY_MS)
    (done,) = roll_before(path, T0 + 20 * DAY_MS)
    assert (done.rows, done.taken) == (19, 10)
    assert closes(days) == [100.0 + i for i in range(100)]
    assert roll_before(path, T0 + 20 * DAY_MS) == []


def test_a_late_correction_wins_over_the_file_and_is_in_it_after_the_next_roll(
    days: SqliteStore, path: Path
) -> None:
    roll_before(path, LATER)
    days.write(TA, tuples([ta_row(7, timeframe="1d", close=7.0, revision=2)]))
    assert closes(days)[6:9] == [106.0, 7.0, 108.0]
    (done,) = roll_before(path, LATER, LATER + 1)
    assert (done.rows, done.taken) == (99, 1)
    assert in_sqlite(days) == 1
    assert closes(days)[6:9] == [106.0, 7.0, 108.0]
    # What comes again from before the correction does not undo it, and an equal revision replaces.
    days.write(TA, tuples([ta_row(7, timeframe="1d", close=1.0, revision=1)]))
    assert closes(days)[7] == 7.0
    (same,) = roll_before(path, LATER, LATER + 2)
    assert (same.path, in_sqlite(days)) == (done.path, 1)
    days.write(TA, tuples([ta_row(7, timeframe="1d", close=8.0, revision=2)]))
    assert closes(days)[7] == 8.0


def test_a_correction_that_comes_while_its_row_is_rolled_is_not_lost(
    days: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every step of the roll, in turn."""
    for step in ("_write", "_let_count", "_delete"):
        plain: Callable[..., Any] = getattr(Roll, step)

        def slow(self: Roll, *arguments: Any, plain: Callable[..., Any] = plain, step: str = step) -> Any:
            for revision in (2, 3):
                row = ta_row(7, timeframe="1d", close=float(len(step) + revision), revision=revision)
                days.write(TA, tuples([row]))
            return plain(self, *arguments)

        with monkeypatch.context() as patched:
            patched.setattr(Roll, step, slow)
            roll_before(path, LATER)
        assert closes(days)[7] == len(step) + 3
        assert in_sqlite(days) == 2
        roll_before(path, LATER)
        assert closes(days)[7] == len(step) + 3
        assert in_sqlite(days) == 1
        # The next step meets a row of the first revision again.
        days.write(TA, tuples([ta_row(7, timeframe="1d", close=0.0, revision=3)]))


def test_replaced_and_left_over_files_go_when_readers_must_be_done(days: SqliteStore, path: Path) -> None:
    (first,) = roll_before(path, T0 + 10 * DAY_MS, LATER)
    (second,) = roll_before(path, T0 + 20 * DAY_MS, LATER + 1)
    left_over = second.path.with_name(".2024.7.parquet.unfinished")
    left_over.write_bytes(b"half")
    roll_before(path, T0, LATER + 3_600_000)
    assert first.path.exists()
    roll_before(path, T0, LATER + 3_600_002)
    assert not first.path.exists()
    assert second.path.exists()
    # Its age is the file system's.
    assert left_over.exists()
    roll_before(path, T0, 2**42)
    assert not left_over.exists()
    assert len(closes(days)) == 100


def test_the_file_shrinks(path: Path) -> None:
    with make_store(path) as store:
        store.write(TA, tuples(ta_row(i, rsi_14=i / 7) for i in range(4_000)))
    size = path.stat().st_size
    roll_before(path, LATER)
    assert path.stat().st_size < size / 5
    with open_store(path) as reader:
        assert reader.history("BTC/USD", "1m").num_rows == 4_000


def test_a_roll_holds_few_rows_as_python_objects_however_long_the_period(path: Path) -> None:
    with make_store(path) as store:
        values: dict[str, Any] = dict.fromkeys(TA.features[8:], 1 / 3)
        for begin in range(0, 12_000, 2_000):
            rows = [ta_row(0, **values) for _ in range(2_000)]
            for place, row in enumerate(rows, begin):
                row.start_ms, row.end_ms = T0 + place * MINUTE, T0 + (place + 1) * MINUTE
            store.write(TA, tuples(rows))
        # Arrow loads pandas with its first values, which shall not count.
        assert store.history("BTC/USD", "1m", limit=1).num_rows == 1
    del rows
    tracemalloc.start()
    try:
        (done,) = roll_before(path, LATER)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert done.taken == 11_999
    # All at once they would be 18 MB.
    assert peak < 8_000_000


def test_a_store_of_before_shrinks_once_it_is_compact(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = apsw.Connection(str(path))
    before.execute("CREATE TABLE t (a); DROP TABLE t")
    before.close()
    with make_store(path) as store:
        store.write(TA, tuples(ta_row(i, rsi_14=i / 7) for i in range(2_000)))
    size = path.stat().st_size
    assert roll.main(["--store", str(path), "--days", "1"]) == 0
    assert "make roll compact=1" in capsys.readouterr().out
    assert path.stat().st_size >= size
    assert roll.main(["--store", str(path), "--days", "1", "--compact"]) == 0
    assert "compact" not in capsys.readouterr().out
    assert path.stat().st_size < size / 3


def test_an_export_of_a_rolled_store_is_that_of_an_unrolled_one(
    days: SqliteStore, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "PAGE_ROWS", 7)
    (plain,) = export.export(days, tmp_path / "plain")
    roll_before(path, T0 + 60 * DAY_MS)
    (rolled,) = export.export(days, tmp_path / "rolled")
    assert pq.read_table(rolled.path).equals(pq.read_table(plain.path))


def test_news_rolls_by_month_and_late_news_sees_the_news_before_it(store: SqliteStore, path: Path) -> None:
    signals = [signal(day * DAY_MS + MINUTE, f"s{day}", (-1) ** day / 2) for day in range(70)]
    late = signal(30 * DAY_MS + 2 * MINUTE, "late", 1.0)
    with make_store(path.with_name("plain")) as plain:
        for target in (plain, store):
            SentimentWriter(target, lambda: LATER).write("BTC", signals)
        assert [done.path.name.partition(".")[0] for done in roll_before(path, LATER)] == [
            *("2024-01", "2024-02", "2024-03", "2024-01", "2024-02", "2024-03")
        ]
        for target in (plain, store):
            SentimentWriter(target, lambda: LATER).write("BTC", [late])
        for group in ("news_signals", "sentiment"):
            assert store.history(group=group).equals(plain.history(group=group))
        assert in_sqlite(store, "news_signals") == 2
        assert store.vectors() == plain.vectors()
        page = store.history(group="news_signals", coin="BTC", start=late.observed_at_ms, after="a", limit=2)
        assert page["story_id"].to_pylist() == ["late", "s31"]


def test_periods_are_months_and_for_long_timeframes_years() -> None:
    minutes = period_of(TA, ("kraken", "BTC/USD", "1m"), T0 + 60 * DAY_MS)
    assert minutes == ("2024-03", T0 + 60 * DAY_MS, T0 + 91 * DAY_MS)
    assert period_of(TA, ("kraken", "BTC/USD", "1m"), T0 - 1).name == "2023-12"
    assert period_of(TA, ("kraken", "BTC/USD", "1h"), T0) == ("2024", T0, T0 + 366 * DAY_MS)
    assert period_of(SENTIMENT, ("BTC",), T0).name == "2024-01"


def test_days_are_whole_utc_days() -> None:
    assert before_ms(T0 + 90 * DAY_MS + 5, 90) == T0
    assert before_ms(T0 + 90 * DAY_MS - 1, 90) == T0 - DAY_MS
    assert before_ms(T0, 36_500) == 0


def test_duckdb_reads_the_rolled_files_by_themselves(days: SqliteStore, path: Path) -> None:
    roll_before(path, LATER)
    with duckdb.connect() as connection:
        sql = "SELECT pair, count(*), sum(close) FROM read_parquet(?, hive_partitioning = true) GROUP BY 1"
        files = f"{rolled_folder(path)}/ta_1/**/*.parquet"
        assert connection.execute(sql, [files]).fetchall() == [("BTC/USD", 99, 14751.0)]


def test_a_missing_file_is_one_clear_error_and_not_missing_rows(days: SqliteStore, path: Path) -> None:
    (done,) = roll_before(path, LATER)
    done.path.unlink()
    with pytest.raises(StoreError, match="belongs to the store beside it"):
        days.history("BTC/USD", "1d")


def test_rows_that_something_hangs_on_are_not_moved(days: SqliteStore, path: Path) -> None:
    days.ensure_group(replace(TA, version=2))
    days._writer.execute("CREATE TRIGGER t AFTER INSERT ON ta_1 BEGIN SELECT 1; END")
    for move in (lambda: roll_before(path, LATER), lambda: [*migrate(path)]):
        with pytest.raises(StoreError, match="working copy of another store"):
            move()
    assert in_sqlite(days, "ta_1") == 100


def test_two_rolls_at_once_are_one_and_an_error(days: SqliteStore, path: Path) -> None:
    running = Roll(path, clock_ms=lambda: LATER).before(T0 + 10 * DAY_MS)
    next(running)
    with pytest.raises(StoreError, match="being rolled by another"):
        roll_before(path, LATER)
    assert list(running) == []
    roll_before(path, LATER)


def test_the_command_rolls_and_says_what_it_did(
    days: SqliteStore, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = days.describe(now=0)
    assert roll.main(["--store", str(path), "--days", "0", "--compact"]) == 0
    assert "99 rows into 1 files" in capsys.readouterr().out
    assert days.describe(now=0) == before
    for arguments, says in (
        (["--store", str(path), "--days", "-1"], "must not be negative"),
        (["--store", str(path.with_name("none")), "--days", "1"], "no feature store"),
    ):
        assert roll.main(arguments) == 1
        assert says in capsys.readouterr().err
    assert not path.with_name("none").exists()


def test_the_service_rolls_what_is_due_and_goes_on_when_it_cannot(days: SqliteStore, path: Path) -> None:
    metrics = Metrics()
    clock = [T0 + 50 * DAY_MS]
    retention = Retention(path, 30, metrics, lambda: clock[0])
    retention.roll()
    assert in_sqlite(days) == 81
    other = Roll(path, clock_ms=lambda: LATER).before(T0 + 30 * DAY_MS)
    next(other)
    clock[0] += 10 * DAY_MS
    retention.roll()
    list(other)
    text = generate_latest(metrics.registry).decode()
    assert "rolled_rows_total 19.0" in text
    assert "roll_failures_total 1.0" in text
    retention.start()
    retention.stop()
    retention.check()


def test_a_bug_in_the_thread_reaches_the_main_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Iterator[RolledPeriod]:
        raise ZeroDivisionError

    monkeypatch.setattr(Roll, "before", broken)
    retention = Retention(path, 1, Metrics(), lambda: LATER)
    retention.start()
    retention.stop()
    with pytest.raises(ZeroDivisionError):
        retention.check()


def _writes() -> st.SearchStrategy[list[Any]]:
    pair = st.sampled_from(["BTC/USD", "ETH/USD"])
    timeframe = st.sampled_from(["1d", "1M"])
    row = st.builds(
        lambda at, pair, timeframe, close, revision, rsi: ta_row(
            at // (30 if timeframe == "1M" else 1),
            pair=pair,
            timeframe=timeframe,
            close=close,
            revision=revision,
            rsi_14=rsi,
        ),
        *(st.integers(0, 70), pair, timeframe, st.sampled_from([1.0, 2.0, 3.0]), st.integers(0, 2)),
        st.none() | st.just(50.0),
    )
    news = st.builds(
        lambda hours, story, score: signal(hours * 3_600_000, story, score / 4),
        *(st.integers(0, 70 * 24), st.sampled_from("ab"), st.integers(-4, 4)),
    )
    rolls = st.integers(0, 80)
    return st.lists(st.lists(row, min_size=1, max_size=8) | news | rolls, min_size=1, max_size=14)


def everything(store: SqliteReader, first: int, last: int, limit: int) -> list[Any]:
    """What can be asked, over a range and with a limit from either end."""
    start, end = T0 + first * DAY_MS, T0 + (first + last) * DAY_MS
    asked: list[Any] = [store.latest_all(), store.vectors(now=LATER)]
    asked += [store.describe(group, now=LATER) for group in store.groups()]
    for newest in (False, True):
        for group in ("news_signals", "sentiment"):
            asked.append(store.history(group=group).to_pylist())
            asked.append(
                store.history(group=group, start=start, end=end, limit=limit, newest=newest).to_pylist()
            )
        for timeframe in {row["timeframe"] for row in store.latest_all()}:
            pairs = [row["pair"] for row in store.latest_all(timeframe=timeframe)]
            asked.append(store.vector_history(pairs, timeframe, start, end).to_pylist())
            asked.append(store.vector_history(pairs, timeframe, limit=limit, newest=newest).to_pylist())
            names = ["close", "rsi_14", "news_count_24h", "sentiment_mean_4h", "seconds_since_news"]
            asked.append(
                store.training_set(
                    pairs, timeframe, start, end, names, dropna=False, horizon=[1, 3]
                ).to_pylist()
            )
    rows = store.rows(NEWS_SIGNALS, ("BTC",), start, end, ("observed_at_ms", "story_id", "score"), limit)
    return [*asked, rows]


@settings(max_examples=40, deadline=None)
@given(
    steps=_writes(),
    first=st.integers(0, 60),
    last=st.integers(0, 40),
    limit=st.integers(1, 6),
    rest=st.booleans(),
)
def test_whatever_is_asked_a_rolled_store_answers_as_one_that_never_was(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Any], first: int, last: int, limit: int, rest: bool
) -> None:
    folder = tmp_path_factory.mktemp("rolled")
    path = folder / "rolled.sqlite"
    now = LATER
    with make_store(folder / "plain.sqlite") as plain, make_store(path) as rolled:
        for step in steps:
            if isinstance(step, int):
                now += 1
                roll_before(path, T0 + step * DAY_MS, now)
                continue
            for store in (plain, rolled):
                if isinstance(step, list):
                    store.write(TA, tuples(step))
                else:
                    SentimentWriter(store, lambda: LATER).write("BTC", [step])
        if rest:
            roll_before(path, LATER, now + 1)
            assert in_sqlite(rolled) == len(rolled.series())
        try:
            expected = everything(plain, first, last, limit)
        except Exception as error:
            with pytest.raises(type(error)):
                everything(rolled, first, last, limit)
        else:
            assert everything(rolled, first, last, limit) == expected
