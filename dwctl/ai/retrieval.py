"""Responses that were asked for before: read from the tracking rows, cancelled, deleted; shown as the one Response object."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

import orjson
from psycopg.rows import namedtuple_row

from dwctl import sql
from dwctl.db import Connections
from dwctl.errors import NotFound, Unavailable
from dwctl.protocols.openresponses.from_row import from_row
from dwctl.protocols.rows import StoredRow
from dwctl.queue.tables import State

_QUERIES = sql.load("dwctl.queue")
_OVER = frozenset({State.COMPLETED, State.FAILED, State.CANCELED})


class StillSpooled(Unavailable):
    """Answers given while the database was away are still being written down. Try again shortly."""

    code = "response_not_recorded_yet"


def fetch(connections: Connections, response_id: str, owners: Collection[UUID]) -> dict[str, Any]:
    """The response with this public id (`resp_` may be left out). Raises NotFound for what none of `owners` owns."""
    return shown(stored_row_of(connections, response_id, owners))


def cancel(connections: Connections, response_id: str, owners: Collection[UUID]) -> dict[str, Any]:
    """Stop a response wherever it is, and show it; one that is over is shown unchanged. Raises NotFound."""
    row = row_of(connections, response_id, owners)
    if row.state in _OVER:
        return shown(_if_stored(row, response_id))
    with connections.transaction() as connection:
        values = {"id": row.id, "owners": [str(owner) for owner in owners]}
        if connection.execute(_QUERIES["cancel"], values).fetchone() is None:
            raise _unknown(response_id)
    return shown(row_of(connections, response_id, owners))


def cancelled_among(connections: Connections, ids: list[UUID]) -> list[UUID]:
    """Which of these requests were cancelled."""
    with connections.transaction() as connection:
        rows = connection.execute(_QUERIES["outcomes"], {"ids": ids}).fetchall()
    return [id for id, state in rows if state == State.CANCELED]


def delete(connections: Connections, response_id: str, owners: Collection[UUID]) -> dict[str, Any]:
    """Delete a response with what it was asked and answered; what it cost stays. Raises NotFound, also the second time."""
    stored_row_of(connections, response_id, owners)
    return {"id": forget(connections, response_id, owners), "object": "response", "deleted": True}


def forget(connections: Connections, response_id: str, owners: Collection[UUID]) -> str:
    """Delete the rows of a request, stopping it where it waits or runs; gives its public id. Raises NotFound."""
    with connections.transaction() as connection:
        values = {"id": _uuid(response_id), "owners": [str(owner) for owner in owners]}
        row = connection.execute(_QUERIES["delete_response"], values).fetchone()
    if row is None:
        raise _unknown(response_id)
    return f"resp_{row[0]}"


def row_of(connections: Connections, response_id: str, owners: Collection[UUID]) -> Any:
    """The tracking row behind a response. Raises NotFound."""
    rows = rows_of(connections, [_uuid(response_id)])
    if not rows or rows[0].created_by not in {str(owner) for owner in owners}:
        raise _unknown(response_id)
    return rows[0]


def stored_row_of(connections: Connections, response_id: str, owners: Collection[UUID]) -> Any:
    """The same where its caller may come back to it. Raises NotFound."""
    return _if_stored(row_of(connections, response_id, owners), response_id)


def _if_stored(row: Any, response_id: str) -> Any:
    if is_unstored(row):
        raise _unknown(response_id)
    return row


def rows_of(connections: Connections, ids: Sequence[UUID]) -> list[Any]:
    """The tracking rows of these requests that are there, whoever owns them."""
    with connections.transaction() as connection:
        cursor = connection.cursor(row_factory=namedtuple_row)
        return cursor.execute(_QUERIES["find_responses"], {"ids": list(ids)}).fetchall()


def shown(row: Any) -> dict[str, Any]:
    """The Response object of a tracking row."""
    return from_row(stored_row(row))


def stored_row(row: Any) -> StoredRow:
    """A tracking row as the protocols see it."""
    return StoredRow(
        response_id=f"resp_{row.id}",
        state=row.state,
        model=row.model,
        created_at=int(row.created_at.timestamp()),
        completed_at=int(row.completed_at.timestamp()) if row.completed_at else None,
        service_tier=row.service_tier,
        request_body=row.request_body,
        response_status=row.response_status,
        response_body=row.response_body,
        error=row.error,
    )


def is_unstored(row: Any) -> bool:
    """Whether a tracking row is of a call that is not kept: it is there for as long as its call needs it, and shown to nobody."""
    return bool(row.is_unkept) or says_not_to_store(row.request_body)


def says_not_to_store(request_body: str | None) -> bool:
    """Whether a request has `store: false`."""
    return (
        request_body is not None and '"store"' in request_body and _said_not_to_store(request_body)
    )


def _uuid(response_id: str) -> UUID:
    try:
        return UUID(response_id.removeprefix("resp_"))
    except ValueError:
        raise _unknown(response_id) from None


def _unknown(response_id: str) -> NotFound:
    return NotFound(f"response with ID {response_id[:80]} not found", code="response_not_found")


def _said_not_to_store(request_body: str) -> bool:
    try:
        body = orjson.loads(request_body)
    except ValueError:
        return False
    return isinstance(body, dict) and body.get("store") is False
