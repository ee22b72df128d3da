"""One HTTP answer, bounded in time and size, from a public address only.

`secrets` are added to the query at the last moment and taken out of the answer, so that they are in no
URL, error, cursor or log line of ours.
"""

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from pathlib import Path
from time import time
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit, urlunsplit

import requests
from urllib3.exceptions import HTTPError

from services.common.errors import SourceUnavailableError
from services.news.addresses import Resolve, system_resolve
from services.news.connections import Deadline, guarded_session
from services.news.inflate import NotWholeError, TooLargeError, read_body

MAX_REDIRECTS = 5
_REDIRECTS = {301, 302, 303, 307, 308}
HIDDEN = "***"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one answer may take; `max_bytes` also counts what it is unpacked to."""

    connect_s: float = 5.0
    read_s: float = 10.0
    total_s: float = 30.0
    max_bytes: int = 5_000_000


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer at the end of the redirects."""

    status: int
    body: bytes
    etag: str | None
    last_modified: str | None
    charset: str | None
    retry_after_s: float | None


class Fetcher:
    """Makes one connection a hop: feeds are asked so seldom that keeping them open gains nothing."""

    def __init__(
        self,
        limits: Limits,
        *,
        user_agent: str,
        allow_private: bool = False,
        ca_file: Path | None = None,
        resolve: Resolve = system_resolve,
    ) -> None:
        self._limits = limits
        self._user_agent = user_agent
        self._allow_private = allow_private
        self._ca_file = ca_file
        self._resolve = resolve

    def get(
        self, url: str, *, headers: Mapping[str, str] | None = None, secrets: Mapping[str, str] | None = None
    ) -> Answer:
        """Any answer but a redirect, whatever its status. Raises `SourceUnavailableError`.

        With `secrets`, redirects are followed within the same origin only.
        """
        sent = {"User-Agent": self._user_agent, "Accept-Encoding": "gzip", "Accept": "*/*", **(headers or {})}
        with Deadline(self._limits.total_s) as deadline:
            for _ in range(MAX_REDIRECTS + 1):
                answer, location = self._hop(deadline, url, sent, secrets or {})
                if location is None:
                    return answer
                url = _next_hop(url, location, same_origin=bool(secrets))
        raise SourceUnavailableError(f"more than {MAX_REDIRECTS} redirects")

    def _hop(
        self, deadline: Deadline, url: str, headers: Mapping[str, str], secrets: Mapping[str, str]
    ) -> tuple[Answer, str | None]:
        limits = self._limits
        try:
            with (
                guarded_session(deadline, self._resolve, self._allow_private, self._ca_file) as session,
                closing(
                    session.get(
                        with_query(url, secrets),
                        headers=headers,
                        timeout=(limits.connect_s, limits.read_s),
                        stream=True,
                        allow_redirects=False,
                    )
                ) as response,
            ):
                got = response.headers
                location = got.get("Location") if response.status_code in _REDIRECTS else None
                body = (
                    b""
                    if location
                    else read_body(response.raw, got.get("Content-Encoding"), limits.max_bytes)
                )
        except (requests.RequestException, HTTPError, HTTPException, OSError, ValueError) as error:
            # Their texts and their traceback hold the whole address, secrets included.
            problem = deadline.problem or f"no answer ({type(error).__name__})"
            raise SourceUnavailableError(problem) from None
        except (TooLargeError, NotWholeError) as error:
            raise SourceUnavailableError(deadline.problem or str(error)) from None
        if deadline.problem is not None:
            # What was cut off can look like the end.
            raise SourceUnavailableError(deadline.problem)
        for value in secrets.values():
            body = body.replace(value.encode(), HIDDEN.encode())
        return (
            Answer(
                response.status_code,
                body,
                got.get("ETag"),
                got.get("Last-Modified"),
                _charset(got.get("Content-Type", "")),
                retry_after_s(got.get("Retry-After")),
            ),
            location,
        )


def with_query(url: str, values: Mapping[str, str]) -> str:
    """`url` with these query parameters in place of any of the same names."""
    if not values:
        return url
    parts = urlsplit(url)
    kept = [(key, value) for key, value in parse_qsl(parts.query, True) if key not in values]
    return urlunsplit(parts._replace(query=urlencode([*kept, *values.items()])))


def _next_hop(url: str, location: str, *, same_origin: bool) -> str:
    """Where a redirect leads. Raises `SourceUnavailableError`; its text names the host alone."""
    try:
        target = urljoin(url, location)
        now, then = urlsplit(url), urlsplit(target)
        host, moved = (
            then.hostname,
            (now.scheme, now.hostname, now.port) != (then.scheme, then.hostname, then.port),
        )
    except ValueError:
        raise SourceUnavailableError("redirects to no address") from None
    where = f"redirects to {then.scheme[:20]}://{(host or '')[:100]}"
    if then.scheme not in ("http", "https") or not host:
        raise SourceUnavailableError(f"{where}, which is no web address")
    if now.scheme == "https" and then.scheme == "http":
        raise SourceUnavailableError(f"{where}, from encrypted to plain")
    if same_origin and moved:
        raise SourceUnavailableError(f"{where}, where the key must not be sent")
    return target


def _charset(content_type: str) -> str | None:
    for part in content_type.split(";")[1:]:
        key, _, value = part.partition("=")
        if key.strip().lower() == "charset":
            return value.strip().strip("\"'").lower() or None
    return None


def retry_after_s(header: str | None, now_s: Callable[[], float] = time) -> float | None:
    """Seconds of a ``Retry-After`` header, which holds seconds or a date."""
    if header is None:
        return None
    if header.strip().isdecimal():
        return float(header)
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - now_s())
    except (ValueError, OverflowError):
        return None
