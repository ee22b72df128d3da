"""Numbers and names as people give them, out of numpy and pandas too. Pure."""

from collections.abc import Iterable
from operator import index
from typing import SupportsIndex

from services.common.errors import QueryError


def whole_number(value: object) -> int | None:
    """An integer of Python's, numpy's or the like as one of Python's; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        return None
    try:
        return index(value)
    except TypeError:
        # An array has the method, but is no number.
        return None


def several(what: str, names: object) -> list[str]:
    """One name or several of any collection, each once. Raises `QueryError` that says `what` they are of."""
    if isinstance(names, str):
        return [names]
    if names is None:
        raise QueryError(f"name at least one {what}")
    if not isinstance(names, Iterable):
        raise QueryError(f"{what} is a text or several of them, not {names!r:.60}")
    try:
        found = list(names)
    except TypeError:
        # An array of numpy without a dimension.
        found = [names]
    odd = [name for name in found if not isinstance(name, str)]
    if odd:
        raise QueryError(f"{what} is a text, not {odd[0]!r:.60}")
    return list(dict.fromkeys(str(name) for name in found))


def single(what: str, name: object) -> str:
    """A name of which there must be one. Raises `QueryError`."""
    if isinstance(name, str):
        return name
    if name is None:
        raise QueryError(f"name a {what}")
    raise QueryError(f"name one {what}, not {name!r:.60}")
