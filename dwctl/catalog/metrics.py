"""How much a model is used: sums of all time, the last two hours in steps of ten minutes, and what was called since a moment.

Read from the sums, never from the log.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from dwctl.catalog.tables import DeployedModel
from dwctl.usage import models, spans

_M = DeployedModel
_DAY = timedelta(days=1)
_HOUR = timedelta(hours=1)
STEP = timedelta(minutes=10)
POINTS = 13


@dataclass(frozen=True, slots=True)
class Metrics:
    """Calls of every status on one alias: `series` by step, oldest first. Latency and last use are None where there was no call."""

    series: Sequence[int]
    total_requests: int = 0
    total_input_tokens: int = 0
    total_output_tokens: int = 0
    avg_latency_ms: float | None = None
    last_active_at: datetime | None = None


def steps(now: datetime) -> list[datetime]:
    """When each of the ten minutes begins that a series shows; it ends with those that `now` is in."""
    last = now.replace(minute=now.minute // 10 * 10, second=0, microsecond=0)
    return [last - STEP * back for back in range(POINTS - 1, -1, -1)]


def of_models(session: Session, aliases: Collection[str], now: datetime) -> dict[str, Metrics]:
    """The metrics of each alias, their series by `steps(now)`."""
    found = models.of_all_time(session, aliases, since=steps(now)[0], step=STEP, steps=POINTS)
    still = [0] * POINTS
    return {alias: Metrics(still) for alias in aliases} | {
        used.model: Metrics(
            series=used.recent,
            total_requests=used.calls,
            total_input_tokens=used.input_tokens,
            total_output_tokens=used.output_tokens,
            avg_latency_ms=used.duration_ms / used.calls,
            last_active_at=used.last_at,
        )
        for used in found
    }


@dataclass(frozen=True, slots=True)
class Calls:
    """Calls of every status on one alias since a moment, and within the last hour. refused: those of the errors with 4xx, of which most were never
    sent to a server. Times are None where there was no call."""

    since: datetime
    requests: int
    errors: int
    refused: int
    p50_latency_ms: float | None
    p95_latency_ms: float | None
    cost: Decimal
    last_hour_requests: int
    last_hour_errors: int
    last_hour_refused: int


def calls_of(
    session: Session,
    aliases: Collection[str],
    since: datetime | None,
    until: datetime | None,
    now: datetime,
) -> dict[str, Calls]:
    """The calls of each alias in a time (by default within a day until now), and within the last hour."""
    end = until if until is not None and until < now else now
    begin = min(since or end - _DAY, end - timedelta(minutes=1))
    late = now - _HOUR
    found = models.within(session, aliases, since=begin, late=min(late, end), until=end)
    # (Sums are of whole minutes.)
    ends_now = spans.ceiling(end, spans.MINUTE) == spans.ceiling(now, spans.MINUTE)
    recent = found if ends_now else models.within(session, aliases, since=late, late=late, until=now)  # fmt: skip
    none = models.Within()
    return {
        alias: _as_calls(begin, found.get(alias, none), recent.get(alias, none))
        for alias in aliases
    }


@dataclass(frozen=True, slots=True)
class EndpointModels:
    """The living models on one endpoint, and the calls on their aliases within the last hour."""

    active: int
    inactive: int
    last_sync: datetime | None
    last_hour_requests: int
    last_hour_errors: int
    last_hour_refused: int


def of_endpoints(
    session: Session, ids: Collection[UUID], now: datetime
) -> dict[UUID, EndpointModels]:
    """What each endpoint has, by its id."""
    rows = session.execute(
        select(_M.hosted_on, _M.alias, _M.status, _M.last_sync).where(
            _M.hosted_on.in_(ids), ~_M.deleted
        )
    ).all()
    hour = now - _HOUR
    calls = models.within(session, {row.alias for row in rows}, since=hour, late=hour, until=now)
    of_endpoint: dict[UUID, list[Any]] = {id: [] for id in ids}
    for row in rows:
        of_endpoint[row.hosted_on].append(row)
    return {id: _of_endpoint(found, calls) for id, found in of_endpoint.items()}


def _of_endpoint(rows: Sequence[Any], calls: Mapping[str, models.Within]) -> EndpointModels:
    active = sum(row.status == "active" for row in rows)
    called = [calls[row.alias] for row in rows if row.alias in calls]
    return EndpointModels(
        active=active,
        inactive=len(rows) - active,
        last_sync=max((row.last_sync for row in rows if row.last_sync), default=None),
        last_hour_requests=sum(one.late_calls for one in called),
        last_hour_errors=sum(one.late_errors for one in called),
        last_hour_refused=sum(one.late_refused for one in called),
    )


def _as_calls(since: datetime, found: models.Within, recent: models.Within) -> Calls:
    return Calls(
        since,
        found.calls,
        found.errors,
        found.refused,
        found.p50_ms,
        found.p95_ms,
        found.cost,
        recent.late_calls,
        recent.late_errors,
        recent.late_refused,
    )
