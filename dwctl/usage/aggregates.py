"""What everybody called: by status, by model, over time, and on one model by account."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import psycopg

from dwctl.usage import latencies, spans
from dwctl.usage.reading import Row, ask, kept

Shown = dict[str, Any]

_SHARES = (0.5, 0.95, 0.99)
_PERCENTILES = ("p50", "p95", "p99")
_COUNTS = ("errors", "input_tokens", "output_tokens", "reasoning_tokens", "cached_tokens")
_UNKNOWN_STATUS = 0


@dataclass(frozen=True, slots=True)
class Asked:
    """Whose calls, and from when to when (rounded to whole buckets). minutes: how long a point of the series is, where that is wanted."""

    since: datetime
    until: datetime
    model: str | None = None
    minutes: int | None = None


def aggregate(connection: psycopg.Connection[Any], asked: Asked) -> Shown:
    """Calls of every status in a time, as they are shown. The connection is at one `moment`."""
    sums = kept(connection)
    minutes = spans.width(asked.since, asked.until, sums, wanted=asked.minutes)
    coarsest = max(grain for grain in spans.GRAINS if grain <= minutes * 60)
    found = spans.cover(asked.since, asked.until, sums, coarsest=coarsest)
    whose = {"of_all": asked.model is None, "model": asked.model or ""}
    values = {**found.parameters, **whose, "minutes": minutes}
    calls = _Calls.of(ask(connection, "aggregate", values))
    times = {row.point: row for row in ask(connection, "latencies", values)}
    # By days where that is enough: there are as many sums of models as of models and points.
    broad = spans.cover(found.since, found.until, sums)
    models = [] if asked.model else ask(connection, "by_model", broad.parameters)
    return {
        "start_date": found.since,
        "end_date": found.until,
        "total_requests": calls.total.calls if calls.total else 0,
        **({} if asked.model is None else {"model": asked.model}),
        **_measures(calls.total, times.get(None)),
        "status_codes": [_status(row, calls.total) for row in calls.statuses],
        **({"models": [_model(row, calls.total) for row in models]} if models else {}),
        "time_series": [
            {
                "timestamp": point,
                "duration_minutes": minutes,
                "requests": calls.points[point].calls if point in calls.points else 0,
                **_measures(calls.points.get(point), times.get(point)),
            }
            for point in spans.points(found.since, found.until, minutes)
        ],
    }  # fmt: skip


def by_user(connection: psycopg.Connection[Any], asked: Asked) -> Shown:
    """Calls of every status on one model by the account that made them, as they are shown; of nobody's there is nothing. At one `moment`."""
    found = spans.cover(asked.since, asked.until, kept(connection))
    rows = ask(connection, "by_user", {**found.parameters, "model": asked.model})
    users = [
        {
            "user_id": row.user_id,
            "user_email": row.user_email,
            "request_count": row.calls,
            "total_tokens": row.total_tokens,
            "input_tokens": row.input_tokens,
            "output_tokens": row.output_tokens,
            "total_cost": _cost(row.cost),
            "last_active_at": row.last_at,
        }
        for row in rows
    ]
    return {
        "model": asked.model,
        "start_date": found.since,
        "end_date": found.until,
        "total_requests": sum(row.calls for row in rows),
        "total_tokens": sum(row.total_tokens for row in rows),
        "total_cost": _cost(sum((row.cost for row in rows), Decimal(0))),
        "users": users,
    }


@dataclass(frozen=True, slots=True)
class _Calls:
    """The rows of the statement `aggregate`, by what each is the sum of."""

    total: Row | None
    points: dict[datetime, Row]
    statuses: Sequence[Row]

    @classmethod
    def of(cls, rows: Iterable[Row]) -> _Calls:
        total, points, statuses = None, {}, []
        for row in rows:
            if row.point is not None:
                points[row.point] = row
            elif row.status_code is not None:
                statuses.append(row)
            else:
                total = row
        statuses.sort(key=lambda row: (-row.calls, row.status_code))
        return cls(total, points, statuses)


def _measures(row: Row | None, times: Row | None) -> Shown:
    return {
        **{name: getattr(row, name) if row else 0 for name in _COUNTS},
        "cost": row.cost if row else Decimal(0),
        "avg_latency_ms": row.duration_ms / row.calls if row else None,
        **_percentiles("latency", times and times.durations),
        "avg_ttfb_ms": row.ttfb_ms / row.timed if row and row.timed else None,
        **_percentiles("ttfb", times and times.ttfbs),
    }


def _percentiles(what: str, histogram: str | None) -> Shown:
    found = latencies.percentiles(histogram or "0", _SHARES)
    return {f"{name}_{what}_ms": time for name, time in zip(_PERCENTILES, found, strict=True)}


def _status(row: Row, total: Row) -> Shown:
    known = row.status_code != _UNKNOWN_STATUS
    return {
        "status": str(row.status_code) if known else "unknown",
        "count": row.calls,
        "percentage": row.calls * 100 / total.calls,
    }


def _model(row: Row, total: Row) -> Shown:
    return {
        "model": row.model,
        "count": row.calls,
        "percentage": row.calls * 100 / total.calls,
        "avg_latency_ms": row.duration_ms / row.calls,
        "errors": row.errors,
        "input_tokens": row.input_tokens,
        "output_tokens": row.output_tokens,
        "cost": row.cost,
    }


def _cost(amount: Decimal) -> float | None:
    """As a number, since that is what clients of the old product read; None where nothing was charged."""
    return float(amount) if amount else None
