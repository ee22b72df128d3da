"""The production store: Hopsworks, filled from a working copy in SQLite.

A row goes into the copy first, which answers at once whatever Hopsworks does: the sentiment writer asks it
for each signal, and the service's own HTTP face serves it. From there closed rows are sent through the topic
of their feature group and delivered before offsets are committed. What was not delivered stays noted in the
copy (`hopsworks_outbox.py`) and goes after the next start.
"""

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw
from loguru import logger

from services.common.errors import StoreError
from services.features.groups import GROUPS, NEWS_SIGNALS, SENTIMENT, TA, FeatureGroup
from services.features.hopsworks_settings import HopsworksSettings
from services.features.layers import readable_as
from services.features.stores.hopsworks_client import Hopsworks, RemoteGroup
from services.features.stores.hopsworks_outbox import Outbox, any_unsent, drop_triggers, is_noted, leave
from services.features.stores.hopsworks_types import frame_of
from services.features.stores.sqlite import SqliteStore, _now_ms
from services.features.stores.sqlite_connection import Synchronous, open_writer, transaction
from services.features.stores.sqlite_rolled import has_files
from services.features.stores.sqlite_schema import has_rows, load_versions

#: Rows of one frame. So many are sent while others come in, so that a commit waits for few.
SEND_ROWS = 2_000
#: After so many a backlog is waited for and forgotten, so that a kill in its midst repeats no more than that.
DELIVER_ROWS = 20_000
#: Of a backlog from before the start so many go with one commit or tick: some two seconds, of the 30 after
#: which a silent main loop is taken for dead.
BACKLOG_ROWS = 10_000
#: Old rows that leave the working copy in one transaction, and with one commit or tick.
PRUNE_ROWS = 2_000
#: How often old rows leave the working copy.
PRUNE_EVERY_MS = 3_600_000
DAY_MS = 86_400_000


