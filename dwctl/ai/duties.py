"""Chores of the AI surface: idempotency keys run out."""

from __future__ import annotations

from typing import Any

import psycopg

from dwctl import sql
from dwctl.config import Settings
from dwctl.queue.duties import Duty

_QUERIES = sql.load("dwctl.ai")
_AT_ONCE = 1000


def forget_idempotency_keys(connection: psycopg.Connection[Any], settings: Settings) -> float:
    """Delete keys that are older than `idempotency.keep`, some at a time, by the database's clock."""
    values = {"keep_s": settings.idempotency.keep, "most": _AT_ONCE}
    forgotten = connection.execute(_QUERIES["forget_keys"], values)
    return 0.5 if forgotten.rowcount == _AT_ONCE else 60.0


DUTIES = (Duty("forget_idempotency_keys", forget_idempotency_keys),)
