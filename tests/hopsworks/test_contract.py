"""The real client against a stub of Hopsworks and a real broker: the rows that arrive."""

from services.features.groups import TA
from services.features.stores.hopsworks import HopsworksStore
from tests.features.rows import ta_row, tuples
from tests.hopsworks.model import read_topic
from tests.hopsworks.stub import Stub


def test_rows_arrive(store: HopsworksStore, stub: Stub) -> None:
    store.write(TA, tuples([ta_row(0), ta_row(1, rsi_14=5.0)]))
    store.flush()
    for record in read_topic(stub, TA):
        print(record.headers, record.row)
    print(stub.requests)
