"""Deleting what the calls of an account have said, when somebody asks for that. What they cost stays, and so do their figures."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from uuid import UUID

from dwctl import sql
from dwctl.analytics import writing
from dwctl.db import Connections

_QUEUE = sql.load("dwctl.queue")
_AT_ONCE = 200
_FIRST = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Forgotten:
    """How many rows lost their texts: requests with their answers, and rows of the request log."""

    requests: int
    log_rows: int


def forget(connections: Connections, account_id: UUID) -> Forgotten:
    """Delete the texts of an account's single requests that are over, and what the log shows of its calls. Some at a time, each committed.

    Files and batches are the account's own, and deleted as such.
    """
    return Forgotten(_requests(connections, account_id), _details(connections, account_id))


def _requests(connections: Connections, account_id: UUID) -> int:
    after: UUID | None = _FIRST
    deleted = 0
    while after is not None:
        values = {"owner": str(account_id), "after": after, "most": _AT_ONCE}
        with connections.transaction() as connection:
            row = connection.execute(_QUEUE["delete_single_requests"], values).fetchone()
        assert row is not None
        after, count = row
        deleted += count
    return deleted


def _details(connections: Connections, account_id: UUID) -> int:
    """A day at a time: so no statement reads all of the log."""
    with connections.transaction() as connection:
        days = connection.execute(writing.QUERIES["days_of_log"]).fetchall()
    return sum(_details_of(connections, account_id, day) for _table, day, _bytes in days)


def _details_of(connections: Connections, account_id: UUID, day: date) -> int:
    with connections.transaction() as connection:
        values = (account_id, day)
        return writing.raw(connection).execute(writing.QUERIES["forget_details"], values).rowcount
