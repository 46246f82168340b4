"""Chores of the queue: bury dead processes and return what they held, wake what waited, purge what is old.

A duty is a function of a connection (inside the transaction that holds the duty's row) and the settings, that does a bounded amount and
says in how many seconds it wants to be called again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg

from dwctl import sql
from dwctl.config import Settings
from dwctl.figures.spreads import Spreads
from dwctl.queue import leases, pauses
from dwctl.queue.leases import GivenBack

log = logging.getLogger(__name__)

_QUERIES = sql.load("dwctl.queue")
_AT_ONCE = 1000
_STREAMS_AT_ONCE = 100
_DAY_S = 86400.0
RECLAIM_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)


class Reclaimed:
    """What this process has taken back from dead ones, and how long that took."""

    def __init__(self) -> None:
        self.requests = 0
        self.seconds = Spreads(RECLAIM_S)


class Purged:
    """What this process has deleted because its time was over."""

    def __init__(self) -> None:
        self.rows = 0


reclaimed, purged = Reclaimed(), Purged()

Run = Callable[[psycopg.Connection[Any], Settings], float]


@dataclass(frozen=True, slots=True)
class Duty:
    """A chore by its name, which is its row in `fusillade.duties`. A notification on `channel` makes it due at once."""

    name: str
    run: Run
    channel: str | None = None


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
    began = time.monotonic()
    left = connection.execute(_QUERIES["left_by_the_dead"]).fetchall()
    for owner, ids in left:
        reclaimed.requests += len(ids)
        log.warning("leases returned", extra={"daemon_id": str(owner), "requests": len(ids)})
        ended = leases.give_back(connection, owner, ids, why=GivenBack.LOST)
        if ended:
            log.error("requests lost too often", extra={"daemon_id": str(owner), "requests": ended})
    if left:
        reclaimed.seconds.add((), time.monotonic() - began)
    connection.execute(_QUERIES["interrupt_calls"], {"wait_s": leases.WAITS_AFTER_LOSS_S[0]})
    connection.execute(_QUERIES["forget_daemons"])
    return min(daemons.heartbeat, 1.0)


def wake_delayed(connection: psycopg.Connection[Any], _settings: Settings) -> float:
    """Requests that were put off are due."""
    leases.wake_delayed(connection)
    return 0.25


def end_pauses_of_the_funded(connection: psycopg.Connection[Any], _settings: Settings) -> float:
    """Accounts that have credit again need not wait for the end of their pauses."""
    pauses.end_those_of_the_funded(connection)
    return 1.0


def expire(connection: psycopg.Connection[Any], _settings: Settings) -> float:
    """Single requests that no worker could run before their deadline end."""
    row = connection.execute(_QUERIES["expire"], {"most": _AT_ONCE}).fetchone()
    return 0.1 if row and row[0] >= _AT_ONCE else 1.0


def forget_unkept(connection: psycopg.Connection[Any], _settings: Settings) -> float:
    """Delete what was not to be kept and is over, where nobody came for it."""
    row = connection.execute(_QUERIES["forget_unkept"], {"most": _AT_ONCE}).fetchone()
    return 0.5 if row and row[0] >= _AT_ONCE else 30.0


def purge_responses(connection: psycopg.Connection[Any], settings: Settings) -> float:
    """Delete single requests past `retention.responses_days`, some at a time."""
    deleted = _purge(connection, "purge_responses", settings.retention.responses_days)
    return 0.5 if deleted == _AT_ONCE else 600.0


def purge_events(connection: psycopg.Connection[Any], settings: Settings) -> float:
    """Delete the kept events of streams that have been over for `retention.events`, some at a time."""
    values = {"age_s": settings.retention.events, "most": _STREAMS_AT_ONCE}
    row = connection.execute(_QUERIES["purge_events"], values).fetchone()
    return 0.5 if row and row[0] == _STREAMS_AT_ONCE else 60.0


def purge_files(connection: psycopg.Connection[Any], settings: Settings) -> float:
    """Delete the days' containers past `retention.files_days` that nothing refers to, some at a time."""
    deleted = _purge(connection, "purge_files", settings.retention.files_days)
    # Looking for what refers to them reads all batches.
    return 60.0 if deleted == _AT_ONCE else _DAY_S


def _purge(connection: psycopg.Connection[Any], statement: str, days: int) -> int:
    """By the database's clock: a process whose own is months ahead must not delete anything early."""
    if not days:
        return 0
    row = connection.execute(_QUERIES[statement], {"days": days, "most": _AT_ONCE}).fetchone()
    deleted = row[0] if row else 0
    purged.rows += deleted
    return deleted


DUTIES = (
    Duty("bury_the_dead", bury_the_dead),
    Duty("wake_delayed", wake_delayed),
    Duty("expire_requests", expire),
    Duty("end_pauses_of_the_funded", end_pauses_of_the_funded),
    Duty("forget_unkept", forget_unkept),
    Duty("purge_responses", purge_responses),
    Duty("purge_events", purge_events),
    Duty("purge_files", purge_files),
)
