"""A worker's loop between claims: when it looks by itself, and what it does with a claim whose commit it did not hear of."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from types import SimpleNamespace
from typing import Any

import psycopg
from flask import Flask

from dwctl import config
from dwctl.queue.leases import Job
from dwctl.web import current
from dwctl.worker.claims import Claims
from tests.queue.rows import Rows


def test_a_pause_that_has_ended_is_looked_after_once() -> None:
    gateway: Any = SimpleNamespace(settings=config.load({"DATABASE_URL": "postgresql://nowhere"}))
    claims = Claims(gateway)
    by_the_clock = claims._rest_s()
    assert by_the_clock > 0
    claims._paused = {"ended": time.monotonic() - 1, "goes on": time.monotonic() + 3600}
    assert claims._rest_s() == 0
    # Where no slot is free the round ends before it looks at pauses: the next rest is a real one all the same.
    assert claims._rest_s() == by_the_clock


def _in_doubt(app: Flask, rows: Rows) -> tuple[Claims, Job]:
    """A worker that does not know of a request that it has claimed."""
    me = uuid.uuid4()
    rows.request()
    (job,) = rows.claim(me)
    parts = current.parts(app)
    gateway: Any = SimpleNamespace(
        settings=parts.settings,
        connections=parts.connections,
        registration=SimpleNamespace(id=me),
        tracer=None,
        snapshot=SimpleNamespace(routing=SimpleNamespace(models={})),
    )
    claims = Claims(gateway)
    claims._doubtful = [job.id]
    return claims, job


def _state(sql: psycopg.Connection, job: Job) -> tuple[Any, ...] | None:
    return sql.execute(
        "SELECT state, times_lost FROM fusillade.requests WHERE id = %s", (job.id,)
    ).fetchone()


def test_a_claim_that_was_killed_in_its_commit_is_given_back_at_the_end(
    app: Flask, rows: Rows, sql: psycopg.Connection
) -> None:
    """Else each restart could count as a loss of what nobody had begun."""
    claims, job = _in_doubt(app, rows)
    claims.drain(time.monotonic() + 5)
    assert _state(sql, job) == ("pending", 0)


def test_no_claim_makes_another_one_forget_its_doubts(
    app: Flask, rows: Rows, sql: psycopg.Connection
) -> None:
    """What nobody knows of would be renewed and not run for as long as this process lives."""
    claims, job = _in_doubt(app, rows)
    claims.runs.running = Counter({"other": 20})
    claims._hold_ahead()
    assert _state(sql, job) == ("pending", 0)
