"""A web server that says what a test tells it to, a clock, a bus in memory, and rows of news."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec

from services.common.health import Health
from services.common.messages import DeadLetter
from services.common.metrics import Metrics
from services.common.news import News
from services.news.contract import Item, Source
from services.news.fetch import Fetcher, Limits
from services.news.identity import HOUR_MS
from services.news.intake import Intake
from services.news.loop import NewsLoop
from services.news.registry import Outgoing, Registry
from services.news.settings import NewsSettings

DATA = Path(__file__).parent / "data"
#: 2026-07-07 12:00 UTC.
T0_MS = 1_783_425_600_000
WAIT_S = 20.0


def wait_until[T](ask: Callable[[], T | None], what: str, timeout_s: float = WAIT_S) -> T:
    """The first answer of `ask` that is something."""
    deadline = time.monotonic() + timeout_s
    while not (answer := ask()):
        assert time.monotonic() < deadline, f"waited {timeout_s:.0f} s for {what}"
        time.sleep(0.01)
    return answer


class Request:
    """What a handler sees, and how it answers."""

    def __init__(self, handler: BaseHTTPRequestHandler) -> None:
        self._handler = handler
        parts = urlsplit(handler.path)
        self.path = parts.path
        self.query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        self.headers = handler.headers

    def answer(self, body: bytes = b"", status: int = 200, **headers: str) -> None:
        """A whole answer; header names with _ for -."""
        self._handler.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            self._handler.send_header(name.replace("_", "-"), value)
        self._handler.end_headers()
        self._handler.wfile.write(body)

    def json(self, value: object, status: int = 200) -> None:
        self.answer(json.dumps(value).encode(), status, Content_Type="application/json")

    def raw(self, data: bytes) -> None:
        """Bytes as they are, status line included."""
        self._handler.wfile.write(data)
        self._handler.wfile.flush()


class Site:
    """A running server; `requests` holds what it was asked."""

    def __init__(self, url: str, stopping: threading.Event) -> None:
        self.url = url
        self.stopping = stopping
        self.requests: list[Request] = []


@contextmanager
def site(
    play: Callable[[Request], None], wrap: Callable[[socket.socket], socket.socket] | None = None
) -> Iterator[Site]:
    """Serve `play` on this machine."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            request = Request(self)
            here.requests.append(request)
            self.close_connection = True
            try:
                play(request)
            except OSError:
                return

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that went away is no matter."""

    server = Server(("127.0.0.1", 0), Handler)
    if wrap is not None:
        server.socket = wrap(server.socket)
    here = Site(f"http://127.0.0.1:{server.server_address[1]}", threading.Event())
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield here
    finally:
        here.stopping.set()
        server.shutdown()
        thread.join()
        server.server_close()


def fetcher(**limits: Any) -> Fetcher:
    """A fetcher that may reach this machine."""
    return Fetcher(Limits(**limits), user_agent="crypto-price-predictor/test", allow_private=True)


def rss(*articles: tuple[str, str, int], base: str = "https://outlet.example") -> bytes:
    """An RSS document of (id, title, epoch ms)."""
    items = "".join(
        f"<item><guid isPermaLink='false'>{number}</guid><title>{title}</title><link>{base}/{number}</link>"
        f"<pubDate>{formatdate(at_ms / 1000)}</pubDate><description>Text of {number}.</description></item>"
        for number, title, at_ms in articles
    )
    return (
        f"<?xml version='1.0'?><rss version='2.0'><channel><title>t</title>{items}</channel></rss>".encode()
    )


def item(item_id: str | None, title: str = "Bitcoin rises", **fields: Any) -> Item:
    """An article of feed and source ``a``, published at noon."""
    feed = fields.pop("feed", "a")
    values: dict[str, Any] = {
        "feed": feed, "item_id": item_id, "source": feed, "title": title, "body": "", "url": None,
        "coins": (), "published_at_ms": T0_MS,
    }  # fmt: skip
    return Item(**values | fields)


class MemoryPublisher:
    """Delivers at once, or when told to."""

    def __init__(self) -> None:
        self.sent: list[Outgoing] = []
        self.holds_back = False
        self._unreported: list[int] = []

    def send(self, messages: Sequence[Outgoing]) -> None:
        self.sent += messages
        self._unreported += [message.id for message in messages]

    def poll(self) -> list[int]:
        if self.holds_back:
            return []
        delivered, self._unreported = self._unreported, []
        return delivered

    def flush(self) -> list[int]:
        return self.poll()

    def news(self) -> list[News]:
        """What was sent, in order."""
        return rows_of(self.sent)

    def letters(self) -> list[DeadLetter]:
        return [
            letter
            for message in self.sent
            if message.topic == "dead_letters"
            for letter in msgspec.json.decode(message.value, type=list[DeadLetter])
        ]


def rows_of(messages: Sequence[Outgoing]) -> list[News]:
    return [
        row
        for message in messages
        if message.topic == "news"
        for row in msgspec.json.decode(message.value, type=list[News])
    ]


def make_intake(registry: Registry, **values: Any) -> Intake:
    """As the service makes it, for live sources."""
    options: dict[str, Any] = {
        "service": "news", "news_topic": "news", "window_h": 72, "max_age_h": 72,
        "max_message_bytes": 4_000_000,
    }  # fmt: skip
    return Intake(registry, **options | values)


class Runner:
    """A loop over sources in a thread, on a registry in `folder`."""

    def __init__(
        self, folder: Path, sources: Sequence[Source], max_age_h: float | None = 24 * 365 * 100, **values: str
    ) -> None:
        options = {"feeds": "x=https://x.example", "backoff_min_s": "0.05", "backoff_max_s": "0.2"} | values
        self.settings = NewsSettings.load({f"NEWS_{name.upper()}": value for name, value in options.items()})
        self.publisher = MemoryPublisher()
        self.health = Health(60)
        self.metrics = Metrics()
        self._path, self._sources, self._max_age_h = folder / "live.sqlite", sources, max_age_h
        self._stop = threading.Event()
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            # The registry is of the thread that uses it, which in a service is the main one.
            registry = Registry(self._path, "live")
            intake = make_intake(registry, max_age_h=self._max_age_h)
            parts = (self.publisher, self.health, self.metrics)
            loop = NewsLoop(self.settings, self._sources, registry, intake, *parts, jitter=lambda: 0.5)
            loop.run(self._stop)
        except Exception as error:
            self.error = error

    def __enter__(self) -> "Runner":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()

    def wait(self) -> None:
        """Until it ends on its own."""
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()

    def count(self, name: str, **labels: str) -> float:
        """The value of a metric, 0 where there is none."""
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    def until(self, condition: Callable[[], Any], what: str) -> None:
        """Wait for something, or for the loop to die."""
        wait_until(lambda: condition() or self.error, what)
        if self.error is not None:
            raise self.error


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def hours_ago(hours: float) -> int:
    return now_ms() - int(hours * HOUR_MS)
