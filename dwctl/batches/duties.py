"""Chores of batches: forget what was reserved."""

from __future__ import annotations

from typing import Any

import psycopg

from dwctl import sql
from dwctl.config import Settings
from dwctl.queue.duties import Duty

_QUERIES = sql.load("dwctl.batches")
_AT_ONCE = 1000


def forget_reservations(connection: psycopg.Connection[Any], _settings: Settings) -> float:
    """Delete reservations that hold nothing any more, some at a time."""
    found = connection.execute(_QUERIES["forget_reservations"], {"most": _AT_ONCE})
    return 1.0 if found.rowcount == _AT_ONCE else 3600.0


DUTIES = (Duty("forget_reservations", forget_reservations),)
