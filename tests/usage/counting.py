"""What the sums must say, counted call by call from the log."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import namedtuple_row

MONDAY = datetime.fromisoformat("2001-01-01T00:00:00+00:00")
NOBODY = UUID(int=0)

Call = Any


def log(connection: psycopg.Connection[Any]) -> list[Call]:
    """Every row; unknown names of models as the sums have them."""
    cursor = connection.cursor(row_factory=namedtuple_row)
    return cursor.execute(
        "SELECT timestamp AS at, CASE WHEN error_code = 'model_not_found' THEN '' ELSE coalesce(model, '') END AS model, user_id, api_key_id, status_code,"
        " prompt_tokens, completion_tokens, reasoning_tokens, cached_tokens, total_tokens, coalesce(total_cost, 0) AS cost, duration_ms,"
        " duration_to_first_byte_ms AS ttfb_ms FROM http_analytics"
    ).fetchall()


def within(calls: Iterable[Call], since: datetime, until: datetime) -> list[Call]:
    """Those of whole minutes."""
    begins = since.replace(second=0, microsecond=0)
    ends = until.replace(second=0, microsecond=0)
    ends += timedelta(minutes=ends != until)
    return [call for call in calls if begins <= call.at < ends]


def point_of(at: datetime, minutes: int) -> datetime:
    step = timedelta(minutes=minutes)
    return MONDAY + (at - MONDAY) // step * step


def percentile(times: list[int], share: float) -> int | None:
    """The time of the call at that rank."""
    return sorted(times)[math.ceil(share * len(times)) - 1] if times else None


def measures(calls: list[Call]) -> dict[str, Any]:
    """As a point of a series has them, percentiles as they are."""
    first = [call.ttfb_ms for call in calls if call.ttfb_ms is not None]
    durations = [call.duration_ms for call in calls]
    return {
        "errors": sum(not 200 <= call.status_code < 300 for call in calls),
        "input_tokens": sum(call.prompt_tokens for call in calls),
        "output_tokens": sum(call.completion_tokens for call in calls),
        "reasoning_tokens": sum(call.reasoning_tokens for call in calls),
        "cached_tokens": sum(call.cached_tokens for call in calls),
        "cost": sum((call.cost for call in calls), Decimal(0)),
        "avg_latency_ms": sum(durations) / len(durations) if durations else None,
        **{f"p{share}_latency_ms": percentile(durations, share / 100) for share in (50, 95, 99)},
        "avg_ttfb_ms": sum(first) / len(first) if first else None,
        **{f"p{share}_ttfb_ms": percentile(first, share / 100) for share in (50, 95, 99)},
    }


def series(calls: list[Call], minutes: int) -> dict[datetime, list[Call]]:
    found = defaultdict(list)
    for call in calls:
        found[point_of(call.at, minutes)].append(call)
    return found


def statuses(calls: list[Call]) -> list[tuple[str, int]]:
    counts = Counter(call.status_code for call in calls)
    return [(str(status), n) for status, n in sorted(counts.items(), key=lambda one: (-one[1], one[0]))]  # fmt: skip


def models(calls: list[Call]) -> list[tuple[str, int]]:
    counts = Counter(call.model for call in calls if call.model)
    return sorted(counts.items(), key=lambda one: (-one[1], one[0]))


def users(calls: list[Call]) -> list[tuple[UUID, int, int, Decimal, datetime]]:
    by: dict[UUID, list[Call]] = defaultdict(list)
    for call in calls:
        if call.user_id not in (None, NOBODY):
            by[call.user_id].append(call)
    rows = [
        (id, len(of), sum(c.total_tokens for c in of), sum((c.cost for c in of), Decimal(0)), max(c.at for c in of))
        for id, of in by.items()
    ]  # fmt: skip
    return sorted(rows, key=lambda row: (-row[1], row[0]))


def usage(calls: list[Call], accounts: set[UUID]) -> list[tuple[str, int, int, int, Decimal]]:
    by: dict[str, list[Call]] = defaultdict(list)
    for call in calls:
        if call.user_id in accounts and call.model and 200 <= call.status_code < 300:
            by[call.model].append(call)
    rows = [
        (model, len(of), sum(c.prompt_tokens for c in of), sum(c.completion_tokens for c in of), sum((c.cost for c in of), Decimal(0)))
        for model, of in by.items()
    ]  # fmt: skip
    return sorted(rows, key=lambda row: (-row[1], row[0]))
