"""Chores of the catalog: the log of changes that every process has long seen."""

from __future__ import annotations

from typing import Any

import psycopg

from dwctl import sql
from dwctl.config import Settings
from dwctl.queue.duties import Duty

_QUERIES = sql.load("dwctl.catalog")
_AT_ONCE = 5000
_REST_S = 300.0


def forget_changes(connection: psycopg.Connection[Any], _settings: Settings) -> float:
    """Delete what is older than any snapshot that still asks for it (`snapshot_mark`), some at a time."""
    gone = connection.execute(_QUERIES["forget_changes"], {"most": _AT_ONCE}).rowcount
    return 1.0 if gone == _AT_ONCE else _REST_S


DUTIES = (Duty("forget_changes", forget_changes),)
