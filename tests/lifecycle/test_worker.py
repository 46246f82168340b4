"""What a worker does with a request: it runs rows that were written by hand, tries again what may succeed, and ends what cannot."""

from __future__ import annotations

import json
import uuid
from typing import Any
from uuid import UUID

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.cast import Cast
from tests.fake_upstream import SECRET, FakeUpstream
from tests.gateway import (
    BATCH,
    FLEX,
    TERMINAL,
    Gateway,
    Held,
    assert_openai_error,
    cost,
    marker,
    request_id,
)
from tests.processes import eventually

HELLO = [{"role": "user", "content": "Hello"}]
SAID = "Hello there friend"
MOST_RETRIES = 3  # as the processes of this package are told


def insert(
    stage: Gateway,
    model: str,
    *,
    owner: object = None,
    path: str = "/v1/chat/completions",
    body: Any = None,
    window: str | None = None,
    **more: Any,
) -> str:
    """A request by hand: a batch without counts, a request with only ids, model and state."""
    template, batch, request = uuid.uuid4(), uuid.uuid4(), uuid.uuid4()
    sent = body if isinstance(body, str) else json.dumps(body or {"model": model, "messages": HELLO})  # fmt: skip
    stage.execute(
        "INSERT INTO fusillade.request_templates (id, endpoint, method, path, body, model) "
        "VALUES (%s, 'http://127.0.0.1:3001/ai', 'POST', %s, %s, %s)",
        template,
        path,
        sent,
        model,
    )
    stage.execute(
        "INSERT INTO fusillade.batches (id, created_by, expires_at, completion_window) "
        "VALUES (%s, %s, now() + interval '1 day', coalesce(%s, '24h'))",
        batch,
        str(stage.alice.id if owner is None else owner),
        window,
    )
    columns = {"id": request, "batch_id": batch, "template_id": template, "model": model, "state": "pending", **more}  # fmt: skip
    stage.execute(
        f"INSERT INTO fusillade.requests ({', '.join(columns)}) VALUES ({', '.join(['%s'] * len(columns))})",
        *columns.values(),
    )
    return f"resp_{request}"


# --- rows by hand


@pytest.mark.parametrize(("window", "price"), [(None, BATCH), ("1h", FLEX)])
def test_a_request_inserted_by_hand_is_run_and_billed_as_its_batch_says(
    stage: Gateway, window: str | None, price: tuple[str, str]
) -> None:
    id = insert(stage, stage.flexible("plain"), window=window)
    shown = stage.over(id)
    assert shown["status"] == "completed"
    assert shown["output"][0]["content"][0]["text"] == SAID
    left = stage.of(id)
    assert left.request.response_status == 200
    assert left.request.batch_id != left.request.id
    assert left.batch is None, "no batch of its own is made beside the one that it is in"
    assert [charge.amount for charge in left.charges] == [cost(price)]
    assert left.charges[0].user_id == stage.alice.id
    (log,) = left.logs
    assert log.fusillade_batch_id == left.request.batch_id
    assert log.batch_sla == (window or "24h")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/responses", {"input": "Hello"}),
        ("/v1/embeddings", {"input": "Hello"}),
        ("/v1/completions", {"prompt": "Hello"}),
    ],
)
def test_any_inference_path_can_be_inserted_by_hand(
    stage: Gateway, path: str, body: dict[str, Any]
) -> None:
    model = stage.flexible("plain")
    id = insert(stage, model, path=path, body={"model": model, **body})
    assert stage.over(id)["status"] == "completed"
    assert stage.upstream.seen()[-1]["body"]["model"] == "plain"


