"""Which sums make up a time: whole days by days, what is left at its ends by hours and minutes. Pure.

Sums know no seconds: a time begins with the minute that its beginning is in, and ends with the one that its end is in. Where minutes are
not kept any more it is the hour, and where hours are not, the day.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import NamedTuple

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MONDAY = datetime(2001, 1, 1, tzinfo=UTC)
"""Where buckets of points are counted from: weeks begin on Mondays."""
ALL_TIME, MINUTE, HOUR, DAY = 0, 60, 3600, 86400
GRAINS = (MINUTE, HOUR, DAY)
"""Lengths of buckets in seconds, the finest first. ALL_TIME has one bucket, at EPOCH."""
LATEST = datetime(2200, 1, 1, tzinfo=UTC)
"""What is asked for beyond it ends there: nothing has happened yet."""

MOST_POINTS = 1000
WIDTHS = (1, 10, 60, 1440, 10_080)
"""Minutes that a point of a series may stand for, by request."""
_WEEK = WIDTHS[-1]
_SECOND = timedelta(seconds=1)


class Span(NamedTuple):
    """The buckets of one grain from `since` to just before `until`."""

    grain: int
    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class Range:
    """A time in whole buckets, and the spans that make it up, in their order."""

    since: datetime
    until: datetime
    spans: tuple[Span, ...]

    @property
    def parameters(self) -> dict[str, object]:
        """For the statements of `queries.sql`."""
        return {
            "since": self.since,
            "until": self.until,
            "grains": [span.grain for span in self.spans],
            "starts": [span.since for span in self.spans],
            "ends": [span.until for span in self.spans],
        }


OF_ALL_TIME = Range(EPOCH, LATEST, (Span(ALL_TIME, EPOCH, EPOCH + timedelta(seconds=1)),))

Kept = Mapping[int, datetime]
"""Since when each grain is kept, always a midnight."""


def cover(since: datetime, until: datetime, kept: Kept, *, coarsest: int = DAY) -> Range:
    """The sums of a time, from buckets of `coarsest` seconds at most (where finer ones are kept). `since` is before `until`."""
    since, until = _bounded(since), _bounded(until)
    begins = floor(since, finest(since, kept))
    ends = min(ceiling(until, finest(until, kept)), LATEST)
    begins = max(begins, kept[DAY])
    if begins >= ends:
        return Range(begins, begins, ())
    coarsest = max(coarsest, finest(begins, kept))
    parts = _parts(_seconds(begins), _seconds(ends), GRAINS[: GRAINS.index(coarsest) + 1])
    return Range(begins, ends, tuple(map(_span, parts)))


class Piece(NamedTuple):
    """Buckets of a series. Each counts in the point that its middle (a day's) or its beginning is in; where `moves` is not 0 it is taken off the point so many
    later, whose days it is a part of."""

    span: Span
    moves: int


@dataclass(frozen=True, slots=True)
class Pieces:
    """What the points of a series are made of."""

    pieces: tuple[Piece, ...]

    @property
    def buckets(self) -> int:
        """How many sums of one thing there are in it."""
        return sum(
            (span.until - span.since) // timedelta(seconds=span.grain) for span, _ in self.pieces
        )

    @property
    def parameters(self) -> dict[str, object]:
        """For the statements of `queries.sql`."""
        spans = [span for span, _ in self.pieces]
        return {
            "point_grains": [span.grain for span in spans],
            "point_starts": [span.since for span in spans],
            "point_ends": [span.until for span in spans],
            "point_middles": [_NOON if span.grain == DAY else _BEGINNING for span in spans],
            "point_moves": [moves for _, moves in self.pieces],
        }


_NOON, _BEGINNING = timedelta(hours=12), timedelta()


def between(edges: Sequence[datetime]) -> Pieces:
    """The sums of the points between `edges`. These are in order, each at the end of a bucket that is kept there; the first and the last are the time's own ends.

    Where points are days that do not begin with those of UTC, each is made of a whole one, and of what lies between the two midnights: twelve hours or less
    in place of 24.
    """
    ends = list(map(_seconds, edges))
    joined: list[list[int]] = []
    for begins, until in pairwise(_without_midnights(ends)):
        # (Without a whole hour within, all of it is minutes: of most points that is so, and there are hundreds.)
        is_short = begins < until and -(-begins // HOUR) >= until // HOUR
        parts = ((MINUTE, begins, until),) if is_short else _parts(begins, until, GRAINS)
        for grain, since, to in parts:
            if joined and joined[-1][0] == grain and joined[-1][2] == since:
                joined[-1][2] = to
            else:
                joined.append([grain, since, to])
    whole = [(since, to) for grain, since, to in joined if grain == DAY]
    moved = [
        Piece(_span(part), moves)
        for edge in ends
        if any(since < edge < to for since, to in whole)
        for since, to, moves in [_to_midnight(edge)]
        for part in _parts(since, to, GRAINS[:-1])
    ]
    return Pieces((*(Piece(_span(part), 0) for part in joined), *moved))


def _without_midnights(edges: Sequence[int]) -> Sequence[int]:
    """The edges; where they are those of days, only the ones that lie in a day of UTC of which a part is not asked for."""
    first, *inner, last = edges
    begins, ends = -(-first // DAY) * DAY, last // DAY * DAY
    if begins >= ends or any(later - earlier < _SHORTEST_DAY for earlier, later in pairwise(inner)):
        return edges
    return [first, *(edge for edge in inner if not begins <= edge <= ends), last]


def _to_midnight(edge: int) -> tuple[int, int, int]:
    """From an edge to the nearest midnight, and by how many points what lies in between is off if the whole day is in that of its noon."""
    midnight = edge // DAY * DAY
    if edge - midnight <= DAY // 2:
        return midnight, edge, 1
    return edge, midnight + DAY, -1


_SHORTEST_DAY = 23 * HOUR
"""When clocks are put forward."""


def finest(at: datetime, kept: Kept) -> int:
    """The finest grain that is kept of that time; days where none is."""
    return next((grain for grain in GRAINS if at >= kept[grain]), DAY)


def width(since: datetime, until: datetime, kept: Kept, *, wanted: int | None) -> int:
    """For how many minutes a point of a series stands: as wanted, or 10 up to six hours, 60 up to a week, else days.

    It is wider where a series would have more than MOST_POINTS, or where nothing finer is kept any more.
    """
    since = _bounded(since)
    minutes = (_bounded(until) - since) / timedelta(minutes=1)
    chosen = wanted or (10 if minutes <= 360 else 60 if minutes <= _WEEK + 60 else 1440)
    least = max(minutes / MOST_POINTS, finest(since, kept) / 60)
    fitting = (one for one in WIDTHS if one >= max(chosen, least))
    return next(fitting, -int(-least // _WEEK) * _WEEK)


def points(since: datetime, until: datetime, minutes: int) -> Iterator[datetime]:
    """The beginnings of a series' points, from the one that `since` is in, to the last before `until`."""
    step = timedelta(minutes=minutes)
    at = MONDAY + (since - MONDAY) // step * step
    while at < until:
        yield at
        at += step


def floor(at: datetime, seconds: int) -> datetime:
    """The beginning of the bucket that a moment is in."""
    step = timedelta(seconds=seconds)
    return EPOCH + (at - EPOCH) // step * step


def ceiling(at: datetime, seconds: int) -> datetime:
    """The end of the bucket that lies before a moment, or that it is in."""
    step = timedelta(seconds=seconds)
    return EPOCH - (EPOCH - at) // step * step


def _bounded(at: datetime) -> datetime:
    return min(max(at, EPOCH), LATEST)


_Part = tuple[int, int, int]
"""A span in seconds since EPOCH: a series has hundreds of parts, which are joined to a few."""


def _parts(since: int, until: int, grains: Sequence[int]) -> Iterator[_Part]:
    *finer, grain = grains
    begins, ends = -(-since // grain) * grain, until // grain * grain
    if begins >= ends:
        if since < until:
            yield from _parts(since, until, finer)
        return
    if since < begins:
        yield from _parts(since, begins, finer)
    yield grain, begins, ends
    if ends < until:
        yield from _parts(ends, until, finer)


def _seconds(at: datetime) -> int:
    return (at - EPOCH) // _SECOND


def _span(part: Sequence[int]) -> Span:
    grain, since, until = part
    return Span(grain, EPOCH + since * _SECOND, EPOCH + until * _SECOND)
