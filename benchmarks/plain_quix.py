"""The obvious way, to measure against: one trade a message into a Quix tumbling window."""

import sys
import time

from quixstreams import Application
from quixstreams.dataframe.windows import Count, First, Last, Max, Min, Sum


def main(broker: str, topic: str, expected: int) -> None:
    """Consume `expected` trades and print ``trades/s cpu_s``, counted from the first one."""
    app = Application(
        broker_address=broker,
        consumer_group="plain",
        auto_offset_reset="earliest",
        loglevel=None,
        state_dir=sys.argv[4],
        consumer_extra_config={
            "session.timeout.ms": 3000,
            "heartbeat.interval.ms": 300,
            # One fetch brings all, so that the embedded broker is out of the measurement.
            "fetch.wait.max.ms": 2000,
            "fetch.message.max.bytes": 100_000_000,
            "fetch.queue.backoff.ms": 10,
        },
        producer_extra_config={"batch.num.messages": 1},
    )
    began: list[float] = []
    seen = 0

    def count(_: dict[str, object]) -> None:
        nonlocal seen
        if not began:
            began.extend((time.perf_counter(), time.process_time()))
        seen += 1
        if seen == expected:
            wall, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
            sys.stdout.write(f"{expected / wall} {cpu}\n")
            app.stop()

    source = app.topic(topic, value_deserializer="json", timestamp_extractor=lambda v, *_: v["event_time_ms"])
    candles = app.topic("plain_candles", value_serializer="json")
    frame = app.dataframe(source)
    frame.update(count)
    windows = frame.tumbling_window(60_000).agg(
        open=First("price"),
        high=Max("price"),
        low=Min("price"),
        close=Last("price"),
        volume=Sum("quantity"),
        trade_count=Count(),
    )
    windows.final().to_topic(candles)
    app.run()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