def test_many_requests_of_one_batch_inserted_at_once_are_all_run(stage: Gateway) -> None:
    model = stage.flexible("plain")
    first = insert(stage, model)
    (row,) = stage.all("SELECT batch_id, template_id FROM fusillade.requests WHERE id = %s", request_id(first))  # fmt: skip
    stage.execute(
        "INSERT INTO fusillade.requests (batch_id, template_id, model, state) "
        "SELECT %s, %s, %s, 'pending' FROM generate_series(1, 30)",
        row.batch_id,
        row.template_id,
        model,
    )
    states = "SELECT state FROM fusillade.requests WHERE batch_id = %s"
    eventually(lambda: {r.state for r in stage.all(states, row.batch_id)} == {"completed"})
    charges = stage.all(
        "SELECT source_id FROM credits_transactions WHERE fusillade_batch_id = %s", row.batch_id
    )
    assert len(charges) == len({charge.source_id for charge in charges}) == 31


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"owner": "an operator"}, "owner_gone"),
        ({"owner": uuid.uuid4()}, "owner_gone"),
        ({"path": "/v1/riddles"}, "path"),
        ({"path": ""}, "path"),
        ({"body": "no JSON"}, "JSON"),
        ({"body": "[1]"}, "JSON"),
        ({"body": ""}, "no body"),
    ],
)
def test_a_row_by_hand_that_cannot_run_fails_with_a_reason(
    stage: Gateway, wrong: dict[str, Any], says: str
) -> None:
    id = request_id(insert(stage, stage.flexible("plain"), **wrong))
    (row,) = eventually(
        lambda: stage.all("SELECT * FROM fusillade.requests WHERE id = %s AND state = 'failed'", id)
    )
    assert says.lower() in row.error.lower()
    assert stage.of(str(id)).charges == []


def test_a_row_whose_model_nobody_knows_fails(stage: Gateway) -> None:
    id = insert(stage, "never-heard-of")
    assert stage.over(id)["error"]["code"] == "http_404"


def test_a_row_whose_template_is_gone_fails(stage: Gateway) -> None:
    id = insert(stage, stage.flexible("plain"), template_id=uuid.uuid4())
    assert stage.over(id)["status"] == "failed"


def test_a_failed_row_that_is_set_back_by_hand_runs_again(stage: Gateway) -> None:
    id = insert(stage, stage.flexible("plain"), state="failed", error="by hand", failed_at="now")
    assert stage.state(id) == "failed"
    stage.execute("UPDATE fusillade.requests SET state = 'pending', retry_attempt = 0 WHERE id = %s", request_id(id))  # fmt: skip
    assert stage.over(id)["status"] == "completed"


def test_a_row_for_later_waits(stage: Gateway) -> None:
    (soon,) = stage.all("SELECT now() + interval '0.5 seconds' AS at")
    id = insert(stage, stage.flexible("plain"), not_before=soon.at)
    assert stage.over(id)["status"] == "completed"
    (row,) = stage.all("SELECT started_at FROM fusillade.requests WHERE id = %s", request_id(id))
    assert row.started_at >= soon.at


# --- tried again


@pytest.mark.parametrize("status", [500, 502, 503, 404, 408])
def test_what_may_succeed_later_is_tried_again(stage: Gateway, status: int) -> None:
    said = marker()
    model = stage.flexible(f"flaky-2-{status}+plain")
    if status == 503:  # says when to come back
        model = stage.flexible("flaky-2-500+plain")
    answer = stage.respond(model, said, service_tier="flex")
    assert answer.status_code == 200, answer.text
    assert len(stage.sent(said)) == 3
    left = stage.of(answer.json()["id"])
    assert left.request.retry_attempt == 2
    assert len(left.logs) == 1
    assert [charge.amount for charge in left.charges] == [cost(FLEX)]


