"""One WebSocket connection, in a thread of its own: frames go into a queue.

`recv()` of websocket-client has been seen to hang for ever in spite of its time-out (websocket-client
#437, #523, #565), so whoever owns a connection watches the clock and closes it from outside.
"""

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any

from websocket import ABNF, WebSocket, WebSocketException, WebSocketTimeoutException, create_connection

from services.trades.exchanges.contract import Gap, Page

READ_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class Opened:
    """The connection stands and the subscriptions were sent."""

    number: int


@dataclass(frozen=True, slots=True)
class Frame:
    """A data frame; `data` None stands for a ping or pong."""

    number: int
    data: bytes | None
    received_at_ms: int


@dataclass(frozen=True, slots=True)
class Closed:
    """The connection is over."""

    number: int
    why: str


@dataclass(frozen=True, slots=True)
class FillPage:
    """A REST page of the fill with this number."""

    pair: str
    fill_number: int
    page: Page


@dataclass(frozen=True, slots=True)
class FillEnd:
    """The fill with this number is over; `error` says why it gave up."""

    gap: Gap
    fill_number: int
    error: str | None


@dataclass(frozen=True, slots=True)
class Crashed:
    """A thread met an error that nobody foresaw; the main thread raises it."""

    error: Exception


type Item = Opened | Frame | Closed | FillPage | FillEnd | Crashed


class OversizeFrameError(WebSocketException):
    """A frame larger than we accept."""


class _CappedSocket(WebSocket):
    """Refuses a frame by its announced length, before its bytes are read."""

    def __init__(self, *args: Any, max_frame_bytes: int, **options: Any) -> None:
        super().__init__(*args, **options)
        read_length = self.frame_buffer.recv_length

        def recv_length() -> None:
            read_length()
            waiting = len(self.cont_frame.cont_data[1]) if self.cont_frame.cont_data else 0
            if (self.frame_buffer.length or 0) + waiting > max_frame_bytes:
                raise OversizeFrameError(f"a frame of more than {max_frame_bytes} bytes")

        self.frame_buffer.recv_length = recv_length  # type: ignore[method-assign]


class Connection:
    """Connects, subscribes and reads until it fails or is closed."""

    def __init__(
        self,
        number: int,
        url: str,
        subscribe_frames: list[str],
        inbox: "queue.Queue[Item]",
        *,
        max_frame_bytes: int,
        connect_timeout_s: float,
        ping_every_s: float,
        now_ms: Callable[[], int],
    ) -> None:
        self.number = number
        self._url = url
        self._subscribe_frames = subscribe_frames
        self._inbox = inbox
        self._max_frame_bytes = max_frame_bytes
        self._connect_timeout_s = connect_timeout_s
        self._ping_every_s = ping_every_s
        self._now_ms = now_ms
        self._socket: Any = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"socket-{number}", daemon=True)

    def start(self) -> None:
        """Begin to connect; what comes of it is told through the queue."""
        self._thread.start()

    def close(self, wait_s: float = 0.0) -> None:
        """End it from outside, hanging or not; its thread dies on its own."""
        self._closed.set()
        if self._socket is not None:
            # abort() wakes a thread that waits in recv.
            self._socket.abort()
        if wait_s:
            self._thread.join(wait_s)

    def _put(self, item: Item) -> bool:
        """Queue an item; waits while the queue is full, which holds the exchange back."""
        while not self._closed.is_set():
            try:
                self._inbox.put(item, timeout=0.2)
            except queue.Full:
                continue
            return True
        return False

    def _run(self) -> None:
        try:
            self._read()
        except (WebSocketException, OSError, ValueError) as error:
            # ValueError: websocket-client on a URL that it cannot read.
            self._put(Closed(self.number, f"{type(error).__name__}: {error}"))
        except Exception as error:
            self._put(Crashed(error))
        finally:
            if self._socket is not None:
                self._socket.shutdown()

    def _read(self) -> None:
        self._socket = socket = create_connection(
            self._url,
            timeout=self._connect_timeout_s,
            class_=_CappedSocket,
            max_frame_bytes=self._max_frame_bytes,
            # The mapper refuses bad text; here it would end the connection.
            skip_utf8_validation=True,
        )
        for frame in self._subscribe_frames:
            socket.send(frame)
        socket.settimeout(min(READ_TIMEOUT_S, self._ping_every_s))
        if not self._put(Opened(self.number)):
            return
        ping_at = monotonic() + self._ping_every_s
        while not self._closed.is_set():
            # This thread pings too: a TLS socket is not made for two at a time.
            if monotonic() >= ping_at:
                socket.ping()
                ping_at = monotonic() + self._ping_every_s
            try:
                opcode, frame = socket.recv_data_frame(control_frame=True)
            except WebSocketTimeoutException:
                continue
            received_at_ms = self._now_ms()
            if opcode == ABNF.OPCODE_CLOSE:
                code = int.from_bytes(frame.data[:2], "big") if len(frame.data) >= 2 else 1005
                text = frame.data[2:].decode("utf-8", "replace")
                self._put(Closed(self.number, f"the exchange closed it: {code} {text}".rstrip()))
                return
            is_data = opcode in (ABNF.OPCODE_TEXT, ABNF.OPCODE_BINARY)
            if not self._put(Frame(self.number, frame.data if is_data else None, received_at_ms)):
                return
