"""The lines of one batch as people look through them: in their order, without bodies; and what those that failed have in common."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import namedtuple_row

from dwctl import sql
from dwctl.access.caller import Caller
from dwctl.access.ownership import may_reach
from dwctl.access.permissions import Operation, Resource
from dwctl.errors import NotFound
from dwctl.queue.tables import State

_QUERIES = sql.load("dwctl.monitoring")

STATES: dict[str, tuple[State, ...]] = {
    "waiting": (State.PENDING,),
    "running": (State.CLAIMED, State.PROCESSING),
    "completed": (State.COMPLETED,),
    "failed": (State.FAILED,),
    "cancelled": (State.CANCELED,),
}
"""The words for what a line is doing."""
_WORDS = {str(state): word for word, states in STATES.items() for state in states}
NIL = UUID(int=0)
_LOOKED_AT = 5000


def insist(connection: psycopg.Connection[Any], caller: Caller, batch_id: UUID) -> bool:
    """That the caller may read the batch; gives whether its lines stand together. Raises NotFound."""
    row = connection.execute(_QUERIES["owner_of"], {"id": batch_id}).fetchone()
    if row is None or not may_reach(caller, Resource.BATCHES, Operation.READ, row[0]):
        raise NotFound(f"Batch with ID {batch_id} not found")
    return bool(row[1])


def page(
    connection: psycopg.Connection[Any],
    batch_id: UUID,
    *,
    is_populated: bool,
    status: str | None,
    after: UUID,
    limit: int,
) -> list[dict[str, Any]]:
    """Up to `limit` lines behind that one, of a status or of any."""
    values = {
        "id": batch_id,
        "is_populated": is_populated,
        "states": [str(state) for state in STATES[status]] if status else None,
        "after": after,
        "limit": limit,
    }
    cursor = connection.cursor(row_factory=namedtuple_row)
    rows: list[Any] = cursor.execute(_QUERIES["lines"], values).fetchall()
    return [row._asdict() | {"status": _WORDS[row.status]} for row in rows]


def failures(connection: psycopg.Connection[Any], batch_id: UUID) -> dict[str, Any]:
    """The failed lines by what they say, the most frequent first; of many, of the last ones."""
    cursor = connection.cursor(row_factory=namedtuple_row)
    values = {"id": batch_id, "most": _LOOKED_AT}
    rows: list[Any] = cursor.execute(_QUERIES["failures"], values).fetchall()
    return {
        "looked_at": rows[0].looked_at if rows else 0,
        "is_whole": not rows or rows[0].looked_at < _LOOKED_AT,
        "groups": [
            {
                "code": row.code,
                "message": row.message,
                "status": row.status,
                "requests": row.requests,
                "examples": [
                    {"id": id, "custom_id": custom_id}
                    for id, custom_id in zip(row.ids, row.custom_ids, strict=True)
                ],
            }
            for row in rows
        ],
    }