@pytest.mark.parametrize(
    "trait", ["fail-500", "drop", "reset", "cut", "wrong-json", "error-in-200"]
)
def test_what_never_succeeds_fails_in_the_end(stage: Gateway, trait: str) -> None:
    said = marker()
    answer = stage.respond(stage.flexible(trait), said, background=True, service_tier="flex")
    shown = stage.over(answer.json()["id"])
    assert shown["status"] == "failed"
    assert shown["error"]["message"]
    # A kept connection that closes without a word may not have been read: such a call is sent once more at once.
    at_most = 2 if trait in ("drop", "reset") else 1
    assert MOST_RETRIES < len(stage.sent(said)) <= (MOST_RETRIES + 1) * at_most
    left = stage.of(shown["id"])
    assert left.request.retry_attempt == MOST_RETRIES
    assert len(left.logs) == 1
    assert left.charges == []
    assert stage.leases() == []


def test_an_upstream_that_is_away_for_a_while_costs_nothing_but_time(
    stage: Gateway, cast: Cast
) -> None:
    with FakeUpstream() as away:
        endpoint = stage.endpoint(away.url, name="away")
        model = stage.flexible("plain", alias="plain+away", endpoint=endpoint)
        away.stop()
        id = stage.respond(model, background=True, service_tier="flex").json()["id"]
        eventually(lambda: stage.of(id).request.retry_attempt >= 1)
        away.start()
        assert stage.over(id)["status"] == "completed"
        assert len(away.seen()) == 1
    assert stage.charges(id) == [cost(FLEX)]


def test_a_request_that_waits_for_its_next_try_is_cancelled(stage: Gateway) -> None:
    """The upstream has said: in seven seconds."""
    said = marker()
    model = stage.flexible("flaky-1-429+plain")
    id = stage.respond(model, said, background=True, service_tier="flex").json()["id"]
    eventually(lambda: stage.of(id).request.retry_attempt == 1)
    (row,) = stage.all(
        "SELECT not_before - now() AS wait FROM fusillade.requests WHERE id = %s", request_id(id)
    )
    assert 5 < row.wait.total_seconds() <= 7
    assert stage.cancel(id).json()["status"] == "cancelled"
    assert stage.all("SELECT FROM fusillade.delayed WHERE id = %s", request_id(id)) == []
    assert len(stage.sent(said)) == 1


@pytest.mark.parametrize("path", ["/responses", "/chat/completions"])
@pytest.mark.parametrize(
    ("trait", "text"),
    [
        ("sse-anyway", SAID),
        ("gzip", SAID),
        ("big-300", "x" * 300 * 1024),
        ("utf8", "Grüße, 世界 🌍🚀 naïve Ω"),
        ("until-close", SAID),
        ("no-usage", SAID),
        ("noisy", SAID),
    ],
)
def test_odd_upstreams_serve_a_worker_too(stage: Gateway, path: str, trait: str, text: str) -> None:
    call = stage.respond if path == "/responses" else stage.converse
    answer = call(stage.flexible(trait), service_tier="flex")
    assert answer.status_code == 200, answer.text
    id = f"resp_{answer.headers['x-request-id']}"
    assert stage.shown(id)["output"][0]["content"][0]["text"] == text
    assert len(stage.charges(id)) == 1
    (log,) = stage.of(id).logs
    assert log.usage_source == ("estimated" if trait in ("no-usage", "sse-anyway") else "reported")
    assert log.prompt_tokens > 0
    assert log.completion_tokens > 0


# --- ended at once


@pytest.mark.parametrize("status", [400, 401, 403, 413, 422, 451])
def test_a_refusal_is_final_and_carries_the_upstreams_status(stage: Gateway, status: int) -> None:
    said = marker()
    answer = stage.respond(
        stage.flexible(f"fail-{status}"), said, background=True, service_tier="flex"
    )
    shown = stage.over(answer.json()["id"])
    assert shown["status"] == "failed"
    assert shown["error"]["code"] == f"http_{status}"
    assert len(stage.sent(said)) == 1
    assert stage.charges(shown["id"]) == []
    if status in (
        401,
        403,
    ):  # it was our credential that was refused: none of the caller's business
        assert SECRET not in json.dumps(shown)


