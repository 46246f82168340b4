"""Tools where coding agents put them: in namespaces, and in the input."""

from uuid import UUID

import orjson
import pytest

from dwctl.protocols.asked import Asked
from dwctl.protocols.disclosure import Disclosure
from dwctl.protocols.errors import InvalidRequest
from dwctl.protocols.openresponses.request import left_out, parse, to_chat
from dwctl.protocols.surfaces import RESPONSES
from tests.protocols.openresponses.samples import skeleton
from tests.protocols.openresponses.schema import check_response, events_of
from tests.protocols.streams import chunk, sse

EXEC = {"type": "custom", "name": "exec", "description": "Run it"}
WAIT = {"type": "function", "name": "wait", "parameters": {"type": "object"}}
READ = {"type": "function", "name": "read"}
CORE = {"type": "namespace", "name": "functions", "tools": [EXEC, WAIT]}
FILES = {"type": "namespace", "name": "mcp__fs", "description": "Files", "tools": [READ]}
ADDED = {"type": "additional_tools", "role": "developer", "id": "at_1", "tools": [CORE, FILES, {"type": "web_search"}]}  # fmt: skip
USER = {"role": "user", "content": "Hi"}
FLAT = ["exec", "wait", "mcp__fs__read"]


def asked(*items, **members):
    return {"model": "m", "input": [*items, USER], **members}


def names(chat):
    return [tool["function"]["name"] for tool in chat["tools"]]


@pytest.mark.parametrize("body", [asked(ADDED), asked(tools=ADDED["tools"])], ids=["in the input", "as tools"])  # fmt: skip
def test_tools_are_offered_under_flat_names_and_shown_as_they_were_declared(body):
    chat = to_chat(parse(body))
    assert names(chat) == FLAT
    assert chat["messages"] == [USER]
    assert skeleton(body)["tools"] == [CORE | {"description": "", "tools": [EXEC, shown(WAIT)]}, FILES | {"tools": [shown(READ)]}]  # fmt: skip
    [left] = left_out(body)
    assert left.endswith("tools[2] (web_search)")
    with pytest.raises(InvalidRequest) as refused:
        parse(body, refuses_unrunnable_tools=True)
    assert refused.value.param == left.split()[0] + ".type"


def shown(tool):
    return {"description": None, "parameters": None, "strict": None, **tool}


def treatment(body):
    request = Asked(RESPONSES, orjson.dumps(body), body, "m", UUID(int=7), 100.5)
    return RESPONSES.treat(request, Disclosure(strict=True), adapted=True)


CALLS = {
    "exec": ({"input": "ls"}, {"type": "custom_tool_call", "name": "exec", "input": "ls"}),
    "wait": ({}, {"type": "function_call", "name": "wait", "arguments": "{}"}),
    "mcp__fs__read": ({}, {"type": "function_call", "name": "read", "namespace": "mcp__fs", "arguments": "{}"}),
    "unknown__one": ({}, {"type": "function_call", "name": "unknown__one", "arguments": "{}"}),
}  # fmt: skip


@pytest.mark.parametrize(("flat", "call"), CALLS.items(), ids=CALLS)
def test_a_call_comes_back_as_its_tool_was_declared(flat, call):
    given, expected = call
    function = {"name": flat, "arguments": orjson.dumps(given).decode()}
    part = {"index": 0, "id": "c1", "type": "function", "function": function}
    message = {"role": "assistant", "content": None, "tool_calls": [part]}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    whole = treatment(asked(ADDED)).complete(orjson.dumps({"choices": [choice]})).body
    [item] = orjson.loads(whole)["output"]
    assert item.items() >= expected.items()
    assert ("namespace" in item) == ("namespace" in expected)

    stream = treatment(asked(ADDED)).stream()
    out = stream.feed(sse([chunk({"tool_calls": [part]}), chunk({}, "tool_calls")]))
    events = events_of(out + stream.finish())
    check_response(events[-1]["response"], sdk=True)
    assert events[-1]["response"]["output"] == [item]
    told = {e["item"].get("namespace") for e in events if e["type"].startswith("response.output_item")}  # fmt: skip
    assert told == {expected.get("namespace")}


