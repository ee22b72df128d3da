"""Connections that a fetch may make: to checked addresses, and cut when the whole has taken too long."""

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from services.news.addresses import Resolve, open_socket

type _Connect = Callable[[str, int, float | None], socket.socket]


def guarded_session(
    deadline: "Deadline", resolve: Resolve, allow_private: bool, ca_file: Path | None
) -> requests.Session:
    """A session whose connections are opened by `open_socket` and watched by `deadline`."""

    def connect(host: str, port: int, timeout_s: float | None) -> socket.socket:
        connection = open_socket(host, port, timeout_s, resolve=resolve, allow_private=allow_private)
        deadline.watch(connection)
        return connection

    session = _Session()
    # No proxies (they would connect to addresses that were never checked) and no passwords of a .netrc.
    session.trust_env = False
    if ca_file is not None:
        session.verify = str(ca_file)
    adapter = _Adapter(connect)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


class _Session(requests.Session):
    """Leaves redirects alone: to look where one leads, the library would read its whole body first."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:  # noqa: ARG002
        return None


class _Adapter(HTTPAdapter):
    """Connects through `connect`; the name in the URL stays what TLS and the Host header speak of."""

    def __init__(self, connect: _Connect) -> None:
        class Plain(HTTPConnection):
            def _new_conn(self) -> socket.socket:
                return connect(self.host, self.port, _seconds(self.timeout))

        class Secure(HTTPSConnection):
            def _new_conn(self) -> socket.socket:
                return connect(self.host, self.port, _seconds(self.timeout))

        class PlainPool(HTTPConnectionPool):
            ConnectionCls = Plain

        class SecurePool(HTTPSConnectionPool):
            ConnectionCls = Secure

        self._pools = {"http": PlainPool, "https": SecurePool}
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pools


def _seconds(timeout: Any) -> float | None:
    return float(timeout) if isinstance(timeout, int | float) else None


class Deadline:
    """Cuts the connection when the whole has taken too long: a time-out of each read does not end a drip."""

    def __init__(self, total_s: float) -> None:
        self._timer = threading.Timer(total_s, self._cut)
        self._timer.daemon = True
        self._total_s = total_s
        self._lock = threading.Lock()
        self._watched: list[socket.socket] = []
        self.problem: str | None = None

    def watch(self, connection: socket.socket) -> None:
        """Cut this connection too. A copy, since TLS takes the original over."""
        with self._lock:
            copy = connection.dup()
            self._watched.append(copy)
            if self.problem is not None:
                _shut(copy)

    def _cut(self) -> None:
        with self._lock:
            self.problem = f"no whole answer within {self._total_s:g} s"
            for connection in self._watched:
                _shut(connection)

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        with self._lock:
            for connection in self._watched:
                connection.close()
            self._watched.clear()


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        # The other side was faster.
        return
