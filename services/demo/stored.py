"""What the demo's store holds."""

from collections import Counter
from contextlib import suppress
from pathlib import Path

from services.common.errors import ServiceError
from services.features import open_store

type Counts = dict[tuple[str, str, str], int]


def candles_in(path: Path) -> Counts:
    """Closed rows of `ta` by exchange, pair and timeframe."""
    if not path.exists():
        return {}
    with suppress(ServiceError), open_store(path) as store:
        return {(s["exchange"], s["pair"], s["timeframe"]): s["rows"] for s in store.describe()["series"]}
    return {}


def signals_in(path: Path) -> Counter[str]:
    """Signals by coin."""
    if not path.exists():
        return Counter()
    with suppress(ServiceError), open_store(path) as store:
        return Counter({s["coin"]: s["rows"] for s in store.describe("news_signals")["series"]})
    return Counter()


def short(path: Path) -> Path:
    """`path` as seen from the current folder, where it lies below it."""
    with suppress(ValueError):
        return path.relative_to(Path.cwd())
    return path
