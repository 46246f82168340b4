"""Tools through the door: what is left out is named on every kind of answer, and calls come back as what they were asked as."""

from __future__ import annotations

import orjson
import pytest
import requests

from tests.gateway import Gateway, Json, assert_openai_error, without_comments
from tests.protocols.openresponses.schema import check_response, events_of

WEATHER = {"type": "function", "name": "weather", "parameters": {"type": "object"}}
PATCH = {"type": "custom", "name": "patch", "description": "Edit"}
SEARCH = {"type": "web_search"}
MODES: dict[str, Json] = {
    "blocking": {},
    "stream": {"stream": True},
    "background": {"background": True},
    "background stream": {"background": True, "stream": True},
    "flex": {"service_tier": "flex"},
    "flex stream": {"service_tier": "flex", "stream": True},
    "flex background": {"service_tier": "flex", "background": True},
}


@pytest.fixture(scope="module")
def model(stage: Gateway) -> str:
    return stage.flexible("tools-2")


def final(stage: Gateway, answer: requests.Response) -> Json:
    """The object in which a call of any mode ends."""
    if answer.headers["content-type"].startswith("text/event-stream"):
        found: Json = events_of(without_comments(answer.content))[-1]["response"]
        return found
    if answer.status_code == 202:
        return stage.over(answer.json()["id"])
    whole: Json = answer.json()
    return whole


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_calls_come_back_and_what_was_left_out_is_named(
    stage: Gateway, model: str, mode: Json
) -> None:
    for web in stage.service.webs:
        answer = stage.respond(model, tools=[WEATHER, SEARCH, PATCH], url=web.url, **mode)
        assert answer.ok, answer.text
        assert answer.headers["x-ignored-fields"] == "tools[1] (web_search)"
        response = final(stage, answer)
        check_response(response)
        assert [tool["name"] for tool in response["tools"]] == ["weather", "patch"]
        function, custom = response["output"]
        assert (function["type"], function["name"], function["arguments"]) == ("function_call", "weather", '{"city":"Oslo"}')  # fmt: skip
        assert (custom["type"], custom["name"], custom["input"]) == ("custom_tool_call", "patch", "Oslo")  # fmt: skip
        assert stage.shown(response["id"]) == response


def test_a_second_turn_takes_both_results(stage: Gateway, model: str) -> None:
    first = stage.respond(model, tools=[WEATHER, PATCH]).json()
    results = [
        {"type": f"{item['type']}_output", "call_id": item["call_id"], "output": "done-by-tools"}
        for item in first["output"]
    ]
    asked = {"model": model, "tools": [WEATHER, PATCH], "input": [{"role": "user", "content": "Go"}, *first["output"], *results]}  # fmt: skip
    second = stage.post("/responses", asked)
    assert second.status_code == 200, second.text
    assert second.json()["output"][0]["type"] == "message"
    [seen] = stage.sent("done-by-tools")
    _, calls, *told = seen["body"]["messages"]
    assert [call["function"]["arguments"] for call in calls["tool_calls"]] == ['{"city":"Oslo"}', '{"input":"Oslo"}']  # fmt: skip
    assert [m["role"] for m in told] == ["tool", "tool"]


def test_a_second_turn_can_name_the_first(stage: Gateway, model: str) -> None:
    first = stage.respond(model, tools=[PATCH]).json()
    told = [
        {"type": "custom_tool_call_output", "call_id": item["call_id"], "output": "named-by-id"}
        for item in first["output"]
    ]
    references = [{"type": "item_reference", "id": item["id"]} for item in first["output"]]
    for more in (
        {"previous_response_id": first["id"], "input": told},
        {"input": [{"role": "user", "content": "Hello"}, *references, *told]},
    ):
        stage.upstream.reset()
        answer = stage.post("/responses", {"model": model, "tools": [PATCH], **more})
        assert answer.status_code == 200, answer.text
        [seen] = stage.sent("named-by-id")
        _, calls, *results = seen["body"]["messages"]
        assert [call["function"]["arguments"] for call in calls["tool_calls"]] == ['{"input":"Oslo"}'] * 2  # fmt: skip
        assert [result["role"] for result in results] == ["tool", "tool"]


@pytest.mark.parametrize("mode", [m for m in MODES if "stream" in m])
@pytest.mark.parametrize("tool", [WEATHER, PATCH], ids=lambda tool: tool["type"])
def test_nobody_hears_that_a_call_is_done_which_was_cut(
    stage: Gateway, tool: Json, mode: str
) -> None:
    model = stage.flexible("tools+cut", alias="cut-in-a-call")
    answer = stage.respond(model, tools=[tool], **MODES[mode])
    events = events_of(without_comments(answer.content))
    response = events[-1]["response"]
    check_response(response, sdk=False)
    assert response["status"] == "failed"
    id = response["id"]
    assert "response.output_item.added" in [event["type"] for event in events]
    again = stage.get(f"/responses/{id}?stream=true").content
    rest = stage.get(f"/responses/{id}?stream=true&starting_after=2").content
    for first, told in [(0, events), (0, events_of(again)), (3, events_of(rest))]:
        kinds = [event["type"].removeprefix("response.") for event in told]
        assert [kind for kind in kinds if kind.endswith(".done")] == []
        assert told[-1]["response"] == response
        assert [e["sequence_number"] for e in told] == list(range(first, first + len(told)))
    assert stage.shown(id) == response
    assert [item["status"] for item in response["output"]] == ["incomplete"]


