"""The feature stores, one file each; `REGISTRY` names those that can be chosen."""

from collections.abc import Callable, Mapping
from pathlib import Path

from services.common.errors import StoreError
from services.features.stores.contract import Reader, Store
from services.features.stores.sqlite import SqliteStore
from services.features.stores.sqlite_connection import Synchronous
from services.features.stores.sqlite_reader import SqliteReader

REGISTRY: Mapping[str, Callable[..., Store]] = {"sqlite": SqliteStore}
READERS: Mapping[str, Callable[..., Reader]] = {"sqlite": SqliteReader}


def open_for_writing(name: str, path: Path, synchronous: Synchronous) -> Store:
    """The store called `name`. Raises `StoreError`."""
    return _choose(REGISTRY, name)(path, synchronous=synchronous)


def open_for_reading(name: str, path: Path) -> Reader:
    """The store called `name`, read-only. Raises `StoreError`."""
    return _choose(READERS, name)(path)


def _choose[T](registry: Mapping[str, T], name: str) -> T:
    if name not in registry:
        raise StoreError(f"unknown feature store {name!r}; known: {', '.join(registry)}")
    return registry[name]
