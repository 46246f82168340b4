"""A call that is not over: how it stands in the queue, what stands before it, and what keeps it from being run."""

from __future__ import annotations

from uuid import UUID

from psycopg.rows import dict_row

from dwctl.db import Connections
from dwctl.errors import NotFound
from dwctl.queue.tables import State
from dwctl.request_log.detail import as_seen, process_of
from dwctl.request_log.filters import QUERIES, Scope
from dwctl.request_log.pages import Row

MOST_COUNTED = 1000


def find(
    connections: Connections, scope: Scope, id: UUID, *, dead_after_s: float, default_cap: int
) -> Row:
    """The call of this request id as it stands now; also one that is over and whose log row is still to come, or never will.

    Raises NotFound, also for one outside the scope.
    """
    values = {
        "id": id,
        "owner": None if scope.owner is None else str(scope.owner),
        "counted": MOST_COUNTED,
        "dead_after_s": dead_after_s,
        "default_cap": default_cap,
    }
    with connections.transaction() as connection:
        cursor = connection.cursor(row_factory=dict_row)
        row = cursor.execute(QUERIES["standing"], values).fetchone()
    if row is None:
        raise NotFound(f"Request with ID {id} is not in the queue")
    row = as_seen(scope, row)
    return {
        **row,
        "attempts": row["retry_attempt"],
        "process": process_of(row),
        "limited_by": _limit(row),
    }


def _limit(row: Row) -> str | None:
    """What keeps it from being run, the weightiest first; None where nothing does."""
    if row["state"] != State.PENDING:
        return None
    reasons = (
        ("cancelling", row["is_cancelling"]),
        ("retry", row["not_before"]),
        ("model_unknown", row["is_unknown"]),
        ("no_worker", not row["has_worker"]),
        (row["queue_paused"], row["queue_paused"]),
        (row["model_paused"], row["model_paused"]),
        ("concurrency", row["concurrency"] is not None and row["running"] >= row["concurrency"]),
    )
    return next((reason for reason, holds in reasons if holds), "turn")
