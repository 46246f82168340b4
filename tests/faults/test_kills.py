"""Workers that are killed while thousands of requests run: each request ends once, and is paid for once."""

from __future__ import annotations

import threading
from decimal import Decimal
from queue import SimpleQueue

import orjson
import pytest
import requests

from tests.gateway import FLEX, Gateway, cost
from tests.processes import QUICK, Process, eventually

KILLS = 5
WRITERS = 6
EACH = 50
CAPACITY = 40
REQUESTS = KILLS * WRITERS * EACH


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
    model = stage.flexible("slow-400", batch_capacity=CAPACITY)
    stage.upstream.reset()
    before = stage.balance(stage.alice.id)
    made: SimpleQueue[str] = SimpleQueue()
    workers: list[Process] = [stage.service.worker(), stage.service.start_worker()]
    for _ in range(KILLS):
        writers = [
            threading.Thread(target=submit, args=(stage, model, EACH, made)) for _ in range(WRITERS)
        ]
        for writer in writers:
            writer.start()
        # However fast the machine is, each kill meets running calls: that is what it waits for.
        eventually(lambda: stage.upstream.active()["active"] >= CAPACITY // 4)
        workers.pop(0).kill()
        workers.append(stage.service.start_worker())
        for writer in writers:
            writer.join()
    eventually(lambda: not left_to_do(stage, model), timeout_s=60)
    total = made.qsize()
    ids = {made.get() for _ in range(total)}
    assert total == len(ids) == REQUESTS

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
