"""Batches while workers die, the upstream fails, the database goes away and owners change their minds: each line ends once, and is paid once.

DWCTL_TEST_LINES=20000 pytest tests/faults/test_batches.py      (python -m benchmarks.batches chaos) the same with more lines
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from dwctl.batches import changes
from dwctl.local.postgres import EmbeddedPostgres
from tests.applications import migrate
from tests.batches import made
from tests.gateway import Gateway
from tests.processes import QUICK, Process, eventually

LINES = int(os.environ.get("DWCTL_TEST_LINES", "800"))
PATIENCE_S = 60 + LINES / 50
KILL_EVERY_S = 1.0
MOST_KILLS = 2 + LINES // 2000
_NO_GRACE = {
    "DWCTL_BATCHES__EXPIRY_GRACE": "0s",
    "DWCTL_BACKGROUND_SERVICES__BATCH_DAEMON__PURGE_INTERVAL_MS": "300",
    "DWCTL_BACKGROUND_SERVICES__BATCH_DAEMON__PURGE_THROTTLE_MS": "20",
}


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL that can be killed without hurting other tests; it writes to disk as in production."""
    folder = Path(tempfile.mkdtemp(prefix="dwctl-batches-"))
    folder.chmod(0o755)
    made = EmbeddedPostgres(folder / "pg")
    made.start()
    yield made
    made.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def database_url(server: EmbeddedPostgres) -> str:
    url = server.start()
    migrate(url)
    return url


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    return environ | QUICK | {
        "DWCTL_BACKGROUND_SERVICES__BATCH_DAEMON__MAX_RETRIES": "2",
        "DWCTL_BACKGROUND_SERVICES__BATCH_DAEMON__BACKOFF_MS": "50",
        "DWCTL_BACKGROUND_SERVICES__BATCH_DAEMON__MAX_BACKOFF_MS": "200",
    }  # fmt: skip