@pytest.mark.parametrize(("status", "seen"), [(400, 400), (401, 502), (403, 502), (422, 422)])
@pytest.mark.parametrize("path", ["/responses", "/chat/completions"])
def test_a_held_caller_gets_the_refusal(stage: Gateway, path: str, status: int, seen: int) -> None:
    call = stage.respond if path == "/responses" else stage.converse
    assert_openai_error(call(stage.flexible(f"fail-{status}"), service_tier="flex"), seen)


def test_access_that_was_lost_ends_what_waits(stage: Gateway) -> None:
    model = stage.flexible("plain", alias="plain+lost")
    (soon,) = stage.all("SELECT now() + interval '0.7 seconds' AS at")
    id = insert(stage, model, not_before=soon.at)
    everyone = UUID(int=0)
    stage.admin("DELETE", f"/groups/{everyone}/models/{stage.model_id(model)}")
    shown = stage.over(id)
    assert shown["error"]["code"] == "http_403"
    assert stage.charges(id) == []


def test_access_granted_just_before_is_seen(stage: Gateway) -> None:
    """A worker believes a refusal only from a snapshot that is newer than the request."""
    model = stage.flexible("plain", alias="plain+new", everyone=False)
    id = insert(stage, model, not_before=stage.all("SELECT now() + interval '0.3 s' AS at")[0].at)
    stage.grant_model(model)
    assert stage.over(id)["status"] == "completed"


def test_a_key_that_is_revoked_later_stops_nothing_and_a_deleted_owner_does(stage: Gateway) -> None:
    model = stage.flexible("hold", alias="hold+one", batch_capacity=1)
    busy = stage.respond(model, background=True, service_tier="flex").json()["id"]
    stage.begun(busy)
    revoked, leaving = stage.account(), stage.account()
    ids = [
        stage.respond(model, by=who, background=True, service_tier="flex").json()["id"]
        for who in (revoked, leaving)
    ]
    stage.admin("DELETE", f"/users/{revoked.id}/api-keys/{revoked.key_id}")
    stage.admin("DELETE", f"/users/{leaving.id}")
    release_until_over(stage, busy, *ids)
    assert [stage.state(id) for id in ids] == ["completed", "canceled"]
    assert len(stage.charges(ids[0])) == 1
    # It ends with its account, without an answer and without a charge.
    ended = stage.of(ids[1])
    assert (ended.request.response_status, ended.charges) == (None, [])


def release_until_over(stage: Gateway, *ids: str) -> None:
    def over() -> bool:
        stage.upstream.release()
        return all(stage.state(id) in TERMINAL for id in ids)

    eventually(over)


def rule(action: str, purpose: str = "batch", **more: str) -> list[dict[str, Any]]:
    return [{"api_key_purpose": purpose, "action": {"type": action, **more}}]


@pytest.mark.parametrize("path", ["/responses", "/chat/completions"])
def test_a_rule_against_batches_stops_flex_and_leaves_realtime_alone(
    stage: Gateway, path: str
) -> None:
    model = stage.flexible("plain", alias="plain+no-batches", traffic_routing_rules=rule("deny"))
    call = stage.respond if path == "/responses" else stage.converse
    assert_openai_error(call(model, service_tier="flex"), 403)
    assert call(model).status_code == 200
    by_hand = stage.over(insert(stage, model))
    assert by_hand["error"]["code"] == "http_403"


def test_a_rule_against_realtime_does_not_stop_flex(stage: Gateway) -> None:
    model = stage.flexible("plain", alias="plain+flex", traffic_routing_rules=rule("deny", "realtime"))  # fmt: skip
    assert_openai_error(stage.respond(model), 403)
    assert stage.respond(model, service_tier="flex").status_code == 200


