"""When an upstream says that it may be asked again (RFC 9110, 10.2.3): seconds, or a date. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_MOST_DIGITS = 6


def seconds_until(value: str | None, now: datetime) -> float | None:
    """Seconds from `now`, none for a moment that has passed; None for what is neither a number nor a date."""
    text = (value or "").strip()
    if not text:
        return None
    if text.isascii() and text.replace(".", "", 1).isdecimal():
        return float(text) if len(text.partition(".")[0]) <= _MOST_DIGITS else None
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    try:
        return max(0.0, (at - now).total_seconds())
    except OverflowError:
        return None
