"""Chores of the room: invitations that nobody has answered."""

from __future__ import annotations

from typing import Any

import psycopg

from dwctl.config import Settings
from dwctl.queue.duties import Duty

_AT_ONCE = 1000
_KEPT_DAYS = 30
"""For so long an invitation that has run out is shown, and its link says that it has."""


def forget_invitations(connection: psycopg.Connection[Any], _settings: Settings) -> float:
    """Delete invitations that ran out long ago, some at a time."""
    gone = connection.execute(
        "DELETE FROM user_organizations WHERE id IN (SELECT id FROM user_organizations"
        " WHERE status = 'pending' AND expires_at < now() - %s * interval '1 day' ORDER BY expires_at LIMIT %s FOR UPDATE SKIP LOCKED)",
        (_KEPT_DAYS, _AT_ONCE),
    ).rowcount
    return 1.0 if gone == _AT_ONCE else 3600.0


DUTIES = (Duty("forget_invitations", forget_invitations),)
