"""Flex calls in the background: how soon a worker calls the upstream, and how many one worker process runs, records and charges a second."""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from typing import Any

import psycopg

from benchmarks import books, measure, report
from benchmarks.client import Connection, request
from benchmarks.load import send
from benchmarks.stage import Gunicorn, Stage
from benchmarks.upstream import Upstream

SINGLE = 100
MANY = 5000
CAPACITY = 200
PATIENCE_S = 40
BODY = json.dumps(
    {
        "model": "plain",
        "input": "Take your time. " * 52,
        "service_tier": "flex",
        "background": True,
    }
).encode()


def main() -> int:
    """Measure and print."""
    report.begin(
        "flex: from the queue through one worker process",
        f"request {len(BODY)} B, at most {CAPACITY} at once for the model",
    )
    with (
        Upstream() as upstream,
        Stage(upstream.url, {"plain": "plain"}, batch_capacity=CAPACITY) as stage,
    ):
        web, worker = stage.web(), stage.worker()
        asyncio.run(_latency(web, upstream))
        worker.stop()
        with stage.connect() as database:
            _throughput(stage, web, upstream, database)
            books.check(books.Books.read(database), SINGLE + MANY)
    return report.exit_code()


async def _latency(web: Gunicorn, upstream: Upstream) -> None:
    """One call at a time on an idle system."""
    connection = await Connection.open(web.url)
    message = request(f"{web.url}/ai/v1/responses", BODY)
    began, answered = [], []
    for _ in range(SINGLE):
        began.append(time.monotonic())
        answer = await connection.call(message)
        answered.append((answer.ended - began[-1]) * 1000)
        await asyncio.sleep(0.05)
    connection.close()
    await asyncio.sleep(1)
    arrived = upstream.calls()
    times = [(at - start) * 1000 for at, start in zip(arrived, began, strict=True)]
    report.figure("from POST to its 202, p50", statistics.median(answered), "ms")
    report.below("from POST to the worker's upstream call, p50", statistics.median(times), "ms", 20)
    report.figure("the same, p99", sorted(times)[SINGLE * 99 // 100], "ms")


def _throughput(
    stage: Stage, web: Gunicorn, upstream: Upstream, database: psycopg.Connection[Any]
) -> None:
    """Queue all of them, then let a worker come. The time counts from its first upstream call to the last row that it finished."""
    queued = send(f"{web.url}/ai/v1/responses", BODY, 64, MANY)
    web.stop()
    upstream.forget()
    before = measure.family_cpu_s(stage.postmaster)
    worker = stage.worker()
    used = measure.cpu_s(worker.pid)
    done = _wait(database)
    used, server = measure.cpu_s(worker.pid) - used, measure.family_cpu_s(stage.postmaster) - before
    first = min(upstream.calls())
    report.figure("queued by one web process", queued.per_s, "/s", digits=0)
    report.at_least("run by one worker process", MANY / (done - first), "/s", 800, digits=0)
    report.figure("CPU a request, worker process", used * 1000 / MANY, "ms", digits=3)
    report.figure("CPU a request, PostgreSQL", server * 1000 / MANY, "ms", digits=3)
    report.at_least("run a second of the worker's CPU time", MANY / used, "/s", 800, digits=0)


def _wait(database: psycopg.Connection[Any]) -> float:
    """Until nothing is pending or in flight; when that was."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        row = database.execute(
            "SELECT EXISTS (SELECT FROM fusillade.ready), EXISTS (SELECT FROM fusillade.inflight)"
        ).fetchone()
        if row == (False, False):
            return time.monotonic()
        time.sleep(0.02)
    raise SystemExit("not all of them were run")


if __name__ == "__main__":
    sys.exit(main())
