"""The features service: writes feature groups into the store and serves them.

Data scientists start here: ``from services.features import open_store``. Answers are Arrow tables;
`to_pandas` and `to_polars` make frames with real times of them, `split_by_time` divides a training set.
"""

from typing import TYPE_CHECKING

from services.features.frames import to_pandas, to_polars
from services.features.losses import RowsLeftOutWarning
from services.features.splits import split_by_time

if TYPE_CHECKING:
    from os import PathLike

    from services.features.stores.contract import Reader

__all__ = ["RowsLeftOutWarning", "open_store", "split_by_time", "to_pandas", "to_polars"]


def open_store(path_or_url: "str | PathLike[str] | None" = None) -> "Reader":
    """Open the feature store read-only, while the service writes it or not.

    `path_or_url` is a file, a ``sqlite:///`` URL, ``hopsworks://`` (the cluster that the settings
    ``FEATURES_HOPSWORKS_…`` name), or nothing: then it is what ``FEATURES_STORE`` and
    ``FEATURES_STORE_PATH`` say, else ``store/features.sqlite`` under the current folder. Use it
    as a context manager or close it. Raises `StoreError` when there is no store or it cannot be read.

    >>> with open_store() as store:                                        # doctest: +SKIP
    ...     frame = to_pandas(store.history("BTC/USD", "1m"))
    """
    # Imported here so that importing a part of the service does not load all of it.
    from services.features.settings import FeaturesSettings
    from services.features.stores import REMOTE, open_for_reading
    from services.features.stores.location import parse_location

    if path_or_url is None:
        settings = FeaturesSettings.load()
        return open_for_reading(settings.store, settings.store_path, settings)
    name, path = parse_location(path_or_url)
    return open_for_reading(name, path, FeaturesSettings.load() if name in REMOTE else None)
