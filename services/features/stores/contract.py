"""What a feature store can do. Every file beside this one that is in `REGISTRY` does it."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, Self

import pyarrow as pa

from services.features.groups import FeatureGroup
from services.features.times import Time
from services.features.training import Label


class Reader(Protocol):
    """Questions to a feature store. All raise `StoreError` when it cannot be read.

    Pairs are written ``BTC/USD`` and coins ``BTC``. Times are given as epoch milliseconds, datetimes,
    dates or ISO texts (UTC unless they carry a zone), numpy's and pandas' too, and come back as epoch
    milliseconds. An unknown group, pair, timeframe, exchange or coin raises `UnknownSeriesError`, anything
    else that cannot be answered `QueryError`; both name what there is.
    """

    def groups(self) -> dict[str, FeatureGroup]:
        """The newest version of every group, by name."""

    def describe(self, group: str = "ta", *, now: Time | None = None) -> dict[str, Any]:
        """A group's columns with units and null rates, and its series with row counts, times and ages."""

    def latest(
        self,
        pair: str | None = None,
        timeframe: str | None = None,
        exchange: str | None = None,
        group: str = "ta",
        *,
        coin: str | None = None,
    ) -> dict[str, Any] | None:
        """The newest row of a series by column name; None where it has none yet."""

    def latest_all(
        self,
        pair: str | None = None,
        timeframe: str | None = None,
        exchange: str | None = None,
        group: str = "ta",
        *,
        coin: str | None = None,
    ) -> list[dict[str, Any]]:
        """The newest row of each series that fits, in key order."""

    def history(
        self,
        pairs: str | Sequence[str] | None = None,
        timeframe: str | None = None,
        start: Time | None = None,
        end: Time | None = None,
        columns: Sequence[str] | None = None,
        exchange: str | None = None,
        limit: int | None = None,
        newest: bool = False,
        group: str = "ta",
        *,
        coin: str | Sequence[str] | None = None,
        after: str | None = None,
    ) -> pa.Table:
        """Closed rows whose event time lies in ``[start, end]``, by key and event time.

        `after` goes on behind a page: of the rows at `start`, only those whose `within` is later.
        """

    def vector(
        self, pair: str, timeframe: str, exchange: str | None = None, *, now: Time | None = None
    ) -> dict[str, Any] | None:
        """The newest `ta` row of a pair with the sentiment of its base coin at the row's end.

        A candle that is still open gets that of `now`, by default the wall clock's.
        """

    def vectors(
        self,
        pair: str | None = None,
        timeframe: str | None = None,
        exchange: str | None = None,
        *,
        now: Time | None = None,
    ) -> list[dict[str, Any]]:
        """The same for each series that fits."""

    def vector_history(
        self,
        pairs: str | Sequence[str],
        timeframe: str,
        start: Time | None = None,
        end: Time | None = None,
        columns: Sequence[str] | None = None,
        exchange: str | None = None,
        limit: int | None = None,
        newest: bool = False,
    ) -> pa.Table:
        """`history` of `ta`, each row with the sentiment of its base coin at its end."""

    def training_set(
        self,
        pairs: str | Sequence[str],
        timeframe: str,
        start: Time | None = None,
        end: Time | None = None,
        features: Sequence[str] | None = None,
        horizon: int | Sequence[int] = 1,
        exchange: str | None = None,
        dropna: bool = True,
        *,
        label: Label = "log_return",
    ) -> pa.Table:
        """Features as known at each row's time, of `ta` and `sentiment`, and what followed each horizon."""

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

    def write_many(self, writes: Sequence[tuple[FeatureGroup, Sequence[tuple[Any, ...]]]]) -> None:
        """`write` the rows of several groups, all of them or none."""

    def transaction(self) -> AbstractContextManager[None]:
        """Keep others from writing meanwhile, and keep all that is written inside, or on an error none of it.

        Questions asked inside are answered as if nothing had been written inside.
        """

    def foreign_writes(self) -> int:
        """A number that is another one once somebody else has written to the store since."""

    def rows(
        self,
        group: FeatureGroup,
        key: tuple[str, ...],
        start_ms: int,
        end_ms: int,
        columns: Sequence[str],
        limit: int = -1,
    ) -> list[tuple[Any, ...]]:
        """Closed rows of one key as tuples of `columns`, both ends included, the first `limit` of them."""

    def flush(self) -> None:
        """Make everything written durable; called before offsets are committed."""
