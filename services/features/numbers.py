"""Numbers as people give them, out of numpy and pandas too. Pure."""

from operator import index
from typing import SupportsIndex


def whole_number(value: object) -> int | None:
    """An integer of Python's, numpy's or the like as one of Python's; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        return None
    try:
        return index(value)
    except TypeError:
        # An array has the method, but is no number.
        return None
