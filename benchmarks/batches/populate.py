"""Populating a batch: how fast lines of a file get their requests, how long its transactions are, and what claims feel of it."""

from __future__ import annotations

import threading
import time
import uuid
from types import ModuleType
from typing import Any
from uuid import UUID

import psycopg

from benchmarks.batches import stacks
from dwctl.queue import leases

LINES = 1_000_000
MODELS = 3
OTHERS = 2_000
CLAIMS_EVERY_S = 0.02
LONGEST_S = 0.5


def measure(report: ModuleType) -> None:
    """Print the rate, the longest transaction, and claims of another account's requests beside it."""
    report.begin(
        "populate: requests for the lines of a file", f"{LINES:,} lines for {MODELS} models"
    )
    with stacks.database() as url, stacks.ours(url) as connection:
        file = stacks.file(connection, "the owner", LINES, MODELS)
        stacks.file_and_batch(connection, "somebody else", OTHERS, MODELS)
        stacks.populate_all(connection)
        batch = stacks.batch(connection, "the owner", file)
        calm = _claims_for(url, 2.0)
        claims: list[float] = []
        stop = threading.Event()
        beside = threading.Thread(target=_claim_until, args=(url, stop, claims))
        beside.start()
        began, longest = time.monotonic(), 0.0
        while (took := _slice(connection)) is not None:
            longest = max(longest, took)
        took_s = time.monotonic() - began
        stop.set()
        beside.join()
        _prove(report, connection, batch)
    report.at_least("lines populated, claims beside it", LINES / took_s, "/s", 50_000, digits=0)
    report.at_most("longest transaction", longest * 1000, "ms", LONGEST_S * 1000, digits=0)
    report.figure("claims before, median", _median(calm) * 1000, "ms", digits=1)
    report.figure("claims beside it, median", _median(claims) * 1000, "ms", digits=1)
    report.figure("claims beside it, longest", max(claims) * 1000, "ms", digits=1)


def _slice(connection: psycopg.Connection[Any]) -> float | None:
    began = time.monotonic()
    return time.monotonic() - began if stacks.populate_some(connection) else None


def _claims_for(url: str, seconds: float) -> list[float]:
    found: list[float] = []
    stop = threading.Event()
    thread = threading.Thread(target=_claim_until, args=(url, stop, found))
    thread.start()
    time.sleep(seconds)
    stop.set()
    thread.join()
    return found


def _claim_until(url: str, stop: threading.Event, found: list[float]) -> None:
    """Claim two and give them back, again and again."""
    me = uuid.uuid4()
    with stacks.ours(url) as connection:
        while not stop.wait(CLAIMS_EVERY_S):
            began = time.monotonic()
            jobs = leases.claim(connection, me=me, most=2, policy=leases.Policy({}, 10_000))
            found.append(time.monotonic() - began)
            leases.give_back(connection, me, [job.id for job in jobs], why=leases.GivenBack.DRAINED)


def _prove(report: ModuleType, connection: psycopg.Connection[Any], batch: UUID) -> None:
    row = connection.execute(
        "SELECT count(*), count(DISTINCT template_id) FROM fusillade.requests WHERE batch_id = %s",
        (batch,),
    ).fetchone()
    report.proven("one request a line", holds=row == (LINES, LINES), what=str(row))


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]
