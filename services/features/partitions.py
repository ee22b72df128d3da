"""Where the Parquet files of a series are, the way DuckDB, Polars, pandas and Spark read them. Pure."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from services.features.groups import FeatureGroup

#: A month of these is few rows, and a Parquet file of 60 columns has some 20 kB before the first.
YEARLY_TIMEFRAMES = ("1h", "4h", "1d", "1w", "1M")


def key_folder(names: Sequence[str], values: Sequence[str]) -> Path:
    """``exchange=kraken/pair=BTC%2FUSD/timeframe=1m``."""
    return Path(*(f"{name}={quote(str(value), '')}" for name, value in zip(names, values, strict=True)))


class Period(NamedTuple):
    """What one file of rolled rows holds: event times in ``[start_ms, end_ms)``."""

    name: str
    start_ms: int
    end_ms: int


def period_of(group: FeatureGroup, key: Sequence[str], time_ms: int) -> Period:
    """The UTC month of a time, or its year where there are few rows in a month."""
    day = datetime.fromtimestamp(time_ms / 1000, UTC)
    yearly = "timeframe" in group.key and key[group.key.index("timeframe")] in YEARLY_TIMEFRAMES
    if yearly:
        return Period(f"{day.year}", _ms(day.year, 1), _ms(day.year + 1, 1))
    following = (day.year, day.month + 1) if day.month < 12 else (day.year + 1, 1)
    return Period(f"{day.year}-{day.month:02d}", _ms(day.year, day.month), _ms(*following))


def _ms(year: int, month: int) -> int:
    return int(datetime(year, month, 1, tzinfo=UTC).timestamp()) * 1000
