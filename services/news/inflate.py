"""The body of an answer, unpacked, never more of it in memory than is allowed."""

import zlib
from typing import Any

CHUNK_BYTES = 65_536


class TooLargeError(Exception):
    """The body is larger than allowed, packed or unpacked."""


class NotWholeError(Exception):
    """The packed body is broken or ends early."""


def read_body(raw: Any, encoding: str | None, max_bytes: int) -> bytes:
    """Read `raw` (urllib3's response) to its end. Raises `TooLargeError`, `NotWholeError`.

    By hand, since libraries unpack a whole chunk before they say how large it has become.
    """
    unpack = _unpacker(encoding)
    body = bytearray()
    read_bytes = 0
    # At most what one read of the socket brings, so that a drip comes back to us too.
    while chunk := raw.read1(CHUNK_BYTES, decode_content=False):
        read_bytes += len(chunk)
        body += chunk if unpack is None else _inflate(unpack, chunk, max_bytes + 1 - len(body))
        if max(read_bytes, len(body)) > max_bytes:
            raise TooLargeError(f"an answer of more than {max_bytes} bytes")
        if unpack is not None and unpack.eof:
            break
    if unpack is not None and read_bytes and not unpack.eof:
        raise NotWholeError("a packed answer that ends early")
    return bytes(body)


def _unpacker(encoding: str | None) -> Any:
    name = (encoding or "identity").strip().lower()
    if name in ("identity", ""):
        return None
    if name not in ("gzip", "x-gzip"):
        raise NotWholeError(f"an answer packed with {name[:20]}, which was not asked for")
    return zlib.decompressobj(wbits=31)


def _inflate(unpack: Any, chunk: bytes, room: int) -> bytes:
    try:
        unpacked: bytes = unpack.decompress(chunk, max(1, room))
    except zlib.error as error:
        raise NotWholeError("a packed answer that is broken") from error
    return unpacked
