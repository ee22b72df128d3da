"""The feature groups: what the store keeps, under which keys, and what each column means. Pure.

A group is one table of the store in two forms: *offline*, every closed row under its key and event
time, and *online*, the newest row of each key. The store saves this registry beside the data, so that
a reader needs nothing but the file.
"""

from dataclasses import dataclass

from services.common.columns import TA_COLUMNS, Column
from services.features.news_columns import NEWS_SIGNAL_COLUMNS, SENTIMENT_COLUMNS

#: The store adds it to every group; it tells when a row was written, not when it was known.
INGESTED = Column("ingested_at_ms", "int", "ms", "When the store wrote this row, UTC epoch")


@dataclass(frozen=True, slots=True)
class FeatureGroup:
    """One group of features. Rows are tuples in the order of `columns`, without `ingested_at_ms`.

    The key is the first columns. Offline a row has its key, its event time and the columns `within` to
    itself; a group without those has one row of a key at a time. `revision` and `closed` name the columns
    that say which of two such rows is the newer one, and whether a row is final; in a group without
    them the later write is newer, and every row final. `sparse` names columns that are null wherever
    nothing happened, as opposed to null until warm.
    """

    name: str
    version: int
    description: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    event_time: str
    revision: str | None = None
    closed: str | None = None
    sparse: tuple[str, ...] = ()
    within: tuple[str, ...] = ()

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
    def primary_key(self) -> tuple[str, ...]:
        """What names a row offline."""
        return (*self.key, self.event_time, *self.within)

    @property
    def order(self) -> tuple[str, ...]:
        """What decides, compared in turn, which of two rows of a key is the newest and stays online."""
        states = (name for name in (self.closed, self.revision) if name is not None)
        return (self.event_time, *states, *self.within)

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
    revision="revision",
    closed="closed",
    sparse=("vwap", "flow_imbalance_1"),
)

NEWS_SIGNALS = FeatureGroup(
    name="news_signals",
    version=1,
    description="What each article says of each coin that it is about",
    columns=NEWS_SIGNAL_COLUMNS,
    key=("coin",),
    event_time="observed_at_ms",
    within=("story_id",),
)

SENTIMENT = FeatureGroup(
    name="sentiment",
    version=1,
    description="News of each coin over the last 15 minutes to 24 hours; a row holds until the next, and "
    "before a coin's first signal there is none",
    columns=SENTIMENT_COLUMNS,
    key=("coin",),
    event_time="as_of_ms",
    # A window without news has no mean.
    sparse=tuple(column.name for column in SENTIMENT_COLUMNS if column.nullable),
)

#: Every group the service writes. A new version of a group is a new table beside the old one.
GROUPS: dict[str, FeatureGroup] = {group.name: group for group in (TA, NEWS_SIGNALS, SENTIMENT)}
