"""A request that kills whoever works on it: three may die, then it ends, with the reason, in the queue and in the log."""

from __future__ import annotations

import pytest

from tests.gateway import Gateway, marker
from tests.processes import QUICK, eventually

DEATHS = 3


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    return environ | QUICK


def test_the_third_worker_that_dies_of_a_request_is_the_last(stage: Gateway) -> None:
    stage.upstream.reset()
    model, said = stage.flexible("hold"), marker()
    answer = stage.respond(model, said, service_tier="flex", background=True)
    id = answer.json()["id"]
    for death in range(1, DEATHS + 1):
        worker = stage.service.start_worker()
        eventually(lambda death=death: len(stage.sent(said)) == death, 40)
        worker.kill()
        stage.service.workers.remove(worker)
    # One that lives, and sees that the third is dead; it must not begin a fourth run.
    stage.service.worker()
    eventually(lambda: stage.state(id) == "failed", 40)
    assert len(stage.sent(said)) == DEATHS
    log = stage.log_of(id.removeprefix("resp_"))
    left = stage.of(id)
    assert "WorkerLost" in left.request.error
    assert (log.error_code, log.total_cost or 0) == ("worker_lost", 0)
    assert left.charges == []
    shown = stage.shown(id)
    assert shown["status"] == "failed"
    assert shown["error"]["message"]
    assert stage.leases() == []
    # Others are served by the same worker.
    stage.upstream.release()
    assert stage.respond(stage.flexible("plain"), service_tier="flex").status_code == 200


def test_a_worker_that_died_counts_nothing_against_the_next_request(stage: Gateway) -> None:
    """Back-off and count belong to the request, not to the model or to the account."""
    stage.upstream.reset()
    model, said = stage.flexible("hold"), marker()
    id = stage.respond(model, said, service_tier="flex", background=True).json()["id"]
    worker = stage.service.worker()
    eventually(lambda: len(stage.sent(said)) == 1, 20)
    worker.kill()
    stage.service.workers.remove(worker)
    stage.service.worker()
    eventually(lambda: len(stage.sent(said)) == 2, 40)
    stage.upstream.release()
    assert stage.over(id, 30)["status"] == "completed"
    assert len(stage.charges(id)) == len(stage.of(id).logs) == 1
