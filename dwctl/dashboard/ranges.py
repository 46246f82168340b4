"""The time range that travels with a person from page to page: `?range=24h`, `7d`, or `from..to` in ISO 8601.

A relative range stays relative: it ends now, whenever the address is opened.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from flask import g, request

from dwctl import clock
from dwctl.dashboard.zones import zone
from dwctl.errors import Invalid

DEFAULT = "24h"
PRESETS = (
    ("15m", "Last 15 minutes"),
    ("1h", "Last hour"),
    ("6h", "Last 6 hours"),
    ("24h", "Last 24 hours"),
    ("7d", "Last 7 days"),
    ("30d", "Last 30 days"),
    ("90d", "Last 90 days"),
)
LONGEST = timedelta(days=400)
_YEARS = (1970, 9000)
"""At the ends of the calendar there is no time before, and in another zone no such time."""
_LOST_PLUS = re.compile(r"(?<=\d) (?=\d\d:\d\d$)(?<!^\d{4}-\d\d-\d\d )")
_RELATIVE = re.compile(r"([1-9][0-9]{0,3})([mhd])")
_UNIT = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
_STEPS = (1, 5, 15, 60, 360, 1440)
"""Minutes of a chart's bucket."""
_MOST_POINTS = 400


@dataclass(frozen=True, slots=True)
class Range:
    """since, until: UTC; `until` is not in it. text: as the address has it."""

    text: str
    since: datetime
    until: datetime

    @property
    def is_relative(self) -> bool:
        """Whether it moves with the clock."""
        return ".." not in self.text

    @property
    def label(self) -> str:
        """In words, in the reader's zone."""
        known = dict(PRESETS).get(self.text)
        if known:
            return known
        if self.is_relative:
            return f"Last {self.text}"
        begin, end = (moment.astimezone(zone()) for moment in (self.since, self.until))
        day = (
            "%d %b" if begin.year == end.year == clock.now().astimezone(zone()).year else "%d %b %Y"
        )
        return f"{begin:{day} %H:%M} – {end:{day} %H:%M}"

    @property
    def step_minutes(self) -> int:
        """A chart's bucket: the smallest with which it has at most 400 points."""
        minutes = (self.until - self.since).total_seconds() / 60
        return next((step for step in _STEPS if minutes / step <= _MOST_POINTS), _STEPS[-1])

    @property
    def in_whole_minutes(self) -> str:
        """The same as sums have it, which know no seconds: what is added up for this time are the calls of that."""
        minute = timedelta(minutes=1)
        begin, end = self.since.replace(second=0, microsecond=0), self.until.replace(second=0, microsecond=0)  # fmt: skip
        return absolute(begin, end if end == self.until else end + minute).text

    @property
    def before(self) -> Range:
        """The same length of time just before it, to compare with."""
        length = self.until - self.since
        return absolute(self.since - length, self.since)


def asked() -> Range:
    """The range of the request's address; the last 24 hours where it names none. Raises Invalid."""
    if "range" not in g:
        g.range = parsed(request.args.get("range") or DEFAULT, clock.now())
    found: Range = g.range
    return found


def parsed(text: str, now: datetime) -> Range:
    """A range as it is written. Raises Invalid for what is none, is backwards, or longer than 400 days."""
    relative = _RELATIVE.fullmatch(text)
    if relative:
        length = int(relative[1]) * _UNIT[relative[2]]
        return _checked(Range(text, max(now - length, now - LONGEST), now))
    begin, dots, end = text.partition("..")
    if not dots:
        raise _wrong()
    try:
        since, until = (_moment(part) for part in (begin, end))
        return _checked(Range(text, since, until))
    except (ValueError, OverflowError):
        raise _wrong() from None


def absolute(since: datetime, until: datetime) -> Range:
    """The range between two moments."""
    return Range(f"{_written(since)}..{_written(until)}", since, until)


def _moment(text: str) -> datetime:
    # In a query string a plus that nobody encoded has become a space.
    moment = datetime.fromisoformat(_LOST_PLUS.sub("+", text.strip()))
    local = moment if moment.tzinfo else moment.replace(tzinfo=zone())
    return local.astimezone(clock.now().tzinfo)


def _written(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _checked(range: Range) -> Range:
    if not _YEARS[0] <= range.since.year <= range.until.year < _YEARS[1]:
        raise Invalid(f"range: years from {_YEARS[0]} to {_YEARS[1] - 1}", param="range")
    if range.since >= range.until:
        raise Invalid("range: it ends before it begins. Write the earlier time first.", param="range")  # fmt: skip
    if range.until - range.since > LONGEST:
        raise Invalid(f"range: longer than {LONGEST.days} days", param="range")
    return range


def _wrong() -> Invalid:
    said = (
        "range: a number with m, h or d (24h, 7d), or two times: 2026-01-31T10:00..2026-01-31T12:00"
    )
    return Invalid(said, param="range")
