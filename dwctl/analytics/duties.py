"""Chores of the request log: partitions ahead of time, old ones dropped."""

from __future__ import annotations

import logging
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg import sql

from dwctl.clock import now
from dwctl.config import Settings
from dwctl.queue.duties import Duty

log = logging.getLogger(__name__)

_AHEAD_DAYS = 30
_HOUR_S = 3600.0
# Both need the log for themselves for a moment. Whoever waits for that holds up every call behind it, so nobody waits for longer than a
# call would (recorder.database_wait): a backup that reads the log for an hour only puts the chore off.
_PATIENCE = "SET LOCAL lock_timeout = '250ms'"
_PARTITION = re.compile(r"^http_analytics_p(\d{8})$")


def make_partitions(connection: psycopg.Connection[Any], _settings: Settings) -> float:
    """Partitions of the log for the next 30 days: a day without one would refuse its rows."""
    connection.execute(_PATIENCE)
    connection.execute(
        "SELECT make_log_partitions((now() AT TIME ZONE 'UTC')::date, %s)", (_AHEAD_DAYS + 1,)
    )
    return _HOUR_S


def drop_partitions(connection: psycopg.Connection[Any], settings: Settings) -> float:
    """Drop one day of the log past `retention.log_days`; more follow at once."""
    days = settings.retention.log_days
    if not days:
        return _HOUR_S
    oldest = (now() - timedelta(days=days)).date()
    old = [name for name, day in _partitions(connection) if day.date() < oldest]
    if not old:
        return _HOUR_S
    name = old[0]
    connection.execute(_PATIENCE)
    connection.execute(
        sql.SQL("ALTER TABLE http_analytics DETACH PARTITION {}").format(sql.Identifier(name))
    )
    connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(name)))
    log.info("log partition dropped", extra={"partition": name})
    return 1.0


def _partitions(connection: psycopg.Connection[Any]) -> list[tuple[str, datetime]]:
    rows = connection.execute(
        "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
        "WHERE i.inhparent = 'http_analytics'::regclass ORDER BY c.relname"
    ).fetchall()
    found = ((name, _PARTITION.match(name)) for (name,) in rows)
    return [
        (name, datetime.strptime(match[1], "%Y%m%d").replace(tzinfo=UTC))
        for name, match in found
        if match
    ]


DUTIES = (Duty("make_partitions", make_partitions), Duty("drop_partitions", drop_partitions))
