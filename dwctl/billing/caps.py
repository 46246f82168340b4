"""When what a capped key has spent begins anew: as `spend_window` (functions.sql) has it, by the calendar in UTC. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

INTERVALS = ("daily", "weekly", "monthly")

_EVER = datetime(1970, 1, 1, tzinfo=UTC)


def window_start(interval: str | None, at: datetime) -> datetime:
    """Since when the cap counts that holds `at` that time; since ever without an interval."""
    day = at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    match interval:
        case "daily":
            return day
        case "weekly":
            return day - timedelta(days=day.weekday())
        case "monthly":
            return day.replace(day=1)
        case _:
            return _EVER


def window_end(interval: str | None, at: datetime) -> datetime | None:
    """When it begins anew; None: never."""
    start = window_start(interval, at)
    match interval:
        case "daily":
            return start + timedelta(days=1)
        case "weekly":
            return start + timedelta(days=7)
        case "monthly":
            return (start + timedelta(days=31)).replace(day=1)
        case _:
            return None
