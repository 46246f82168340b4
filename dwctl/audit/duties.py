"""Chore of the audit log: what is past its retention goes."""

from __future__ import annotations

from typing import Any

import psycopg

from dwctl.config import Settings
from dwctl.queue.duties import Duty

_AT_ONCE = 1000
_HOUR_S = 3600.0


def purge_audit_log(connection: psycopg.Connection[Any], settings: Settings) -> float:
    """Delete entries past `audit.retention_days`, some at a time, by the database's clock. 0 keeps them for ever."""
    days = settings.audit.retention_days
    if not days:
        return _HOUR_S
    # The log refuses every other deletion (migration 0018).
    connection.execute("SELECT set_config('dwctl.audit_retention_days', %s, true)", (str(days),))
    gone = connection.execute(
        "DELETE FROM audit_log WHERE id IN (SELECT id FROM audit_log WHERE at < now() - %s * interval '1 day'"
        " ORDER BY at LIMIT %s)",
        (days, _AT_ONCE),
    ).rowcount
    return 1.0 if gone == _AT_ONCE else _HOUR_S


DUTIES = (Duty("purge_audit_log", purge_audit_log),)
