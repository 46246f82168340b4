"""Chores of the identity room: login sessions that ran out."""

from __future__ import annotations

from typing import Any

import psycopg

from dwctl.config import Settings
from dwctl.queue.duties import Duty

_AT_ONCE = 1000
_HOUR_S = 3600.0


def forget_sessions(connection: psycopg.Connection[Any], _settings: Settings) -> float:
    """Delete login sessions past their end, some at a time."""
    gone = connection.execute(
        "DELETE FROM login_sessions WHERE id IN (SELECT id FROM login_sessions WHERE expires_at < now()"
        " ORDER BY expires_at LIMIT %s FOR UPDATE SKIP LOCKED)",
        (_AT_ONCE,),
    ).rowcount
    return 1.0 if gone == _AT_ONCE else _HOUR_S


DUTIES = (Duty("forget_sessions", forget_sessions),)
