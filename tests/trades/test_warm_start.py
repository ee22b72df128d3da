"""A live feed that begins in the past: history by REST, then live, without a seam."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.sync.server import ServerConnection

from services.common.errors import SettingsError
from services.common.health import Health
from services.common.metrics import Metrics
from services.trades.counters import TradeMetrics
from services.trades.exchanges import REGISTRY
from services.trades.progress import Progress
from services.trades.rest import http_fetch
from services.trades.sources.history import HistorySource, history_identity
from services.trades.sources.live import LiveSource
from services.trades.sources.warm_start import WarmStart
from tests.trades.support import (
    T0_MS,
    FakePublisher,
    RestServer,
    SocketServer,
    kraken_ack,
    kraken_frame,
    kraken_pages,
    kraken_row,
    kraken_snapshot,
    rest_server,
    settings,
    socket_server,
    wait_until,
)

#: Trade n happened at T0 + 10 n ms; history has settled long ago.
NOW_MS = T0_MS + 3_600_000
SINCE_MS = T0_MS + 1_000


class Started:
    """A warm start that runs in a thread; all that it publishes is in `publisher`."""

    def __init__(
        self, state: Path, ws_url: str, rest_url: str, now_ms: Callable[[], int] = lambda: NOW_MS
    ) -> None:
        chosen = settings(
            pairs="BTC/USD", since=str(SINCE_MS), ws_url=ws_url, rest_url=rest_url, state_dir=str(state),
            backoff_min_s="0.02", backoff_max_s="0.1", rest_interval_s="0.01", heartbeat_s="0.05",
        )  # fmt: skip
        exchange = REGISTRY["kraken"](chosen.pairs)
        metrics = TradeMetrics(Metrics())
        fetch = http_fetch(exchange, rest_url, now_ms)
        self.health = Health(60.0)
        self.progress = Progress(state / "live.json", "live kraken")
        self.publisher = FakePublisher(self.progress)
        self.stop = threading.Event()
        self.began: list[tuple[str, ...]] = []

        def history(pairs: tuple[str, ...]) -> HistorySource:
            self.began.append(pairs)
            own = Progress(state / "history.progress", history_identity(chosen))
            # What goes out is one sequence, whoever confirms it.
            out = FakePublisher(own, self.publisher.messages)
            return HistorySource(
                chosen.model_copy(update={"pairs": pairs}),
                exchange,
                fetch,
                out,
                own,
                self.health,
                metrics,
                now_ms,
                state / "report.json",
                goes_on=True,
            )

        def live() -> LiveSource:
            return LiveSource(
                chosen, exchange, self.publisher, self.progress, self.health, metrics, fetch, now_ms
            )

        self.source = WarmStart(chosen.pairs, self.progress, history, live, self.health)

    @contextmanager
    def running(self) -> Iterator["Started"]:
        thread = threading.Thread(target=self.source.run, args=(self.stop,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.stop.set()
            thread.join(10)
            assert not thread.is_alive()


@contextmanager
def exchange(before: int, live_ids: tuple[int, ...]) -> Iterator[tuple[SocketServer, RestServer]]:
    """REST knows ids up to `before` until somebody connects, and then all; the socket brings `live_ids`."""

    def play(server: SocketServer, connection: ServerConnection, number: int) -> None:
        kraken_ack(connection)
        connection.send(kraken_snapshot(*live_ids[:2]))
        for trade_id in live_ids[2:]:
            connection.send(kraken_frame(kraken_row(trade_id)))
        server.hold(connection)

    with socket_server(play) as sockets:

        def answer(path: str, params: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
            last = live_ids[-1] if sockets.connections else before
            return kraken_pages(range(1, last + 1))(path, params)

        with rest_server(answer) as rest:
            yield sockets, rest


def test_history_and_live_are_one_sequence_without_hole_or_double(tmp_path: Path) -> None:
    # The socket begins some trades after what history ended with: REST fills that.
    with exchange(400, (449, 450, 451, 452)) as (sockets, rest):
        with Started(tmp_path, sockets.url, rest.url).running() as run:
            wait_until(lambda: 452 in run.publisher.ids(), "the last live trade")
        assert run.publisher.ids() == list(range(100, 453))
        first, *rest_of = [message for message in run.publisher.messages if message[0] != "heartbeat"]
        assert first[:3] == ("begin", "BTC/USD", SINCE_MS)
        assert {message[0] for message in rest_of} == {"trades"}
        assert run.progress.positions["BTC/USD"].trade_id == 452
        assert not (tmp_path / "history.progress").exists()


def test_what_traded_while_a_long_history_was_fetched_is_fetched_too(tmp_path: Path) -> None:
    now_ms = NOW_MS
    reached: list[int] = []

    def slow(path: str, params: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        # Trade n happens 10 n seconds after T0. Half an hour passes meanwhile.
        nonlocal now_ms
        since = int(params["since"]) // 1_000_000
        ids = [n for n in range((now_ms - T0_MS) // 10_000 + 1) if T0_MS + n * 10_000 > since][:100]
        rows = [["100.5", "0.25", T0_MS / 1000 + n * 10, "b", "m", "", n] for n in ids]
        last = str((T0_MS + ids[-1] * 10_000) * 1_000_000) if ids else params["since"]
        now_ms = min(now_ms + 600_000, NOW_MS + 1_800_000)
        return 200, {}, json.dumps({"error": [], "result": {"XXBTZUSD": rows, "last": last}}).encode()

    def play(server: SocketServer, connection: ServerConnection, number: int) -> None:
        kraken_ack(connection)
        reached.append(max(run.publisher.ids()))
        connection.send(kraken_snapshot(541))
        server.hold(connection)

    with (
        socket_server(play) as sockets,
        rest_server(slow) as rest,
        Started(tmp_path, sockets.url, rest.url, lambda: now_ms).running() as run,
    ):
        wait_until(lambda: 541 in run.publisher.ids(), "the live trade")
    # The rest is that of the last seconds.
    assert reached[0] >= 539
    assert run.publisher.ids() == list(range(1, 542))
    assert run.began == [("BTC/USD",)]


def test_a_restart_goes_on_live_without_asking_for_history(tmp_path: Path) -> None:
    with exchange(400, (399, 400, 401)) as (sockets, rest):
        with Started(tmp_path, sockets.url, rest.url).running() as run:
            wait_until(lambda: 401 in run.publisher.ids(), "the live trade")
        with Started(tmp_path, sockets.url, rest.url).running() as again:
            wait_until(lambda: len(again.publisher.messages) > 0, "a heartbeat")
        assert run.began == [("BTC/USD",)]
        assert again.began == []
        assert again.publisher.ids() == []


def test_it_is_not_ready_while_history_is_fetched_and_goes_on_there_after_a_stop(tmp_path: Path) -> None:
    def nothing_more(path: str, params: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        if len(served) >= 1:
            return 503, {}, b""
        served.append(params["since"])
        return kraken_pages(range(1, 401), page_rows=200)(path, params)

    served: list[str] = []
    with (
        rest_server(nothing_more) as rest,
        Started(tmp_path, "ws://127.0.0.1:9", rest.url).running() as run,
    ):
        wait_until(lambda: 199 in run.publisher.ids(), "the first page")
        assert any(why.startswith("live: history is fetched first") for why in run.health.not_ready())
    assert "BTC/USD" not in run.progress.positions
    with exchange(400, (399, 400, 401)) as (sockets, rest):
        with Started(tmp_path, sockets.url, rest.url).running() as again:
            wait_until(lambda: 401 in again.publisher.ids(), "the live trade")
        assert not any(why.startswith("live:") for why in again.health.not_ready())
    both = run.publisher.ids() + again.publisher.ids()
    assert sorted(set(both)) == list(range(100, 402))


def test_an_exchange_without_history_is_refused_with_the_reason() -> None:
    with pytest.raises(SettingsError, match="TRADES_SINCE: coinbase gives trades backwards"):
        settings(exchange="coinbase", pairs="BTC/USD", since="2024-01-01")
    with pytest.raises(SettingsError, match="a replay begins where its recording does"):
        settings(source="replay", replay_path="x.csv", since="2024-01-01")
