"""What a feature store can do. Every file beside this one that is in `REGISTRY` does it."""

from collections.abc import Sequence
from typing import Any, Protocol, Self

import pyarrow as pa

from services.features.groups import FeatureGroup
from services.features.times import Time


class Reader(Protocol):
    """Questions to a feature store. All raise `StoreError` when it cannot be read.

    Pairs are written ``BTC/USD``. Times are given as epoch milliseconds, datetimes, dates or ISO texts
    (UTC unless they carry a zone) and come back as epoch milliseconds. An unknown group, pair,
    timeframe or exchange raises `UnknownSeriesError`, anything else that cannot be answered
    `QueryError`; both name what there is.
    """

    def groups(self) -> dict[str, FeatureGroup]:
        """The newest version of every group, by name."""

    def describe(self, group: str = "ta") -> dict[str, Any]:
        """A group's columns with units and null rates, and its series with row counts and times."""

    def latest(
        self, pair: str, timeframe: str, exchange: str | None = None, group: str = "ta"
    ) -> dict[str, Any] | None:
        """The newest row of a series by column name; None where it has none yet."""

    def latest_all(
        self,
        pair: str | None = None,
        timeframe: str | None = None,
        exchange: str | None = None,
        group: str = "ta",
    ) -> list[dict[str, Any]]:
        """The newest row of each series that fits, in key order."""

    def history(
        self,
        pairs: str | Sequence[str],
        timeframe: str,
        start: Time | None = None,
        end: Time | None = None,
        columns: Sequence[str] | None = None,
        exchange: str | None = None,
        limit: int | None = None,
        newest: bool = False,
        group: str = "ta",
    ) -> pa.Table:
        """Closed rows whose event time lies in ``[start, end]``, by key and event time."""

    def training_set(
        self,
        pairs: str | Sequence[str],
        timeframe: str,
        start: Time | None = None,
        end: Time | None = None,
        features: Sequence[str] | None = None,
        horizon: int = 1,
        exchange: str | None = None,
        dropna: bool = True,
    ) -> pa.Table:
        """Features as known at each row's time, and the return that followed."""

    def close(self) -> None:
        """Let go of the store."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class Store(Reader, Protocol):
    """A feature store that can be written. All raise `StoreError` when it cannot."""

    def ensure_group(self, group: FeatureGroup) -> None:
        """Make the tables of a group, or check them. Raises `SchemaMismatchError`."""

    def write(self, group: FeatureGroup, rows: Sequence[tuple[Any, ...]]) -> None:
        """Upsert rows (tuples in the order of ``group.columns``), all or none of them.

        They can be read when this returns. Idempotent: the same rows in any order, batching and number
        give the same store, but for ``ingested_at_ms``.
        """

    def flush(self) -> None:
        """Make everything written durable; called before offsets are committed."""
