"""The feature stores, one file each; `REGISTRY` names those that can be chosen."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from services.common.errors import StoreError
from services.features.hopsworks_settings import HopsworksSettings
from services.features.stores.contract import Reader, Store
from services.features.stores.hopsworks import HopsworksStore
from services.features.stores.hopsworks_reader import HopsworksReader
from services.features.stores.sqlite import SqliteStore
from services.features.stores.sqlite_connection import Synchronous
from services.features.stores.sqlite_reader import SqliteReader

REGISTRY: Mapping[str, Callable[..., Store]] = {"sqlite": SqliteStore, "hopsworks": HopsworksStore}
READERS: Mapping[str, Callable[..., Reader]] = {"sqlite": SqliteReader, "hopsworks": HopsworksReader}
#: Those that are elsewhere, and have to be told where.
REMOTE = ("hopsworks",)


def open_for_writing(
    name: str, path: Path, synchronous: Synchronous, settings: HopsworksSettings | None = None
) -> Store:
    """The store called `name`; `settings` say where a remote one is. Raises `StoreError`."""
    return _choose(REGISTRY, name)(path, synchronous=synchronous, **_where(name, settings))


def open_for_reading(name: str, path: Path, settings: HopsworksSettings | None = None) -> Reader:
    """The store called `name`, read-only; `settings` say where a remote one is. Raises `StoreError`."""
    return _choose(READERS, name)(path, **_where(name, settings))


def _where(name: str, settings: HopsworksSettings | None) -> dict[str, Any]:
    if name not in REMOTE:
        return {}
    if settings is None:
        raise StoreError(
            f"{name} is no file; read it with `open_store`, or name the file of its working copy"
        )
    return {"settings": settings}


def _choose[T](registry: Mapping[str, T], name: str) -> T:
    if name not in registry:
        raise StoreError(f"unknown feature store {name!r}; known: {', '.join(registry)}")
    return registry[name]
