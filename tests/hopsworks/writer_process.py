"""`tests.features.writer_process` on Hopsworks: a batch is reported when it was delivered.

`python -m tests.hopsworks.writer_process` reads the settings of the environment.
"""

from services.features.groups import TA
from services.features.settings import FeaturesSettings
from services.features.stores.hopsworks import HopsworksStore
from tests.features.writer_process import write_without_end


def main() -> None:
    settings = FeaturesSettings.load()
    store = HopsworksStore(settings.store_path, settings=settings)
    store.ensure_group(TA)
    write_without_end(store, flush=True, pause_s=0.2)


if __name__ == "__main__":
    main()
