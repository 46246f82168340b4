"""What models were used for, everybody's calls of every status."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy.orm import Session

from dwctl.usage import latencies, spans
from dwctl.usage.reading import QUERIES


class OfAllTime(NamedTuple):
    """Sums of one model since its first call, and its calls of the last of time by steps. duration_ms: of all calls together."""

    model: str
    calls: int
    input_tokens: int
    output_tokens: int
    duration_ms: int
    last_at: datetime
    recent: Sequence[int]


class Within(NamedTuple):
    """Calls on one model in a time, and those of its end. refused: those of the errors with 4xx. Percentiles are None without calls."""

    calls: int = 0
    errors: int = 0
    refused: int = 0
    cost: Decimal = Decimal(0)
    late_calls: int = 0
    late_errors: int = 0
    late_refused: int = 0
    p50_ms: float | None = None
    p95_ms: float | None = None


def of_all_time(
    session: Session, models: Collection[str], *, since: datetime, step: timedelta, steps: int
) -> list[OfAllTime]:
    """Those of the models that were ever called. Their recent calls are told from `since` on, which lies in the last days, by so many steps of some minutes."""
    rows = _ask(
        session,
        "of_models",
        models=list(models),
        since=since,
        until=since + steps * step,
        step_s=round(step.total_seconds()),
    )
    found = []
    for row in rows:
        recent = [0] * steps
        for place, calls in zip(row.steps or (), row.step_calls or (), strict=True):
            recent[place] = calls
        found.append(
            OfAllTime(
                row.model,
                row.calls,
                row.input_tokens,
                row.output_tokens,
                row.duration_ms,
                row.last_at,
                recent,
            )
        )
    return found


def within(
    session: Session, models: Collection[str], *, since: datetime, late: datetime, until: datetime
) -> dict[str, Within]:
    """Calls of every status from `since` on by model, and those from `late` on, both to the minute."""
    kept = dict(_ask(session, "kept"))
    late = spans.floor(late, spans.MINUTE)
    before = spans.cover(min(since, late), late, kept)
    end = spans.cover(late, until, kept, coarsest=spans.MINUTE)
    parts = (*before.spans, *end.spans)
    rows = _ask(
        session,
        "calls_of_models",
        models=list(models),
        grains=[part.grain for part in parts],
        starts=[part.since for part in parts],
        ends=[part.until for part in parts],
        begins=min(before.since, end.since),
        since=before.since if since < late else spans.floor(since, spans.MINUTE),
        late=late,
        until=end.until,
    )
    return {
        row.model: Within(
            *(row.calls, row.errors, row.refused, row.cost),
            *(row.late_calls, row.late_errors, row.late_refused),
            *latencies.percentiles(row.durations, (0.5, 0.95)),
        )
        for row in rows
    }


def _ask(session: Session, query: str, **values: Any) -> Sequence[Any]:
    return session.connection().exec_driver_sql(QUERIES[query], values).all()
