"""One REST page over HTTP, with every way that it can fail named, and no more of them than are allowed."""

import threading
from collections import deque
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from time import monotonic, time

import requests

from services.common.errors import SourceError, SourceUnavailableError
from services.trades.exchanges.contract import Exchange, Gap, Page, PageRequest

TIMEOUT_S = (5.0, 10.0)
MAX_BODY_BYTES = 8_000_000
#: The request itself is wrong; asking again gives the same. All else may pass.
_FATAL_STATUSES = {400, 401, 404, 405, 410, 422, 451}
#: Exchanges limit an address too, not only a pair: so many at once, and so many in a pair's interval.
CONCURRENT_REQUESTS = 4

#: Fetches the page of a request. Raises `SourceUnavailableError` or `SourceError`.
type Fetch = Callable[[Gap, PageRequest], Page]


def http_fetch(exchange: Exchange, base_url: str, now_ms: Callable[[], int]) -> Fetch:
    """A `Fetch` that asks `exchange` at `base_url`."""

    def fetch(gap: Gap, request: PageRequest) -> Page:
        try:
            with requests.get(
                base_url + request.path, params=request.params, timeout=TIMEOUT_S, stream=True
            ) as response:
                # Read by hand, since a body has no limit of its own.
                body = b""
                for chunk in response.iter_content(65_536):
                    body += chunk
                    if len(body) > MAX_BODY_BYTES:
                        raise SourceUnavailableError(f"an answer of more than {MAX_BODY_BYTES} bytes")
                status, retry_after = response.status_code, response.headers.get("Retry-After")
        except requests.RequestException as error:
            raise SourceUnavailableError(f"{exchange.name}: {type(error).__name__}") from error
        if status == 200:
            return exchange.parse_page(gap, request, body, now_ms())
        refusal = exchange.parse_refusal(status, body)
        if refusal is not None:
            raise refusal
        text = f"{exchange.name}: HTTP {status}"
        if status in _FATAL_STATUSES:
            raise SourceError(f"{text} {body[:200].decode('utf-8', 'replace')}")
        raise SourceUnavailableError(text, retry_after_s(retry_after))

    return fetch


class PacedFetch:
    """Asks about a pair at most every `interval_s`, and about all of them no more than is allowed."""

    def __init__(self, fetch: Fetch, interval_s: float, clock: Callable[[], float] = monotonic) -> None:
        self._fetch = fetch
        self._interval_s = interval_s
        self._clock = clock
        self._lock = threading.Lock()
        self._slots = threading.Semaphore(CONCURRENT_REQUESTS)
        self._next_request: dict[str, float] = {}
        self._latest: deque[float] = deque(maxlen=CONCURRENT_REQUESTS)

    def __call__(self, gap: Gap, request: PageRequest, wait: Callable[[float], bool]) -> Page:
        """Fetch a page when its time has come; `wait` sleeps and returns True when nobody wants it now.

        Raises what a `Fetch` does, and `SourceError` when nobody wants it.
        """
        pause_s = 0.0
        while not wait(pause_s):
            with self._slots:
                pause_s = self._claim(gap.pair)
                if pause_s <= 0:
                    return self._fetch(gap, request)
        raise SourceError("given up")

    def _claim(self, pair: str) -> float:
        """How long it is until `pair` may be asked about; not positive: now, and it counts."""
        with self._lock:
            now = self._clock()
            at = self._next_request.get(pair, now)
            if len(self._latest) == CONCURRENT_REQUESTS:
                at = max(at, self._latest[0] + self._interval_s)
            if at <= now:
                self._next_request[pair] = now + self._interval_s
                self._latest.append(now)
            return at - now


def retry_after_s(header: str | None) -> float | None:
    """Seconds of a ``Retry-After`` header, which holds seconds or a date."""
    if header is None:
        return None
    if header.strip().isdigit():
        return float(header)
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time())
    except ValueError:
        return None
