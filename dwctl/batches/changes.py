"""What is done to whole batches: stopped, run again, deleted, brought to their end. Each function is one statement; the caller commits.

Who may do it is not asked here. One row is changed at once, whatever the size of the batch; its lines follow, by the duties of this room.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any
from uuid import UUID

import psycopg

from dwctl import sql
from dwctl.errors import DwctlError

_QUERIES = sql.load("dwctl.batches", "lifecycle.sql")
AT_ONCE = 5000
"""So many lines share a transaction."""


class NotRetriable(DwctlError):
    """A batch that is cancelled cannot be retried. Create a new one."""

    code = "batch_cancelled"
    status = 409


def cancel(connection: psycopg.Connection[Any], id: UUID) -> None:
    """Stop a batch: nothing of it is begun any more, what is in flight is stopped. Nothing happens to one that is over."""
    connection.execute(_QUERIES["cancel"], {"id": id})


def delete(connection: psycopg.Connection[Any], id: UUID) -> bool:
    """Hide a batch for good, and stop it if it is not over. False: there is none (any more)."""
    return bool(_value(connection, "delete", {"id": id}))


def retry(connection: psycopg.Connection[Any], id: UUID) -> int:
    """Run the failed lines of a batch again; gives how many there are. Past its deadline it has one window from now.

    Raises NotRetriable for a batch that is cancelled (or deleted).
    """
    lines = _value(connection, "retry", {"id": id, "most": AT_ONCE})
    if lines is None:
        raise NotRetriable
    return int(lines)


def retry_requests(
    connection: psycopg.Connection[Any], id: UUID, ids: Collection[UUID]
) -> tuple[set[UUID], set[UUID]]:
    """Run these lines again: those that are this batch's own and have failed, and the others, which are refused. Raises NotRetriable."""
    if not _value(connection, "is_retriable", {"id": id}):
        raise NotRetriable
    rows = connection.execute(_QUERIES["retry_requests"], {"id": id, "ids": list(ids)}).fetchall()
    retried = {request for (request,) in rows}
    return retried, set(ids) - retried


def finalise(connection: psycopg.Connection[Any], id: UUID) -> None:
    """Count a batch that was changed by hand, and end one that is over but does not say so yet. Does nothing to any other, and waits for nobody."""
    connection.execute(_QUERIES["finalise"], {"id": id})


def _value(connection: psycopg.Connection[Any], name: str, values: dict[str, Any]) -> Any:
    row = connection.execute(_QUERIES[name], values).fetchone()
    return row[0] if row else None
