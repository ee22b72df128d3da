"""The feature groups: what the store keeps, under which keys, and what each column means. Pure.

A group is one table of the store in two forms: *offline*, every closed row under its key and event
time, and *online*, the newest row of each key. The store saves this registry beside the data, so that
a reader needs nothing but the file.
"""

from dataclasses import dataclass

from services.common.columns import TA_COLUMNS, Column

#: The store adds it to every group; it tells when a row was written, not when it was known.
INGESTED = Column("ingested_at_ms", "int", "ms", "When the store wrote this row, UTC epoch")


@dataclass(frozen=True, slots=True)
class FeatureGroup:
    """One group of features. Rows are tuples in the order of `columns`, without `ingested_at_ms`.

    `revision` and `closed` name the columns that say which of two rows of the same time is the newer
    one, and whether a row is final. `sparse` names columns that are null wherever nothing happened, as
    opposed to null until warm.
    """

    name: str
    version: int
    description: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    event_time: str
    revision: str = "revision"
    closed: str = "closed"
    sparse: tuple[str, ...] = ()

    @property
    def table(self) -> str:
        """Name of the offline table; the online one ends in ``_online``."""
        return f"{self.name}_{self.version}"

    @property
    def stored(self) -> tuple[Column, ...]:
        """The columns as they are in the store."""
        return (*self.columns, INGESTED)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns as they are in the store."""
        return tuple(column.name for column in self.stored)

    @property
    def features(self) -> tuple[str, ...]:
        """The columns a model may learn from: numbers that are no key, time or bookkeeping."""
        bookkeeping = {*self.key, self.event_time, self.revision, self.closed}
        return tuple(
            column.name
            for column in self.columns
            if column.name not in bookkeeping and column.kind in ("int", "float") and column.unit != "ms"
        )

    def index(self, name: str) -> int:
        """Position of a column in a row."""
        return self.names.index(name)


TA = FeatureGroup(
    name="ta",
    version=1,
    description="Candles and technical indicators of each pair and timeframe; null until warm",
    columns=TA_COLUMNS,
    key=("exchange", "pair", "timeframe"),
    event_time="end_ms",
    sparse=("vwap", "flow_imbalance_1"),
)

#: Every group the service writes. A new version of a group is a new table beside the old one.
GROUPS: dict[str, FeatureGroup] = {group.name: group for group in (TA,)}
