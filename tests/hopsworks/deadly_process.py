"""A process that writes rows and kills itself at a named point, for the tests of what a kill leaves.

`python -m tests.hopsworks.deadly_process POINT FIRST` reads the settings of the environment, writes the
candles FIRST to FIRST + 4 and dies: at ``stored``, when they are in the working copy; ``handed``, when they
are with the producer; ``delivered``, when they are in the topic and the copy does not know.
"""

import os
import signal
import sys
from typing import Any

from services.features.groups import TA
from services.features.settings import FeaturesSettings
from services.features.stores.hopsworks import HopsworksStore
from services.features.stores.hopsworks_client import RemoteGroup
from services.features.stores.hopsworks_outbox import Outbox
from tests.features.rows import ta_row, tuples

ROWS = 5


def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    point, first = sys.argv[1], int(sys.argv[2])
    settings = FeaturesSettings.load()
    store = HopsworksStore(settings.store_path, settings=settings)
    store.ensure_group(TA)
    store.write(TA, tuples(ta_row(i, close=100.0 + i) for i in range(first, first + ROWS)))
    if point == "stored":
        die()
    elif point == "handed":
        setattr(RemoteGroup, "finalize", die)  # noqa: B010
    else:
        setattr(Outbox, "forget", die)  # noqa: B010
    store.flush()


if __name__ == "__main__":
    main()
