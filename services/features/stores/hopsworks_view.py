"""The feature view in Hopsworks: rows of `ta`, each with the sentiment of its base coin at its end."""

from typing import Any

from services.features.groups import SENTIMENT, TA
from services.features.joins import LAST_NEWS
from services.features.stores.hopsworks_types import COIN, remote_columns

#: Its name; a new version of either group makes a new version of the view.
VIEW = f"{TA.name}_with_sentiment"
VIEW_VERSION = TA.version * 100 + SENTIMENT.version

#: What sentiment adds there. Its seconds since the newest signal are counted from the last.
ADDED = (*SENTIMENT.features, LAST_NEWS)


def make_view(store: Any) -> Any:
    """The view, made if it is not there. Hopsworks joins a view's groups by event time, never ahead of it."""
    ta = store.get_feature_group(TA.name, version=TA.version)
    sentiment = store.get_feature_group(SENTIMENT.name, version=SENTIMENT.version)
    query = ta.select([column.name for column in remote_columns(TA)]).join(
        sentiment.select(list(ADDED)), left_on=[COIN.name], right_on=list(SENTIMENT.key), join_type="left"
    )
    return store.get_or_create_feature_view(
        name=VIEW,
        version=VIEW_VERSION,
        query=query,
        description="Candles with indicators and the sentiment of the base coin known at their end",
    )
