"""Queued work under its model's limits: it waits, it never fails for them, and nobody spins meanwhile."""

from __future__ import annotations

import re
import time

import pytest
import requests

from tests.gateway import Gateway, marker, unique
from tests.processes import IMPATIENT, Service, eventually


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    return environ | IMPATIENT


@pytest.fixture(scope="module")
def workers(service: Service) -> Service:
    for _ in range(2):
        service.start_worker()
    return service


def metric(service: Service, name: str) -> float:
    """Added up over all workers."""
    found = 0.0
    for worker in service.workers:
        page = requests.get(f"{worker.url}/internal/metrics", timeout=5).text
        values = re.findall(rf"^{name}_total(?:{{[^}}]*}})? (\S+)$", page, re.MULTILINE)
        found += sum(map(float, values))
    return found


def submit(stage: Gateway, model: str, n: int, said: str = "Hello", **by: object) -> list[str]:
    answers = [
        stage.respond(model, said, service_tier="flex", background=True, **by) for _ in range(n)
    ]
    assert {answer.status_code for answer in answers} == {202}
    return [answer.json()["id"] for answer in answers]


def attempts(stage: Gateway) -> set[tuple[int, int]]:
    return {
        tuple(row)
        for row in stage.all("SELECT DISTINCT retry_attempt, times_lost FROM fusillade.requests")
    }


def test_a_rate_makes_it_wait_and_nothing_else(workers: Service, stage: Gateway) -> None:
    said = marker()
    model = stage.flexible("ok", alias=unique("rated"), requests_per_second=4, burst_size=1)
    rounds, began = metric(workers, "fusillade_claim_rounds"), time.monotonic()
    ids = submit(stage, model, 12, said)
    assert {stage.over(id, 40)["status"] for id in ids} == {"completed"}
    took_s = time.monotonic() - began
    # Eleven after the first, at four a second; and not an age.
    assert 2.7 <= took_s < 20
    assert len(stage.sent(said)) == 12
    assert attempts(stage) == {(0, 0)}
    assert metric(workers, "fusillade_requests_limited") > 0
    # By the clock, five times a second, and when it is woken: each submission and each that goes back wakes both.
    assert metric(workers, "fusillade_claim_rounds") - rounds < 100 + 100 * took_s
    assert not stage.leases()


def test_places_hold_for_queued_and_realtime_calls_together(
    workers: Service, stage: Gateway
) -> None:
    stage.upstream.reset()
    model = stage.flexible("slow-150", alias=unique("places"), capacity=2)
    ids = submit(stage, model, 8)
    realtime = [stage.converse(model).status_code for _ in range(6)]
    assert set(realtime) <= {200, 429}
    assert {stage.over(id, 40)["status"] for id in ids} == {"completed"}
    assert stage.upstream.active()["peak"] <= 2
    assert attempts(stage) == {(0, 0)}
    eventually(lambda: not stage.all("SELECT FROM limit_holds"))


def test_a_keys_limits_are_not_for_queued_work(workers: Service, stage: Gateway) -> None:
    account = stage.account(requests_per_second=0.001, burst_size=1)
    model = stage.flexible("ok", alias=unique("unrated"))
    assert stage.converse(model, by=account).status_code == 200
    assert stage.converse(model, by=account).status_code == 429
    ids = submit(stage, model, 5, by=account)
    for id in ids:
        eventually(lambda id=id: stage.state(id) == "completed")


def test_a_cancelled_request_that_waits_for_a_limit_is_cancelled(
    workers: Service, stage: Gateway
) -> None:
    model = stage.flexible("ok", alias=unique("slow"), requests_per_second=0.001, burst_size=1)
    ids = submit(stage, model, 4)
    # Which of them it is that the limit lets through is anybody's guess.
    (ran,) = eventually(lambda: [id for id in ids if stage.state(id) == "completed"])
    others = [id for id in ids if id != ran]
    for id in others:
        stage.cancel(id)
    assert {stage.over(id)["status"] for id in others} == {"cancelled"}


def test_other_models_do_not_wait(workers: Service, stage: Gateway) -> None:
    stuck = stage.flexible("ok", alias=unique("stuck"), requests_per_second=0.001, burst_size=1)
    free = stage.flexible("ok", alias=unique("free"))
    submit(stage, stuck, 40)
    for id in submit(stage, free, 10):
        assert stage.over(id, 10)["status"] == "completed"
    stage.execute("UPDATE deployed_models SET requests_per_second = NULL WHERE alias = %s", stuck)


def test_where_all_components_are_at_their_limits_it_waits_and_nothing_else(
    workers: Service, stage: Gateway
) -> None:
    said, limits = marker(), {"requests_per_second": 2, "burst_size": 1}
    parts = [stage.flexible("ok", alias=unique("part"), **limits) for _ in range(2)]
    model = stage.composite(*parts)
    limited = metric(workers, "fusillade_requests_limited")
    ids = submit(stage, model, 10, said)
    assert {stage.over(id, 40)["status"] for id in ids} == {"completed"}
    assert len(stage.sent(said)) == 10
    assert attempts(stage) == {(0, 0)}
    assert metric(workers, "fusillade_requests_limited") > limited
    eventually(lambda: not stage.leases())
