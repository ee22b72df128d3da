"""The dates of feeds: those of RSS and Atom, and what feeds write instead. Pure."""

import re
from datetime import UTC, datetime, timedelta, timezone
from email.utils import parsedate_tz

_OFFSET = re.compile(r"(?:GMT|UTC|UT|Z)?\s*([+-])(\d{1,2})(?::?(\d{2}))?$", re.IGNORECASE)
_NAME = re.compile(r"\b([A-Z]{1,5})$", re.IGNORECASE)
_YEAR_0 = re.compile(r"\b00\d\d\b")
_EPOCH = re.compile(r"^\d{10}(?:\d{3})?$")
#: Minutes east of Greenwich of what feeds call their zones; IST is India's, as most that write it are.
_ZONES = {
    "UTC": 0, "UT": 0, "GMT": 0, "Z": 0, "WET": 0, "WEST": 60, "BST": 60, "CET": 60, "CEST": 120, "MEZ": 60,
    "MESZ": 120, "EET": 120, "EEST": 180, "MSK": 180, "IST": 330, "PKT": 300, "ICT": 420, "WIB": 420,
    "SGT": 480, "HKT": 480, "PHT": 480, "AWST": 480, "JST": 540, "KST": 540, "AEST": 600, "AEDT": 660,
    "NZST": 720, "NZDT": 780, "BRT": -180, "ART": -180, "EST": -300, "EDT": -240, "CST": -360, "CDT": -300,
    "MST": -420, "MDT": -360, "PST": -480, "PDT": -420, "AKST": -540, "HST": -600,
}  # fmt: skip
_WRITTEN_OUT = ("%b %d, %Y %I:%M %p", "%B %d, %Y %I:%M %p", "%b %d, %Y", "%B %d, %Y", "%d %B %Y")


def date_ms(text: str) -> int | None:
    """Epoch ms of a feed's date; without a zone it counts as UTC. None for what is no date that we know."""
    text = " ".join(text.split())
    if _EPOCH.match(text):
        return int(text) * (1 if len(text) == 13 else 1_000)
    words, zone = _without_zone(text)
    moment = _moment(words)
    if moment is None:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone)
    return round(moment.timestamp() * 1_000)


def _without_zone(text: str) -> tuple[str, timezone]:
    # Only behind a time of day, so that the year of a bare date is not taken for an offset.
    if re.search(r"\d:\d\d", text):
        if match := _OFFSET.search(text):
            minutes = int(match[2]) * 60 + int(match[3] or 0)
            if minutes <= 14 * 60:
                east = timedelta(minutes=-minutes if match[1] == "-" else minutes)
                return text[: match.start()].strip(), timezone(east)
        match = _NAME.search(text)
        if match and match[1].upper() in _ZONES:
            east = timedelta(minutes=_ZONES[match[1].upper()])
            return text[: match.start()].strip(), timezone(east)
    return text, UTC


def _moment(words: str) -> datetime | None:
    try:
        return datetime.fromisoformat(words)
    except ValueError:
        pass
    for written in _WRITTEN_OUT:
        try:
            return datetime.strptime(words, written)  # noqa: DTZ007 - the zone is told apart.
        except ValueError:
            continue
    try:
        parts = parsedate_tz(words)
        # A zone that is left is one that we do not know; the year 0 would be read as 2000.
        if parts is None or _NAME.search(words) or _YEAR_0.search(words):
            return None
        return datetime(*parts[:6])  # noqa: DTZ001 - the zone is told apart.
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
