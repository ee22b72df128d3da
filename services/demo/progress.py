"""Reading what the services report, and showing how far they are."""

import re
import sys
import time
from collections.abc import Mapping

from services.demo.processes import Service

_BUCKET = re.compile(r'^frame_to_row_seconds_bucket\{.*le="([^"]+)".*\}$')


def total(samples: Mapping[str, float], name: str) -> int:
    """Sum of a counter over its labels."""
    return int(sum(v for key, v in samples.items() if key == name or key.startswith(name + "{")))


def latency_counts(features: Service) -> dict[float, float]:
    """Cumulative counts of the latency histogram by upper bound in seconds."""
    counts: dict[float, float] = {}
    for key, value in features.metrics().items():
        match = _BUCKET.match(key)
        if match:
            bound = float(match[1])
            counts[bound] = counts.get(bound, 0.0) + value
    return counts


def quantile_s(before: Mapping[float, float], after: Mapping[float, float], share: float) -> float | None:
    """Latency below which `share` of what came between two looks lies, in seconds.

    Interpolated inside the histogram's bucket; None when nothing came.
    """
    added = [(bound, after[bound] - before.get(bound, 0.0)) for bound in sorted(after)]
    if not added or added[-1][1] == 0:
        return None
    wanted = share * added[-1][1]
    low_bound = low_count = 0.0
    for bound, count in added:
        if count >= wanted:
            if bound == float("inf"):
                return low_bound
            inside = (wanted - low_count) / (count - low_count) if count > low_count else 1.0
            return low_bound + inside * (bound - low_bound)
        low_bound, low_count = bound, count
    return low_bound


class Progress:
    """One line that is written over on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        self._live = sys.stdout.isatty()
        self._last = 0.0
        self._began = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._began

    def show(self, text: str, *, last: bool = False) -> None:
        """Show `text`; `last` keeps it."""
        now = time.monotonic()
        if not last and now - self._last < (0.2 if self._live else 3.0):
            return
        self._last = now
        line = f"  {now - self._began:5.1f} s  {text}"
        if self._live:
            sys.stdout.write(f"\r\x1b[K{line}" + ("\n" if last else ""))
        else:
            sys.stdout.write(line + "\n")
        sys.stdout.flush()
