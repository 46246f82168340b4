"""Chores of the queue: bury dead processes and return what they held, wake what waited, purge what is old.

A duty is a function of a connection (inside the transaction that holds the duty's row) and the settings, that does a bounded amount and
says in how many seconds it wants to be called again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg

from dwctl import sql
from dwctl.clock import now
from dwctl.config import Settings
from dwctl.queue import leases

log = logging.getLogger(__name__)

_QUERIES = sql.load("dwctl.queue")
_PURGE_AT_ONCE = 1000

Run = Callable[[psycopg.Connection[Any], Settings], float]


@dataclass(frozen=True, slots=True)
class Duty:
    """A chore by its name, which is its row in `fusillade.duties`."""

    name: str
    run: Run


def bury_the_dead(connection: psycopg.Connection[Any], settings: Settings) -> float:
    """Declare processes dead that could have beaten and did not, and return or end what they worked on."""
    daemons = settings.daemons
    values = {
        "name": "bury_the_dead",
        # A shorter gap cannot make anybody look dead: there are two more beats in the threshold.
        "gap_s": daemons.dead_after - 2 * daemons.heartbeat,
        "dead_after_s": daemons.dead_after,
    }
    row = connection.execute(_QUERIES["observe"], values).fetchone()
    if row and row[0]:
        for (id,) in connection.execute(_QUERIES["declare_dead"], values).fetchall():
            log.warning("process declared dead", extra={"daemon_id": str(id)})
    for owner, ids in connection.execute(_QUERIES["left_by_the_dead"]).fetchall():
        log.warning("leases returned", extra={"daemon_id": str(owner), "requests": len(ids)})
        leases.give_back(connection, owner, ids)
    connection.execute(_QUERIES["interrupt_calls"])
    connection.execute(_QUERIES["forget_daemons"])
    return min(daemons.heartbeat, 1.0)


def wake_delayed(connection: psycopg.Connection[Any], _settings: Settings) -> float:
    """Requests that were put off are due."""
    leases.wake_delayed(connection)
    return 0.25


def purge_responses(connection: psycopg.Connection[Any], settings: Settings) -> float:
    """Delete single requests past `retention.responses_days`, some at a time."""
    days = settings.retention.responses_days
    if not days:
        return 3600.0
    cutoff_s = now().timestamp() - days * 86400
    values = {
        "before": UUID(int=int(cutoff_s * 1000) << 80),
        "cutoff": datetime.fromtimestamp(cutoff_s, UTC),
        "most": _PURGE_AT_ONCE,
    }
    row = connection.execute(_QUERIES["purge_responses"], values).fetchone()
    purged = row[0] if row else 0
    return 0.5 if purged == _PURGE_AT_ONCE else 600.0


DUTIES = (
    Duty("bury_the_dead", bury_the_dead),
    Duty("wake_delayed", wake_delayed),
    Duty("purge_responses", purge_responses),
)
