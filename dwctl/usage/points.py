"""Where the points of a series begin, in the time zone of whoever reads it. Pure.

Points of a day begin at the zone's midnight, those of six hours at its 0, 6, 12 and 18 o'clock, shorter ones with the hour and its parts in UTC. A point
whose beginning lies within a bucket that is not kept finer begins with that bucket: so in a zone at half an hour, a day more than
`retention.minutes_days` ago begins half an hour before its midnight, and where only days are kept, all are those of UTC.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

from dwctl.usage.spans import Kept, finest, floor

STEPS = (1, 5, 15, 60, 360, 1440)
"""Minutes of a point."""
DAY = STEPS[-1]
LONGEST = timedelta(days=1000)
"""Of a series."""
_MOST = 500
USUALLY = 200
_LOCAL_FROM = 360
"""Points of as many minutes begin by the clock of the zone."""


def width(since: datetime, until: datetime, kept: Kept, *, wanted: int | None, usually: int = USUALLY) -> int:  # fmt: skip
    """Minutes of a point: as wanted, else so that there are at most `usually`; more where there would be more than 500, or where nothing finer is kept."""
    minutes = (until - since) / timedelta(minutes=1)
    least = max(minutes / (_MOST if wanted else usually), wanted or 0, finest(since, kept) / 60)
    return next((step for step in STEPS if step >= least), DAY)


def edges(since: datetime, until: datetime, minutes: int, zone: ZoneInfo, kept: Kept) -> list[datetime]:  # fmt: skip
    """The beginning of each point and the end of the last: `since`, what lies in between, `until`."""
    if minutes < _LOCAL_FROM:
        return [since, *_even(since, until, minutes), until]
    fitting = dict.fromkeys(floor(at, finest(at, kept)) for at in _by_clock(since, until, minutes, zone))  # fmt: skip
    return [since, *(at for at in fitting if since < at < until), until]


def _even(since: datetime, until: datetime, minutes: int) -> Iterator[datetime]:
    """Each at the end of a bucket: `width` gives no points that are shorter than the finest that is kept, and those are parts of them."""
    step = timedelta(minutes=minutes)
    at = floor(since, minutes * 60) + step
    while at < until:
        yield at
        at += step


def _by_clock(since: datetime, until: datetime, minutes: int, zone: ZoneInfo) -> Iterator[datetime]:
    """What the zone's clock shows, whatever its days are like: one has 23 hours, another 25."""
    day, last = since.astimezone(zone).date(), until.astimezone(zone).date()
    while day <= last:
        for hour in range(0, 24, minutes // 60):
            yield datetime.combine(day, time(hour), tzinfo=zone).astimezone(UTC)
        day += timedelta(days=1)