class HopsworksStore(SqliteStore):
    """`contract.Store` on Hopsworks. Reads are answered by the working copy at `path`.

    One process writes a working copy, and one working copy fills a project's groups: its rows decide which of
    two is the newer. Raises `StoreError`.
    """

    def __init__(
        self,
        path: Path,
        *,
        settings: HopsworksSettings,
        synchronous: Synchronous = "normal",
        clock_ms: Callable[[], int] = _now_ms,
        connect: Callable[[HopsworksSettings, Path], Hopsworks] = Hopsworks,
    ) -> None:
        self._settings = settings
        self._connect = connect
        self._outboxes: dict[str, tuple[FeatureGroup, Outbox]] = {}
        self._remotes: dict[str, RemoteGroup] = {}
        #: The last number of the outbox that was given before this start. What came later is delivered with
        #: the next commit; what is older may wait: its offsets were not committed, or are long ago.
        self._backlog_ends: dict[str, int] = {}
        #: The tables whose rows from before the start are not all delivered.
        self._behind: list[str] = []
        #: Tables of earlier versions that go once their backlog has.
        self._earlier: set[str] = set()
        #: Up to which number of the outbox rows were handed to the client, and how many came since.
        self._handed: dict[str, int] = {}
        self._fresh: dict[str, int] = {}
        self._failed = False
        self._pruned_ms: int | None = None
        lock = _locked(path)
        self._lock: int | None = lock
        try:
            super().__init__(path, synchronous=synchronous, clock_ms=clock_ms)
            self._remote = connect(settings, settings.state_dir / "hopsworks")
        except BaseException:
            os.close(lock)
            raise

    def ensure_group(self, group: FeatureGroup) -> None:
        """Make the group here and in Hopsworks, or check it. Raises `SchemaMismatchError`, `StoreError`."""
        super().ensure_group(group)
        with self.transaction():
            if not is_noted(self._writer, group.table):
                self._check_complete(group)
        remote = self._open(group)
        for earlier in load_versions(self._writer)[group.name]:
            if (
                earlier.version < group.version
                and earlier.table not in self._outboxes
                and is_noted(self._writer, earlier.table)
            ):
                self._finish(earlier)
                logger.warning(
                    "{} version {} in Hopsworks stays as it is and gets no new rows; history and training "
                    "sets read from Hopsworks see version {} only",
                    *(group.name, earlier.version, group.version),
                )
        if (cron := self._settings.hopsworks_materialize_cron) != "off":
            remote.schedule(cron)
        if {TA.table, SENTIMENT.table} <= self._remotes.keys():
            self._remote.view()

    def _open(self, group: FeatureGroup) -> RemoteGroup:
        remote = self._remote.group(group)
        with self.transaction():
            outbox = Outbox(self._writer, group)
            self._backlog_ends[group.table] = self._handed[group.table] = outbox.last()
        self._fresh[group.table] = 0
        self._behind.append(group.table)
        self._outboxes[group.table] = group, outbox
        self._remotes[group.table] = remote
        return remote

    def _finish(self, earlier: FeatureGroup) -> None:
        """Send what waited of a version when the service was renewed, and then note nothing there."""
        with self.transaction():
            if not any_unsent(self._writer, earlier.table):
                drop_triggers(self._writer, earlier.table)
                return
        self._open(earlier)
        self._earlier.add(earlier.table)

    def _check_triggers(self, group: FeatureGroup) -> None:
        """They are its own."""

    def _check_complete(self, group: FeatureGroup) -> None:
        """Raises `StoreError` where rows of a store that was one of its own would never be sent.

        Of all groups at once: with triggers on some of them it could not go on as it was either.
        """
        for name, versions in load_versions(self._writer).items():
            target = group if name == group.name else GROUPS.get(name, versions[0])
            if is_noted(self._writer, target.table):
                continue
            earlier = [g for g in versions if g.version < target.version and readable_as(g, target)]
            for older in earlier:
                if not is_noted(self._writer, older.table) and has_rows(self._writer, older.table):
                    raise StoreError(
                        f"{self.path} has rows in {older.table}, an earlier version, which Hopsworks would "
                        "not get; start the service once with FEATURES_STORE=sqlite, which makes the newest "
                        f"tables, and run `make migrate store={self.path}`"
                    )
            if any(has_files(self._writer, g.table) for g in (target, *earlier)):
                raise StoreError(
                    f"{self.path} has rolled rows of {name} in Parquet files, which Hopsworks would not get; "
                    "set FEATURES_STORE_PATH to a new file, and send its candles there with "
                    f"`python -m services.features.rebuild --store {self.path}` (ARCHITECTURE.md, Hopsworks)"
                )

    def write_many(self, writes: Sequence[tuple[FeatureGroup, Sequence[tuple[Any, ...]]]]) -> None:
        """`write` rows of several groups; in a rush send some on the way."""
        super().write_many(writes)
        for group, rows in writes:
            self._fresh[group.table] += len(rows)
        if not self._writer.in_transaction:
            with self._sending():
                for table, fresh in self._fresh.items():
                    if fresh >= SEND_ROWS:
                        self._hand_over(table)

    def flush(self) -> None:
        """Sync the working copy, and deliver to Hopsworks all that was noted since the start.

        Of what waited before that, a piece goes, and the next with the next call.
        """
        super().flush()
        with self._sending():
            for table in self._remotes:
                self._hand_over(table)
            for table, remote in self._remotes.items():
                self._deliver(table, remote)
            # An empty one costs nothing, so only those count that had rows.
            while self._behind and not self._send_backlog(self._behind[0]):
                pass
            if not self._behind:
                self._prune()
        self._failed = False

    @contextmanager
    def _sending(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._failed = True
            # Nothing of what was handed over is known to have arrived, so all of it goes again.
            self._handed = dict(self._backlog_ends)
            raise

    def _hand_over(self, table: str) -> None:
        """Give the client all that was noted since the start, in frames of `SEND_ROWS` rows."""
        group, outbox = self._outboxes[table]
        self._fresh[table] = 0
        handed = 0
        while True:
            last, rows = self._noted(outbox, self._handed[table], SEND_ROWS)
            if not rows:
                return
            self._remotes[table].insert(frame_of(group, rows))
            self._handed[table] = last
            handed += len(rows)
            if handed >= DELIVER_ROWS:
                self._deliver(table, self._remotes[table])
                handed = 0

    def _deliver(self, table: str, remote: RemoteGroup) -> None:
        """Wait until what was handed over has arrived, and forget it."""
        remote.finalize()
        with self.transaction():
            self._outboxes[table][1].forget(self._backlog_ends[table], self._handed[table])

    def _noted(
        self, outbox: Outbox, after: int, limit: int, until: int = 2**62
    ) -> tuple[int, list[tuple[Any, ...]]]:
        try:
            return outbox.rows(after, limit, until)
        except apsw.Error as error:
            raise StoreError(f"cannot read the working copy {self.path}: {error}") from error

    def _send_backlog(self, table: str) -> bool:
        """Deliver and forget the next rows of what waited before the start; whether there were any."""
        group, outbox = self._outboxes[table]
        end, after, sent = self._backlog_ends[table], 0, 0
        while sent < BACKLOG_ROWS:
            last, rows = self._noted(outbox, after, min(SEND_ROWS, BACKLOG_ROWS - sent), end)
            if not rows:
                break
            self._remotes[table].insert(frame_of(group, rows))
            after, sent = last, sent + len(rows)
        if sent:
            self._remotes[table].finalize()
        done = sent < BACKLOG_ROWS
        with self.transaction():
            outbox.forget(0, end if done else after)
            if done and table in self._earlier:
                drop_triggers(self._writer, table)
        if done:
            self._behind.remove(table)
        return sent > 0

    def _prune(self) -> None:
        now = self._clock_ms()
        if self._pruned_ms is not None and now - self._pruned_ms < PRUNE_EVERY_MS:
            return
        for group, outbox in self._outboxes.values():
            # Signals are few, and one that comes late is weighed with its neighbours.
            if group.name != NEWS_SIGNALS.name:
                with self.transaction():
                    if outbox.prune(self._settings.hopsworks_keep_days * DAY_MS, PRUNE_ROWS) >= PRUNE_ROWS:
                        # The next call goes on.
                        return
        self._pruned_ms = now

    def close(self) -> None:
        """Deliver what waits, unless that failed already, and close."""
        lock, self._lock = self._lock, None
        if lock is None:
            return
        if self._failed:
            # What failed now goes after the next start; here it would only fail once more.
            for known in (self._remotes, self._outboxes, self._behind):
                known.clear()
        try:
            super().close()
        finally:
            os.close(lock)


def leave_hopsworks(path: Path) -> dict[str, int]:
    """Make a working copy an SQLite store of its own: the rows of each table that were not delivered.

    Raises `StoreError`, also while a service writes it.
    """
    if not path.is_file():
        raise StoreError(f"there is no feature store at {path}")
    lock = _locked(path)
    try:
        connection = open_writer(path, "full")
        try:
            with transaction(connection):
                return leave(connection)
        except apsw.Error as error:
            raise StoreError(f"cannot write to the feature store {path}: {error}") from error
        finally:
            connection.close()
    finally:
        os.close(lock)


def _locked(path: Path) -> int:
    """Keep a second process off the working copy: two that send take turns in no order."""
    lock = path.with_name(path.name + ".lock")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"cannot write beside the working copy {path}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise StoreError(
            f"another process writes the working copy {path}; each needs one of its own"
        ) from error
    return descriptor
