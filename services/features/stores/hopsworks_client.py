"""The seam to the Hopsworks client, which has no types: feature groups for writing, and the feature view."""

from pathlib import Path
from typing import Any

from services.common.errors import SchemaMismatchError
from services.features.groups import FeatureGroup
from services.features.hopsworks_settings import HopsworksSettings
from services.features.stores.hopsworks_errors import problems
from services.features.stores.hopsworks_login import log_in, quiet
from services.features.stores.hopsworks_types import ONLINE, features_of, primary_key
from services.features.stores.hopsworks_view import VIEW, make_view

#: No REST call for a batch, no materialization job for an insert, and no older row over a newer one online.
_WRITE_OPTIONS: dict[str, Any] = {
    "start_offline_materialization": False,
    "online_ingestion_options": {"disable_online_ingestion_count": True, "upsert_if_newer": True},
}


class RemoteGroup:
    """A feature group in Hopsworks, for writing. Raises `StoreError`."""

    def __init__(self, group: Any, settings: HopsworksSettings) -> None:
        self._group = group
        self._settings = settings
        self._options = _WRITE_OPTIONS | {
            "kafka_producer_config": {
                "message.timeout.ms": int(settings.hopsworks_timeout_s * 1000),
                # Keeps the rows of a key in order when a delivery is tried again, as idempotence would; but
                # that makes every new producer, which is one a commit, wait for a second.
                "max.in.flight.requests.per.connection": 1,
            }
        }

    def insert(self, frame: Any) -> None:
        """Hand a pandas frame to the producer. It is delivered when `finalize` returns, and not before."""
        with problems(self._settings, "send rows"), quiet():
            self._group.multi_part_insert(frame, write_options=dict(self._options))

    def finalize(self) -> None:
        """Wait until all that was inserted is delivered."""
        with problems(self._settings, "deliver rows"):
            self._group.finalize_multi_part_insert()

    def schedule(self, cron: str) -> None:
        """Have Hopsworks take delivered rows into the offline store at these times."""
        with problems(self._settings, "schedule the materialization job"):
            job = self._group.materialization_job
            known = job.job_schedule
            if known is None or known.cron_expression != cron or not known.enabled:
                job.schedule(cron_expression=cron)


class Hopsworks:
    """A logged-in client. One a process: the client keeps its connection in a global. Raises `StoreError`."""

    def __init__(self, settings: HopsworksSettings, folder: Path) -> None:
        self._settings = settings
        self._store = log_in(settings, folder)

    def group(self, group: FeatureGroup) -> RemoteGroup:
        """The group, made if it is not there. Raises `SchemaMismatchError` when it has other columns."""
        with problems(self._settings, f"open feature group {group.name}"), quiet():
            found = self._store.get_or_create_feature_group(
                name=group.name,
                version=group.version,
                description=group.description,
                primary_key=list(primary_key(group)),
                event_time=group.event_time,
                online_enabled=group.name in ONLINE,
                stream=True,
                time_travel_format="DELTA",
                # Statistics of every column at every materialization would cost more than writing them.
                statistics_config=False,
            )
            if found.id is None:
                # `save(features)` would also write an empty Delta table from here, over HopsFS, which a
                # cluster seldom opens to the outside; the materialization job makes the table as well.
                found._feature_group_engine._save_feature_group_metadata(
                    found, features_of(group), {"delta.enableChangeDataFeed": "true"}
                )
        check_schema(found, group)
        return RemoteGroup(found, self._settings)

    def view(self) -> Any:
        """The client's feature view of `ta` with sentiment, made if it is not there."""
        with problems(self._settings, f"open feature view {VIEW}"), quiet():
            return make_view(self._store)

    @property
    def store(self) -> Any:
        """The client's own feature store object."""
        return self._store


def check_schema(found: Any, group: FeatureGroup) -> None:
    """Compare a group in Hopsworks with the registry. Raises `SchemaMismatchError` showing both."""
    there = {feature.name: feature.type for feature in found.columns}
    here = {feature.name: feature.type for feature in features_of(group)}
    if there == here:
        return

    def shown(columns: dict[str, str], other: dict[str, str]) -> str:
        only = [f"{name} {kind}" for name, kind in columns.items() if other.get(name) != kind]
        return ", ".join(only) or "none"

    raise SchemaMismatchError(
        f"feature group {group.name} version {group.version} in Hopsworks has other columns than the code; "
        f"raise the group's version\n"
        f"  only in Hopsworks: {shown(there, here)}\n"
        f"  only in the code:  {shown(here, there)}"
    )
