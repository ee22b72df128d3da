"""Stand-ins at the seams: a publisher that remembers, exchanges on loopback sockets."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import Server, ServerConnection, serve

from services.common.health import Health
from services.common.messages import Trade
from services.common.metrics import Metrics
from services.trades.counters import TradeMetrics
from services.trades.exchanges import REGISTRY
from services.trades.exchanges.contract import Bad
from services.trades.pipeline import now_ms
from services.trades.progress import Progress
from services.trades.rest import http_fetch
from services.trades.settings import TradesSettings
from services.trades.sources.live import LiveSource
from services.trades.sources.replay import ReplaySource

RECORDINGS = Path(__file__).parent.parent / "recordings"
T0_MS = 1_780_000_000_000


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s} s for {what}"
        time.sleep(0.005)


def trade(trade_id: int, pair: str = "BTC/USD", event_ms: int | None = None) -> Trade:
    event = T0_MS + trade_id * 10 if event_ms is None else event_ms
    return Trade("kraken", pair, trade_id, "buy", 100.0, 1.0, event, T0_MS + trade_id * 10 + 50)


@dataclass
class FakePublisher:
    """Remembers messages in order: ("trades", pair, rows, at) or ("heartbeat", pair, until, at)."""

    progress: Progress | None = None
    messages: list[tuple[Any, ...]] = field(default_factory=list)
    dead: list[Bad] = field(default_factory=list)

    def trades(self, pair: str, rows: Sequence[Trade], received_at_ms: int) -> None:
        assert rows
        self.messages.append(("trades", pair, list(rows), received_at_ms, time.monotonic()))
        if self.progress is not None:
            self.progress.sent(pair, rows[-1].trade_id, rows[-1].event_time_ms)()

    def heartbeat(self, pair: str, known_until_ms: int, now_ms: int) -> None:
        self.messages.append(("heartbeat", pair, known_until_ms, now_ms, time.monotonic()))

    def begin(self, pair: str, since_ms: int, now_ms: int) -> None:
        self.messages.append(("begin", pair, since_ms, now_ms, time.monotonic()))

    def pause(self, pair: str, known_until_ms: int, now_ms: int) -> None:
        self.messages.append(("pause", pair, known_until_ms, now_ms, time.monotonic()))

    def end(self, pair: str, known_until_ms: int, now_ms: int, series: int) -> None:
        self.messages.append(("end", pair, known_until_ms, series, time.monotonic()))

    def dead_letter(self, bad: Bad, now_ms: int) -> None:
        self.dead.append(bad)

    def poll(self) -> None:
        pass

    def flush(self) -> None:
        pass

    def ids(self, pair: str = "BTC/USD") -> list[int]:
        return [
            row.trade_id
            for message in list(self.messages)
            if message[0] == "trades" and message[1] == pair
            for row in message[2]
        ]

    def rows(self) -> list[Trade]:
        return [r for m in list(self.messages) if m[0] == "trades" for r in m[2]]

    def heartbeats(self, pair: str = "BTC/USD") -> list[int]:
        return [m[2] for m in list(self.messages) if m[0] == "heartbeat" and m[1] == pair]


# --- a WebSocket exchange -------------------------------------------------------------------------


class SocketServer:
    """`handler(connection, number)` plays the exchange; number counts connections from 1."""

    def __init__(self, handler: Callable[[ServerConnection, int], None]) -> None:
        self.connections = 0
        self.handler = handler
        self.stopping = threading.Event()
        self._server: Server = serve(self._handle, "127.0.0.1", 0, max_size=None, compression=None)
        self.url = f"ws://127.0.0.1:{self._server.socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def _handle(self, connection: ServerConnection) -> None:
        self.connections += 1
        with suppress(ConnectionClosed):
            self.handler(connection, self.connections)

    def hold(self, connection: ServerConnection, frame: str | None = '{"channel":"heartbeat"}') -> None:
        """Keep the connection, saying `frame` now and then."""
        while not self.stopping.is_set():
            if frame is not None:
                connection.send(frame)
            try:
                connection.recv(timeout=0.05)
            except TimeoutError:
                continue

    def stop(self) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._thread.join(5)


@contextmanager
def socket_server(handler: Callable[[SocketServer, ServerConnection, int], None]) -> Iterator[SocketServer]:
    box: list[SocketServer] = []
    server = SocketServer(lambda connection, number: handler(box[0], connection, number))
    box.append(server)
    try:
        yield server
    finally:
        server.stop()


def kraken_row(trade_id: int, pair: str = "BTC/USD", **changes: Any) -> dict[str, Any]:
    row = {
        "symbol": pair,
        "side": "buy",
        "price": 100.5,
        "qty": 0.25,
        "ord_type": "limit",
        "trade_id": trade_id,
        "timestamp": iso(T0_MS + trade_id * 10),
    }
    return row | changes


def iso(time_ms: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time_ms // 1000)) + f".{time_ms % 1000:03d}Z"


def kraken_frame(*rows: dict[str, Any], kind: str = "update") -> str:
    return json.dumps({"channel": "trade", "type": kind, "data": list(rows)})


def kraken_snapshot(*ids: int, pair: str = "BTC/USD") -> str:
    return kraken_frame(*(kraken_row(i, pair) for i in ids), kind="snapshot")


def kraken_ack(connection: ServerConnection, *, only: tuple[str, ...] | None = None) -> list[str]:
    """Read the subscription and confirm it; returns the pairs."""
    request = json.loads(connection.recv(timeout=5))
    assert request["method"] == "subscribe"
    assert request["params"]["snapshot"] is True
    pairs: list[str] = request["params"]["symbol"]
    connection.send('{"channel":"status","type":"update","data":[{"system":"online"}]}')
    for pair in pairs if only is None else only:
        result = {"channel": "trade", "snapshot": True, "symbol": pair}
        connection.send(json.dumps({"method": "subscribe", "result": result, "success": True}))
    return pairs


# --- a REST exchange ------------------------------------------------------------------------------


@dataclass
class RestServer:
    """`answer(path, params)` gives (status, headers, body)."""

    url: str
    requests: list[tuple[str, dict[str, str]]]


@contextmanager
def rest_server(
    answer: Callable[[str, dict[str, str]], tuple[int, dict[str, str], bytes]],
) -> Iterator[RestServer]:
    requests: list[tuple[str, dict[str, str]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            params = {name: values[0] for name, values in parse_qs(parts.query).items()}
            requests.append((parts.path, params))
            status, headers, body = answer(parts.path, params)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield RestServer(f"http://127.0.0.1:{server.server_port}", requests)
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def kraken_pages(
    ids: Sequence[int], page_rows: int = 1000
) -> Callable[[str, dict[str, str]], tuple[int, dict[str, str], bytes]]:
    """Kraken's history of the trades that `kraken_row` makes."""

    def answer(path: str, params: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        assert path == "/0/public/Trades"
        since = int(params["since"])
        found = [i for i in ids if (T0_MS + i * 10) * 1_000_000 > since][:page_rows]
        rows = [["100.5", "0.25", (T0_MS + i * 10) / 1000, "b", "m", "", i] for i in found]
        last = (T0_MS + found[-1] * 10) * 1_000_000 if found else since
        return 200, {}, json.dumps({"error": [], "result": {"XXBTZUSD": rows, "last": str(last)}}).encode()

    return answer


# --- running sources ------------------------------------------------------------------------------


def settings(**values: str) -> TradesSettings:
    environ = {f"TRADES_{name.upper()}": value for name, value in values.items()}
    return TradesSettings.load(environ)


@dataclass
class Running:
    publisher: FakePublisher
    progress: Progress
    metrics: Metrics
    health: Health
    stop: threading.Event
    thread: threading.Thread
    errors: list[BaseException]

    def value(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@contextmanager
def live(state: Path, ws_url: str, rest_url: str = "http://127.0.0.1:9", **values: str) -> Iterator[Running]:
    """A live source in a thread, with times short enough for tests."""
    defaults = {
        "pairs": "BTC/USD",
        "backoff_min_s": "0.02",
        "backoff_max_s": "0.1",
        "rest_interval_s": "0.01",
        "heartbeat_s": "0.05",
        "ws_url": ws_url,
        "rest_url": rest_url,
    }
    chosen = settings(**(defaults | values))
    progress = Progress(state / f"{chosen.exchange}.json", f"live {chosen.exchange}")
    publisher = FakePublisher(progress)
    exchange = REGISTRY[chosen.exchange](chosen.pairs)
    metrics, health, stop = Metrics(), Health(60.0), threading.Event()
    fetch = http_fetch(exchange, str(chosen.rest_url), now_ms)
    source = LiveSource(chosen, exchange, publisher, progress, health, TradeMetrics(metrics), fetch, now_ms)
    errors: list[BaseException] = []

    def run() -> None:
        try:
            source.run(stop)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    running = Running(publisher, progress, metrics, health, stop, thread, errors)
    try:
        yield running
    finally:
        stop.set()
        thread.join(5)
        assert not thread.is_alive()


def replay(state: Path, path: Path, stop: threading.Event | None = None, /, **values: str) -> Running:
    """Run a replay to its end."""
    defaults = {"source": "replay", "exchange": "simulated", "replay_path": str(path)}
    chosen = settings(**(defaults | values))
    progress = Progress(state / "replay.json", "replay")
    publisher = FakePublisher(progress)
    metrics, health, stop = Metrics(), Health(60.0), stop or threading.Event()
    source = ReplaySource(chosen, publisher, progress, health, TradeMetrics(metrics), now_ms)
    source.run(stop)
    return Running(publisher, progress, metrics, health, stop, threading.current_thread(), [])
