"""`python -m services.features.rebuild` sends the candles of a store to the topic that ta reads.

So that ta computes their indicators anew, those that were added since included, and a features service
writes them over the old rows. Each series goes from its first candle to its last, between the messages with
which a historical run begins and ends, so that both services stop by themselves when all is done.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import batched, groupby
from pathlib import Path
from uuid import uuid4

from confluent_kafka import KafkaError, Producer

from services.common.columns import CANDLE_COLUMNS
from services.common.errors import BrokerUnavailableError, QueryError, ServiceError, StoreError
from services.common.history import EMPTY, begin_header, end_header
from services.common.messages import Candle, batch_headers, encode, series_key
from services.common.settings import BrokerSettings
from services.common.timeframes import TIMEFRAMES
from services.common.topics import ensure_topics, producer_config
from services.features.query import store_path
from services.features.stores.contract import Reader
from services.features.stores.sqlite_connection import open_reader
from services.features.stores.sqlite_reader import SqliteReader
from services.features.stores.sqlite_schema import working_copies

COLUMNS = [column.name for column in CANDLE_COLUMNS]
PAGE_ROWS = 20_000
#: Candles of one message; ta's answers are three times as long.
MESSAGE_ROWS = 1_000

#: Key, value and headers of a message.
type Send = Callable[[bytes, bytes, list[tuple[str, bytes]]], None]


def send_candles(store: Reader, series: Sequence[tuple[str, ...]], send: Send, now_ms: int) -> int:
    """Send all closed candles of `series` (exchange, pair, timeframe); how many there were."""
    by_pair = {pair: [*found] for pair, found in groupby(sorted(series), key=lambda key: key[:2])}
    run, sent = uuid4().hex, 0
    headers = batch_headers(now_ms)
    for (exchange, pair), found in by_pair.items():
        key = series_key(exchange, pair)
        send(key, EMPTY, [*headers, begin_header()])
        present = {timeframe for _, _, timeframe in found}
        for timeframe in (name for name in TIMEFRAMES if name in present):
            for candles in _candles(store, exchange, pair, timeframe):
                send(key, encode(candles), headers)
                sent += len(candles)
        send(key, EMPTY, [*headers, end_header(run, len(by_pair))])
    return sent


def _candles(store: Reader, exchange: str, pair: str, timeframe: str) -> Iterator[Sequence[Candle]]:
    """The candles of one series, a message at a time."""
    since = 0
    while True:
        page = store.history(
            pair, timeframe, since, columns=COLUMNS, exchange=exchange, limit=PAGE_ROWS
        ).select(COLUMNS)
        rows = zip(*(page[name].to_pylist() for name in COLUMNS), strict=True)
        yield from batched([Candle(*row) for row in rows], MESSAGE_ROWS)
        if page.num_rows < PAGE_ROWS:
            return
        since = page["end_ms"][-1].as_py() + 1


def check_whole(store: Path) -> None:
    """Raises `StoreError` for a working copy, whose first candles are not the first there were.

    Indicators that begin in the midst of a history are others, and would replace the good ones.
    """
    connection, _ = open_reader(store)
    try:
        copies = working_copies(connection)
    finally:
        connection.close()
    if copies:
        raise StoreError(
            f"{store} is the working copy of another store and holds only the last days of "
            f"{', '.join(copies)}: indicators of these alone would go over the good ones of the whole history"
        )


class _Outlet:
    """A producer that raises when a message was not delivered."""

    def __init__(self, settings: BrokerSettings) -> None:
        self._topic = settings.topic("candles")
        self._producer = Producer({**settings.client_config(), **producer_config(settings)})
        self._failure: KafkaError | None = None

    def send(self, key: bytes, value: bytes, headers: list[tuple[str, bytes]]) -> None:
        while True:
            try:
                self._producer.produce(self._topic, value, key, headers=headers, on_delivery=self._done)
                break
            except BufferError:
                self._producer.poll(0.5)
        self._producer.poll(0)
        self._check()

    def _done(self, error: KafkaError | None, _message: object) -> None:
        self._failure = self._failure or error

    def _check(self) -> None:
        if self._failure is not None:
            raise BrokerUnavailableError(f"a message was not delivered: {self._failure.str()}")

    def flush(self) -> None:
        if self._producer.flush(120):
            raise BrokerUnavailableError("the broker did not take all candles within 120 s")
        self._check()


def main(arguments: Sequence[str] | None = None) -> int:
    """Send the candles; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m services.features.rebuild",
        description="Send the candles of a store to the topic `candles` with KAFKA_TOPIC_SUFFIX, which must "
        "be set, so that ta and features under the same suffix compute and store their indicators anew.",
    )
    parser.add_argument("--pair", action="append", help="like BTC/USD; may be given several times")
    parser.add_argument("--store", help="path of the store (FEATURES_STORE_PATH)")
    asked = parser.parse_args(arguments)
    try:
        settings = BrokerSettings.load()
        if not settings.topic_suffix:
            raise QueryError("set KAFKA_TOPIC_SUFFIX: on the live topics the candles would come twice")
        path = store_path(asked.store)
        check_whole(path)
        ensure_topics(settings, ("candles", "ta"))
        outlet = _Outlet(settings)
        with SqliteReader(path) as store:
            series = [key for key in store.series() if asked.pair is None or key[1] in asked.pair]
            unknown = set(asked.pair or ()) - {pair for _, pair, _ in series}
            if unknown or not series:
                raise QueryError(f"the store has no candles{' of ' if unknown else ''}{', '.join(unknown)}")
            sent = send_candles(
                store, [(e, p, t) for e, p, t in series], outlet.send, time.time_ns() // 1_000_000
            )
        outlet.flush()
    except ServiceError as error:
        sys.stderr.write(f"rebuild: {' '.join(str(error).split())}\n")
        return 1
    sys.stdout.write(f"{sent} candles of {len(series)} series sent to {settings.topic('candles')}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
