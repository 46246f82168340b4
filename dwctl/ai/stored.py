"""Responses that were asked for before: read from the tracking rows, shown as the one Response object."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any
from uuid import UUID

import orjson
from psycopg.rows import namedtuple_row

from dwctl import sql
from dwctl.db import Connections
from dwctl.errors import NotFound
from dwctl.protocols.openresponses.stored import StoredResponse, stored

_QUERIES = sql.load("dwctl.queue")


def fetch(connections: Connections, response_id: str, owners: Collection[UUID]) -> dict[str, Any]:
    """The response with this public id (`resp_` may be left out). Raises NotFound for what none of `owners` owns."""
    row = _row(connections, response_id)
    if row is None or row.created_by not in {str(owner) for owner in owners}:
        raise NotFound(f"response with ID {response_id} not found", code="response_not_found")
    return _shown(row)


def _row(connections: Connections, response_id: str) -> Any:
    try:
        id = UUID(response_id.removeprefix("resp_"))
    except ValueError:
        return None
    with connections.transaction() as connection:
        cursor = connection.cursor(row_factory=namedtuple_row)
        return cursor.execute(_QUERIES["find_response"], {"id": id}).fetchone()


def _shown(row: Any) -> dict[str, Any]:
    # What asked for `store: false` is kept for the log's sake, and shown to nobody.
    if row.request_body and '"store"' in row.request_body and _said_not_to_store(row.request_body):
        raise NotFound(f"response with ID resp_{row.id} not found", code="response_not_found")
    return stored(
        StoredResponse(
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
    )


def _said_not_to_store(request_body: str) -> bool:
    try:
        body = orjson.loads(request_body)
    except ValueError:
        return False
    return isinstance(body, dict) and body.get("store") is False
