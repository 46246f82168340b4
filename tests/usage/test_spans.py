"""Which sums make up a time."""

from __future__ import annotations

from bisect import bisect_right
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dwctl.usage import spans
from dwctl.usage.points import STEPS
from dwctl.usage.points import edges as point_edges
from dwctl.usage.points import width as point_width
from dwctl.usage.spans import DAY, EPOCH, GRAINS, HOUR, LATEST, MINUTE, Span, cover, points, width

NOW = datetime(2026, 3, 10, 15, 17, 42, 5, tzinfo=UTC)
ALL = {0: EPOCH, MINUTE: EPOCH, HOUR: EPOCH, DAY: EPOCH}
KEPT = {
    0: EPOCH,
    MINUTE: datetime(2026, 3, 3, tzinfo=UTC),
    HOUR: datetime(2025, 12, 10, tzinfo=UTC),
    DAY: datetime(2021, 3, 6, tzinfo=UTC),
}


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"2026-03-{text}+00:00")


@pytest.mark.parametrize(
    ("since", "until", "coarsest", "found"),
    [
        pytest.param("10T15:17:42", "10T15:18:01", DAY, [(MINUTE, "10T15:17", "10T15:19")], id="rounded outwards"),
        pytest.param("10T15:17", "10T15:19", DAY, [(MINUTE, "10T15:17", "10T15:19")], id="whole minutes"),
        pytest.param("10T14:00", "10T16:00", DAY, [(HOUR, "10T14:00", "10T16:00")], id="whole hours"),
        pytest.param("09T00:00", "11T00:00", DAY, [(DAY, "09T00:00", "11T00:00")], id="whole days"),
        pytest.param("09T00:00", "11T00:00", HOUR, [(HOUR, "09T00:00", "11T00:00")], id="hours at most"),
        pytest.param("09T23:00", "11T01:00", DAY, [(HOUR, "09T23:00", "10T00:00"), (DAY, "10T00:00", "11T00:00"), (HOUR, "11T00:00", "11T01:00")], id="a day between hours"),
        pytest.param("09T23:58", "10T00:02", DAY, [(MINUTE, "09T23:58", "10T00:02")], id="over midnight"),
        pytest.param("09T22:58", "10T01:02", DAY, [(MINUTE, "09T22:58", "09T23:00"), (HOUR, "09T23:00", "10T01:00"), (MINUTE, "10T01:00", "10T01:02")], id="hours between minutes"),
        pytest.param("10T15:17", "10T15:17", DAY, [], id="nothing"),
        pytest.param("10T15:17:01", "10T15:17:01", DAY, [(MINUTE, "10T15:17", "10T15:18")], id="a moment"),
        pytest.param("02T15:17", "02T18:01", DAY, [(HOUR, "02T15:00", "02T19:00")], id="no minutes are kept"),
        pytest.param("02T15:17", "03T00:01", DAY, [(HOUR, "02T15:00", "03T00:00"), (MINUTE, "03T00:00", "03T00:01")], id="minutes from here on"),
    ],
)  # fmt: skip
def test_a_time_is_covered(since: str, until: str, coarsest: int, found: list[tuple[int, str, str]]) -> None:  # fmt: skip
    covered = cover(at(since), at(until), KEPT, coarsest=coarsest)
    assert list(covered.spans) == [Span(grain, at(a), at(b)) for grain, a, b in found]


moments = st.integers(0, 8 * 365 * 86400 * 10**6).map(
    lambda us: datetime(2019, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)
)
anything = st.datetimes(timezones=st.just(UTC))


@settings(max_examples=150, deadline=None)
@given(st.one_of(moments, anything), st.one_of(moments, anything), st.sampled_from(GRAINS))
def test_spans_cover_a_time_once_and_only_with_what_is_kept(one: datetime, other: datetime, coarsest: int) -> None:  # fmt: skip
    since, until = sorted((one, other))
    found = cover(since, until, KEPT, coarsest=coarsest)
    if not found.spans:
        assert found.since == found.until
        return
    assert found.spans[0].since == found.since <= max(since, KEPT[DAY])
    assert found.spans[-1].until == found.until >= min(until, LATEST)
    for before, after in pairwise(found.spans):
        assert before.until == after.since
    for grain, begins, ends in found.spans:
        assert begins < ends
        assert begins >= KEPT[grain]
        assert spans.floor(begins, grain) == begins
        assert spans.floor(ends, grain) == ends
    assert len(found.spans) <= 5


