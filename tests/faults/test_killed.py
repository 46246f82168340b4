"""A web process that is killed with calls in flight: what was answered is recorded and charged once, nothing stays in progress."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
import requests

from tests.gateway import HELLO, Gateway, events
from tests.processes import Process, Service, eventually


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    return environ | {
        "DWCTL_DAEMONS__HEARTBEAT": "0.4s",
        "DWCTL_DAEMONS__DEAD_AFTER": "2s",
        "DWCTL_RECORDER__OPEN_AFTER": "0.1s",
    }


@pytest.fixture
def victim(stage: Gateway, service: Service) -> Iterator[Process]:
    """A second web process; a worker looks after the dead."""
    if not service.workers:
        service.start_worker()
    process = service.start_web()
    yield process
    service.webs.remove(process)
    process.stop()


def states(gateway: Gateway, owner: object) -> dict[str, int]:
    rows = gateway.all(
        "SELECT r.state, count(*) AS n FROM fusillade.requests r JOIN fusillade.batches b USING (id) WHERE b.created_by = %s GROUP BY 1",
        str(owner),
    )
    return {row.state: row.n for row in rows}


def lasting(stage: Gateway) -> set[str]:
    """The models of calls that run now and have rows."""
    rows = stage.all(
        "SELECT DISTINCT r.model FROM fusillade.open_calls o JOIN fusillade.requests r USING (id)"
    )
    return {row.model for row in rows}


def test_what_was_answered_before_the_kill_is_charged_once_and_nothing_stays_in_progress(
    victim: Process, stage: Gateway
) -> None:
    stage.upstream.reset()
    account = stage.account("1000")
    quick, hanging, streaming = (
        stage.model(name) for name in ("slow-20", "hang", "chunks-20+hang-stream")
    )
    answered: list[str] = []
    ids_of_streams: list[str] = []

    def call(model: str, stream: bool) -> None:
        with requests.Session() as session:
            while True:
                try:
                    answer = session.post(
                        f"{victim.url}/ai/v1/chat/completions",
                        json={"model": model, "messages": HELLO, "stream": stream},
                        headers=account.authorization,
                        timeout=30,
                        stream=stream,
                    )
                    if stream:
                        ids_of_streams.append(answer.headers["x-request-id"])
                        list(events(answer))
                    assert answer.ok
                    answered.append(answer.headers["x-request-id"])
                except requests.RequestException:
                    return

    calls = [(quick, False)] * 6 + [(quick, True)] * 3 + [(hanging, False), (streaming, True)]
    threads = [threading.Thread(target=call, args=each) for each in calls]
    for thread in threads:
        thread.start()
    eventually(lambda: len(answered) > 40)
    eventually(lambda: lasting(stage) >= {hanging, streaming})
    victim.kill()
    for thread in threads:
        thread.join(30)

    charges = stage.all(
        "SELECT source_id, count(*) AS n, min(amount) AS amount FROM credits_transactions WHERE source_id = ANY (%s) GROUP BY 1",
        answered,
    )
    assert {row.source_id: row.n for row in charges} == dict.fromkeys(answered, 1)
    assert {row.amount for row in charges} == {Decimal("0.015")}
    eventually(lambda: "processing" not in states(stage, account.id), 20)
    found = states(stage, account.id)
    assert found["completed"] >= len(answered)
    assert found["failed"] >= 2
    for id in ids_of_streams[-1:]:
        assert stage.get(f"/responses/resp_{id}", by=account).json()["status"] in (
            "failed",
            "completed",
        )
    interrupted = stage.all(
        "SELECT r.error FROM fusillade.requests r JOIN fusillade.batches b USING (id) WHERE b.created_by = %s AND r.state = 'failed'",
        str(account.id),
    )
    assert all("Interrupted" in row.error for row in interrupted)
    assert not stage.unbalanced()
    logs = stage.one(
        "SELECT count(*) AS n, count(DISTINCT request_id) AS ids FROM http_analytics WHERE user_id = %s",
        account.id,
    )
    assert logs.n == logs.ids


def test_a_background_call_whose_process_was_killed_is_run_once_more(
    victim: Process, stage: Gateway
) -> None:
    stage.upstream.reset()
    account, model = stage.account(), stage.model("hold")
    body = {"model": model, "input": "Hello", "background": True}
    answer = stage.post("/responses", body, by=account, url=victim.url)
    assert answer.status_code == 202
    id = answer.json()["id"]
    stage.upstream.wait_active(1)
    victim.kill()
    # The first try is gone with its process; the worker begins a second one.
    stage.upstream.wait_total(2, timeout_s=20)
    stage.upstream.release()
    done: Any = eventually(
        lambda: (
            (r := stage.get(f"/responses/{id}", by=account).json())["status"] == "completed" and r
        )
    )
    assert done["output"][0]["content"][0]["text"] == "Hello there friend"
    assert len(stage.left(id.removeprefix("resp_")).charges) == 1
    assert stage.balance(account.id) == 1000 - Decimal("0.015")
