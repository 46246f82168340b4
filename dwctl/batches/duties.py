"""Chores of batches: their lines get requests, are ended where nobody wants them any more, are run again, and are counted at the end.

Each does some thousand lines in one transaction, and is called again at once while there is more. Which batch comes next is chosen by lot, so
that a small one does not wait for a huge one.
"""

from __future__ import annotations

import logging
import random
from typing import Any
from uuid import UUID

import psycopg

from dwctl import sql
from dwctl.analytics.faults import Fault, judge
from dwctl.batches import departures
from dwctl.batches.changes import AT_ONCE
from dwctl.config import Settings
from dwctl.queue.duties import Duty

log = logging.getLogger(__name__)

_QUERIES = {**sql.load("dwctl.batches"), **sql.load("dwctl.batches", "lifecycle.sql")}
CHANNEL = "fusillade_batches"
_REST_S = 1.0
_RESERVATIONS_AT_ONCE = 1000


def populate(connection: psycopg.Connection[Any], settings: Settings) -> float:
    """Requests for the lines of a batch. Half of the turns are for those that have the fewest: they begin at once."""
    id = _next(connection, "to_populate", {"least": random.random() < 0.5})
    if id is None:
        return _REST_S
    values = {"id": id, "most": AT_ONCE, "grace_s": settings.batches.expiry_grace}
    try:
        with connection.transaction():
            connection.execute(_QUERIES["populate"], values)
    except psycopg.Error as error:
        if connection.closed or judge(error.sqlstate, connected=True) is not Fault.RECORDS:
            raise
        # It would be met again each time.
        log.exception("batch not populated", extra={"batch_id": str(id)})
        _give_up(connection, id)
    return 0.0


def _give_up(connection: psycopg.Connection[Any], id: UUID) -> None:
    """One of which nothing is populated fails; any other is cancelled, so that what it has done stays."""
    values = {
        "id": id,
        "code": "populating_failed",
        "message": "The requests of the input file could not be queued.",
    }
    connection.execute(_QUERIES["fail"], values)
    connection.execute(_QUERIES["cancel"], values)


def sweep(connection: psycopg.Connection[Any], settings: Settings) -> float:
    """End lines of batches that are cancelled, or past their deadline."""
    id = _next(connection, "to_sweep", {"grace_s": settings.batches.expiry_grace})
    if id is None:
        return _REST_S
    connection.execute(_QUERIES["sweep"], {"id": id, "most": AT_ONCE})
    return 0.0


def sweep_retries(connection: psycopg.Connection[Any], _settings: Settings) -> float:
    """Put failed lines back that are to be run again."""
    id = _next(connection, "to_retry", {})
    if id is None:
        return _REST_S
    connection.execute(_QUERIES["sweep_retries"], {"id": id, "most": AT_ONCE})
    return 0.0


def count(connection: psycopg.Connection[Any], _settings: Settings) -> float:
    """Count batches that are over, once, and those that were changed by hand."""
    id = _next(connection, "to_count", {})
    if id is None:
        return _REST_S
    row = connection.execute(_QUERIES["count"], {"id": id}).fetchone()
    if row and row[0]:
        log.warning("counters of a batch corrected", extra={"batch_id": str(id)})
    return 0.0


def forget_reservations(connection: psycopg.Connection[Any], _settings: Settings) -> float:
    """Delete reservations that hold nothing any more, some at a time."""
    found = connection.execute(_QUERIES["forget_reservations"], {"most": _RESERVATIONS_AT_ONCE})
    return 1.0 if found.rowcount == _RESERVATIONS_AT_ONCE else 3600.0


def _next(
    connection: psycopg.Connection[Any], statement: str, values: dict[str, Any]
) -> UUID | None:
    row = connection.execute(_QUERIES[statement], values).fetchone()
    return row[0] if row else None


DUTIES = (
    Duty("populate_batches", populate, CHANNEL),
    Duty("sweep_batches", sweep, CHANNEL),
    Duty("retry_batches", sweep_retries, CHANNEL),
    Duty("count_batches", count, CHANNEL),
    Duty("forget_reservations", forget_reservations),
    Duty("end_work_of_leavers", departures.end_work, departures.CHANNEL),
)
