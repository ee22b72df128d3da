"""Runs a service that is killed with SIGKILL at a named point: ``victim SERVICE POINT COUNT``.

The points are put in from outside, so that the services themselves know nothing of them.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from itertools import count
from typing import Any

from services.common.runner import run_service


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at(owner: Any, name: str, number: int, *, after: bool) -> None:
    """Die before or after the call `number` of `owner.name`."""
    original: Callable[..., Any] = getattr(owner, name)
    calls = count(1)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        fatal = next(calls) == number
        if fatal and not after:
            die()
        result = original(*args, **kwargs)
        if fatal:
            die()
        return result

    setattr(owner, name, wrapped)


def inside_a_store_transaction(number: int) -> None:
    """Die when the closed rows of a batch are written and the online ones are not."""
    from services.features.stores import sqlite

    original: Callable[..., Any] = sqlite._divide
    calls = count(1)

    def divide(*args: Any) -> Any:
        offline, newest = original(*args)
        if next(calls) != number:
            return offline, newest

        def deadly() -> Iterator[Any]:
            die()
            yield from newest

        return offline, deadly()

    setattr(sqlite, "_divide", divide)  # noqa: B010


def arm(point: str, number: int) -> None:
    if point in ("before_commit", "after_commit"):
        from quixstreams.kafka.consumer import BaseConsumer

        at(BaseConsumer, "commit", number, after=point == "after_commit")
    elif point == "before_changelog":
        from quixstreams.checkpointing.checkpoint import Checkpoint

        at(Checkpoint, "commit", number, after=False)
    elif point == "candles_mid_batch":
        from services.candles.series import PairCandles

        at(PairCandles, "dump", number, after=False)
    elif point == "ta_mid_batch":
        from services.ta.history import History

        at(History, "save", number, after=False)
    elif point == "mid_transaction":
        inside_a_store_transaction(number)
    elif point == "after_store_write":
        from services.features.stores.sqlite import SqliteStore

        at(SqliteStore, "write", number, after=True)
    elif point in ("trades_mid_batch", "after_publish"):
        from services.trades.publisher import KafkaPublisher

        at(KafkaPublisher, "trades", number, after=point == "after_publish")
    elif point in ("before_progress", "after_progress"):
        from services.trades.progress import Progress

        at(Progress, "save", number, after=point == "after_progress")
    elif point == "news_before_send":
        from services.news.publisher import KafkaPublisher as NewsPublisher

        at(NewsPublisher, "send", number, after=False)
    elif point == "news_before_confirm":
        from services.news.registry import Registry

        at(Registry, "confirm", number, after=False)
    elif point == "signals_after_flush":
        from services.news_signals.publisher import KafkaPublisher as SignalsPublisher

        at(SignalsPublisher, "flush", number, after=True)
    elif point == "after_sentiment_write":
        from services.features.stores.sqlite import SqliteStore

        at(SqliteStore, "write_many", number, after=True)
    elif point == "after_end":
        from services.common.ended import EndedSeries

        at(EndedSeries, "end", number, after=True)
    elif point == "after_run":
        from quixstreams import Application

        at(Application, "run", number, after=True)
    else:
        raise SystemExit(f"no point {point}")


if __name__ == "__main__":
    service, point, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
    arm(point, number)
    name = "".join(part.capitalize() for part in service.split("_"))
    settings = getattr(import_module(f"services.{service}.settings"), f"{name}Settings")
    pipeline = import_module(f"services.{service}.pipeline")
    sys.exit(run_service(service, settings, pipeline.build_pipeline))
