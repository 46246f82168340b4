"""What holds lines back, and lets them go: an account without credit, a deadline that is near, a model that was deleted."""

from __future__ import annotations

import json
import time

import psycopg
import pytest

from tests.faults.test_lines import batch, chat, ended
from tests.gateway import BATCH, Gateway, cost, marker, unique
from tests.processes import QUICK, Process, eventually

OWN, OTHER = unique("own"), unique("other")
ESCALATIONS = {
    OWN: {"escalation_model": OTHER, "escalation_threshold_seconds": 600},
    "lonely": {"escalation_model": "nobody-has-this"},
}


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    name = "DWCTL_BACKGROUND_SERVICES__BATCH_DAEMON__MODEL_ESCALATIONS"
    return environ | QUICK | {name: json.dumps(ESCALATIONS)}


@pytest.fixture(scope="module", autouse=True)
def worker(stage: Gateway) -> Process:
    return stage.service.start_worker()


def test_an_account_without_credit_waits_for_a_grant(stage: Gateway) -> None:
    """Its lines do not fail, and it does not keep others from that model."""
    model = stage.flexible("plain", batch_capacity=2)
    poor, said = stage.account(credit=None), marker()
    _, waiting = batch(stage, [chat(model, user=said) for _ in range(4)], by=poor)
    paused = (
        "SELECT paused_until FROM fusillade.queues WHERE model = %s AND pause_reason = 'no_credit'"
    )
    eventually(lambda: stage.all(paused, model))
    _, others = batch(stage, [chat(model) for _ in range(4)])
    assert {row.state for row in ended(stage, others)} == {"completed"}
    eventually(lambda: not stage.leases())
    states = "SELECT DISTINCT state, retry_attempt FROM fusillade.requests WHERE id = ANY (%s)"
    assert [tuple(row) for row in stage.all(states, waiting)] == [("pending", 0)]
    assert stage.sent(said) == []
    stage.credit(poor.id, "1")
    granted = time.monotonic()
    rows = ended(stage, waiting)
    assert time.monotonic() - granted < 6
    assert {row.state for row in rows} == {"completed"}
    assert len(stage.sent(said)) == 4
    assert stage.unbalanced() == []


def test_a_balance_that_is_locked_for_long_costs_lines_none_of_their_tries(
    stage: Gateway, database_url: str
) -> None:
    model, low = stage.flexible("plain"), stage.account(credit="0.5")
    lost = "SELECT max(times_lost) AS n FROM fusillade.requests WHERE id = ANY (%s)"
    paused = "SELECT FROM fusillade.queues WHERE model = %s AND paused_until IS NOT NULL"
    with psycopg.connect(database_url) as other:
        other.execute(
            "SELECT FROM user_balance_checkpoints WHERE user_id = %s FOR UPDATE", (low.id,)
        )
        _, lines = batch(stage, [chat(model, max_tokens=4) for _ in range(4)], by=low)
        eventually(lambda: stage.all(paused, model) or stage.one(lost, lines).n)
    assert {row.state for row in ended(stage, lines)} == {"completed"}
    assert stage.one(lost, lines).n == 0


def test_lines_near_their_deadline_escalate_at_their_own_price(
    stage: Gateway, worker: Process
) -> None:
    """Its caller needs no access to the other model."""
    own = stage.flexible("plain", alias=OWN)
    other = stage.model("plain", alias=OTHER, price=("1", "1"), groups=())
    _, near = batch(stage, [chat(own)] * 2, due_s=500)
    _, far = batch(stage, [chat(own)] * 2, due_s=5000)
    routed = [row.routed_model for row in ended(stage, [*near, *far])]
    assert routed == [other, other, own, own]
    for id in (*near, *far):
        assert stage.charges(f"resp_{id}") == [cost(BATCH)]
    assert "escalation model unknown" in worker.output()
    shown = stage.session.get(f"{worker.url}/internal/metrics", timeout=10).text
    escalated = f'fusillade_requests_routed_to_escalation_total{{original_model="{own}",escalation_model="{other}"}} 2'
    assert escalated in shown
    assert "fusillade_claim_duration_seconds_count" in shown


def test_lines_of_a_model_that_was_deleted_fail_clearly(stage: Gateway) -> None:
    model = stage.flexible("plain")
    with stage.locked("SELECT FROM fusillade.model_slots FOR UPDATE"):
        _, ids = batch(stage, [chat(model)] * 2)
        _, unknown = batch(stage, [chat("never-was")])
        stage.admin("DELETE", f"/models/{stage.model_id(model)}")
    for row in ended(stage, [*ids, *unknown]):
        assert row.state == "failed"
        assert "model_not_found" in row.error
    eventually(lambda: not stage.leases())
