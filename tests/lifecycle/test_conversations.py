"""Conversations that go on here: `previous_response_id` and `item_reference`, in every mode, through real processes."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.gateway import UNKNOWN, Account, Gateway, Json, assert_openai_error, marker, request_id
from tests.protocols.openresponses.schema import check_input_items, check_response, events_of
from tests.protocols.streams import data_of

MODES: dict[str, Json] = {
    "realtime": {},
    "stream": {"stream": True},
    "background": {"background": True},
    "flex": {"service_tier": "flex"},
    "flex stream": {"service_tier": "flex", "stream": True},
    "flex background": {"service_tier": "flex", "background": True},
}
TOOL = {"type": "function", "name": "get_weather", "parameters": {"type": "object"}}
SAID = "Hello there friend"


def ended(stage: Gateway, answer: Any, *, by: Any = events_of) -> Json:
    """The Response object in the end, however it was asked for. by: reads the events of a stream."""
    assert answer.ok, answer.text
    if answer.headers["content-type"].startswith("text/event-stream"):
        stream = b"".join(f + b"\n\n" for f in answer.content.split(b"\n\n") if f and f[:1] != b":")
        found: Json = [event for event in by(stream) if event != "[DONE]"][-1]["response"]
        return found
    found = answer.json()
    return stage.over(found["id"]) if answer.status_code == 202 else found


def told(stage: Gateway, said: str) -> list[Json]:
    """The messages of the last call with that text."""
    messages: list[Json] = stage.sent(said)[-1]["body"]["messages"]
    return messages


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_a_conversation_goes_on(stage: Gateway, mode: Json) -> None:
    model, mark = stage.flexible("plain"), marker()
    first = stage.respond(model, f"one {mark}", instructions="Not inherited.").json()
    second = ended(stage, stage.respond(model, "two", previous_response_id=first["id"], **mode))
    third = ended(
        stage,
        stage.respond(
            model, "three", previous_response_id=second["id"], instructions="New.", **mode
        ),
    )
    check_response(third)
    assert (third["status"], third["previous_response_id"]) == ("completed", second["id"])
    assert stage.shown(third["id"]) == third
    assert told(stage, mark) == [
        {"role": "system", "content": "New."},
        {"role": "user", "content": f"one {mark}"},
        {"role": "assistant", "content": SAID},
        {"role": "user", "content": "two"},
        {"role": "assistant", "content": SAID},
        {"role": "user", "content": "three"},
    ]
    # What is stored is what was asked: nothing twice.
    assert mark not in stage.of(third["id"]).template.body


def test_its_items_go_on_reasoning_and_calls_with_them(stage: Gateway) -> None:
    mark = marker()
    tools = [TOOL]
    first = stage.respond(stage.flexible("reasoning+tools-2"), mark, tools=tools).json()
    calls = [item for item in first["output"] if item["type"] == "function_call"]
    assert len(calls) == 2
    outputs = [
        {"type": "function_call_output", "call_id": call["call_id"], "output": f"out {n}"}
        for n, call in enumerate(calls)
    ]
    second = stage.respond(
        stage.flexible("plain"), outputs, previous_response_id=first["id"], tools=tools
    )  # type: ignore[arg-type]
    assert second.ok, second.text
    user, assistant, *results = told(stage, mark)
    assert user["content"] == mark
    assert [call["id"] for call in assistant["tool_calls"]] == [c["call_id"] for c in calls]
    assert [(r["tool_call_id"], r["content"]) for r in results] == [
        (c["call_id"], f"out {n}") for n, c in enumerate(calls)
    ]


def test_a_chat_can_be_continued_too(stage: Gateway) -> None:
    mark, model = marker(), stage.flexible("plain")
    parts = [
        {"type": "text", "text": mark},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA", "detail": "low"}},
    ]
    messages = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
    ]  # fmt: skip
    first = stage.post("/chat/completions", {"model": model, "messages": messages}).json()
    second = stage.respond(model, "And?", previous_response_id=first["id"])
    assert second.ok, second.text
    del messages[2]["content"]
    assert told(stage, mark) == [
        *messages,
        {"role": "assistant", "content": SAID},
        {"role": "user", "content": "And?"},
    ]
    listed = stage.get(f"/responses/{first['id']}/input_items?order=asc").json()["data"]
    assert [item["type"] for item in listed] == ["message", "message", "function_call", "function_call_output"]  # fmt: skip
    assert listed[1]["content"][1] == {
        "type": "input_image",
        "image_url": "data:image/png;base64,AA",
        "detail": "low",
    }


# --- items that are only named


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_items_that_were_issued_here_can_be_named(stage: Gateway, mode: Json) -> None:
    """As the Vercel AI SDK does in each later turn; also with items of the input, and without a type."""
    mark = marker()
    tools = [TOOL]
    first = ended(
        stage, stage.respond(stage.flexible("reasoning+tools"), mark, tools=tools, **mode)
    )
    reasoning, call = first["output"]
    [asked] = stage.get(f"/responses/{first['id']}/input_items").json()["data"]
    named = [
        {"type": "item_reference", "id": asked["id"]},
        {"type": "item_reference", "id": reasoning["id"]},
        {"id": call["id"]},
        {"type": "function_call_output", "call_id": call["call_id"], "output": "sunny"},
    ]
    answer = stage.respond(stage.flexible("plain"), named, tools=tools, **mode)  # type: ignore[arg-type]
    second = ended(stage, answer)
    assert second["status"] == "completed", second
    user, assistant, result = told(stage, mark)
    assert (user["role"], user["content"]) == ("user", mark)
    assert assistant["tool_calls"][0]["id"] == call["call_id"] == result["tool_call_id"]
    # The list shows the items themselves; a third turn stands on them, too.
    listed = stage.get(f"/responses/{second['id']}/input_items?order=asc").json()["data"]
    assert [item["id"] for item in listed[:3]] == [asked["id"], reasoning["id"], call["id"]]
    assert listed[2] == call
    third = stage.respond(stage.flexible("plain"), "And?", previous_response_id=second["id"])
    assert third.ok, third.text
    assert [m["role"] for m in told(stage, mark)] == ["user", "assistant", "tool", "assistant", "user"]  # fmt: skip


# --- upstream servers that speak the Responses API themselves


def relayed(stage: Gateway, name: str) -> str:
    return stage.flexible(name, alias=f"{name}, relayed", open_responses_adapter=False)


@pytest.mark.parametrize("web", [0, 1], ids=["open", "strict"])
@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_an_upstream_that_speaks_responses_gets_the_conversation_whole(
    stage: Gateway, mode: Json, web: int
) -> None:
    """It does not know our identifiers. Its own, of what it said itself, it gets back."""
    mark, url = marker(), stage.service.webs[web].url
    first = ended(stage, stage.respond(relayed(stage, "plain"), mark, **mode), by=data_of)
    adapted = stage.respond(stage.flexible("plain"), "two", previous_response_id=first["id"]).json()
    named = [{"type": "item_reference", "id": adapted["output"][0]["id"]}]
    given = [*named, {"role": "user", "content": "three"}]
    third = ended(
        stage,
        stage.respond(relayed(stage, "plain"), given, previous_response_id=adapted["id"], url=url, **mode),  # type: ignore[arg-type]
        by=data_of,
    )  # fmt: skip
    assert third["status"] == "completed"
    sent = stage.sent(mark)[-1]["body"]
    assert "previous_response_id" not in sent
    said = [(item["role"], item["content"]) for item in sent["input"]]
    assert [role for role, _ in said] == ["user", "assistant", "user", "assistant", "assistant", "user"]  # fmt: skip
    assert said[0][1] == mark
    assert (said[2][1], said[5][1]) == ("two", "three")
    assert sent["input"][1] == first["output"][0]
    assert "id" not in sent["input"][3]


def test_what_is_not_ours_is_left_to_such_an_upstream(stage: Gateway) -> None:
    """In open mode; in strict mode everything that is sent was judged here."""
    model = relayed(stage, "plain")
    for members in (
        {"previous_response_id": "resp_of_theirs"},
        {"input": [{"type": "item_reference", "id": "msg_of_theirs"}]},
    ):
        mark = marker()
        body = {"model": model, "input": "Hi", "user": mark, **members}
        assert stage.post("/responses", body).ok
        sent = stage.sent(mark)[-1]["body"]
        assert {name: sent[name] for name in members} == members
        strict = stage.post("/responses", body, url=stage.service.webs[1].url)
        assert strict.status_code == 404, strict.text
        ours = stage.post("/responses", {**body, "previous_response_id": f"resp_{UNKNOWN}"})
        assert ours.status_code == 404, ours.text


# --- how much that is


@pytest.mark.parametrize("adapted", [True, False], ids=["adapted", "relayed"])
def test_input_tokens_are_counted_where_the_server_can(stage: Gateway, adapted: bool) -> None:
    name = "plain+tokenize" if adapted else "other+tokenize"
    model = stage.flexible(name, alias=name, open_responses_adapter=adapted)
    first = stage.respond(model, "one two three").json()["id"]
    mark = marker()
    body = {"model": model, "input": f"four {mark}", "previous_response_id": first, "tools": [TOOL]}
    answer = stage.post("/responses/input_tokens", body)
    assert answer.ok, answer.text
    [seen] = stage.sent(mark)
    assert answer.json() == {
        "object": "response.input_tokens",
        "input_tokens": len(seen["raw"].split()),
    }
    assert seen["path"] == ("/tokenize" if adapted else "/v1/responses/input_tokens")
    assert "one two three" in seen["raw"]
    assert seen["body"]["tools"]
    assert stage.post("/responses/input_tokens", {"model": model}).ok


def test_counting_is_a_call_to_limits(stage: Gateway) -> None:
    limited = stage.model("ok+tokenize", requests_per_second=0.001, burst_size=1)
    body = {"model": limited, "input": "Hello"}
    assert stage.post("/responses/input_tokens", body).ok
    error = assert_openai_error(stage.post("/responses/input_tokens", body), 429)
    assert error["code"] == "rate_limit"


def test_input_tokens_are_not_guessed(stage: Gateway) -> None:
    model, mark = stage.flexible("plain"), marker()
    body = {"model": model, "input": mark}
    for _ in range(3):
        error = assert_openai_error(stage.post("/responses/input_tokens", body), 404)
        assert error["code"] == "input_tokens_not_supported"
    assert len(stage.sent(mark)) == 2, "a server without it is asked once at each place"
    broken = {"model": stage.flexible("fail-500"), "input": "a"}
    assert_openai_error(stage.post("/responses/input_tokens", broken), 502)
    for wrong, status in [({"input": "a"}, 400), ({**body, "input": 5}, 400), ({**body, "model": "none"}, 404), ({**body, "previous_response_id": f"resp_{UNKNOWN}"}, 404)]:  # fmt: skip
        assert_openai_error(stage.post("/responses/input_tokens", wrong), status)
    assert stage.post("/responses/input_tokens", body, headers={"Authorization": ""}).status_code == 401  # fmt: skip


def test_compaction_is_not_there(stage: Gateway) -> None:
    answer = stage.post("/responses/compact", {"model": stage.flexible("plain"), "input": "a"})
    assert assert_openai_error(answer, 404)["code"] == "not_supported"


def test_a_conversation_is_cut_to_what_its_model_has_room_for(stage: Gateway) -> None:
    model = stage.flexible("plain+short", metadata={"extra": {"context_length": 400}})
    mark, id = marker(), None
    for n in range(4):
        more = {"previous_response_id": id} if id else {}
        answer = stage.respond(model, f"{mark} {n} " + "long " * 80, truncation="auto", **more)
        assert answer.ok, answer.text
        assert "x-ignored-fields" not in answer.headers
        id = answer.json()["id"]
    roles = [message["role"] for message in told(stage, mark)]
    assert 1 < len(roles) < 7
    assert roles[0] == roles[-1] == "user"
    plain = stage.respond(stage.flexible("plain"), "Hi", truncation="auto")
    assert plain.headers["x-ignored-fields"] == "truncation"


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_a_server_that_wants_earlier_reasoning_back_gets_it(stage: Gateway, mode: Json) -> None:
    """DeepSeek and Kimi refuse a conversation with tool calls without it; others refuse one with it."""
    for name, wants in (("reasoning+tools+back", True), ("reasoning+tools", False)):
        extra = {"extra": {"reasoning_input": "reasoning_content"}} if wants else {}
        model, mark = stage.flexible(name, metadata=extra), marker()
        first = ended(stage, stage.respond(model, mark, tools=[TOOL], **mode))
        thought, call = first["output"]
        assert (thought["type"], call["type"]) == ("reasoning", "function_call")
        result = {"type": "function_call_output", "call_id": call["call_id"], "output": "7"}
        more = {"previous_response_id": first["id"], "tools": [TOOL], **mode}
        assert ended(stage, stage.respond(model, [result], **more))["status"] == "completed"
        user, called, *_ = told(stage, mark)
        assert (user["content"], called["role"]) == (mark, "assistant")
        text = thought["content"][0]["text"]
        assert called.get("reasoning_content") == (text if wants else None)


# --- members that are not ours


def test_unknown_members_go_on_in_open_mode_and_are_named_in_strict_mode(stage: Gateway) -> None:
    mark, model = marker(), stage.flexible("plain")
    others = {"top_k": 5, "chat_template_kwargs": {"enable_thinking": False}, "Messages": [], "messages": [], "Model": "x"}  # fmt: skip
    first = stage.respond(model, mark, **others)
    assert first.ok, first.text
    sent = stage.sent(mark)[-1]["body"]
    assert (sent["top_k"], sent["chat_template_kwargs"]) == (5, {"enable_thinking": False})
    assert sent["messages"] == [{"role": "user", "content": mark}]
    assert not {"Messages", "Model"} & sent.keys()
    assert first.headers["x-ignored-fields"] == "Messages, Model"
    strict = stage.respond(model, mark, url=stage.service.webs[1].url, **others)
    assert strict.ok, strict.text
    assert not {"top_k", "chat_template_kwargs", "Messages"} & stage.sent(mark)[-1]["body"].keys()
    named = set(strict.headers["x-ignored-fields"].split(", "))
    assert named == {"top_k", "chat_template_kwargs", "Messages", "messages", "Model"}


def test_what_an_agent_says_of_itself_goes_to_no_chat_upstream(stage: Gateway) -> None:
    mark, model = marker(), stage.flexible("plain")
    said = {"client_metadata": {"session_id": "s", "workspaces": '{"/home/me/secret":{}}'}}
    answer = stage.respond(model, mark, **said)
    assert answer.ok, answer.text
    assert stage.sent(mark)[-1]["body"].keys() == {"model", "messages"}
    assert answer.headers["x-ignored-fields"] == "client_metadata"


# --- what cannot be continued


@pytest.fixture(scope="module")
def bob(stage: Gateway) -> Account:
    return stage.account()


def unknown_ids(stage: Gateway, bob: Account) -> dict[str, str]:
    model = stage.flexible("plain")
    deleted = stage.respond(model).json()["id"]
    stage.delete(deleted)
    return {
        "of nobody": f"resp_{UNKNOWN}",
        "nonsense": "resp_1",
        "OpenAI's": "resp_68a1f0c0b1c481a0b8d5f6c2e3a4b5c60f1e2d3c4b5a6978",
        "of somebody else": stage.respond(model, by=bob).json()["id"],
        "deleted": deleted,
        "not stored": stage.respond(model, store=False).json()["id"],
        "no id": "",
        "not printable": "resp_\n\u0000",
        "long": "resp_" + "a" * 100_000,
    }


@pytest.mark.parametrize("web", [0, 1], ids=["open", "strict"])
@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_what_is_not_the_callers_is_not_there(
    stage: Gateway, bob: Account, mode: Json, web: int
) -> None:
    model, url = stage.flexible("plain"), stage.service.webs[web].url
    for what, id in unknown_ids(stage, bob).items():
        answer = stage.respond(model, previous_response_id=id, url=url, **mode)
        error = assert_openai_error(answer, 404, "previous_response_not_found")
        assert error["param"] == "previous_response_id", what
        assert len(error["message"]) < 300
        item = id.replace("resp_", "msg_").replace("-", "") + "_0"
        named = [{"role": "user", "content": "a"}, {"type": "item_reference", "id": item}]
        answer = stage.respond(model, named, url=url, **mode)  # type: ignore[arg-type]
        error = assert_openai_error(answer, 404, "item_not_found")
        assert error["param"] == "input[1]", what


def test_what_has_no_answer_cannot_be_continued(stage: Gateway) -> None:
    model = stage.flexible("plain")
    running = stage.respond(stage.flexible("hold"), background=True).json()["id"]
    answer = stage.respond(model, previous_response_id=running)
    assert assert_openai_error(answer, 409)["code"] == "previous_response_in_progress"
    assert answer.headers["retry-after"]
    assert stage.cancel(running).json()["status"] == "cancelled"
    failed = stage.respond(stage.flexible("fail-400"), background=True).json()["id"]
    assert stage.over(failed)["status"] == "failed"
    for id in (running, failed):
        error = assert_openai_error(stage.respond(model, previous_response_id=id), 400)
        assert error["code"] == "previous_response_not_completed"
        assert error["param"] == "previous_response_id"


def test_a_conversation_with_a_gap_is_refused(stage: Gateway) -> None:
    model = stage.flexible("plain")
    ids: list[str] = []
    for said in ("one", "two", "three"):
        more = {"previous_response_id": ids[-1]} if ids else {}
        ids.append(stage.respond(model, said, **more).json()["id"])
    stage.delete(ids[1])
    error = assert_openai_error(stage.respond(model, previous_response_id=ids[2]), 404)
    assert error["code"] == "previous_response_not_found"
    assert ids[1] in error["message"]


def test_what_is_deleted_while_a_request_waits_is_told_to_no_model(stage: Gateway) -> None:
    mark = marker()
    first = stage.respond(stage.flexible("plain"), mark).json()["id"]
    busy = stage.flexible("plain+busy")
    stage.execute(
        "INSERT INTO fusillade.model_slots (model) VALUES (%s) ON CONFLICT DO NOTHING", busy
    )
    with stage.locked("SELECT FROM fusillade.model_slots WHERE model = %s FOR UPDATE", busy):
        waiting = stage.respond(busy, "two", previous_response_id=first, service_tier="flex", background=True).json()["id"]  # fmt: skip
        assert stage.delete(first).ok
    ended_as = stage.over(waiting)
    assert ended_as["status"] == "failed"
    assert ended_as["error"]["code"] == "http_404"
    assert first in ended_as["error"]["message"]
    assert stage.charges(waiting) == []
    assert len(stage.sent(mark)) == 1


def test_links_that_disagree_with_the_request_do_not_count(stage: Gateway) -> None:
    """Rows by hand have no link, or a wrong one: what they say in their request is followed."""
    mark, model = marker(), stage.flexible("plain")
    first = stage.respond(model, mark).json()["id"]
    other = stage.respond(model, "other").json()["id"]
    second = stage.respond(model, "two \u0000", previous_response_id=first).json()["id"]
    for metadata in ("{}", orjson.dumps({"continues": str(request_id(other))}).decode()):
        stage.execute(
            "UPDATE fusillade.batches SET metadata = %s WHERE id = %s", metadata, request_id(second)
        )
        assert stage.respond(model, "three", previous_response_id=second).ok
        assert [m["content"] for m in told(stage, mark)][::2] == [mark, "two \u0000", "three"]
    # One that continues itself has no end.
    stage.execute(
        "UPDATE fusillade.request_templates SET body = replace(body, %s, %s) WHERE id = %s", first, second, request_id(second)
    )  # fmt: skip
    error = assert_openai_error(stage.respond(model, previous_response_id=second), 400)
    assert error["code"] == "conversation_too_long"


def test_a_small_request_is_not_made_large_by_naming_the_same_again_and_again(
    stage: Gateway,
) -> None:
    mark, model = marker(), stage.flexible("plain")
    text = "many words " * 50_000
    first = stage.respond(model, text).json()["id"]
    (item,) = stage.get(f"/responses/{first}/input_items").json()["data"]
    named = [{"type": "item_reference", "id": item["id"]}]
    few = stage.post(
        "/responses", {"model": model, "input": [*named * 3, {"role": "user", "content": mark}]}
    )
    assert few.ok, few.text
    assert [m["content"] for m in told(stage, mark)] == [text, text, text, mark]
    continuing = {"previous_response_id": few.json()["id"]}
    for more in ({}, continuing, {"service_tier": "flex"}):
        again = stage.post("/responses", {"model": model, "input": named * 70, **more})
        assert assert_openai_error(again, 400)["code"] == "conversation_too_long"


# --- what went in


def test_input_items_are_listed_in_pages(stage: Gateway, bob: Account) -> None:
    given = [{"role": "user", "content": f"n{n}"} for n in range(25)]
    id = stage.respond(stage.flexible("plain"), given).json()["id"]  # type: ignore[arg-type]
    path = f"/responses/{id}/input_items"

    def listed(query: str) -> Json:
        answer = stage.get(path + query)
        assert answer.ok, answer.text
        found: Json = answer.json()
        check_input_items(found)
        return found

    first = listed("")
    texts = [item["content"][0]["text"] for item in first["data"]]
    assert texts == [f"n{n}" for n in range(24, 4, -1)]
    assert first["has_more"]
    rest = listed(f"?after={first['last_id']}&limit=100&include=message.output_text.logprobs")
    assert [item["content"][0]["text"] for item in rest["data"]] == ["n4", "n3", "n2", "n1", "n0"]
    assert not rest["has_more"]
    up = listed("?order=asc&limit=2")
    assert [item["content"][0]["text"] for item in up["data"]] == ["n0", "n1"]
    assert up["first_id"] == rest["last_id"]
    assert listed("?order=asc&limit=2") == up
    for query, param in [("limit=0", "limit"), ("limit=101", "limit"), ("limit=x", "limit"), ("order=up", "order"), ("after=msg_1", "after")]:  # fmt: skip
        assert assert_openai_error(stage.get(f"{path}?{query}"), 400)["param"] == param
    assert stage.get(path, by=bob).status_code == 404
    assert stage.get(f"/responses/resp_{UNKNOWN}/input_items").status_code == 404
    assert stage.get("/responses/x/input_items").status_code == 404
    assert stage.get(path, headers={}).status_code == 401
    assert stage.get(path, headers=stage.alice.session).ok
