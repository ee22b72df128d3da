"""Batches that are larger than a message may be. Pure."""

import msgspec


def split_batch(value: bytes, max_bytes: int) -> list[bytes]:
    """The rows of a batch (a JSON array) in batches of at most `max_bytes`, in order.

    A row that is larger by itself is a batch by itself, and the only one that may be too large.
    """
    if len(value) <= max_bytes:
        return [value]
    batches: list[list[bytes]] = []
    room = 0
    for raw in msgspec.json.decode(value, type=list[msgspec.Raw]):
        row = bytes(raw)
        # A comma; the brackets of the batch are two bytes more.
        room -= len(row) + 1
        if room < 0 or not batches:
            batches.append([])
            room = max_bytes - 2 - len(row)
        batches[-1].append(row)
    return [b"[" + b",".join(rows) + b"]" for rows in batches]
