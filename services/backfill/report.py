"""What `make backfill` says at the end."""

from collections.abc import Sequence

from services.backfill.coverage import Coverage
from services.common.history_report import HistoryReport, Missing, time_text


def report_text(report: HistoryReport, rows: Sequence[Coverage], duration_s: float) -> str:
    """Trades by pair and what is missing, then the store's rows by series."""
    trades = sum(pair.trades for pair in report.pairs)
    lines = [
        "",
        f"  {report.exchange}, {report.source}: {time_text(report.since_ms)} to "
        f"{time_text(report.until_ms)} UTC, {trades:,} trades in {duration_s:.0f} s",
        "",
        f"  {'trades':<16}{'count':>12}  {'first (UTC)':<19}  {'last (UTC)':<19}  missing",
    ]
    for pair in report.pairs:
        missing = "; ".join(missing_text(one) for one in pair.missing[:3]) or "nothing"
        more = f"; {len(pair.missing) - 3} more" if len(pair.missing) > 3 else ""
        lines.append(
            f"  {pair.pair:<16}{pair.trades:>12,}  {time_text(pair.first_ms):<19}  "
            f"{time_text(pair.last_ms):<19}  {missing}{more}"
        )
    lines += ["", f"  {'ta rows':<16}{'tf':>4}{'rows':>12}  {'last end (UTC)':<19}  {'gaps':>6}  checksum"]
    lines += [
        f"  {one.pair:<16}{one.timeframe:>4}{one.rows:>12,}  {time_text(one.last_end_ms):<19}  "
        f"{one.gaps:>6,}  {one.checksum}"
        for one in rows
    ]
    lines += ["", *(f"  note: {note}" for note in report.notes)]
    return "\n".join(lines).rstrip() + "\n"


def missing_text(missing: Missing) -> str:
    """``ids 5 to 9: why``."""
    if missing.first_id is not None:
        where = f"ids {missing.first_id} to {missing.last_id}: "
    elif missing.from_ms is not None:
        where = f"{time_text(missing.from_ms)} to {time_text(missing.until_ms)}: "
    else:
        where = ""
    return where + missing.reason
