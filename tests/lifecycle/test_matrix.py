"""Every cell of tier x background x stream x endpoint: what the caller gets, what GET shows, what the rows and the ledger hold."""

from __future__ import annotations

import itertools
from typing import Any

import orjson
import pytest
import requests

from tests.gateway import (
    BATCH,
    FLEX,
    REALTIME,
    Gateway,
    Json,
    assert_openai_error,
    cost,
    frames,
    tariff,
    without_comments,
)
from tests.protocols.openresponses.schema import check_response, events_of

TIERS = (None, "auto", "default", "priority", "flex")
ENDPOINTS = ("/responses", "/chat/completions", "/completions", "/embeddings")
SAID = "Hello there friend"
ITEM_EVENTS = [
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
]


@pytest.fixture(scope="module")
def model(stage: Gateway) -> str:
    return stage.flexible("plain")


def body_of(endpoint: str, model: str, **more: Any) -> Json:
    asked = {"/responses": {"input": "Hello"}, "/embeddings": {"input": "Hello"},
             "/chat/completions": {"messages": [{"role": "user", "content": "Hello"}]},
             "/completions": {"prompt": "Hello"}}[endpoint]  # fmt: skip
    return {"model": model, **asked, **{k: v for k, v in more.items() if v is not None}}


def assert_rows(
    stage: Gateway, id: str, *, tier: str | None, endpoint: str, body: Json, output: int = 3
) -> None:
    """One completed row, one log row, one charge at the tier's price."""
    left = stage.of(id)
    flex = tier == "flex"
    assert left.request.state == "completed"
    assert left.request.service_tier == ("flex" if flex else "priority")
    assert left.request.response_status == 200
    assert left.request.daemon_id is not None
    assert left.batch.completion_window == ("1h" if flex else "0s")
    assert left.batch.created_by == str(stage.alice.id)
    assert left.batch.api_key_id == stage.alice.key_id
    assert left.batch.completed_at is not None
    assert left.template.path == f"/v1{endpoint}"
    assert orjson.loads(left.template.body) == body
    assert [log.status_code for log in left.logs] == [200]
    assert left.logs[0].total_tokens == 9 + output
    assert [c.amount for c in left.charges] == [cost(FLEX if flex else REALTIME, 9, output)]
    assert stage.leases() == []


# --- /responses