def test_a_redirected_flex_call_is_run_by_the_target_and_priced_as_it_was_asked(
    stage: Gateway,
) -> None:
    target = stage.flexible("echo")
    redirect = rule("redirect", target=target)
    model = stage.flexible("fail-500", alias="redirected", traffic_routing_rules=redirect)
    answer = stage.respond(model, "Say this", service_tier="flex")
    assert answer.status_code == 200, answer.text
    assert answer.json()["model"] == model
    assert answer.json()["output"][0]["content"][0]["text"] == "Say this"
    left = stage.of(answer.json()["id"])
    assert (left.request.model, left.request.routed_model) == (model, target)
    assert [charge.amount for charge in left.charges] == [cost(FLEX)]


# --- two workers


def test_two_workers_run_no_request_twice(stage: Gateway) -> None:
    said = marker()
    model = stage.flexible("slow-10", batch_capacity=50)
    made = [
        stage.respond(model, said, background=True, service_tier="flex").json()["id"]
        for _ in range(60)
    ]
    for id in made:
        assert stage.over(id)["status"] == "completed"
    assert len(stage.sent(said)) == 60
    owners = stage.all("SELECT daemon_id, count(*) FROM fusillade.requests WHERE model = %s GROUP BY 1", model)  # fmt: skip
    assert sum(row.count for row in owners) == 60


def test_a_models_concurrency_holds_over_all_workers(stage: Gateway) -> None:
    stage.upstream.reset()
    model = stage.flexible("hold", alias="hold+three", batch_capacity=3)
    made = [
        stage.respond(model, background=True, service_tier="flex").json()["id"] for _ in range(10)
    ]
    release_until_over(stage, *made)
    assert stage.upstream.active()["peak"] <= 3
    assert stage.upstream.active()["total"] == 10


def test_a_held_call_and_a_row_by_hand_share_the_queue(stage: Gateway) -> None:
    model = stage.flexible("slow-20", alias="slow+narrow", batch_capacity=1)
    by_hand = [insert(stage, model) for _ in range(5)]
    held = Held(lambda: stage.respond(model, service_tier="flex"))
    assert held.answer().status_code == 200
    for id in by_hand:
        assert stage.over(id)["status"] == "completed"


def test_what_became_of_requests_is_on_the_workers_pages(stage: Gateway) -> None:
    def shown(name: str, **labels: str) -> float:
        """The sum over both workers."""
        pages = [stage.session.get(f"{worker.url}/internal/metrics", timeout=10).text for worker in stage.service.workers]  # fmt: skip
        return sum(
            sample.value
            for page in pages
            for family in text_string_to_metric_families(page)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    well, badly = stage.flexible("plain", alias="well"), stage.flexible("fail-500", alias="badly")
    for id in (insert(stage, well), insert(stage, badly)):
        eventually(lambda id=id: stage.state(id) in TERMINAL)
    completed = "fusillade_requests_completed_total"
    assert (
        eventually(lambda: shown(completed, model=well, status="success", status_code="200")) == 1
    )
    assert eventually(lambda: shown(completed, model=badly, status="failure")) == 1
    assert shown("fusillade_http_status_retriable_total", model=badly, status_code="500") == 1 + MOST_RETRIES  # fmt: skip
    assert shown("fusillade_requests_retried_total", model=badly) == MOST_RETRIES
    assert shown("fusillade_retry_denied_total", model=badly) == 1
    assert shown("fusillade_request_duration_seconds_count", model=well) == 1
    assert shown("fusillade_retry_attempts_on_success_sum", model=well) == 0
    assert shown("gen_ai_server_request_duration_seconds_count", gen_ai_request_model=well) == 1
    assert shown("fusillade_claim_size_count") > 0
    assert shown("fusillade_heartbeat_duration_seconds_count") > 0


def test_nothing_is_left_over(stage: Gateway) -> None:
    eventually(lambda: not stage.leases())
    assert stage.all("SELECT FROM fusillade.ready") == []
    assert stage.all("SELECT FROM fusillade.delayed") == []
    assert stage.unbalanced() == []
