"""Batches of many lines that nobody wants any more: cancelled, past their deadline, run again, purged."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import ModuleType
from typing import Any
from uuid import UUID

import psycopg

from benchmarks.batches import stacks
from dwctl.batches import changes, duties
from dwctl.files import duties as files_duties

LINES = 1_000_000
MODELS = 3
RATE = 20_000
LONGEST_S = 0.5
_NOT_OVER = "SELECT true FROM fusillade.batches WHERE id = %s AND cancelled_at IS NULL AND expired_at IS NULL"
_COUNTERS = (
    "SELECT total_requests, completed_requests, failed_requests, canceled_requests, error_lines "
    "FROM fusillade.batches WHERE id = %s"
)
_STATES = (
    "SELECT count(*), count(*) FILTER (WHERE state = 'completed'), count(*) FILTER (WHERE state = 'failed'), "
    "count(*) FILTER (WHERE state = 'canceled') FROM fusillade.requests WHERE batch_id = %s"
)
_PURGED = "SELECT purged_at IS NOT NULL FROM fusillade.batches WHERE id = %s"

Step = Callable[[psycopg.Connection[Any], UUID], bool]


def measure(report: ModuleType) -> None:
    """Print how fast lines are ended, put back and deleted, and how long the longest transaction of each is."""
    report.begin("sweep: a batch that is stopped", f"{LINES:,} lines for {MODELS} models")
    with stacks.database() as url, stacks.ours(url) as connection:
        file = stacks.file(connection, "the owner", LINES, MODELS)
        late = _populated(connection, file)
        with connection.transaction():
            connection.execute(
                "UPDATE fusillade.batches SET expires_at = expires_at - interval '1 day 1 hour' WHERE id = %s",
                (late,),
            )
            connection.execute(
                "UPDATE fusillade.ready SET deadline = deadline - interval '1 day 1 hour' WHERE batch_id = %s",
                (late,),
            )
        _rate(report, connection, "lines past the deadline", late, _sweep)
        _prove(report, connection, late, "failed")
        _count_once(report, connection, late)
        began = time.monotonic()
        changes.retry(connection, late)
        report.at_most(
            "retrying returns after", (time.monotonic() - began) * 1000, "ms", LONGEST_S * 1000
        )
        _rate(report, connection, "failed lines put back", late, _retry)
        _prove(report, connection, late, "pending")
        began = time.monotonic()
        changes.delete(connection, late)
        report.at_most("deleting returns after", (time.monotonic() - began) * 1000, "ms", 100)
        _rate(report, connection, "lines of a deleted batch", late, _sweep)
        _prove(report, connection, late, "canceled")
        _count_once(report, connection, late)
        _rate(report, connection, "requests purged", late, _purge)


def _populated(connection: psycopg.Connection[Any], file: UUID) -> UUID:
    batch = stacks.batch(connection, "the owner", file)
    stacks.populate_all(connection)
    return batch


def _sweep(connection: psycopg.Connection[Any], batch: UUID) -> bool:
    duties.sweep(connection, stacks.SETTINGS)
    return connection.execute(_NOT_OVER, (batch,)).fetchone() is not None


def _retry(connection: psycopg.Connection[Any], _batch: UUID) -> bool:
    return duties.sweep_retries(connection, stacks.SETTINGS) == 0.0


def _count_once(report: ModuleType, connection: psycopg.Connection[Any], batch: UUID) -> None:
    """In one transaction, of a batch that is over; nobody waits for it."""
    began = time.monotonic()
    changes.finalise(connection, batch)
    report.figure("counted once more", (time.monotonic() - began) * 1000, "ms")


def _purge(connection: psycopg.Connection[Any], batch: UUID) -> bool:
    connection.execute(
        "UPDATE fusillade.batches SET deleted_at = '2020-01-01' WHERE id = %s AND deleted_at > '2021-01-01'",
        (batch,),
    )
    files_duties.purge_requests(connection, stacks.SETTINGS)
    row = connection.execute(_PURGED, (batch,)).fetchone()
    return row == (False,)


def _rate(
    report: ModuleType, connection: psycopg.Connection[Any], what: str, batch: UUID, step: Step
) -> None:
    """Until there is no more to do. What plans are made from is up to date, as it is while a batch waits."""
    for table in ("requests", "ready", "finished_lines"):
        connection.execute(f"ANALYZE fusillade.{table}")  # type: ignore[arg-type]
    began, longest, more = time.monotonic(), 0.0, True
    while more:
        before = time.monotonic()
        with connection.transaction():
            more = step(connection, batch)
        longest = max(longest, time.monotonic() - before)
    report.at_least(what, LINES / (time.monotonic() - began), "/s", RATE, digits=0)
    report.at_most("its longest transaction", longest * 1000, "ms", LONGEST_S * 1000, digits=0)


def _prove(
    report: ModuleType, connection: psycopg.Connection[Any], batch: UUID, state: str
) -> None:
    counters = connection.execute(_COUNTERS, (batch,)).fetchone()
    states = connection.execute(_STATES, (batch,)).fetchone()
    assert counters is not None
    expected = (
        LINES,
        *(LINES if state == name else 0 for name in ("completed", "failed", "canceled")),
    )
    report.proven(
        f"all are {state}, and the counters say so",
        holds=counters[:4] == states == expected,
        what=f"{counters} {states}",
    )
