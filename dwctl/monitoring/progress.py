"""How far a batch is: what is left, what must be done before it, what holds it up, and when it will end at the rate that was seen."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import namedtuple_row

from dwctl import sql

_QUERIES = sql.load("dwctl.monitoring")

Row = Any


def find(
    connection: psycopg.Connection[Any], batch_id: UUID, *, dead_after_s: float, default_cap: int
) -> tuple[Row, list[Row]] | None:
    """The batch's own row, and one for each of its models; None for what is no batch."""
    cursor = connection.cursor(row_factory=namedtuple_row)
    values = {"id": batch_id, "dead_after_s": dead_after_s, "default_cap": default_cap}
    batch: Row = cursor.execute(_QUERIES["progress"], values).fetchone()
    if batch is None:
        return None
    models: list[Row] = cursor.execute(_QUERIES["progress_of_models"], values).fetchall()
    return batch, models


def described(batch: Row, models: list[Row]) -> dict[str, Any]:
    """The answer. Times in Unix seconds, rates in lines a second."""
    ended = batch.completed_requests + batch.failed_requests + batch.canceled_requests
    remaining = 0 if batch.is_over else max(batch.total_requests - ended, 0)
    rate = _rate(batch)
    limits = {row.model: _limit(batch, row) for row in models if row.remaining > 0}
    left_s = None if batch.is_over or not rate else remaining / rate
    end = None if left_s is None else batch.now + left_s
    return {
        "object": "batch.progress",
        "batch_id": str(batch.id),
        "requests": {
            "total": batch.total_requests,
            "prepared": batch.populated_lines,
            "running": batch.running,
            "completed": batch.completed_requests,
            "failed": batch.failed_requests,
            "cancelled": batch.canceled_requests,
            "remaining": remaining,
        },
        "lines_ahead": 0
        if batch.is_over
        else sum(row.ahead for row in models if row.remaining > 0),
        "limited_by": _whole(batch, limits),
        "models": [
            {
                "model": row.model,
                "requests": row.requests,
                "remaining": row.remaining,
                "lines_ahead": row.ahead if row.remaining > 0 else 0,
                "in_flight": row.in_flight,
                "concurrency": row.cap,
                "limited_by": limits.get(row.model),
                "paused_until": None if row.paused_until is None else int(row.paused_until),
            }
            for row in models
        ],
        "lines_per_second": rate and round(rate, 3),
        "expires_at": int(batch.deadline),
        "estimated_end_at": None if end is None else int(end),
        "estimated_in_time": None if end is None else end <= batch.deadline,
    }


def _rate(batch: Row) -> float | None:
    """Lines a second over the last thousand that were answered; None before two were."""
    if not batch.recent or batch.recent < 2 or not batch.seconds or batch.seconds <= 0:
        return None
    return float(batch.recent / batch.seconds)


def _limit(batch: Row, row: Row) -> str | None:
    """What keeps a model's lines from running; None where nothing does, but for the lines before them."""
    if batch.is_over or batch.is_cancelling:
        return None
    if row.is_unknown:
        return "model_unknown"
    if not batch.has_worker:
        return "no_worker"
    if row.queue_paused:
        return str(row.queue_paused)
    if row.model_paused:
        return str(row.model_paused)
    if row.cap is not None and row.in_flight >= row.cap:
        return "concurrency"
    return "waiting_for_worker" if not batch.running else None


def _whole(batch: Row, limits: dict[str, str | None]) -> str | None:
    """The same for the batch: what holds up all of its models that have something left, else None."""
    if batch.is_over or not limits:
        return None
    if not batch.has_started and batch.populated_lines == 0:
        return "preparing" if batch.has_worker else "no_worker"
    found = set(limits.values())
    if None in found:
        return None
    return next(iter(found)) if len(found) == 1 else "several"
