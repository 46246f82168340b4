"""Responses that were asked for before: read from the tracking rows, shown as the one Response object."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any
from uuid import UUID

from psycopg.rows import namedtuple_row

from dwctl import sql
from dwctl.db import Connections
from dwctl.errors import NotFound

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
    return {"id": f"resp_{row.id}", "object": "response", "status": row.state, "model": row.model}