@pytest.fixture
def sql(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture(autouse=True)
def no_workers_left(stage: Gateway) -> Iterator[None]:
    yield
    for worker in stage.service.workers:
        worker.kill()


def lines_of(stage: Gateway, count: int, *models: str) -> list[dict[str, Any]]:
    """So many lines, of these models in turn; each says something of its own."""
    return [
        {"model": models[n % len(models)], "user": f"u{n}", "messages": [{"role": "user", "content": f"n{n}"}]}
        for n in range(count)
    ]  # fmt: skip


def put(stage: Gateway, sql: psycopg.Connection[Any], count: int, *models: str) -> UUID:
    owner = stage.alice.id
    return made.batch(sql, owner, made.file(sql, owner, lines_of(stage, count, *models)))


def counts(stage: Gateway, id: UUID) -> tuple[int, int, int]:
    row = stage.one("SELECT completed_requests, failed_requests, canceled_requests FROM fusillade.batches WHERE id = %s", id)  # fmt: skip
    return tuple(row)


def is_frozen(stage: Gateway, id: UUID) -> bool:
    """Whether it is over, and was counted anew."""
    row = stage.one("SELECT counts_frozen_at FROM fusillade.batches WHERE id = %s", id)
    return row.counts_frozen_at is not None


def nothing_is_left(stage: Gateway, id: UUID) -> None:
    eventually(lambda: not stage.all("SELECT id FROM fusillade.ready UNION ALL SELECT id FROM fusillade.delayed UNION ALL SELECT id FROM fusillade.inflight"))  # fmt: skip
    assert stage.unbalanced() == []
    corrected = [worker for worker in stage.service.workers if "counters of a batch corrected" in worker.output()]  # fmt: skip
    assert corrected == []


def test_workers_that_die_and_an_upstream_that_fails(
    stage: Gateway, sql: psycopg.Connection[Any]
) -> None:
    """Worker after worker is killed, and thirty lines in a hundred meet an upstream that fails in some way."""
    good = stage.flexible("slow-100+good", batch_capacity=40)
    held = stage.flexible("hold+held", batch_capacity=20)
    busy = stage.flexible("flaky-1-429+wait-0", batch_capacity=60)
    broken = stage.flexible("flaky-1-500+slow-20", batch_capacity=60)
    gone = stage.flexible("reset", batch_capacity=60)
    hanging = stage.flexible(
        "hang", batch_capacity=60, endpoint=stage.endpoint(first_byte_timeout_seconds=0.2)
    )
    models = [good] * 13 + [held] + [busy] * 2 + [broken] * 2 + [gone, hanging]
    workers: list[Process] = [stage.service.start_worker() for _ in range(3)]
    id = put(stage, sql, LINES, *models)
    kills = 0
    # What is held is in flight all the time, so that none of them dies in vain.
    while kills < MOST_KILLS:
        time.sleep(KILL_EVERY_S)
        workers.pop(0).kill()
        kills += 1
        workers.append(stage.service.start_worker())
        assert made.wrong(sql, id) == []
    eventually(lambda: stage.upstream.release() or is_frozen(stage, id), PATIENCE_S)
    failing = LINES * 2 // len(models)
    completed, failed, canceled = counts(stage, id)
    assert (completed + failed, canceled) == (LINES, 0)
    assert failed >= failing
    # A line whose worker died three times is the worker's failure, not its own.
    lost = stage.one("""SELECT count(*) FROM fusillade.requests WHERE batch_id = %s AND error LIKE '%%WorkerLost%%'""", id).count  # fmt: skip
    assert failed - failing <= lost
    assert made.wrong(sql, id) == []
    nothing_is_left(stage, id)


def test_nothing_completes_after_a_batch_says_that_it_is_cancelled(
    stage: Gateway, sql: psycopg.Connection[Any]
) -> None:
    patient = stage.endpoint(first_byte_timeout_seconds=20)
    model = stage.flexible("slow-100+cancelled", batch_capacity=20, endpoint=patient)
    for _ in range(2):
        stage.service.start_worker()
    id = put(stage, sql, LINES, model)
    eventually(lambda: counts(stage, id)[0] > 40, PATIENCE_S)
    changes.cancel(sql, id)
    asked = time.monotonic()
    eventually(lambda: stage.one("SELECT cancelled_at FROM fusillade.batches WHERE id = %s", id)[0], 20)  # fmt: skip
    took_s = time.monotonic() - asked
    before = counts(stage, id)
    assert sum(before) == LINES
    assert before[2] > 0
    assert took_s < 10
    eventually(lambda: is_frozen(stage, id), PATIENCE_S)
    time.sleep(0.5)
    assert counts(stage, id) == before
    assert made.wrong(sql, id) == []
    nothing_is_left(stage, id)


def test_failed_lines_run_again_while_owners_change_their_minds_and_workers_die(
    stage: Gateway, sql: psycopg.Connection[Any]
) -> None:
    """All are past their deadlines at first, so they have failed lines; then one is deleted, one cancelled, one expires again, one goes on."""
    # No slow one may be over by itself before its owner has changed his mind, however long a worker takes to start.
    quick, slow = stage.flexible("again", batch_capacity=60), stage.flexible("slow-100+again", batch_capacity=8)  # fmt: skip
    # Workers of the tests before, which purge every ten minutes, have said when the next one is due.
    sql.execute("UPDATE fusillade.duties SET due_at = now()")
    workers = [stage.service.start_worker(**_NO_GRACE) for _ in range(2)]
    plan = {"deleted": (slow, "24h"), "cancelled": (slow, "24h"), "expired": (slow, "4s"), "completed": (quick, "24h")}  # fmt: skip
    owner = stage.alice.id
    ids = {
        end: made.batch(sql, owner, made.same_file(sql, owner, LINES, model), due_s=0, window=window)
        for end, (model, window) in plan.items()
    }  # fmt: skip
    for id in ids.values():
        eventually(lambda id=id: is_frozen(stage, id), PATIENCE_S)
    assert all(changes.retry(sql, id) > 0 for id in ids.values())
    for change in (changes.delete, changes.cancel, None):
        time.sleep(KILL_EVERY_S / 2)
        workers.pop(0).kill()
        if change is not None:
            change(sql, ids["deleted" if change is changes.delete else "cancelled"])
        workers.append(stage.service.start_worker(**_NO_GRACE))
    deleted = ids.pop("deleted")
    for end, id in ids.items():
        eventually(lambda id=id: is_frozen(stage, id), PATIENCE_S)
        assert made.wrong(sql, id) == []
        assert sum(counts(stage, id)) == LINES
        assert stage.one(f"SELECT {end}_at FROM fusillade.batches WHERE id = %s", id)[0]
    eventually(lambda: stage.one("SELECT purged_at FROM fusillade.batches WHERE id = %s", deleted)[0], PATIENCE_S)  # fmt: skip
    for table in ("requests", "finished_lines", "batch_models", "sweeps", "recounts"):
        assert stage.all(f"SELECT FROM fusillade.{table} WHERE batch_id = %s", deleted) == []
    nothing_is_left(stage, deleted)


def test_the_database_is_killed_and_there_is_one_connection(
    stage: Gateway, sql: psycopg.Connection[Any], server: EmbeddedPostgres, database_url: str
) -> None:
    """The pools of the workers have one connection each, for the duties of all rooms and what goes back to the queue."""
    models = [stage.flexible("slow-150+few", batch_capacity=40), stage.flexible("flaky-1-500+few", batch_capacity=40)]  # fmt: skip
    small = {"DWCTL_DATABASE__POOL_SIZE": "1", "DWCTL_DATABASE__POOL_OVERFLOW": "0", "DWCTL_DATABASE__POOL_TIMEOUT": "1s"}  # fmt: skip
    for _ in range(2):
        stage.service.start_worker(**small)
    id = put(stage, sql, LINES, *models)
    for _ in range(2):
        seen = sum(counts(stage, id))
        eventually(lambda seen=seen: sum(counts(stage, id)) > seen + LINES // 10, PATIENCE_S)
        assert server.pid
        os.kill(server.pid, signal.SIGKILL)
        eventually(lambda: not server.running())
        stage.reconnect(server.start())
    eventually(lambda: is_frozen(stage, id), PATIENCE_S)
    assert counts(stage, id) == (LINES, 0, 0)
    with psycopg.connect(database_url, autocommit=True) as again:
        assert made.wrong(again, id) == []
    nothing_is_left(stage, id)
