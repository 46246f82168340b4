"""Workers that are killed while thousands of requests run: each request ends once, and is paid for once."""

from __future__ import annotations

import threading
import time
from decimal import Decimal
from queue import SimpleQueue

import orjson
import pytest
import requests

from tests.gateway import FLEX, Gateway, cost
from tests.processes import QUICK, Process, eventually

REQUESTS = 2000
WRITERS = 6
KILL_EVERY_S = 1.0
MOST_KILLS = 5


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    return environ | QUICK


def submit(stage: Gateway, model: str, count: int, made: SimpleQueue[str]) -> None:
    """Background requests on one connection."""
    with requests.Session() as session:
        session.headers.update(stage.alice.authorization)
        for number in range(count):
            body = {"model": model, "input": f"n{number}", "service_tier": "flex", "background": True}  # fmt: skip
            answer = session.post(f"{stage.url}/ai/v1/responses", orjson.dumps(body), timeout=30)
            assert answer.status_code == 202, answer.text
            made.put(answer.json()["id"])


def left_to_do(stage: Gateway, model: str) -> int:
    row = stage.one(
        "SELECT count(*) FROM fusillade.requests WHERE model = %s AND state IN ('pending', 'claimed', 'processing')",
        model,
    )
    return int(row.count)


def test_requests_end_once_however_often_their_worker_is_killed(stage: Gateway) -> None:
    model = stage.flexible("slow-150", batch_capacity=40)
    stage.upstream.reset()
    before = stage.balance(stage.alice.id)
    made: SimpleQueue[str] = SimpleQueue()
    workers: list[Process] = [stage.service.worker(), stage.service.start_worker()]
    writers = [
        threading.Thread(target=submit, args=(stage, model, REQUESTS // WRITERS, made))
        for _ in range(WRITERS)
    ]
    for writer in writers:
        writer.start()
    kills = 0
    until = time.monotonic() + 90
    while any(writer.is_alive() for writer in writers) or left_to_do(stage, model):
        assert time.monotonic() < until, f"{left_to_do(stage, model)} left after {kills} kills"
        time.sleep(KILL_EVERY_S if kills < MOST_KILLS else 0.2)
        if kills < MOST_KILLS and left_to_do(stage, model):
            workers.pop(0).kill()
            kills += 1
            workers.append(stage.service.start_worker())
    total = made.qsize()
    ids = {made.get() for _ in range(total)}
    assert total == len(ids) == REQUESTS // WRITERS * WRITERS
    assert kills >= 2

    states = stage.all("SELECT state, count(*) FROM fusillade.requests WHERE model = %s GROUP BY state", model)  # fmt: skip
    assert [(row.state, row.count) for row in states] == [("completed", total)]
    ledger = stage.all(
        "SELECT amount, count(*) FROM credits_transactions "
        "WHERE source_id IN (SELECT id::text FROM fusillade.requests WHERE model = %s) GROUP BY amount",
        model,
    )
    assert [(row.amount, row.count) for row in ledger] == [(cost(FLEX), total)]
    logs = stage.one("SELECT count(*), count(DISTINCT request_id) AS requests FROM http_analytics WHERE model = %s", model)  # fmt: skip
    assert (logs.count, logs.requests) == (total, total)
    assert before - stage.balance(stage.alice.id) == cost(FLEX) * Decimal(total)
    assert stage.unbalanced() == []
    eventually(lambda: not stage.leases())
    # Something was run again, else nobody was killed in the middle of anything.
    assert stage.upstream.active()["total"] > total
    for id in list(ids)[:20]:
        assert stage.shown(id)["status"] == "completed"
