"""How much a model is used: sums of all time, and the last two hours in steps of ten minutes. Read from the roll-up, never from the log."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from dwctl.analytics.tables import UsageRollup

STEP = timedelta(minutes=10)
POINTS = 13


@dataclass(frozen=True, slots=True)
class Point:
    """Calls that arrived within ten minutes from `timestamp`."""

    timestamp: datetime
    requests: int


@dataclass(frozen=True, slots=True)
class Metrics:
    """Calls of every status on one alias. Latency and last use are None where there was no call."""

    time_series: tuple[Point, ...]
    total_requests: int = 0
    total_input_tokens: int = 0
    total_output_tokens: int = 0
    avg_latency_ms: float | None = None
    last_active_at: datetime | None = None


def of_models(session: Session, aliases: Collection[str], now: datetime) -> dict[str, Metrics]:
    """The metrics of each alias; the series ends with the ten minutes that `now` is in."""
    start = now.replace(minute=now.minute // 10 * 10, second=0, microsecond=0)
    steps = [start - STEP * back for back in range(POINTS - 1, -1, -1)]
    recent = _recent(session, aliases, steps[0])
    used = {alias for alias, _ in recent}
    # One for all that nobody has called lately: it is written once.
    still = tuple(Point(step, 0) for step in steps)
    series = {
        alias: tuple(Point(step, recent.get((alias, step), 0)) for step in steps)
        if alias in used
        else still
        for alias in aliases
    }
    return {alias: Metrics(series[alias]) for alias in aliases} | {
        row.model: Metrics(
            time_series=series[row.model],
            total_requests=int(row.requests),
            total_input_tokens=int(row.prompt_tokens),
            total_output_tokens=int(row.completion_tokens),
            avg_latency_ms=float(row.duration_ms) / int(row.requests) if row.requests else None,
            last_active_at=row.last_at,
        )
        for row in _totals(session, aliases)
    }


def _recent(
    session: Session, aliases: Collection[str], since: datetime
) -> dict[tuple[str, datetime], int]:
    rows = session.execute(
        select(UsageRollup.model, UsageRollup.bucket, func.sum(UsageRollup.requests))
        .where(UsageRollup.model.in_(aliases), UsageRollup.bucket >= since)
        .group_by(UsageRollup.model, UsageRollup.bucket)
    )
    return {(model, bucket): int(requests) for model, bucket, requests in rows}


def _totals(session: Session, aliases: Collection[str]) -> Sequence[Any]:
    u = UsageRollup
    return session.execute(
        select(
            u.model,
            func.sum(u.requests).label("requests"),
            func.sum(u.prompt_tokens).label("prompt_tokens"),
            func.sum(u.completion_tokens).label("completion_tokens"),
            func.sum(u.duration_ms).label("duration_ms"),
            func.max(u.last_at).label("last_at"),
        )
        .where(u.model.in_(aliases))
        .group_by(u.model)
    ).all()