@pytest.mark.parametrize("tier", TIERS)
def test_a_blocking_response_is_the_one_object(
    stage: Gateway, model: str, tier: str | None
) -> None:
    body = body_of("/responses", model, service_tier=tier)
    answer = stage.post("/responses", body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    response = answer.json()
    check_response(response)
    assert response["id"] == f"resp_{answer.headers['x-request-id']}"
    assert response["status"] == "completed"
    assert response["background"] is False
    assert response["service_tier"] == shown_tier(tier)
    assert response["model"] == model
    assert response["output"][0]["content"][0]["text"] == SAID
    assert response["usage"]["total_tokens"] == 12
    assert stage.shown(response["id"]) == response
    assert_rows(stage, response["id"], tier=tier, endpoint="/responses", body=body)


@pytest.mark.parametrize("tier", TIERS)
def test_a_streamed_response_ends_with_the_object_that_get_shows(
    stage: Gateway, model: str, tier: str | None
) -> None:
    body = body_of("/responses", model, service_tier=tier, stream=True)
    answer = stage.post("/responses", body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = events_of(without_comments(answer.content))
    kinds = [kind for kind, _ in itertools.groupby(event["type"] for event in events)]
    queued = ["response.queued"] if tier == "flex" else []
    assert kinds == ["response.created", *queued, "response.in_progress", *ITEM_EVENTS]
    last = events[-1]["response"]
    check_response(last)
    assert last["service_tier"] == shown_tier(tier)
    assert {e["response"]["id"] for e in events if "response" in e} == {last["id"]}
    assert last["id"] == f"resp_{answer.headers['x-request-id']}"
    assert events[0]["response"]["status"] == ("queued" if tier == "flex" else "in_progress")
    said = "".join(e["delta"] for e in events if e["type"] == "response.output_text.delta")
    assert said == SAID
    assert stage.shown(last["id"]) == last
    assert_rows(stage, last["id"], tier=tier, endpoint="/responses", body=body)


@pytest.mark.parametrize("tier", TIERS)
def test_a_background_response_is_accepted_and_completes(
    stage: Gateway, model: str, tier: str | None
) -> None:
    body = body_of("/responses", model, service_tier=tier, background=True)
    answer = stage.post("/responses", body)
    assert answer.status_code == 202, answer.text
    accepted = answer.json()
    check_response(accepted)
    assert accepted["status"] == ("queued" if tier == "flex" else "in_progress")
    assert accepted["background"] is True
    assert accepted["service_tier"] == shown_tier(tier)
    assert accepted["id"] == f"resp_{answer.headers['x-request-id']}"
    done = stage.over(accepted["id"])
    check_response(done)
    assert done["status"] == "completed"
    assert done["output"][0]["content"][0]["text"] == SAID
    later = {"status", "completed_at", "output", "usage"}
    assert {k: v for k, v in done.items() if k not in later} == {
        k: v for k, v in accepted.items() if k not in later
    }
    assert_rows(stage, done["id"], tier=tier, endpoint="/responses", body=body)


@pytest.mark.parametrize("tier", ["priority", "flex"])
def test_a_background_stream_streams(stage: Gateway, model: str, tier: str) -> None:
    body = body_of("/responses", model, service_tier=tier, background=True, stream=True)
    answer = stage.post("/responses", body)
    assert answer.status_code == 200, answer.text
    last = events_of(without_comments(answer.content))[-1]
    assert last["type"] == "response.completed"
    assert last["response"]["background"] is True
    assert stage.shown(last["response"]["id"]) == last["response"]
    assert_rows(stage, last["response"]["id"], tier=tier, endpoint="/responses", body=body)


@pytest.mark.parametrize("tier", ["priority", "flex"])
def test_get_shows_a_background_response_as_it_was_accepted(stage: Gateway, tier: str) -> None:
    """Until it ends only its status changes."""
    model = stage.flexible("hold")
    for more in ({}, {"service_tier": tier}):
        wanted = {"background": True, "metadata": {"a": "b"}, "temperature": 0.5, **more}
        accepted = stage.respond(model, **wanted).json()
        stage.begun(accepted["id"])
        shown = stage.shown(accepted["id"])
        check_response(shown)
        assert shown == accepted | {"status": "in_progress"}
        stage.upstream.wait_active(1)
        stage.upstream.release()
        assert stage.over(accepted["id"])["status"] == "completed"


# --- /chat/completions, /completions, /embeddings


@pytest.mark.parametrize("tier", TIERS)
def test_a_blocking_chat_completion_can_be_fetched_as_a_response(
    stage: Gateway, model: str, tier: str | None
) -> None:
    body = body_of("/chat/completions", model, service_tier=tier)
    answer = stage.post("/chat/completions", body)
    assert answer.status_code == 200, answer.text
    completion = answer.json()
    assert completion["object"] == "chat.completion"
    assert completion["id"] == f"resp_{answer.headers['x-request-id']}"
    assert completion["model"] == model
    assert completion["choices"][0]["message"]["content"] == SAID
    shown = stage.shown(completion["id"])
    check_response(shown)
    assert shown["status"] == "completed"
    assert shown["output"][0]["content"][0]["text"] == SAID
    assert shown["usage"]["total_tokens"] == 12
    assert_rows(stage, completion["id"], tier=tier, endpoint="/chat/completions", body=body)


@pytest.mark.parametrize("usage", [None, {"include_usage": True}])
@pytest.mark.parametrize("tier", ["priority", "flex"])
def test_a_streamed_chat_completion_ends_with_done(
    stage: Gateway, model: str, tier: str, usage: Json | None
) -> None:
    body = body_of("/chat/completions", model, service_tier=tier, stream=True, stream_options=usage)
    answer = stage.post("/chat/completions", body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    kinds = frames(answer.content)
    assert kinds[-1] == "[DONE]"
    assert set(kinds[:-1]) <= {"comment", "chunk"}
    assert (kinds[0] == "comment") == (tier == "flex")
    chunks = chunks_of(answer)
    id = f"resp_{answer.headers['x-request-id']}"
    assert {chunk["id"] for chunk in chunks} == {id}
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    said = [c["delta"].get("content") or "" for chunk in chunks for c in chunk["choices"]]
    assert "".join(said) == SAID
    assert [c["finish_reason"] for chunk in chunks for c in chunk["choices"]][-1] == "stop"
    assert bool(chunks[-1].get("usage")) == bool(usage)
    shown = stage.shown(id)
    check_response(shown)
    assert shown["output"][0]["content"][0]["text"] == SAID
    assert_rows(stage, id, tier=tier, endpoint="/chat/completions", body=body)


@pytest.mark.parametrize("tier", ["priority", "flex"])
def test_embeddings_answer_in_one_piece(stage: Gateway, model: str, tier: str) -> None:
    body = body_of("/embeddings", model, service_tier=tier)
    answer = stage.post("/embeddings", body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["data"][0]["embedding"] == [0.25, -0.5]
    id = f"resp_{answer.headers['x-request-id']}"
    assert stage.shown(id)["status"] == "completed"
    assert_rows(stage, id, tier=tier, endpoint="/embeddings", body=body, output=0)


@pytest.mark.parametrize("stream", [False, True])
def test_legacy_completions_are_realtime(stage: Gateway, model: str, stream: bool) -> None:
    body = body_of("/completions", model, stream=stream)
    answer = stage.post("/completions", body)
    assert answer.status_code == 200, answer.text
    if stream:
        assert frames(answer.content)[-1] == "[DONE]"
    else:
        assert answer.json()["id"].startswith("cmpl-")
    id = f"resp_{answer.headers['x-request-id']}"
    assert_rows(stage, id, tier=None, endpoint="/completions", body=body)


# --- what is refused


@pytest.mark.parametrize("tier", [None, "flex"])
@pytest.mark.parametrize("endpoint", [e for e in ENDPOINTS if e != "/responses"])
def test_background_is_for_responses_only(
    stage: Gateway, model: str, endpoint: str, tier: str | None
) -> None:
    body = body_of(endpoint, model, background=True, service_tier=tier)
    error = assert_openai_error(stage.post(endpoint, body), 400)
    assert error["param"] == "background"


@pytest.mark.parametrize("tier", ["turbo", "batch", "scale", "background", ""])
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_an_unknown_tier_is_refused(stage: Gateway, model: str, endpoint: str, tier: str) -> None:
    answer = stage.post(endpoint, body_of(endpoint, model, service_tier=tier))
    assert assert_openai_error(answer, 400)["param"] == "service_tier"


@pytest.mark.parametrize(
    ("endpoint", "wrong", "param"),
    [
        ("/embeddings", {"service_tier": "flex", "stream": True}, "stream"),
        ("/completions", {"service_tier": "flex"}, "service_tier"),
        ("/responses", {"service_tier": 5}, "service_tier"),
        ("/chat/completions", {"service_tier": ["flex"]}, "service_tier"),
        ("/embeddings", {"service_tier": {"a": 1}}, "service_tier"),
        ("/responses", {"background": "yes"}, "background"),
        ("/responses", {"stream": "yes"}, "stream"),
        ("/chat/completions", {"stream": 1}, "stream"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(
    stage: Gateway, model: str, endpoint: str, wrong: Json, param: str
) -> None:
    before = len(stage.all("SELECT FROM fusillade.requests"))
    error = assert_openai_error(stage.post(endpoint, body_of(endpoint, model, **wrong)), 400)
    assert error["param"] == param
    assert len(stage.all("SELECT FROM fusillade.requests")) == before


@pytest.mark.parametrize(
    "mode", [{"service_tier": "flex"}, {"background": True}, {"service_tier": "flex", "stream": True}]
)  # fmt: skip
def test_what_nobody_may_run_is_refused_before_it_is_accepted(stage: Gateway, mode: Json) -> None:
    model, closed = stage.flexible("plain"), stage.flexible("closed", everyone=False)
    eventually_known = stage.flexible("known-after-closed")
    assert eventually_known
    poor = stage.account(credit=None)
    bad_key = {"Authorization": "Bearer sk-nobody"}
    assert_openai_error(stage.respond(model, headers=bad_key, **mode), 401)
    assert_openai_error(stage.respond("never-heard-of", **mode), 404)
    assert_openai_error(stage.respond(closed, **mode), 403)
    assert_openai_error(stage.respond(model, by=poor, **mode), 402)


# --- prices


@pytest.mark.parametrize(
    ("window", "price"),
    [("24h", REALTIME), ("1h", BATCH)],
    ids=["realtime, not that of another window", "of its window"],
)
def test_flex_costs_the_most_fitting_price(
    stage: Gateway, window: str, price: tuple[str, str]
) -> None:
    of_batches = tariff(*BATCH, api_key_purpose="batch", completion_window=window)
    model = stage.model("plain", price=None, tariffs=[tariff(*REALTIME), of_batches])
    answer = stage.respond(model, service_tier="flex")
    assert answer.status_code == 200, answer.text
    assert stage.charges(answer.json()["id"]) == [cost(price)]


def test_balances_are_the_sum_of_their_ledger(stage: Gateway) -> None:
    assert stage.unbalanced() == []


def shown_tier(tier: str | None) -> str:
    return tier if tier in ("priority", "flex") else "default"


def chunks_of(answer: requests.Response) -> list[Json]:
    data = [line[6:] for line in answer.content.split(b"\n") if line.startswith(b"data: ")]
    return [orjson.loads(one) for one in data if one != b"[DONE]"]
