"""What an account leaves behind when it is deleted: its batches are stopped with it, its single requests soon after.

A row of `leavers` says that an account is gone. For some minutes a duty looks whether anything of it waits or runs: what was on its way in
when the account was deleted is found, too.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

import psycopg
from sqlalchemy import text
from sqlalchemy.orm import Session

from dwctl import sql
from dwctl.config import Settings
from dwctl.identity import users

_QUERIES = sql.load("dwctl.batches", "departures.sql")
CHANNEL = "dwctl_leavers"

_AT_ONCE = 200
_REST_S = 5.0

_LEAVE = text("INSERT INTO leavers (account_id) VALUES (:id) ON CONFLICT (account_id) DO NOTHING")
_TELL = text("SELECT pg_notify(:channel, '')")


@users.before_deletion
def stop_work(session: Session, account_id: UUID) -> None:
    """Cancel the account's unfinished batches, and have its other work ended by a worker."""
    owner = {"owner": str(account_id)}
    session.connection().exec_driver_sql(_QUERIES["cancel_batches"], owner)
    session.execute(_LEAVE, {"id": account_id})
    session.execute(_TELL, {"channel": CHANNEL})


def end_work(connection: psycopg.Connection[Any], _settings: Settings) -> float:
    """Cancel what waits or runs of an account that was deleted, some at a time, oldest first."""
    row = connection.execute(_QUERIES["next"]).fetchone()
    if row is None:
        return _REST_S
    id, is_over = row
    connection.execute(_QUERIES["cancel_batches"], {"owner": str(id)})
    ended = connection.execute(_QUERIES["cancel_requests"], {"owner": str(id), "most": _AT_ONCE})
    if ended.rowcount < _AT_ONCE:
        connection.execute(_QUERIES["forget" if is_over else "look_again"], {"id": id})
    return 0.0
