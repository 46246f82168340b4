"""What a list shows beside each batch: its file, its models, and when it will end at the rate of its last lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from dwctl import sql

_QUERIES = sql.load("dwctl.batches")


def of(session: Session, ids: Sequence[UUID]) -> dict[UUID, dict[str, Any]]:
    """The summaries of these batches, in one statement."""
    if not ids:
        return {}
    rows = session.connection().exec_driver_sql(_QUERIES["summaries"], {"ids": list(ids)})
    return {row.id: _shown(row) for row in rows}


def _shown(row: Any) -> dict[str, Any]:
    rate = row.lines / row.seconds if (row.lines or 0) > 1 and row.seconds > 0 else None
    return {
        "input_file_name": row.file_name,
        "models": row.models or [],
        "model_count": row.model_count,
        "cancelled": row.cancelled,
        "lines_per_second": rate and round(rate, 3),
        "estimated_end_at": int(row.now + row.remaining / rate) if rate else None,
    }
