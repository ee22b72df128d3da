"""Reading the SQLite store: single groups, and the vectors and training sets that join them."""

import time
from collections.abc import Sequence
from typing import Any

import apsw
import pyarrow as pa

from services.common.errors import QueryError, UnknownSeriesError
from services.features.asked import Asked
from services.features.given import several, single
from services.features.groups import SENTIMENT, TA, FeatureGroup
from services.features.joins import (
    base_coin,
    divide_names,
    joined_names,
    known_at_ms,
    sentiment_values,
    with_sentiment,
)
from services.features.stores.sqlite_select import Span, selected_names
from services.features.stores.sqlite_tables import SqliteTables
from services.features.times import Time, to_ms
from services.features.training import Label, label_returns, training_columns


class SqliteReader(SqliteTables):
    """`contract.Reader` on one SQLite file. Safe in several threads; raises `StoreError`."""

    def vector(
        self, pair: str, timeframe: str, exchange: str | None = None, *, now: Time | None = None
    ) -> dict[str, Any] | None:
        """The newest row of a pair with the sentiment of its base coin at the row's end.

        Columns: those of `ta`, the features of `sentiment`, and ``seconds_since_news``; the same values
        as the training row of that time. A candle that is still open (``closed`` is False) gets the
        sentiment of `now`, by default the wall clock's, since its end has yet to come. What is null where
        `training_set` says. None where the series has no row yet.
        Raises `UnknownSeriesError`, `QueryError`, `StoreError`.
        """
        asked = {"pair": pair, "timeframe": timeframe, "exchange": exchange}
        Asked(asked, ("exchange",), of_one=True).filters(TA)
        found = self.vectors(pair, timeframe, exchange, now=now)
        if len(found) > 1:
            names = ", ".join(str(row["exchange"]) for row in found)
            raise QueryError(f"{pair} is on several exchanges; name one of {names}")
        return found[0] if found else None

    def vectors(
        self,
        pair: str | None = None,
        timeframe: str | None = None,
        exchange: str | None = None,
        *,
        now: Time | None = None,
    ) -> list[dict[str, Any]]:
        """The newest row of each series that fits, with sentiment as `vector` has it."""
        now_ms = time.time_ns() // 1_000_000 if now is None else to_ms(now)
        asked = Asked({"pair": pair, "timeframe": timeframe, "exchange": exchange})
        with self._connection() as connection:
            ta, sentiment = (self._group(connection, name) for name in ("ta", "sentiment"))
            names = sentiment.names
            layers = self._layers(connection, sentiment)
            joined = []
            for row in self._newest(connection, ta, asked):
                at_ms = known_at_ms(row, now_ms)
                values = layers.as_of((base_coin(row["pair"]),), at_ms, names)
                then = None if values is None else dict(zip(names, values, strict=True))
                joined.append(row | sentiment_values(sentiment, then, at_ms))
        return joined

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
        """`history` of `ta`, each row with the sentiment of its base coin at its end.

        `columns` may be those of `ta`, the features of `sentiment`, and ``seconds_since_news``.
        Raises `UnknownSeriesError`, `QueryError`, `StoreError`.
        """
        span = Span.of(start, end, limit, newest)
        asked = Asked({"pair": pairs, "timeframe": timeframe, "exchange": exchange}, ("exchange",))
        with self._connection() as connection:
            ta, sentiment = (self._group(connection, name) for name in ("ta", "sentiment"))
            everything = (*ta.names, *joined_names(sentiment))
            columns = everything if columns is None else several("column", columns)
            own, added = divide_names(columns, ta, sentiment)
            names = selected_names(ta, own)
            table = self._history(connection, ta, asked, span, names)
            table = self._joined(connection, table, sentiment, added)
        return table.select(list(dict.fromkeys((*ta.primary_key, *columns))))

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
        """One row a closed candle: features known at its end, and the return that followed.

        Columns: exchange, pair, timeframe, end_ms, known_at_ms, the features, and for each `horizon`
        ``label_{label}_{horizon}``: the ``log_return`` or ``return`` of the close `horizon` intervals later
        over this close, or their ``direction`` (1, 0, -1). A label is null where a candle in between is
        missing or lies after `end`. `services.features.split_by_time` divides the set for validation.

        `features` may be those of `ta`, those of `sentiment` (of the pair's base coin, as of
        ``known_at_ms``) and ``seconds_since_news``. By default they are all that are never null once warm:
        `ta` without `vwap` and `flow_imbalance_1` (null in a candle without trades), and, when the store
        has sentiment of one of the base coins, its counts.

        A window in which no signal was observed has a count of 0, and its other columns are null. That says
        nothing of why: the coin had no news, or nobody watched, before the news service first ran or while
        it was down, which the store does not know. ``seconds_since_news`` is null before the coin's first
        signal in the store, and nowhere else.

        `dropna` leaves out rows with any null in the features or the label. So with the default features
        no row is lost for lack of news, and rows from before the first signal stay, with counts of 0. Add
        ``seconds_since_news`` to leave out these and keep quiet times, or a column of a window, such as
        ``sentiment_mean_1h``, to keep only rows with news in that window.

        Where the default features would cost more than half of the rows that are warm, or all of a series,
        as old rows do that lack an indicator which was added or enabled later, that is an error which
        names them: `make rebuild` computes it for old rows. Where they cost more than 1% of these rows, or
        a series is not warm at all, that is a `RowsLeftOutWarning`. Features that were asked for by name are
        never refused or warned about for that.
        Raises `UnknownSeriesError`, `QueryError`, `StoreError`.
        """
        span = Span.of(start, end, None, newest=False)
        # Once, since whatever gives them may do so a single time.
        pairs, timeframe = several("pair", pairs), single("timeframe", timeframe)
        asked = Asked({"pair": pairs, "timeframe": timeframe, "exchange": exchange}, ("exchange",))
        with self._connection() as connection:
            ta = self._group(connection, "ta")
            coins = [base_coin(pair) for pair in pairs]
            # Of what the file has, which another version of this code may have written.
            sentiment = self._known(connection).groups.get(SENTIMENT.name, SENTIMENT)
            names = training_columns(ta, sentiment, features, lambda: self._has_news(connection, coins))
            own = [name for name in names if name in ta.features]
            table = self._history(connection, ta, asked, span, selected_names(ta, [*own, "close"]))
            if len(own) < len(names):
                sentiment = self._group(connection, SENTIMENT.name)
                added = divide_names(names, ta, sentiment)[1]
                table = self._joined(connection, table, sentiment, added)
        return label_returns(
            table, timeframe, names, horizon, dropna=dropna, label=label, chosen=features is not None
        )

    def _has_news(self, connection: apsw.Connection, coins: Sequence[str]) -> bool:
        """Whether there is sentiment of one of the coins."""
        try:
            sentiment = self._group(connection, "sentiment")
        except UnknownSeriesError:
            return False
        known = {coin for (coin,) in self._keys(connection, sentiment, {})}
        return not known.isdisjoint(coins)

    def _joined(
        self, connection: apsw.Connection, table: pa.Table, sentiment: FeatureGroup, names: Sequence[str]
    ) -> pa.Table:
        layers = self._layers(connection, sentiment)

        def load(coin: str, first_ms: int, last_ms: int, columns: Sequence[str]) -> pa.Table:
            before = layers.as_of((coin,), first_ms, [sentiment.event_time])
            begin_ms = first_ms if before is None else before[0]
            return layers.table((coin,), Span(begin_ms, last_ms), columns)

        return with_sentiment(table, sentiment, names, load) if names else table
