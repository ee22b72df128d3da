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

from services.common.errors import StoreError
from services.features.groups import NEWS_SIGNALS, SENTIMENT, TA, FeatureGroup
from services.features.hopsworks_settings import HopsworksSettings
from services.features.stores.hopsworks_client import Hopsworks, RemoteGroup
from services.features.stores.hopsworks_outbox import Outbox
from services.features.stores.hopsworks_types import frame_of
from services.features.stores.sqlite import SqliteStore, _now_ms
from services.features.stores.sqlite_connection import Synchronous

#: Rows of one frame. So many are sent while others come in, so that a commit waits for few.
SEND_ROWS = 2_000
#: After so many a backlog is waited for and forgotten, so that a kill in its midst repeats no more than that.
DELIVER_ROWS = 20_000
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
            self._outboxes[group.table] = group, Outbox(self._writer, group)
        remote = self._remotes[group.table] = self._remote.group(group)
        self._handed[group.table] = self._fresh[group.table] = 0
        if (cron := self._settings.hopsworks_materialize_cron) != "off":
            remote.schedule(cron)
        if {TA.table, SENTIMENT.table} <= self._remotes.keys():
            self._remote.view()

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
        """Sync the working copy, and deliver to Hopsworks all that it has not got."""
        super().flush()
        with self._sending():
            for table in self._remotes:
                self._hand_over(table)
            for table, remote in self._remotes.items():
                self._deliver(table, remote)
            self._prune()
        self._failed = False

    @contextmanager
    def _sending(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._failed = True
            # Nothing of what was handed over is known to have arrived, so all of it goes again.
            self._handed = dict.fromkeys(self._handed, 0)
            raise

    def _hand_over(self, table: str) -> None:
        """Give the client all that waits, in frames of `SEND_ROWS` rows."""
        group, outbox = self._outboxes[table]
        self._fresh[table] = 0
        handed = 0
        while True:
            try:
                last, rows = outbox.rows(self._handed[table], SEND_ROWS)
            except apsw.Error as error:
                raise StoreError(f"cannot read the working copy {self.path}: {error}") from error
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
            self._outboxes[table][1].forget(self._handed[table])

    def _prune(self) -> None:
        now = self._clock_ms()
        if self._pruned_ms is not None and now - self._pruned_ms < PRUNE_EVERY_MS:
            return
        for group, outbox in self._outboxes.values():
            # Signals are few, and one that comes late is weighed with its neighbours.
            if group is not NEWS_SIGNALS:
                with self.transaction():
                    outbox.prune(self._settings.hopsworks_keep_days * DAY_MS)
        self._pruned_ms = now

    def close(self) -> None:
        """Deliver what waits, unless that failed already, and close."""
        lock, self._lock = self._lock, None
        if lock is None:
            return
        if self._failed:
            # What failed now goes after the next start; here it would only fail once more.
            self._remotes.clear()
        try:
            super().close()
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
