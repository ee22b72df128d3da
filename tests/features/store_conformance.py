"""What every store does, whatever it is made of. `test_store_conformance.py` runs it on SQLite, and
`tests/hopsworks/test_conformance.py` on Hopsworks; a new store is one `Subject` and one class.
"""

import random
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, Protocol

import pytest

from services.common.columns import Column
from services.common.errors import SchemaMismatchError, StoreError
from services.features.description import description_text
from services.features.groups import NEWS_SIGNALS, SENTIMENT, TA, FeatureGroup
from services.features.sentiment import SentimentWriter
from services.features.stores.contract import Store
from services.features.windows import Observed, sentiment_rows
from tests.features.rows import MINUTE, T0, signal, ta_row, tuples
from tests.features.writer_process import BATCH

ROOT = Path(__file__).parents[2]
type Row = tuple[Any, ...]


class Subject(Protocol):
    """A store under test, and what it holds where its readers look, not what its writer remembers."""

    #: Whether rows of candles that are still open go online; offline they never do.
    keeps_open_rows: bool

    def open(self) -> AbstractContextManager[Store]:
        """The store with all groups, whose clock says `T0`; a second opening goes on with its rows."""

    def offline(self, group: FeatureGroup) -> list[Row]:
        """The offline rows in the order of ``group.stored``, by key and event time."""

    def online(self, group: FeatureGroup) -> list[Row]:
        """The online rows, by key."""

    def writer(self) -> tuple[list[str], dict[str, str]]:
        """Command and environment of a process that does what `tests.features.writer_process` says."""


@contextmanager
def writing(subject: Subject) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    """The writing process and its reports."""
    command, environment = subject.writer()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment)
    assert process.stdout is not None
    try:
        yield process, process.stdout
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


def values(rows: list[Row], group: FeatureGroup, name: str) -> list[Any]:
    return [row[group.index(name)] for row in rows]


def as_written(rows: list[Row]) -> list[Row]:
    """Rows without the time at which they were."""
    return [row[:-1] for row in rows]


