"""What Hopsworks does with the rows of a topic, modelled: its offline and its online table.

From its documentation and its client's source; not observed on a cluster.

- Offline, the materialization job keeps the last record of each primary key and event time, by offset.
  Records with the header ``storage: online`` are not for it.
- Online, OnlineFS upserts by primary key alone, not those with ``storage: offline``. With ``upsertIfNewer``
  only a record that is newer by event time replaces one. What happens at equal event times is documented
  nowhere; `strict` is the reading in which the row that is there stays.
"""

import io
from typing import Any

import fastavro
from confluent_kafka import Consumer, TopicPartition

from services.features.groups import FeatureGroup
from services.features.stores.hopsworks_types import ONLINE, primary_key
from tests.hopsworks.stub import Stub

type Row = dict[str, Any]


class Record:
    """One record of a topic."""

    def __init__(self, row: Row, headers: dict[str, bytes]) -> None:
        self.row = row
        self.headers = headers


def read_topic(stub: Stub, group: FeatureGroup) -> list[Record]:
    """All that was delivered to the topic of a group, in order."""
    topic = stub.topic(group.name, group.version)
    schema: Any = fastavro.parse_schema(stub.schema(group.name, group.version))
    consumer = Consumer(
        {
            "bootstrap.servers": stub.brokers,
            "group.id": "model",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            # The embedded broker waits that long also when it has something to give.
            "fetch.wait.max.ms": 50,
        }
    )
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        records: list[Record] = []
        while True:
            message = consumer.poll(20)
            assert message is not None, f"the broker does not answer for {topic}"
            if (error := message.error()) is not None:
                assert error.name() == "_PARTITION_EOF", error
                return records
            row: Any = fastavro.schemaless_reader(io.BytesIO(message.value() or b""), schema, schema)
            headers: Any = dict(message.headers() or [])
            records.append(Record(row, headers))
    finally:
        consumer.close()


class Model:
    """The two tables of one group."""

    def __init__(self, group: FeatureGroup, records: list[Record], *, strict: bool = False) -> None:
        self.offline: dict[tuple[Any, ...], Row] = {}
        self.online: dict[tuple[Any, ...], Row] = {}
        time = group.event_time
        for record in records:
            row, storage = record.row, record.headers.get("storage")
            key = tuple(row[name] for name in primary_key(group))
            assert None not in key, "a null in the key"
            if storage != b"online":
                self.offline[*key, row[time]] = row
            if storage == b"offline" or group.name not in ONLINE:
                continue
            there = self.online.get(key)
            conditional = there is not None and record.headers.get("upsertIfNewer") == b"1"
            if there is None or not conditional or _newer(row[time], there[time], strict=strict):
                self.online[key] = row


def _newer(time: int, there: int, *, strict: bool) -> bool:
    return time > there if strict else time >= there
