"""The realtime surface through real gunicorn and a real upstream, in open and in strict mode."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest
import requests

from tests.fake_upstream import SECRET, FakeUpstream
from tests.gateway import HELLO, UPSTREAM_KEY, Gateway, assert_openai_error, events, text_of
from tests.processes import eventually


@pytest.fixture(scope="module", params=["open", "strict"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def environ(environ: dict[str, str], mode: str) -> dict[str, str]:
    return environ | {"DWCTL_ONWARDS__STRICT_MODE": str(mode == "strict").lower()}


@pytest.fixture
def calls(seeded: Gateway) -> FakeUpstream:
    """The upstream with an empty memory."""
    seeded.upstream.reset()
    return seeded.upstream


# --- answers


def test_a_chat_call_is_answered_with_our_id(seeded: Gateway, mode: str) -> None:
    model = seeded.model("ok", alias="my-model")
    answer = seeded.chat(model)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert body["id"] == f"resp_{answer.headers['x-request-id']}"
    assert body["choices"][0]["message"]["content"] == "Hello there friend"
    assert body["usage"]["total_tokens"] == 12
    assert body["model"] == ("my-model" if mode == "strict" else "ok")


def test_a_chat_stream_flows_and_ends_with_done(seeded: Gateway) -> None:
    answer = seeded.chat(seeded.model("ok"), stream=True)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-accel-buffering"] == "no"
    found = list(events(answer))
    assert found[-1] == "[DONE]"
    assert text_of(found) == "Hello there friend"
    assert {chunk["id"] for chunk in found[:-1]} == {f"resp_{answer.headers['x-request-id']}"}


def test_the_usage_chunk_comes_only_to_those_who_asked(seeded: Gateway) -> None:
    model = seeded.model("ok")
    plain = list(events(seeded.chat(model, stream=True)))
    asked = list(
        events(seeded.chat(model, stream=True, body={"stream_options": {"include_usage": True}}))
    )
    assert not any(chunk.get("usage") for chunk in plain[:-1])
    assert asked[-2]["usage"]["prompt_tokens"] == 9


def test_pieces_arrive_while_the_upstream_still_works(seeded: Gateway, calls: FakeUpstream) -> None:
    answer = seeded.chat(seeded.model("hold-stream"), stream=True)
    arriving = events(answer)
    assert next(arriving)["choices"]
    assert calls.active()["active"] == 1
    calls.release()
    assert list(arriving)[-1] == "[DONE]"


def test_a_completion_keeps_the_id_of_the_upstream(seeded: Gateway) -> None:
    answer = seeded.post("/completions", {"model": seeded.model("ok"), "prompt": "Say hello"})
    assert answer.status_code == 200
    assert answer.json()["id"].startswith("cmpl-")
    assert answer.json()["choices"][0]["text"] == "Hello there friend"


def test_a_completion_stream_flows(seeded: Gateway) -> None:
    answer = seeded.post(
        "/completions", {"model": seeded.model("ok"), "prompt": "hi", "stream": True}, stream=True
    )
    found = list(events(answer))
    assert found[-1] == "[DONE]"
    assert "".join(c["text"] for e in found[:-1] for c in e["choices"]) == "Hello there friend"


@pytest.mark.parametrize("content", ["a text", ["two", "texts"], [1, 2, 3], [[1], [2]]])
def test_embeddings_take_texts_and_tokens(seeded: Gateway, content: Any) -> None:
    answer = seeded.post("/embeddings", {"model": seeded.model("ok"), "input": content})
    assert answer.status_code == 200, answer.text
    assert answer.json()["data"][0]["embedding"] == [0.25, -0.5]


def test_the_content_type_of_a_request_does_not_matter(seeded: Gateway) -> None:
    answer = seeded.chat(seeded.model("ok"), headers={"content-type": "text/plain"})
    assert answer.status_code == 200


def test_many_byte_characters_survive_in_both_directions(
    seeded: Gateway, calls: FakeUpstream
) -> None:
    text = "Grüße 世界 🌍\u2028"
    model = seeded.model("echo+split-utf8")
    messages = [{"role": "user", "content": text}]
    found = list(events(seeded.chat(model, stream=True, body={"messages": messages})))
    assert text_of(found) == text
    assert calls.seen()[0]["body"]["messages"] == messages


def test_compressed_answers_are_unpacked(seeded: Gateway) -> None:
    answer = seeded.chat(seeded.model("gzip"))
    assert answer.json()["choices"][0]["message"]["content"] == "Hello there friend"
    assert "content-encoding" not in answer.headers
    streamed = list(events(seeded.chat(seeded.model("gzip"), stream=True)))
    assert text_of(streamed) == "Hello there friend"


def test_a_large_answer_comes_whole(seeded: Gateway) -> None:
    body = seeded.chat(seeded.model("big-900")).json()
    assert len(body["choices"][0]["message"]["content"]) == 900 * 1024


# --- models


def test_models_are_listed_by_alias(seeded: Gateway) -> None:
    ours = {seeded.model("ok", alias="zebra"), seeded.model("ok", alias="an/alias with space")}
    listed = seeded.get("/models").json()
    assert listed["object"] == "list"
    aliases = [model["id"] for model in listed["data"]]
    assert aliases == sorted(aliases)
    assert ours <= set(aliases)
    assert set(listed["data"][0]) == {"id", "object", "created", "owned_by"}


def test_a_listed_model_says_whose_and_how_old_it_is(seeded: Gateway) -> None:
    began = int(time.time())
    ours = seeded.model("ok", metadata={"provider": "acme"})
    plain = seeded.model("ok", alias="of-nobody-in-particular")
    composite = seeded.composite(ours)
    models = {model["id"]: model for model in seeded.get("/models").json()["data"]}
    for alias, owner in ((ours, "acme"), (plain, "dwctl"), (composite, "dwctl")):
        found = models[alias]
        assert found == seeded.get(f"/models/{alias}").json()
        assert (found["object"], found["owned_by"]) == ("model", owner)
        # The database's clock and ours may differ by a little.
        assert began - 60 <= found["created"] <= int(time.time()) + 60


def test_composite_models_are_open_to_those_they_are_granted_to_whatever_they_are_made_of(
    seeded: Gateway,
) -> None:
    closed = seeded.model("ok", alias="closed-component", everyone=False)
    empty, made_of_closed = seeded.composite(), seeded.composite(closed)
    hidden = seeded.composite(seeded.model("ok"), everyone=False)
    eventually(lambda: seeded.chat(hidden).status_code == 403, 5)
    listed = {model["id"] for model in seeded.get("/models").json()["data"]}
    assert {empty, made_of_closed} <= listed
    assert {closed, hidden}.isdisjoint(listed)
    assert_openai_error(seeded.get(f"/models/{hidden}"), 404, "model_not_found")
    assert_openai_error(seeded.chat(hidden), 403, "model_access_denied")


@pytest.mark.parametrize(
    "alias",
    ["an/alias with space", "org/team/model:latest", "last/", "50%", "a%2Fb", "what?", "grüße/世界", "a+b", "a;b=c", "#1", "completions"],
)  # fmt: skip
def test_a_model_of_any_name_can_be_read_and_called(seeded: Gateway, alias: str) -> None:
    seeded.model("ok", alias=alias, wait=False)
    eventually(lambda: seeded.chat(alias).status_code == 200, 5)
    for path in (quote(alias), quote(alias, safe="")):
        answer = seeded.get(f"/models/{path}")
        assert (answer.status_code, answer.json()["id"]) == (200, alias), path


def test_models_of_other_groups_are_neither_listed_nor_readable(seeded: Gateway) -> None:
    alias = seeded.model("ok", alias="hidden", everyone=False)
    assert alias not in [model["id"] for model in seeded.get("/models").json()["data"]]
    assert_openai_error(seeded.get(f"/models/{alias}"), 404, "model_not_found")


def test_models_want_a_key(seeded: Gateway) -> None:
    assert_openai_error(seeded.get("/models", headers={}), 401)
    assert_openai_error(seeded.get("/models/ok", headers={}), 401)
    assert_openai_error(
        seeded.get("/models", headers={"Authorization": "Bearer sk-no"}), 401, "invalid_api_key"
    )


# --- what goes to the upstream, and what does not


def test_the_upstream_sees_its_own_model_name_and_our_credential(
    seeded: Gateway, calls: FakeUpstream
) -> None:
    model = seeded.model("ok", alias="public-name")
    seeded.chat(model, body={"temperature": 0.5, "x_unknown": {"kept": [1, None]}})
    (seen,) = calls.seen()
    assert seen["path"] == "/v1/chat/completions"
    assert seen["body"] == {
        "model": "ok",
        "messages": HELLO,
        "temperature": 0.5,
        "x_unknown": {"kept": [1, None]},
    }
    assert seen["headers"]["authorization"] == f"Bearer {UPSTREAM_KEY}"


def test_an_endpoint_can_have_a_header_of_its_own(seeded: Gateway, calls: FakeUpstream) -> None:
    endpoint = seeded.endpoint(
        seeded.upstream.url + "/",
        auth_header_name="X-Api-Key",
        auth_header_prefix="",
        api_key="raw-key",
    )
    seeded.chat(seeded.model("ok", alias="own-header", endpoint=endpoint))
    (seen,) = calls.seen()
    assert seen["headers"]["x-api-key"] == "raw-key"
    assert "authorization" not in seen["headers"]


@pytest.mark.parametrize("stream", [False, True])
def test_nothing_that_is_ours_or_the_callers_to_prove_reaches_the_upstream(
    seeded: Gateway, calls: FakeUpstream, stream: bool
) -> None:
    ours = {
        "x-fusillade-batch-id": str(uuid4()),
        "x-fusillade-batch-created-by": str(uuid4()),
        "x-onwards-response-id": f"resp_{uuid4()}",
        "x-onwards-model": "other",
        "x-doubleword-user": "admin@cast.example",
        "x-forwarded-for": "10.0.0.1",
        "x-api-key": "callers-other-key",
        "api-key": "callers-other-key",
        "cookie": "dwctl_session=secret",
        "model-override": seeded.model("ok"),
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "idempotency-key": unique_key(),
        "origin": "https://evil.example",
        "sec-fetch-site": "cross-site",
        "openai-organization": "org-callers",
        "openai-project": "proj-callers",
        "x-original-url": "/v1/admin",
        "x-http-method-override": "DELETE",
        "x-forwarded-proto": "https",
        "range": "bytes=0-1",
        "via": "1.1 callers",
        "x-custom": "theirs",
    }
    seeded.chat("ok", headers=ours | {"user-agent": "mine/1", "openai-beta": "x=v1"}, stream=stream)
    (seen,) = calls.seen()
    assert not set(ours) & set(seen["headers"])
    assert seeded.alice.key not in str(seen)
    assert seen["headers"]["openai-beta"] == "x=v1"
    assert seen["headers"]["user-agent"] == "mine/1"
    assert seen["headers"]["host"] == f"127.0.0.1:{calls.port}"
    assert seen["headers"]["content-type"] == "application/json"


def unique_key() -> str:
    return f"once-{uuid4()}"


def test_the_query_string_reaches_the_upstream_only_in_open_mode(
    seeded: Gateway, calls: FakeUpstream, mode: str
) -> None:
    answer = seeded.post(
        "/chat/completions?api-version=1", {"model": seeded.model("ok"), "messages": HELLO}
    )
    assert answer.status_code == 200
    (seen,) = calls.seen()
    wanted = "/v1/chat/completions" + ("" if mode == "strict" else "?api-version=1")
    assert seen["path"] == wanted


def test_a_header_asks_for_a_stream_as_workers_of_the_rust_product_do(
    seeded: Gateway, calls: FakeUpstream
) -> None:
    model, wanted = seeded.model("ok"), {"x-fusillade-stream": "true"}
    answer = seeded.chat(model, headers=wanted)
    assert text_of(list(events(answer))) == "Hello there friend"
    (seen,) = calls.seen()
    assert seen["body"]["stream"] is True
    assert seen["body"]["stream_options"] == {"include_usage": True}
    answer = seeded.respond(model, headers=wanted)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert seeded.chat(model, headers={"x-fusillade-stream": "false"}).json()["object"] == "chat.completion"  # fmt: skip


def test_the_service_tier_stays_here(seeded: Gateway, calls: FakeUpstream) -> None:
    assert seeded.chat(seeded.model("ok"), body={"service_tier": "priority"}).ok
    assert "service_tier" not in calls.seen()[0]["body"]


def test_headers_of_the_upstream_account_do_not_reach_the_caller(seeded: Gateway) -> None:
    for stream in (False, True):
        answer = seeded.chat(seeded.model("noisy"), stream=stream)
        names = {name.lower() for name in answer.headers}
        private = {"set-cookie", "alt-svc", "x-powered-by", "openai-organization", "retry-after"}
        assert not names & private
        assert not any(name.startswith("x-ratelimit") for name in names)
        assert answer.headers["openai-processing-ms"] == "12"
        assert answer.headers["x-upstream-request-id"].startswith("up-")


def test_the_model_override_header_chooses_the_model(seeded: Gateway, calls: FakeUpstream) -> None:
    seeded.model("echo")
    answer = seeded.chat(seeded.model("ok"), headers={"Model-Override": "echo"})
    assert answer.json()["choices"][0]["message"]["content"] == "Hello"
    assert calls.seen()[0]["body"]["model"] == "echo"


# --- internal headers from outside


def test_internal_headers_from_outside_change_nothing(seeded: Gateway) -> None:
    model = seeded.model("ok")
    first = seeded.chat(model)
    victim = seeded.left(first)
    forged = seeded.chat(
        model,
        headers={
            "x-fusillade-batch-id": str(victim.batch.id),
            "x-fusillade-batch-created-by": str(uuid4()),
            "x-fusillade-batch-completion-window": "24h",
            "x-fusillade-custom-id": "forged",
            "x-onwards-response-id": f"resp_{victim.id}",
            "x-onwards-endpoint": "/v1/other",
            "x-onwards-model": "other",
        },
    )
    assert forged.json()["id"] == f"resp_{forged.headers['x-request-id']}"
    left = seeded.left(forged)
    assert left.batch.created_by == str(seeded.alice.id)
    assert left.request.batch_id == left.id
    assert (left.template.path, left.request.model) == ("/v1/chat/completions", model)
    assert left.logs[0].fusillade_batch_id is None
    assert left.logs[0].custom_id is None
    assert left.logs[0].batch_sla == ""
    assert left.charges[0].amount == victim.charges[0].amount
    assert seeded.left(first) == victim


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_that_somebody_else_tracks_is_logged_and_charged_and_has_no_row(
    seeded: Gateway, stream: bool
) -> None:
    outer = str(uuid4())
    answer = seeded.chat(
        seeded.model("ok"), headers={"X-Fusillade-Request-Id": outer}, stream=stream
    )
    if stream:
        assert list(events(answer))[0]["id"].startswith("chatcmpl-")
    else:
        assert answer.json()["id"].startswith("chatcmpl-")
    left = seeded.left(answer)
    assert (left.request, left.batch, left.template) == (None, None, None)
    assert seeded.left(outer).request is None
    assert str(left.logs[0].fusillade_request_id) == outer
    assert len(left.charges) == 1


def test_a_tracking_header_that_is_no_id_still_means_no_row(seeded: Gateway) -> None:
    answer = seeded.chat(seeded.model("ok"), headers={"X-Fusillade-Request-Id": "nonsense"})
    assert answer.status_code == 200
    left = seeded.left(answer)
    assert left.request is None
    assert len(left.logs) == len(left.charges) == 1


def test_two_calls_with_the_same_tracking_header_are_both_charged(seeded: Gateway) -> None:
    headers = {"X-Fusillade-Request-Id": str(uuid4())}
    answers = [seeded.chat(seeded.model("ok"), headers=headers) for _ in range(2)]
    assert [len(seeded.left(answer).charges) for answer in answers] == [1, 1]


# --- modes


def test_strict_mode_names_the_wrong_field(seeded: Gateway, mode: str) -> None:
    answer = seeded.chat(seeded.model("ok"), body={"temperature": "hot"})
    if mode == "strict":
        error = assert_openai_error(answer, 400, "invalid_type")
        assert error["param"] == "temperature"
    else:
        assert answer.status_code == 200


def test_strict_mode_lets_nothing_of_an_untrusted_upstreams_error_out(
    seeded: Gateway, mode: str
) -> None:
    answer = seeded.chat(seeded.model("fail-500"))
    assert answer.status_code == 500
    assert (SECRET in answer.text) == (mode == "open")


def test_other_paths_are_unknown_or_want_a_model(seeded: Gateway, mode: str) -> None:
    """Open mode hands them on (tests/ai/test_forwarded.py), if it is told to which model."""
    for method in ("GET", "POST", "PUT", "DELETE"):
        answer = requests.request(
            method,
            f"{seeded.url}/ai/v1/audio/speech",
            headers=seeded.alice.authorization,
            timeout=10,
        )
        error = assert_openai_error(answer, 404 if mode == "strict" else 400)
        assert error["param"] == (None if mode == "strict" else "model")


def test_other_methods_on_a_known_path_are_refused(seeded: Gateway) -> None:
    answer = requests.get(
        f"{seeded.url}/ai/v1/chat/completions", headers=seeded.alice.authorization, timeout=10
    )
    assert answer.status_code in (404, 405)
    assert_openai_error(answer, answer.status_code)


@pytest.mark.parametrize("path", ["/responses", "/chat/completions", "/realtime", "/models"])
def test_a_websocket_is_not_spoken_and_said_so(seeded: Gateway, path: str) -> None:
    """By this status, and no other, Codex goes over to HTTP at once."""
    asks = {"Connection": "Upgrade", "Upgrade": "WebSocket", "Sec-WebSocket-Version": "13"}
    answer = seeded.get(path, headers=seeded.alice.authorization | asks)
    assert_openai_error(answer, 426, "websockets_not_supported")
    assert seeded.chat(seeded.model("ok"), headers=asks).ok


# --- traffic rules


def test_a_traffic_rule_can_block_and_redirect(seeded: Gateway) -> None:
    target = seeded.model("echo")
    blocked = seeded.model(
        "ok", traffic_routing_rules=[{"api_key_purpose": "realtime", "action": {"type": "deny"}}]
    )
    rule = {"api_key_purpose": "realtime", "action": {"type": "redirect", "target": target}}
    redirected = seeded.model("ok", traffic_routing_rules=[rule])
    assert_openai_error(seeded.chat(blocked), 403, "traffic_blocked")
    answer = seeded.chat(redirected)
    assert answer.json()["choices"][0]["message"]["content"] == "Hello"
    left = seeded.left(answer)
    assert (left.request.model, left.request.routed_model) == (redirected, target)
    assert left.logs[0].model == redirected


def test_nothing_stays_open_at_the_upstream(seeded: Gateway) -> None:
    eventually(lambda: seeded.upstream.active()["active"] == 0)


def test_a_stream_of_embeddings_is_none_and_said_so(seeded: Gateway) -> None:
    body = {"model": seeded.model("ok"), "input": "Hello", "stream": True}
    answer = seeded.post("/embeddings", body)
    assert answer.json()["object"] == "list"
    assert answer.headers["x-ignored-fields"] == "stream"
