"""Chores of limits: free what the dead held, forget what nobody uses."""

from __future__ import annotations

import logging
from typing import Any

import psycopg

from dwctl import sql
from dwctl.config import Settings
from dwctl.queue.duties import Duty

log = logging.getLogger(__name__)

_QUERIES = sql.load("dwctl.limits")
_AT_ONCE = 1000


def free_limits(connection: psycopg.Connection[Any], settings: Settings) -> float:
    """Places held by processes that `bury_the_dead` has declared dead, or that said goodbye without giving them back."""
    row = connection.execute(_QUERIES["free_limits_of_the_dead"], {"most": _AT_ONCE}).fetchone()
    if row and row[0]:
        log.warning("places of the dead freed", extra={"places": row[0]})
    return min(settings.daemons.heartbeat, 5.0)


def purge_limits(connection: psycopg.Connection[Any], _settings: Settings) -> float:
    """Delete states that tell nothing."""
    purged = connection.execute(_QUERIES["purge_states"], {"most": _AT_ONCE}).rowcount
    return 1.0 if purged == _AT_ONCE else 600.0


DUTIES = (Duty("free_limits", free_limits), Duty("purge_limits", purge_limits))
