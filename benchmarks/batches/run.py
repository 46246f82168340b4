"""Lines of a batch through one worker process, with tracking, logging, counting and charging: from an upstream that answers at once, and
from one that takes 100 ms.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import psycopg

from benchmarks import measure as measured
from benchmarks.batches import lines
from benchmarks.stage import Stage
from benchmarks.upstream import Upstream

COUNT = 20_000
AT_ONCE = 200
SLOW_COUNT = 10_000
SLOW_AT_ONCE = 100
DELAY_S = 0.1
CONCURRENCY = "DWCTL_BACKGROUND_SERVICES__BATCH_DAEMON__DEFAULT_MODEL_CONCURRENCY"


def measure(report: ModuleType) -> None:
    """Print the rates."""
    report.begin("run: lines of a batch through one worker process", f"{lines.BYTES} B a line")
    models = {"plain": "plain", "later": f"after-{round(DELAY_S * 1000)}"}
    with (
        Upstream() as upstream,
        Stage(upstream.url, models, most_s=180) as stage,
        stage.connect() as database,
    ):
        _at_once(report, stage, database)
        _later(report, stage, database)


def _at_once(report: ModuleType, stage: Stage, database: psycopg.Connection[Any]) -> None:
    batch = lines.put(database, "plain", COUNT)
    before = measured.family_cpu_s(stage.postmaster)
    worker = stage.worker(**{CONCURRENCY: str(AT_ONCE)})
    used = measured.cpu_s(worker.pid)
    result = lines.wait(database, batch, COUNT, 90)
    used, server = (
        measured.cpu_s(worker.pid) - used,
        measured.family_cpu_s(stage.postmaster) - before,
    )
    rate = COUNT / float(result.took_s)
    report.at_least("an upstream that answers at once", rate, "/s", 1000, digits=0)
    report.at_least("the same by the worker's CPU time", COUNT / used, "/s", 1000, digits=0)
    report.figure("CPU a line, worker process", used * 1000 / COUNT, "ms", digits=3)
    report.figure("CPU a line, PostgreSQL", server * 1000 / COUNT, "ms", digits=3)
    _prove(report, database, batch, COUNT, result)
    worker.stop()


def _later(report: ModuleType, stage: Stage, database: psycopg.Connection[Any]) -> None:
    batch = lines.put(database, "later", SLOW_COUNT)
    worker = stage.worker(**{CONCURRENCY: str(SLOW_AT_ONCE)})
    result = lines.wait(database, batch, SLOW_COUNT, 60)
    possible = SLOW_AT_ONCE / DELAY_S
    steady = 0.8 * SLOW_COUNT / float(result.most_took_s) / possible * 100
    whole = SLOW_COUNT / float(result.took_s) / possible * 100
    report.at_least(
        f"an upstream that takes 100 ms, {SLOW_AT_ONCE} at once: of the most", steady, "%", 95
    )
    report.figure("the same with the worker's start and the last calls", whole, "%")
    _prove(report, database, batch, SLOW_COUNT, result)
    worker.stop()


def _prove(
    report: ModuleType,
    database: psycopg.Connection[Any],
    batch: Any,
    count: int,
    result: lines.Result,
) -> None:
    row = database.execute(
        "SELECT (SELECT count(*) FROM http_analytics WHERE fusillade_batch_id = %(id)s),"
        " (SELECT count(*) FROM credits_transactions WHERE fusillade_batch_id = %(id)s)",
        {"id": batch},
    ).fetchone()
    exact = row == (count, count) and result.completed == count
    report.proven(
        "each line answered, logged and charged once", holds=exact, what=f"{count} of {count}"
    )
