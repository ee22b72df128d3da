"""A state folder of its own for every process."""

import fcntl
import os
from itertools import count
from pathlib import Path

#: Their locks last as long as the process, however it ends.
_held: list[int] = []


def claim_folder(folder: Path) -> Path:
    """`folder`, or the first of ``folder-2``, ``folder-3`` … that no other process on this machine holds.

    Replicas of a service share a volume, but not their state. Which of the folders one gets after a restart
    does not matter: what a folder lacks comes from the changelog topic.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    for number in count(1):
        claimed = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        lock = os.open(claimed.with_name(f"{claimed.name}.lock"), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        _held.append(lock)
        return claimed
    raise AssertionError
