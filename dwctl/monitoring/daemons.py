"""Processes and their signs of life."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import namedtuple_row

from dwctl import sql

_QUERIES = sql.load("dwctl.monitoring")

STATUSES = ("initializing", "running", "dead")


def listed(
    connection: psycopg.Connection[Any], status: str | None, dead_after_s: float
) -> list[dict[str, Any]]:
    """All processes, or those of a status, newest first. One that has not beaten for `dead_after_s` is dead."""
    cursor = connection.cursor(row_factory=namedtuple_row)
    rows: Any = cursor.execute(_QUERIES["daemons"], {"dead_after_s": dead_after_s}).fetchall()
    return [_shown(row) for row in rows if status in (None, row.status)]


def _shown(row: Any) -> dict[str, Any]:
    times = {"last_heartbeat": row.last_heartbeat, "stopped_at": row.stopped_at}
    return {
        "id": str(row.id),
        "status": row.status,
        "hostname": row.hostname,
        "pid": row.pid,
        "version": row.version,
        "started_at": _seconds(row.started_at),
        **{name: _seconds(time) for name, time in times.items() if time is not None},
        "stats": {
            "requests_processed": row.requests_processed,
            "requests_failed": row.requests_failed,
            "requests_in_flight": row.requests_in_flight,
        },
        "config": row.config,
    }


def _seconds(time: datetime) -> int:
    return int(time.timestamp())
