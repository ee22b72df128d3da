"""The seam to the Hopsworks client, which has no types: logging in, and one feature group at a time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from services.common.errors import SchemaMismatchError, StoreError
from services.features.groups import FeatureGroup
from services.features.hopsworks_settings import HopsworksSettings
from services.features.stores.hopsworks_errors import problems
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
        with problems(self._settings, "send rows"), _quiet():
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
        with problems(self._settings, f"open feature group {group.name}"), _quiet():
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
        with problems(self._settings, f"open feature view {VIEW}"), _quiet():
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


def log_in(settings: HopsworksSettings, folder: Path) -> Any:
    """Log in with time-outs and a verified certificate; returns the client's feature store.

    `folder` is for the certificates that Hopsworks hands out, and for nobody else to read.
    """
    try:
        import hopsworks
        from hopsworks_common.client import external
    except ImportError as error:
        raise StoreError(
            f"the Hopsworks client is not installed ({error}); install the extra `hopsworks` "
            "(requirements/hopsworks.txt) in an environment of its own"
        ) from error
    if settings.hopsworks_api_key is None or settings.hopsworks_host is None:
        raise StoreError(f"Hopsworks needs {', '.join(settings.missing_for_hopsworks())}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError as error:
        raise StoreError(f"cannot keep certificates in {folder}: {error.strerror}") from error
    ca_file = settings.hopsworks_ca_file
    if ca_file is not None and not ca_file.is_file():
        raise StoreError(f"FEATURES_HOPSWORKS_CA_FILE: there is no file {ca_file}")
    # It opens its session by this name and calls at once; time-outs cannot be given in any other way.
    external.requests = SimpleNamespace(session=lambda: bounded_session(settings.hopsworks_timeout_s))
    with problems(settings, "log in"), _clean_environment(), _quiet():
        project = hopsworks.login(
            host=settings.hopsworks_host,
            port=settings.hopsworks_port,
            project=settings.hopsworks_project,
            api_key_value=settings.hopsworks_api_key.get_secret_value(),
            hostname_verification=True,
            trust_store_path=None if ca_file is None else str(ca_file),
            cert_folder=str(folder),
            engine="python",
        )
        if project is None:
            raise StoreError(f"Hopsworks has no project {settings.hopsworks_project}")
        _keep_keys_private(folder)
        return project.get_feature_store()


def bounded_session(timeout_s: float) -> Any:
    """A `requests` session in which no call waits longer for a connection or for the next bytes."""
    from requests import Session
    from requests.adapters import HTTPAdapter

    class Bounded(HTTPAdapter):
        def send(self, *args: Any, **options: Any) -> Any:
            if options.get("timeout") is None:
                options["timeout"] = timeout_s
            return super().send(*args, **options)

    session = Session()
    session.mount("https://", Bounded())
    return session


def _keep_keys_private(folder: Path) -> None:
    """The client unpacks the key of Kafka into the system's temporary folder; have it use ours."""
    from hopsworks_common import client

    instance = client._get_instance()

    def write_pem(
        key_store: str, key_password: str, trust_store: str, trust_password: str, prefix: str
    ) -> tuple[str, str, str]:
        keys, certificates = instance._load_jks(key_store, key_password)
        _, trusted = instance._load_jks(trust_store, trust_password)
        chain, certificate, key = (
            str(folder / f"{prefix}_{name}.pem") for name in ("ca_chain", "client_cert", "client_key")
        )
        instance._write_ca_chain(certificates, trusted, chain)
        instance._write_client_cert(keys, certificate)
        instance._write_client_key(keys, key)
        return chain, certificate, key

    instance._write_pem = write_pem


@contextmanager
def _clean_environment() -> Iterator[None]:
    """Hide variables that the client lets win over what it is told, among them one that trusts any host."""
    names = [name for name in os.environ if name.startswith("HOPSWORKS_") or name == "REST_ENDPOINT"]
    hidden = {name: os.environ.pop(name) for name in names}
    try:
        yield
    finally:
        os.environ.update(hidden)


@contextmanager
def _quiet() -> Iterator[None]:
    """The client prints; our output is the log's."""
    with redirect_stdout(StringIO()):
        yield
