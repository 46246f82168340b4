"""What a batch has used so far: sums that the recorder keeps, one row a batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from dwctl import sql
from dwctl.analytics.tables import BatchUsage
from dwctl.billing import money

_QUERIES = sql.load("dwctl.batches")


def in_openais_words(session: Session, ids: Sequence[UUID]) -> dict[UUID, dict[str, Any]]:
    """The members `model` and `usage` of these batches' objects, each where there is something to say."""
    if not ids:
        return {}
    rows = session.connection().exec_driver_sql(_QUERIES["models_and_tokens"], {"ids": list(ids)})
    return {row.id: _members(row) for row in rows}


def of(session: Session, ids: Iterable[UUID]) -> dict[UUID, dict[str, Any]]:
    """The sums of each of these batches, as they are shown; zeros where nothing has been used."""
    wanted = set(ids)
    if not wanted:
        return {}
    rows = session.scalars(select(BatchUsage).where(BatchUsage.batch_id.in_(wanted)))
    return {id: _nothing() for id in wanted} | {row.batch_id: _shown(row) for row in rows}


def _members(row: Any) -> dict[str, Any]:
    members = {} if row.model is None else {"model": row.model}
    if row.total_tokens is None:
        return members
    return members | {
        "usage": {
            "input_tokens": row.prompt_tokens,
            "input_tokens_details": {"cached_tokens": row.cached_tokens},
            "output_tokens": row.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": row.reasoning_tokens},
            "total_tokens": row.total_tokens,
        }
    }


def _shown(row: BatchUsage) -> dict[str, Any]:
    reasoning = {"total_reasoning_tokens": row.reasoning_tokens} if row.reasoning_tokens else {}
    return {
        "total_requests": row.requests,
        "total_prompt_tokens": row.prompt_tokens,
        "total_completion_tokens": row.completion_tokens,
        **reasoning,
        "total_tokens": row.total_tokens,
        "avg_duration_ms": row.duration_ms / row.requests if row.requests else 0.0,
        "avg_ttfb_ms": row.ttfb_ms / row.timed if row.timed else 0.0,
        "total_cost": money.short_text(row.cost),
    }


def _nothing() -> dict[str, Any]:
    return {
        "total_requests": 0,
        "total_prompt_tokens": 0,
        "total_completion_tokens": 0,
        "total_tokens": 0,
        "avg_duration_ms": 0.0,
        "avg_ttfb_ms": 0.0,
        "total_cost": "0",
    }