def test_what_is_wrong_is_refused_before_it_runs(stage: Gateway, model: str) -> None:
    for more, param in [
        ({"tools": [SEARCH], "tool_choice": "required"}, "tool_choice"),
        ({"tools": [WEATHER, WEATHER]}, "tools[1].name"),
        ({"tools": [WEATHER, SEARCH], "tool_choice": SEARCH}, "tool_choice.type"),
    ]:
        for mode in MODES.values():
            answer = stage.respond(model, **more, **mode)
            assert assert_openai_error(answer, 400)["param"] == param


def test_a_model_may_refuse_what_nobody_here_can_run(stage: Gateway) -> None:
    model = stage.flexible("tools", alias="refuses-tools", refuse_unrunnable_tools=True)
    for mode in MODES.values():
        answer = stage.respond(model, tools=[WEATHER, SEARCH], **mode)
        assert assert_openai_error(answer, 400)["param"] == "tools[1].type"
    answer = stage.respond(model, tools=[WEATHER, PATCH])
    assert answer.status_code == 200, answer.text
    assert "x-ignored-fields" not in answer.headers


def test_an_upstream_that_speaks_responses_gets_all_tools(stage: Gateway) -> None:
    model = stage.flexible("plain", alias="speaks-responses", open_responses_adapter=False, refuse_unrunnable_tools=True)  # fmt: skip
    answer = stage.respond(model, "all tools", tools=[SEARCH, PATCH], tool_choice=SEARCH)
    assert answer.status_code == 200, answer.text
    assert "x-ignored-fields" not in answer.headers
    [seen] = stage.sent("all tools")
    assert seen["body"]["tools"] == [SEARCH, PATCH]
    assert seen["body"]["tool_choice"] == SEARCH


def test_items_of_other_providers_are_left_out_and_named(stage: Gateway, model: str) -> None:
    items = [
        {"role": "user", "content": "left-by-others"},
        {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "q"}},
        {"type": "compaction", "encrypted_content": "x"},
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "sun"}, {"type": "input_image", "image_url": "https://pictures.example/sun.png"}]},
    ]  # fmt: skip
    answer = stage.post("/responses", {"model": model, "input": items, "tools": [WEATHER]})
    assert answer.status_code == 200, answer.text
    named = "input[1] (web_search_call), input[2] (compaction)"
    assert answer.headers["x-ignored-fields"] == named
    [seen] = stage.sent("left-by-others")
    assert [m["role"] for m in seen["body"]["messages"]] == ["user", "assistant", "tool", "user"]


FUNCTIONS = [{"name": "weather", "parameters": {"type": "object"}}]
CALLED = {"name": "weather", "arguments": '{"city":"Oslo"}'}


@pytest.mark.parametrize("mode", [{}, {"stream": True}, {"service_tier": "flex"}, {"service_tier": "flex", "stream": True}], ids=str)  # fmt: skip
def test_legacy_functions_of_chat_pass_both_ways(stage: Gateway, mode: Json) -> None:
    model = stage.flexible("function")
    for web in stage.service.webs:
        said = f"legacy {web.url} {mode}"
        more = {"functions": FUNCTIONS, "function_call": {"name": "weather"}, **mode}
        answer = stage.converse(model, said, url=web.url, **more)
        content = answer.content
        assert answer.status_code == 200, content
        [seen] = stage.sent(said)
        assert seen["body"]["functions"] == FUNCTIONS
        assert seen["body"]["function_call"] == {"name": "weather"}
        if "stream" in mode:
            lines = content.splitlines()
            parts = [orjson.loads(line[6:]) for line in lines if line.startswith(b"data: {")]
            choices = [choice for part in parts for choice in part["choices"]]
            deltas = [choice["delta"].get("function_call") or {} for choice in choices]
            call = {n: "".join(d.get(n) or "" for d in deltas) for n in ("name", "arguments")}
        else:
            choices = answer.json()["choices"]
            call = choices[0]["message"]["function_call"]
        assert call == CALLED
        assert choices[-1]["finish_reason"] == "function_call"
        shown = stage.shown(f"resp_{answer.headers['x-request-id']}")
        check_response(shown)
        assert shown["tools"][0]["name"] == shown["output"][0]["name"] == "weather"


@pytest.mark.parametrize("mode", [{}, {"stream": True}], ids=str)
def test_an_upstream_of_the_older_form_answers_responses_with_a_call(
    stage: Gateway, mode: Json
) -> None:
    model = stage.flexible("function")
    for tool in (WEATHER, {**PATCH, "name": "weather"}):
        [item] = final(stage, stage.respond(model, tools=[tool], **mode))["output"]
        assert item["name"] == "weather"
        assert item["call_id"].startswith("call_")
        assert item["type"] == ("function_call" if tool is WEATHER else "custom_tool_call")
        told = {"type": f"{item['type']}_output", "call_id": item["call_id"], "output": "sunny"}
        asked = [{"role": "user", "content": "Go"}, item, told]
        second = stage.post("/responses", {"model": model, "tools": [tool], "input": asked})
        assert second.json()["output"][0]["type"] == "message"
