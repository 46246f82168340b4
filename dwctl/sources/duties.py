"""Chores of connections: their synchronisations follow a deleted one, and what was skipped long ago is forgotten.

Reading sources is none of these: whoever waits for somebody else's server holds no duty (`syncing`).
"""

from __future__ import annotations

from typing import Any

import psycopg

from dwctl import sql
from dwctl.config import Settings
from dwctl.queue.duties import Duty

_QUERIES = sql.load("dwctl.sources")
_AT_ONCE = 5000


def end_deleted_syncs(connection: psycopg.Connection[Any], _settings: Settings) -> float:
    """Mark what belongs to deleted connections (those of deleted accounts are) as deleted, some at a time."""
    connection.execute(_QUERIES["delete_of_deleted"])
    marked = connection.execute(_QUERIES["delete_entries"], {"most": _AT_ONCE}).rowcount
    if marked == _AT_ONCE:
        return 0.5
    connection.execute(_QUERIES["delete_syncs"])
    return 5.0


def forget_skipped(connection: psycopg.Connection[Any], settings: Settings) -> float:
    """Delete what synchronisations past `retention.skipped_files_days` have skipped, some at a time."""
    days = settings.retention.skipped_files_days
    if not days:
        return 3600.0
    values = {"days": days, "most": _AT_ONCE}
    gone = connection.execute(_QUERIES["forget_skipped"], values).rowcount
    return 0.5 if gone == _AT_ONCE else 3600.0


DUTIES = (
    Duty("end_deleted_syncs", end_deleted_syncs),
    Duty("forget_skipped", forget_skipped),
)
