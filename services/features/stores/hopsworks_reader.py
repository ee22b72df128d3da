"""Reading Hopsworks by the questions of `contract.Reader`.

Offline answers know what the last materialization took in (``FEATURES_HOPSWORKS_MATERIALIZE_CRON``), online
ones what was delivered a moment ago. The features service itself answers from its working copy instead.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import pyarrow as pa

from services.common.errors import QueryError, UnknownSeriesError
from services.features.asked import Asked
from services.features.given import several, single
from services.features.groups import GROUPS, INGESTED, SENTIMENT, TA, FeatureGroup
from services.features.hopsworks_settings import HopsworksSettings
from services.features.joins import (
    LAST_NEWS,
    base_coin,
    divide_names,
    joined_names,
    known_at_ms,
    newest_at,
    sentiment_values,
)
from services.features.news_columns import SECONDS_SINCE_NEWS
from services.features.stores.hopsworks_answers import (
    Wanted,
    fitting,
    lacks_a_value,
    limited,
    only,
    wanted_keys,
    with_added,
)
from services.features.stores.hopsworks_client import Hopsworks
from services.features.stores.hopsworks_tables import HopsworksTables
from services.features.stores.hopsworks_types import ONLINE
from services.features.stores.sqlite_select import Span, selected_names
from services.features.times import Time, to_ms
from services.features.training import Label, label_returns, training_columns
from services.features.windows import LONGEST_MS


def _log_in(settings: HopsworksSettings) -> HopsworksTables:
    return HopsworksTables(Hopsworks(settings, settings.state_dir / "hopsworks-reader"), settings)


class HopsworksReader:
    """`contract.Reader` on Hopsworks; logs in when it is made. Raises `StoreError`."""

    def __init__(
        self,
        path: Path | None = None,  # noqa: ARG002 (every store is opened with one)
        *,
        settings: HopsworksSettings,
        open_tables: Callable[[HopsworksSettings], HopsworksTables] = _log_in,
    ) -> None:
        self._tables = open_tables(settings)

    def groups(self) -> dict[str, FeatureGroup]:
        """The groups that this version of the code reads."""
        return dict(GROUPS)

    def _group(self, name: str) -> FeatureGroup:
        if single("group", name) not in GROUPS:
            raise UnknownSeriesError(f"unknown feature group {name!r}; known: {', '.join(GROUPS)}")
        return GROUPS[name]

    def describe(self, group: str = "ta", *, now: Time | None = None) -> dict[str, Any]:
        """A group's columns, and the last time of each series; counts and null rates are None.

        Counting would read all rows; Hopsworks shows statistics of its own.
        """
        found = self._group(group)
        rows = self._tables.online(found) if found.name in ONLINE else []
        now_ms = time.time_ns() // 1_000_000 if now is None else to_ms(now)
        fields = ("name", "kind", "unit", "description", "nullable")
        return {
            "name": found.name,
            "version": found.version,
            "description": found.description,
            "key": list(found.key),
            "event_time": found.event_time,
            "rows": None,
            "columns": [
                {name: getattr(column, name) for name in fields} | {"null_rate": None}
                for column in found.stored
            ],
            "series": [
                {name: row[name] for name in found.key}
                | {
                    "rows": None,
                    "first_ms": None,
                    "last_ms": row[found.event_time],
                    "written_ms": row[INGESTED.name],
                    "age_s": max(0, now_ms - row[found.event_time]) / 1000,
                }
                for row in rows
            ],
        }

    def latest(
        self,
        pair: str | None = None,
        timeframe: str | None = None,
        exchange: str | None = None,
        group: str = "ta",
        *,
        coin: str | None = None,
    ) -> dict[str, Any] | None:
        """The newest closed row of a series; `QueryError` for `news_signals`, which is offline only."""
        asked = {"pair": pair, "timeframe": timeframe, "exchange": exchange, "coin": coin}
        rows = self._newest(self._group(group), Asked(asked, ("exchange",), of_one=True))
        return only(rows, pair)

    def latest_all(
        self,
        pair: str | None = None,
        timeframe: str | None = None,
        exchange: str | None = None,
        group: str = "ta",
        *,
        coin: str | None = None,
    ) -> list[dict[str, Any]]:
        """The newest closed row of each series that fits, in key order."""
        asked = {"pair": pair, "timeframe": timeframe, "exchange": exchange, "coin": coin}
        return self._newest(self._group(group), Asked(asked))

    def _newest(self, group: FeatureGroup, asked: Asked) -> list[dict[str, Any]]:
        if group.name not in ONLINE:
            raise QueryError(f"{group.name} has no online rows in Hopsworks; ask for its history")
        return fitting(self._tables.online(group), wanted_keys(asked, group))

    def _checked(self, table: pa.Table, group: FeatureGroup, wanted: Wanted) -> pa.Table:
        """A history as it is. Raises `UnknownSeriesError` where it lacks what is not even online."""
        if lacks_a_value(table, wanted):
            # Of signals there are no online rows, but whoever has one has sentiment.
            fitting(self._tables.online(group if group.name in ONLINE else SENTIMENT), wanted)
        return table

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
        """Closed rows as of the last materialization; a series that has none yet gives an empty table."""
        span = Span.of(start, end, limit, newest, after)
        found = self._group(group)
        asked = Asked(
            {"pair": pairs, "timeframe": timeframe, "exchange": exchange, "coin": coin}, ("exchange", "coin")
        )
        names, wanted = selected_names(found, columns), wanted_keys(asked, found)
        table = self._tables.offline(found, names, wanted, span.start_ms, span.end_ms)
        return limited(self._checked(table, found, wanted), found, span)

    def vector(
        self, pair: str, timeframe: str, exchange: str | None = None, *, now: Time | None = None
    ) -> dict[str, Any] | None:
        """The newest closed row of a pair with the sentiment of its end.

        Where sentiment has changed since that end, it is read offline, as of the last materialization.
        """
        asked = {"pair": pair, "timeframe": timeframe, "exchange": exchange}
        Asked(asked, ("exchange",), of_one=True).filters(TA)
        return only(self.vectors(pair, timeframe, exchange, now=now), pair)

    def vectors(
        self,
        pair: str | None = None,
        timeframe: str | None = None,
        exchange: str | None = None,
        *,
        now: Time | None = None,
    ) -> list[dict[str, Any]]:
        """The same for each series that fits."""
        now_ms = time.time_ns() // 1_000_000 if now is None else to_ms(now)
        rows = self.latest_all(pair, timeframe, exchange)
        newest = {row["coin"]: row for row in self._tables.online(SENTIMENT)} if rows else {}
        asked = [(base_coin(row["pair"]), known_at_ms(row, now_ms)) for row in rows]
        changed: dict[str, list[int]] = {}
        for coin, at_ms in asked:
            if coin in newest and newest[coin][SENTIMENT.event_time] > at_ms:
                changed.setdefault(coin, []).append(at_ms)
        held = {coin: self._held(coin, sorted(set(times))) for coin, times in changed.items()}
        return [
            row | sentiment_values(SENTIMENT, held.get(coin, {}).get(at_ms, newest.get(coin)), at_ms)
            for row, (coin, at_ms) in zip(rows, asked, strict=True)
        ]

    def _held(self, coin: str, times: Sequence[int]) -> dict[int, dict[str, Any] | None]:
        """The sentiment of a coin that held at each of some ascending times, None before its first."""
        for since_ms in (times[0] - LONGEST_MS, 0):
            table = self._tables.offline(SENTIMENT, SENTIMENT.names, {"coin": [coin]}, since_ms, times[-1])
            ends: list[Any] = table[SENTIMENT.event_time].to_pylist()
            places = newest_at(ends, times)
            # A row holds until the next; only without news for days is that row an older one.
            if places[0] is not None:
                break
        return {
            time: None if place is None else table.slice(place, 1).to_pylist()[0]
            for time, place in zip(times, places, strict=True)
        }

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
        """Rows of the feature view: `ta`, each row with the sentiment of its end."""
        span = Span.of(start, end, limit, newest)
        everything = (*TA.names, *joined_names(SENTIMENT))
        columns = everything if columns is None else several("column", columns)
        table = self._joined(pairs, timeframe, exchange, span, columns)
        return limited(table.select(list(dict.fromkeys((*TA.primary_key, *columns)))), TA, span)

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
        """What the SQLite store gives for the same rows, from the feature view; see `SqliteReader`."""
        span = Span.of(start, end, None, newest=False)
        pairs, timeframe = several("pair", pairs), single("timeframe", timeframe)
        coins = {base_coin(pair) for pair in pairs}
        names = training_columns(
            TA,
            SENTIMENT,
            features,
            lambda: not coins.isdisjoint(row["coin"] for row in self._tables.online(SENTIMENT)),
        )
        table = self._joined(pairs, timeframe, exchange, span, [*names, "close"])
        return label_returns(
            table, timeframe, names, horizon, dropna=dropna, label=label, chosen=features is not None
        )

    def _joined(
        self,
        pairs: str | Sequence[str],
        timeframe: str,
        exchange: str | None,
        span: Span,
        columns: Sequence[str],
    ) -> pa.Table:
        own, added = divide_names(columns, TA, SENTIMENT)
        wanted = wanted_keys(
            Asked({"pair": pairs, "timeframe": timeframe, "exchange": exchange}, ("exchange",)), TA
        )
        names = list(dict.fromkeys([*TA.primary_key, *own]))
        if not added:
            table = self._tables.offline(TA, names, wanted, span.start_ms, span.end_ms)
            return self._checked(table, TA, wanted)
        kept = [name for name in added if name != SECONDS_SINCE_NEWS.name]
        table = self._tables.joined([*names, *kept, LAST_NEWS], wanted, span.start_ms, span.end_ms)
        return with_added(self._checked(table, TA, wanted), names, added)

    def close(self) -> None:
        """The client's connection ends with the process."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