class StoreConformance:
    """Subclasses give the fixture `subject`."""

    @pytest.fixture
    def store(self, subject: Subject) -> Iterator[Store]:
        with subject.open() as opened:
            yield opened

    @pytest.fixture
    def write(self, store: Store) -> Callable[..., None]:
        """Writes rows of `ta`, each call a commit."""

        def now(*rows: Any) -> None:
            store.write(TA, tuples(rows))
            store.flush()

        return now

    def test_a_row_arrives_as_it_was_written(self, subject: Subject, write: Any) -> None:
        rows = [ta_row(i, close=0.1 + i, rsi_14=1 / 3, obv=-1e300, sma_7=5e-324) for i in range(3)]
        write(*rows)
        assert as_written(subject.offline(TA)) == tuples(rows)
        assert as_written(subject.online(TA)) == tuples(rows[-1:])
        assert set(values(subject.offline(TA), TA, "ingested_at_ms")) == {T0}

    def test_writing_the_same_rows_again_changes_nothing(self, subject: Subject, store: Store) -> None:
        rows = tuples(ta_row(i, close=100 + i) for i in range(5))
        store.write(TA, rows)
        store.flush()
        before = subject.offline(TA), subject.online(TA)
        store.write(TA, rows)
        store.write(TA, rows[2:4])
        store.flush()
        store.write(TA, rows[:1])
        store.flush()
        assert (subject.offline(TA), subject.online(TA)) == before
        assert (len(before[0]), len(before[1])) == (5, 1)

    def test_a_later_revision_replaces_an_earlier_one_and_not_the_other_way_round(
        self, subject: Subject, store: Store, write: Any
    ) -> None:
        write(ta_row(0, close=100, revision=1))
        write(ta_row(0, close=50, revision=0))
        assert store.history("BTC/USD", "1m")["close"].to_pylist() == [100]
        assert values(subject.offline(TA), TA, "close") == [100]
        write(ta_row(0, close=60, revision=2))
        assert store.history("BTC/USD", "1m")["close"].to_pylist() == [60]
        assert store.latest("BTC/USD", "1m")["close"] == 60  # type: ignore[index]
        assert values(subject.offline(TA), TA, "close") == values(subject.online(TA), TA, "close") == [60]

    def test_the_same_revision_with_new_indicators_replaces_the_row(
        self, subject: Subject, store: Store, write: Any
    ) -> None:
        write(ta_row(0, rsi_14=10.0))
        write(ta_row(0, rsi_14=20.0))
        assert store.history("BTC/USD", "1m", columns=["rsi_14"])["rsi_14"].to_pylist() == [20]
        assert store.latest("BTC/USD", "1m")["rsi_14"] == 20  # type: ignore[index]
        assert values(subject.offline(TA), TA, "rsi_14") == values(subject.online(TA), TA, "rsi_14") == [20]

    def test_the_online_row_never_goes_back_in_time(self, subject: Subject, store: Store, write: Any) -> None:
        write(ta_row(9, close=9))
        write(ta_row(3, close=3, revision=7))
        latest = store.latest("BTC/USD", "1m")
        assert latest is not None
        assert latest["close"] == 9
        assert store.history("BTC/USD", "1m").num_rows == 2
        assert values(subject.offline(TA), TA, "close") == [3, 9]
        assert values(subject.online(TA), TA, "close") == [9]

    def test_the_online_row_does_not_go_back_after_a_restart_either(self, subject: Subject) -> None:
        for at in (9, 3):
            with subject.open() as store:
                store.write(TA, tuples([ta_row(at, close=at)]))
                store.flush()
            assert values(subject.online(TA), TA, "close") == [9]
        assert values(subject.offline(TA), TA, "close") == [3, 9]

    def test_an_open_row_is_never_offline(self, subject: Subject, store: Store, write: Any) -> None:
        write(ta_row(0), ta_row(1, closed=False, close=101))
        assert store.history("BTC/USD", "1m").num_rows == 1
        latest = store.latest("BTC/USD", "1m")
        assert latest is not None
        assert (latest["closed"], latest["close"]) == (False, 101)
        assert values(subject.offline(TA), TA, "close") == [100]
        shown = (False, 101) if subject.keeps_open_rows else (True, 100)
        (row,) = subject.online(TA)
        assert (bool(row[TA.index("closed")]), row[TA.index("close")]) == shown

    def test_an_open_row_does_not_replace_the_closed_one_of_the_same_time(
        self, subject: Subject, store: Store, write: Any
    ) -> None:
        write(ta_row(0, close=100))
        write(ta_row(0, close=101, closed=False, revision=1))
        assert store.latest("BTC/USD", "1m")["close"] == 100  # type: ignore[index]
        assert values(subject.online(TA), TA, "close") == [100]

    def test_a_closed_row_replaces_the_open_one_of_the_same_time(
        self, subject: Subject, store: Store, write: Any
    ) -> None:
        write(ta_row(0, close=101, closed=False))
        write(ta_row(0, close=100))
        assert store.latest("BTC/USD", "1m")["close"] == 100  # type: ignore[index]
        assert values(subject.online(TA), TA, "close") == [100]

    def test_the_online_row_equals_the_offline_row_of_the_same_time(
        self, subject: Subject, store: Store, write: Any
    ) -> None:
        write(*(ta_row(i, revision=i % 2, rsi_14=float(i)) for i in (2, 0, 3, 1)))
        (last,) = store.history("BTC/USD", "1m", limit=1, newest=True).to_pylist()
        assert store.latest("BTC/USD", "1m") == last
        assert subject.online(TA) == subject.offline(TA)[-1:]

    def test_missing_values_stay_null_in_every_form(self, subject: Subject, store: Store, write: Any) -> None:
        write(ta_row(0, vwap=None, trade_count=0, volume=0.0, buy_volume=0.0))
        (row,) = store.history("BTC/USD", "1m").to_pylist()
        assert row["vwap"] is None
        assert row["rsi_14"] is None
        assert row["volume"] == 0.0
        assert row["closed"] is True
        assert store.latest("BTC/USD", "1m") == row
        for rows in (subject.offline(TA), subject.online(TA)):
            assert values(rows, TA, "vwap") == values(rows, TA, "rsi_14") == [None]
            assert values(rows, TA, "volume") == [0.0]

    @pytest.mark.parametrize("seed", range(3))
    def test_any_order_duplication_and_batching_gives_the_same_tables(
        self, subject: Subject, seed: int
    ) -> None:
        draw = random.Random(seed)
        rows = [
            ta_row(at, pair=pair, revision=revision, close=50.0 + at * 10 + revision * 2)
            for pair in ("BTC/USD", "ETH/USD")
            for at in range(4)
            for revision in draw.sample(range(3), 2)
        ]
        shuffled = draw.sample(rows, len(rows)) + draw.choices(rows, k=5)
        with subject.open() as store:
            while shuffled:
                size = draw.randint(1, 6)
                store.write(TA, tuples(shuffled[:size]))
                shuffled = shuffled[size:]
                if draw.random() < 0.5:
                    store.flush()
            store.flush()
        final = {(row.pair, row.end_ms): row for row in sorted(rows, key=lambda row: row.revision)}
        kept = [final[key] for key in sorted(final)]
        assert as_written(subject.offline(TA)) == tuples(kept)
        assert as_written(subject.online(TA)) == tuples([kept[3], kept[7]])

    def test_a_batch_with_a_row_that_cannot_be_stored_leaves_nothing(
        self, subject: Subject, store: Store, write: Any
    ) -> None:
        good = tuples([ta_row(0)])[0]
        bad = ("kraken", "BTC/USD", "1m", "not a time", *good[4:])
        with pytest.raises(StoreError, match="cannot write"):
            store.write(TA, [good, bad])
        store.flush()
        assert (subject.offline(TA), subject.online(TA)) == ([], [])
        write(ta_row(0))
        assert len(subject.offline(TA)) == 1

    def test_a_transaction_that_fails_leaves_nothing_of_any_group(
        self, subject: Subject, store: Store
    ) -> None:
        good = tuples([ta_row(0)])

        def fail() -> None:
            with store.transaction():
                store.write(TA, good)
                store.write(SENTIMENT, [("BTC", None)])

        with pytest.raises(StoreError):
            fail()
        store.flush()
        assert subject.offline(TA) == []

    def test_a_store_with_other_columns_is_refused_and_both_are_shown(self, store: Store) -> None:
        columns = (*TA.columns[:-1], Column("moon_phase", "float", "ratio", "x", nullable=True))
        with pytest.raises(SchemaMismatchError) as refused:
            store.ensure_group(replace(TA, columns=columns))
        assert "flow_imbalance_14" in str(refused.value)
        assert "moon_phase" in str(refused.value)

    def test_a_second_version_of_a_group_lives_beside_the_first(self, subject: Subject, store: Store) -> None:
        store.write(TA, tuples([ta_row(0)]))
        second = replace(TA, version=2, columns=TA.columns[:-1])
        store.ensure_group(second)
        store.write(second, [row[:-1] for row in tuples([ta_row(0), ta_row(1)])])
        store.flush()
        assert (len(subject.offline(TA)), len(subject.offline(second))) == (1, 2)

    def test_a_group_is_described_by_its_series_and_columns(self, store: Store) -> None:
        store.write(TA, tuples([ta_row(0, vwap=None), ta_row(1)]))
        described = store.describe(now=T0 + 3 * MINUTE)
        assert described["rows"] in (2, None)
        assert [column["name"] for column in described["columns"]] == [*TA.names]
        (series,) = described["series"]
        assert (series["pair"], series["last_ms"], series["age_s"]) == ("BTC/USD", T0 + 2 * MINUTE, 60)
        text = description_text(described)
        assert text[0].startswith("ta version 1")
        assert any("BTC/USD" in line and "2024-01-01 00:02:00" in line for line in text)

    def test_sentiment_is_a_function_of_the_signals_also_across_restarts(self, subject: Subject) -> None:
        signals = [signal(i * 7 * MINUTE, f"s{i}", (i % 5 - 2) / 2) for i in range(12)]
        clock = [T0]
        for begin in range(0, 12, 4):
            with subject.open() as store:
                writer = SentimentWriter(store, lambda: clock[-1])
                for one in signals[begin : begin + 4]:
                    clock.append(one.observed_at_ms + MINUTE)
                    writer.write("BTC", [one])
                    # What a restart repeats.
                    writer.write("BTC", [one])
                store.flush()
        known = [Observed(*(getattr(s, name) for name in Observed._fields)) for s in signals]
        expected = sentiment_rows("BTC", known, 0, clock[-1])
        assert as_written(subject.offline(SENTIMENT)) == expected
        assert as_written(subject.online(SENTIMENT)) == expected[-1:]
        assert values(subject.offline(NEWS_SIGNALS), NEWS_SIGNALS, "story_id") == [
            s.story_id for s in signals
        ]

    def test_what_a_writer_reported_is_there_for_readers_while_it_goes_on(self, subject: Subject) -> None:
        seen = []
        with writing(subject) as (_, lines):
            lines.readline()
            for _ in range(4):
                promised = int(lines.readline())
                closes = values(subject.offline(TA), TA, "close")
                seen.append(len(closes))
                assert all(closes.count(batch) == BATCH for batch in range(1, promised + 1))
                (newest,) = values(subject.online(TA), TA, "close")
                assert newest >= promised
        assert seen == sorted(seen)

    def test_a_killed_writer_has_lost_nothing_that_it_reported_and_the_next_goes_on(
        self, subject: Subject
    ) -> None:
        reported = 0
        for kills in range(1, 4):
            with writing(subject) as (process, lines):
                for _ in range(kills * 3):
                    reported = max(reported, int(lines.readline()))
                process.kill()
        with subject.open() as store:
            store.write(TA, tuples([ta_row(0, close=1.0, revision=1)]))
            store.flush()
            copy = store.history("BTC/USD", "1m", columns=["close"])["close"].to_pylist()
        closes = values(subject.offline(TA), TA, "close")
        # Nothing of what was written twice is there twice, and what was noted before a kill has arrived.
        assert closes == copy
        assert all(closes.count(batch) == BATCH for batch in range(1, reported + 1))
        assert values(subject.offline(TA), TA, "revision")[0] == 1