@settings(max_examples=150, deadline=None)
@given(st.one_of(moments, anything), st.one_of(moments, anything), st.sampled_from((None, *spans.WIDTHS)))  # fmt: skip
def test_a_series_is_bounded_and_made_of_what_is_kept(one: datetime, other: datetime, wanted: int | None) -> None:  # fmt: skip
    since, until = sorted((one, other))
    minutes = width(since, until, KEPT, wanted=wanted)
    found = cover(since, until, KEPT, coarsest=max(g for g in GRAINS if g <= minutes * 60))
    shown = list(points(found.since, found.until, minutes))
    assert len(shown) <= spans.MOST_POINTS + 1
    assert minutes >= (wanted or 1)
    for grain, _, _ in found.spans:
        # A bucket lies within one point.
        assert grain <= minutes * 60
        assert (minutes * 60) % grain == 0
    if shown:
        assert shown[0] <= found.since < shown[0] + timedelta(minutes=minutes)


@pytest.mark.parametrize(
    ("hours", "wanted", "minutes"),
    [
        (0, None, 10), (6, None, 10), (7, None, 60), (24, None, 60), (168, None, 60), (180, None, 1440), (24 * 999, None, 1440),
        (24 * 1001, None, 10_080), (24 * 365 * 100, None, 3 * 10_080), (1, 1, 1), (16, 1, 1), (17, 1, 10), (24 * 42, 60, 1440), (2, 10_080, 10_080),
    ],
)  # fmt: skip
def test_the_width_of_a_point(hours: int, wanted: int | None, minutes: int) -> None:
    assert width(NOW - timedelta(hours=hours), NOW, ALL, wanted=wanted) == minutes


ZONES = ("UTC", "Europe/Berlin", "Asia/Kathmandu", "Pacific/Auckland", "Pacific/Apia", "America/St_Johns", "Pacific/Kiritimati", "Australia/Lord_Howe", "Etc/GMT+12", "Asia/Kolkata")  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    since=st.timedeltas(timedelta(days=-130), timedelta(days=-1)).map(lambda ago: NOW + ago),
    length=st.timedeltas(timedelta(minutes=1), timedelta(days=40)),
    zone=st.sampled_from(ZONES),
    wanted=st.sampled_from((None, *STEPS)),
)
def test_pieces_come_to_their_points(since: datetime, length: timedelta, zone: str, wanted: int | None) -> None:  # fmt: skip
    whole = cover(since, since + length, KEPT)
    minutes = point_width(whole.since, whole.until, KEPT, wanted=wanted)
    edges = point_edges(whole.since, whole.until, minutes, ZoneInfo(zone), KEPT)
    pieces = spans.between(edges)
    told = [0] * (len(edges) - 1)
    for (span, moves), middle in zip(pieces.pieces, pieces.parameters["point_middles"], strict=True):  # fmt: skip
        assert span.since >= KEPT[span.grain]
        step, begins = timedelta(seconds=span.grain), span.since
        while begins < span.until:
            point = bisect_right(edges, begins + middle) - 1
            told[point] += _worth(begins, begins + step)
            if moves:
                told[point + moves] -= _worth(begins, begins + step)
            begins += step
    assert told == [_worth(one, other) for one, other in pairwise(edges)]


def _worth(since: datetime, until: datetime) -> int:
    """Of each time another one, and that of two times that follow each other is their sum."""
    seconds = [int((one - EPOCH).total_seconds()) for one in (since, until)]
    return seconds[1] ** 2 - seconds[0] ** 2


@pytest.mark.parametrize(
    ("zone", "buckets"), [("UTC", 30), ("Europe/Berlin", 30 + 30), ("Asia/Tokyo", 30 + 30 * 9), ("America/New_York", 30 + 30 * 5), ("Pacific/Auckland", 30 + 30 * 11)]
)  # fmt: skip
def test_days_of_a_zone_are_made_of_days(zone: str, buckets: int) -> None:
    since, until = (datetime(2026, 1, day, tzinfo=ZoneInfo(zone)).astimezone(UTC) for day in (1, 31))  # fmt: skip
    edges = point_edges(since, until, 1440, ZoneInfo(zone), KEPT)
    assert abs(spans.between(edges).buckets - buckets) <= 24
