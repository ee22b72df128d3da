"""One REST page over HTTP, with every way that it can fail named."""

from collections.abc import Callable
from email.utils import parsedate_to_datetime
from time import time

import requests

from services.common.errors import SourceError, SourceUnavailableError
from services.trades.exchanges.contract import Exchange, Gap, Page, PageRequest

TIMEOUT_S = (5.0, 10.0)
MAX_BODY_BYTES = 8_000_000
#: The request itself is wrong; asking again gives the same. All else may pass.
_FATAL_STATUSES = {400, 401, 404, 405, 410, 422}

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
        text = f"{exchange.name}: HTTP {status}"
        if status in _FATAL_STATUSES:
            raise SourceError(f"{text} {body[:200].decode('utf-8', 'replace')}")
        raise SourceUnavailableError(text, retry_after_s(retry_after))

    return fetch


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
