"""Chores of what is held for calls: let go of what nobody will, forget what keys have spent long ago."""

from __future__ import annotations

import logging
from typing import Any

import psycopg

from dwctl import sql
from dwctl.config import Settings
from dwctl.queue.duties import Duty

log = logging.getLogger(__name__)

_QUERIES = sql.load("dwctl.billing")
_AT_ONCE = 1000
_HOUR_S = 3600.0


def free_credit(connection: psycopg.Connection[Any], settings: Settings) -> float:
    """Reservations of processes that `bury_the_dead` has declared dead, and of calls that last longer than any call."""
    row = connection.execute(_QUERIES["free_credit"], {"most": _AT_ONCE}).fetchone()
    freed = row[0] if row else 0
    if freed:
        log.warning("reserved credit freed", extra={"reservations": freed})
    return 0.1 if freed == _AT_ONCE else min(settings.daemons.heartbeat, 5.0)


def purge_spend(connection: psycopg.Connection[Any], _settings: Settings) -> float:
    """What capped keys have spent in windows of more than a year ago."""
    purged = connection.execute(_QUERIES["purge_spend"], {"most": _AT_ONCE}).rowcount
    return 1.0 if purged == _AT_ONCE else _HOUR_S


DUTIES = (Duty("free_credit", free_credit), Duty("purge_spend", purge_spend))
