"""How far the services of a backfill are, shown until they have ended."""

import time
from collections.abc import Callable, Mapping, Sequence

import requests

from services.demo.processes import DemoError, Service
from services.demo.progress import Progress, total
from services.trades.history.ledger import duration_text

STUCK_AFTER_S = 180.0
#: So long nothing may move before it is said why.
WAITS_AFTER_S = 5.0


def wait_until_ended(source: Service, services: Sequence[Service], has_ended: Callable[[], bool]) -> None:
    """Show progress until every service has ended by itself. Raises `DemoError`.

    `has_ended` asks whether all of the history went out. Then the source may fail, for what it could not get.
    """
    progress = Progress()
    seen = {source.name: 0}
    share: float | None = None
    moved_at = time.monotonic()
    while any(service.process.poll() is None for service in (source, *services)):
        _check(source, services, has_ended)
        before = dict(seen), share
        for service in (source, *services):
            try:
                metrics = service.metrics()
            except requests.RequestException:
                # It starts or ends just now.
                continue
            seen[service.name] = total(metrics, "rows_out_total")
            if service is source:
                done = [value for name, value in metrics.items() if name.startswith("history_done_ratio")]
                share = sum(done) / len(done) if done else None
        waits = time.monotonic() - moved_at
        if (seen, share) != before:
            moved_at = time.monotonic()
        elif waits > STUCK_AFTER_S and source.process.poll() is not None:
            # While the source runs, it waits for an exchange, perhaps for a night.
            raise DemoError(f"nothing moved for {STUCK_AFTER_S:.0f} s; logs are in {source.log.parent}")
        text = progress_text(seen, share, progress.elapsed_s)
        if waits > WAITS_AFTER_S and (why := why_it_waits(source)):
            text += f"; waiting {waits:.0f} s: {why}"
        progress.show(text)
        time.sleep(0.25)
    _check(source, services, has_ended)
    progress.show(progress_text(seen, 1.0, progress.elapsed_s), last=True)


def _check(source: Service, services: Sequence[Service], has_ended: Callable[[], bool]) -> None:
    """Raise `DemoError` if a service died."""
    for service in services:
        service.check()
    if not has_ended():
        source.check()


def why_it_waits(source: Service) -> str:
    """What the source says of its not being ready; empty where it is, or does not answer."""
    try:
        answer = requests.get(f"{source.url}/health/ready", timeout=10)
        reasons = [] if answer.ok else answer.json().get("reasons", [])
    except (requests.RequestException, ValueError):
        return ""
    # Silence is what follows from the others.
    telling = [reason for reason in reasons if ":" in reason and not reason.startswith("publish")]
    return "; ".join(telling or reasons)[:200]


def progress_text(rows: Mapping[str, int], share: float | None, elapsed_s: float) -> str:
    """One line: a bar, rows and rate, time left."""
    # Without trades, files of candles are what comes in.
    what = "trades" if "trades" in rows else "candles"
    count = rows.get(what, 0)
    rate = count / max(elapsed_s, 1e-9)
    text = f"{count:,} {what} ({rate:,.0f}/s), {rows.get('features', 0):,} rows stored"
    if share is None:
        return text
    filled = round(20 * share)
    bar = f"[{'#' * filled}{'.' * (20 - filled)}] {share:4.0%}  "
    if 0.01 < share < 1:
        text += f", about {duration_text(elapsed_s * (1 - share) / share)} left"
    return bar + text
