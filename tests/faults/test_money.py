"""Reserved money while processes die and the database goes: nothing stays held, nothing is spent twice, everything adds up."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest
import requests

from dwctl.billing.money import LARGEST
from dwctl.local.postgres import EmbeddedPostgres
from tests.applications import migrate
from tests.batches import made
from tests.gateway import Account, Gateway, Held, assert_openai_error, marker
from tests.processes import QUICK, Process, eventually

PRICE = ("0", "0.001")
COST = Decimal("0.01")
USED = "usage-1-10"
SAID = {"max_tokens": 10}
PATIENCE_S = 30


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL of this module's own, to be stopped."""
    folder = Path(tempfile.mkdtemp(prefix="dwctl-money-"))
    folder.chmod(0o755)
    made = EmbeddedPostgres(folder / "pg", settings={"max_connections": "100"})
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
    return environ | QUICK


def held(stage: Gateway, account: Account) -> Decimal:
    row = stage.one("SELECT reserved FROM user_balance_checkpoints WHERE user_id = %s", account.id)
    reserved: Decimal = row.reserved
    return reserved


def once_each(stage: Gateway, account: Account) -> bool:
    """Each call that succeeded has one log row and one charge."""
    rows = stage.all(
        "SELECT a.request_id, count(*) AS logs, count(t.id) AS charges FROM http_analytics a"
        " LEFT JOIN credits_transactions t ON t.source_id = a.request_id::text"
        " WHERE a.user_id = %s AND a.status_code = 200 GROUP BY 1",
        account.id,
    )
    return all((row.logs, row.charges) == (1, 1) for row in rows)


@pytest.fixture
def worker(stage: Gateway) -> Iterator[Process]:
    stage.upstream.reset()
    yield stage.service.worker()
    for one in stage.service.workers:
        one.kill()


def test_a_batch_runs_as_far_as_the_money_goes_and_on_after_a_grant(
    stage: Gateway, worker: Process, database_url: str
) -> None:
    account = stage.account("0.20")
    model = stage.model(USED, price=PRICE, alias="half")
    lines = [{"model": model, "messages": [{"role": "user", "content": f"n{n}"}], **SAID} for n in range(40)]  # fmt: skip
    with psycopg.connect(database_url, autocommit=True) as sql:
        id = made.batch(sql, account.id, made.file(sql, account.id, lines))
    done = (
        "SELECT count(*) AS n FROM fusillade.requests WHERE batch_id = %s AND state = 'completed'"
    )
    eventually(lambda: stage.one(done, id).n == 20, PATIENCE_S)
    paused = (
        "SELECT needs FROM fusillade.queues WHERE created_by = %s AND pause_reason = 'no_credit'"
    )
    eventually(lambda: stage.all(paused, str(account.id)), PATIENCE_S)
    assert (stage.balance(account.id), held(stage, account)) == (0, 0)
    stage.credit(account.id, "0.205")
    eventually(lambda: stage.one(done, id).n == 40, PATIENCE_S)
    assert stage.balance(account.id) == Decimal("0.005")
    assert once_each(stage, account)
    assert stage.unbalanced() == []


