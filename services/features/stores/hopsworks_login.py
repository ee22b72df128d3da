"""Logging in to Hopsworks with what its client lacks: time-outs, a verified certificate, private keys."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from services.common.errors import StoreError
from services.features.hopsworks_settings import HopsworksSettings
from services.features.stores.hopsworks_errors import problems


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
    with problems(settings, "log in"), _clean_environment(), quiet():
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
def quiet() -> Iterator[None]:
    """The client prints; our output is the log's."""
    with redirect_stdout(StringIO()):
        yield