def test_earlier_calls_go_upstream_under_the_names_that_the_model_knows():
    call = {"type": "function_call", "call_id": "c1", "namespace": "mcp__fs", "name": "read", "arguments": "{}"}  # fmt: skip
    core = {"type": "function_call", "call_id": "c2", "namespace": "functions", "name": "wait", "arguments": "{}"}  # fmt: skip
    sent = to_chat(parse(asked(ADDED, call, core)))["messages"][0]["tool_calls"]
    assert [each["function"]["name"] for each in sent] == ["mcp__fs__read", "wait"]


def test_a_choice_names_a_tool_in_its_namespace():
    choice = {"type": "function", "name": "read", "namespace": "mcp__fs"}
    body = asked(ADDED, tool_choice=choice)
    assert to_chat(parse(body))["tool_choice"]["function"]["name"] == "mcp__fs__read"
    assert skeleton(body)["tool_choice"] == choice
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [choice, EXEC]}
    assert names(to_chat(parse(asked(ADDED, tool_choice=allowed)))) == ["exec", "mcp__fs__read"]
    with pytest.raises(InvalidRequest) as refused:
        parse(asked(ADDED, tool_choice={"type": "function", "name": "read"}))
    assert refused.value.param == "tool_choice.name"


def test_tools_that_are_sent_again_take_the_place_of_earlier_ones():
    again = {**ADDED, "tools": [{**CORE, "tools": [{**WAIT, "description": "Longer"}]}]}
    tools = to_chat(parse(asked(ADDED, again)))["tools"]
    assert [tool["function"]["name"] for tool in tools] == FLAT
    assert tools[1]["function"]["description"] == "Longer"
    longer = shown({**WAIT, "description": "Longer"})
    functions = CORE | {"description": "", "tools": [EXEC, longer]}
    assert skeleton(asked(ADDED, again, ADDED, again))["tools"] == [functions, FILES | {"tools": [shown(READ)]}]  # fmt: skip
    assert skeleton(asked({**ADDED, "tools": [EXEC]}, {**ADDED, "tools": [WAIT, EXEC]}))["tools"] == [EXEC, shown(WAIT)]  # fmt: skip


def test_tools_of_earlier_turns_are_offered_and_their_calls_known():
    """They are in the conversation that is continued, and may be of any shape: another upstream may have had that turn."""
    odd = {"type": "additional_tools", "tools": [5, {"type": "namespace"}, {"type": "function", "parameters": 5}, {"type": "namespace", "name": "n", "tools": [{"type": "custom"}]}, {"type": "namespace", "name": "n", "tools": 5}]}  # fmt: skip
    body = asked()
    told = {**body, "input": [odd, ADDED, USER]}
    chat = to_chat(parse(body).with_items(told["input"]))
    assert names(chat) == FLAT
    request = Asked(RESPONSES, b"", body, "m", UUID(int=7), 100.5, told=told)
    assert [tool["name"] for tool in request.skeleton()["tools"]] == ["functions", "mcp__fs"]


WRONG = {
    "no name": ({"type": "namespace", "tools": []}, "tools[0].name"),
    "no tools": ({"type": "namespace", "name": "n"}, "tools[0].tools"),
    "a function without a name": ({"type": "namespace", "name": "n", "tools": [{"type": "function"}]}, "tools[0].tools[0].name"),
    "a namespace in it": ({"type": "namespace", "name": "n", "tools": [CORE]}, "tools[0].tools[0].type"),
    "one name twice": ({"type": "namespace", "name": "n", "tools": [READ, READ]}, "tools[0].tools[1].name"),
}  # fmt: skip


@pytest.mark.parametrize(("tool", "param"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_in_a_namespace_is_named(tool, param):
    with pytest.raises(InvalidRequest) as refused:
        parse(asked(tools=[tool]))
    assert refused.value.param == param