def test_a_line_that_may_cost_more_than_any_account_can_have_waits_like_any_other(
    stage: Gateway, worker: Process
) -> None:
    """It needs as much as an amount can be, is told so, and runs when that is there."""
    account = stage.account("0.20")
    model = stage.model(USED, price=("0", str(LARGEST)), alias="dear")
    body = {"model": model, "messages": [{"role": "user", "content": "n"}], "max_tokens": 10**30}
    line = {"custom_id": "one", "method": "POST", "url": "/v1/chat/completions", "body": body}
    door = {"headers": account.authorization, "timeout": PATIENCE_S}
    file = requests.post(f"{stage.url}/ai/v1/files", files={"file": ("f.jsonl", json.dumps(line))}, data={"purpose": "batch"}, **door)  # fmt: skip
    order = {"input_file_id": file.json()["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}  # fmt: skip
    id = requests.post(f"{stage.url}/ai/v1/batches", json=order, **door).json()["id"]
    id = id.removeprefix("batch_")
    paused = (
        "SELECT needs FROM fusillade.queues WHERE created_by = %s AND pause_reason = 'no_credit'"
    )
    eventually(lambda: [row.needs for row in stage.all(paused, str(account.id))] == [LARGEST], PATIENCE_S)  # fmt: skip
    row = stage.one("SELECT state, retry_attempt, times_lost FROM fusillade.requests WHERE batch_id = %s", id)  # fmt: skip
    assert tuple(row) == ("pending", 0, 0)
    stage.credit(account.id, str(LARGEST))
    done = "SELECT state FROM fusillade.requests WHERE batch_id = %s"
    eventually(lambda: stage.one(done, id).state == "completed", PATIENCE_S)
    assert (stage.balance(account.id), held(stage, account)) == (Decimal("0.20"), 0)
    assert once_each(stage, account)
    assert stage.unbalanced() == []


def test_what_a_killed_web_process_held_is_free_again(stage: Gateway, worker: Process) -> None:
    account = stage.account("0.05")
    hold, model = stage.model("hold", price=PRICE), stage.model(USED, price=PRICE)
    second = stage.service.start_web()
    calls = [
        Held(lambda: stage.chat(hold, by=account, body=SAID, url=second.url)) for _ in range(5)
    ]
    stage.upstream.wait_active(5)
    assert held(stage, account) == Decimal("0.05")
    assert_openai_error(stage.chat(model, by=account, body=SAID), 402, "insufficient_credits")
    second.kill()
    stage.service.webs.remove(second)
    for call in calls:
        call.ended()
    eventually(lambda: held(stage, account) == 0, PATIENCE_S)
    answers = [stage.chat(model, by=account, body=SAID) for _ in range(6)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [402]
    assert stage.balance(account.id) == 0
    assert stage.unbalanced() == []


def test_what_a_killed_worker_held_is_held_by_the_next(stage: Gateway, worker: Process) -> None:
    account = stage.account("0.05")
    alias = "hold-flex"
    stage.flexible("hold", alias=alias)
    said = marker()
    answer = stage.respond(
        alias, said, by=account, service_tier="flex", background=True, max_output_tokens=5
    )
    eventually(lambda: stage.sent(said))
    assert held(stage, account) > 0
    worker.kill()
    next_worker = stage.service.worker()
    eventually(lambda: len(stage.sent(said)) == 2, PATIENCE_S)
    assert next_worker.lives
    assert len(stage.all("SELECT 1 FROM credit_reservations WHERE user_id = %s", account.id)) == 1
    stage.upstream.release()
    eventually(lambda: stage.state(answer.json()["id"]) == "completed", PATIENCE_S)
    eventually(lambda: held(stage, account) == 0)
    assert len(stage.charges(answer.json()["id"])) == 1
    assert stage.unbalanced() == []


def test_a_database_that_goes_under_load_loses_no_cent(
    stage: Gateway, server: EmbeddedPostgres, worker: Process
) -> None:
    rich, poor = stage.account("1000"), stage.account("1")
    model = stage.model(USED + "+slow-50", price=PRICE)
    until = time.monotonic() + 4
    statuses: dict[str, list[int]] = {"rich": [], "poor": []}

    def call(n: int) -> None:
        whose, account = ("rich", rich) if n % 2 else ("poor", poor)
        while time.monotonic() < until:
            statuses[whose].append(stage.chat(model, by=account, body=SAID).status_code)

    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(call, n) for n in range(8)]
        time.sleep(1)
        server.stop()
        eventually(lambda: 503 in statuses["poor"])
        stage.reconnect(server.start())
        for one in running:
            one.result()
    assert set(statuses["rich"]) == {200}
    assert {200, 503} <= set(statuses["poor"]) <= {200, 402, 503}

    def all_is_written() -> bool:
        return stage.charged(rich.id) == COST * len(statuses["rich"])

    eventually(all_is_written, PATIENCE_S)
    eventually(lambda: held(stage, poor) == 0, PATIENCE_S)
    paid = statuses["poor"].count(200)
    assert stage.charged(poor.id) == COST * paid
    assert stage.balance(poor.id) == 1 - COST * paid >= 0
    assert once_each(stage, rich)
    assert once_each(stage, poor)
    assert stage.unbalanced() == []
