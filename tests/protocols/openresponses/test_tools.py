import pytest

from dwctl.protocols.errors import InvalidRequest
from dwctl.protocols.openresponses.request import left_out, parse, to_chat
from tests.protocols.openresponses.samples import skeleton

F = {"type": "function", "name": "f"}
G = {"type": "function", "name": "g"}
PATCH = {"type": "custom", "name": "apply_patch", "description": "Edit files"}
SEARCH = {"type": "web_search"}
UNRUNNABLE = {
    "web_search": SEARCH,
    "web_search_preview": {"type": "web_search_preview", "search_context_size": "low"},
    "web_search_2025_08_26": {"type": "web_search_2025_08_26"},
    "file_search": {"type": "file_search", "vector_store_ids": ["v"]},
    "mcp": {"type": "mcp", "server_label": "s", "server_url": "u"},
    "computer": {"type": "computer"},
    "computer_use_preview": {"type": "computer_use_preview", "display_width": 1},
    "code_interpreter": {"type": "code_interpreter", "container": {"type": "auto"}},
    "image_generation": {"type": "image_generation"},
    "local_shell": {"type": "local_shell"},
    "shell": {"type": "shell"},
    "apply_patch": {"type": "apply_patch"},
    "tool_search": {"type": "tool_search"},
    "hosted_tool": {"type": "hosted_tool", "name": "x"},
    "programmatic_tool_calling": {"type": "programmatic_tool_calling"},
    "never heard of": {"type": "smell", "strength": 5},
}


def asked(*given, **members):
    return {"model": "m", "input": "Hi", "tools": list(given), **members}


def sent(body):
    chat = to_chat(parse(body))
    return {name: chat[name] for name in ("tools", "tool_choice", "parallel_tool_calls") if name in chat}  # fmt: skip


def names(chat):
    return [tool["function"]["name"] for tool in chat["tools"]]


@pytest.mark.parametrize("tool", UNRUNNABLE.values(), ids=UNRUNNABLE)
def test_a_tool_that_nobody_here_can_run_is_left_out_and_named_or_refused(tool):
    body = asked(F, tool, G)
    assert names(sent(body)) == ["f", "g"]
    assert left_out(body) == [f"tools[1] ({tool['type']})"]
    assert [shown["name"] for shown in skeleton(body)["tools"]] == ["f", "g"]
    with pytest.raises(InvalidRequest) as refused:
        parse(body, refuses_unrunnable_tools=True)
    assert (refused.value.param, refused.value.code) == ("tools[1].type", "invalid_value")


def test_where_all_is_left_out_nothing_is_sent():
    assert sent(asked(SEARCH, tool_choice="auto", parallel_tool_calls=False)) == {}


def test_a_custom_tool_is_sent_as_a_function_and_shown_as_it_came():
    body = asked(PATCH, tool_choice={"type": "custom", "name": "apply_patch"})
    chat = sent(body)
    [tool] = chat["tools"]
    assert tool["function"]["name"] == "apply_patch"
    assert chat["tool_choice"] == {"type": "function", "function": {"name": "apply_patch"}}
    assert left_out(body) == []
    assert skeleton(body)["tools"] == [PATCH]
    assert skeleton(body)["tool_choice"] == body["tool_choice"]


CHOICES = {
    "absent": (None, ["f", "apply_patch"], None),
    "auto": ("auto", ["f", "apply_patch"], "auto"),
    "none": ("none", ["f", "apply_patch"], "none"),
    "required": ("required", ["f", "apply_patch"], "required"),
    "a function": (F, ["f", "apply_patch"], {"type": "function", "function": {"name": "f"}}),
    "a function in the form of a chat completion": ({"type": "function", "function": {"name": "f"}}, ["f", "apply_patch"], {"type": "function", "function": {"name": "f"}}),
    "a function without a name": ({"type": "function"}, ["f", "apply_patch"], "auto"),
    "some are allowed": ({"type": "allowed_tools", "mode": "auto", "tools": [PATCH]}, ["apply_patch"], "auto"),
    "some must be called": ({"type": "allowed_tools", "mode": "required", "tools": [F, PATCH]}, ["f", "apply_patch"], "required"),
}  # fmt: skip


@pytest.mark.parametrize(("choice", "offered", "chosen"), CHOICES.values(), ids=CHOICES)
@pytest.mark.parametrize("parallel", [None, True, False])
def test_choices_are_sent_in_the_words_of_chat(choice, offered, chosen, parallel):
    chat = sent(asked(F, SEARCH, PATCH, tool_choice=choice, parallel_tool_calls=parallel))
    assert names(chat) == offered
    assert chat.get("tool_choice") == chosen
    assert chat.get("parallel_tool_calls") == parallel


def test_when_nothing_is_allowed_nothing_is_offered():
    choice = {"type": "allowed_tools", "mode": "auto", "tools": []}
    assert sent(asked(F, tool_choice=choice)) == {}


MISSING, TYPE, VALUE = "missing_required_parameter", "invalid_type", "invalid_value"
ALLOWED = {"type": "allowed_tools", "mode": "auto"}
REFUSED = {
    "no type": (asked({"name": "f"}), "tools[0].type", MISSING),
    "type is a number": (asked({"type": 5}), "tools[0].type", TYPE),
    "tool is text": (asked("web_search"), "tools[0]", TYPE),
    "two functions of one name": (asked(F, G, F), "tools[2].name", VALUE),
    "function and custom tool of one name": (asked(F, {**PATCH, "name": "f"}), "tools[1].name", VALUE),
    "the shape of chat": (asked({"type": "function", "function": {"name": "f"}}), "tools[0].name", MISSING),
    "description": (asked({**F, "description": 5}), "tools[0].description", TYPE),
    "strict": (asked({**F, "strict": "yes"}), "tools[0].strict", TYPE),
    "custom tool without name": (asked({"type": "custom"}), "tools[0].name", MISSING),
    "format is text": (asked({**PATCH, "format": "lark"}), "tools[0].format", TYPE),
    "format without type": (asked({**PATCH, "format": {}}), "tools[0].format.type", TYPE),
    "unknown format": (asked({**PATCH, "format": {"type": "xml"}}), "tools[0].format.type", VALUE),
    "grammar without definition": (asked({**PATCH, "format": {"type": "grammar", "syntax": "lark"}}), "tools[0].format.definition", MISSING),
    "required without tools": (asked(tool_choice="required"), "tool_choice", VALUE),
    "required with none left": (asked(SEARCH, tool_choice="required"), "tool_choice", VALUE),
    "a function that is not there": (asked(F, tool_choice=G), "tool_choice.name", VALUE),
    "a function, no tools": (asked(tool_choice=F), "tool_choice.name", VALUE),
    "an unknown function in the form of a chat completion": (asked(F, tool_choice={"type": "function", "function": {"name": "g"}}), "tool_choice.name", VALUE),
    "one in that form without a name": (asked(F, tool_choice={"type": "function", "function": {}}), "tool_choice.function.name", MISSING),
    "a custom tool that is a function": (asked(F, tool_choice={"type": "custom", "name": "f"}), "tool_choice.name", VALUE),
    "a custom tool without a name": (asked(PATCH, tool_choice={"type": "custom"}), "tool_choice.name", MISSING),
    "a tool left out": (asked(F, SEARCH, tool_choice=SEARCH), "tool_choice.type", VALUE),
    "a server's tool": (asked(F, UNRUNNABLE["mcp"], tool_choice={"type": "mcp", "server_label": "s"}), "tool_choice.type", VALUE),
    "a choice without type": (asked(F, tool_choice={"name": "f"}), "tool_choice.type", MISSING),
    "allowed tools as text": (asked(F, tool_choice={**ALLOWED, "tools": "f"}), "tool_choice.tools", TYPE),
    "an allowed tool as text": (asked(F, tool_choice={**ALLOWED, "tools": ["f"]}), "tool_choice.tools[0]", TYPE),
    "an allowed tool left out": (asked(F, SEARCH, tool_choice={**ALLOWED, "tools": [F, SEARCH]}), "tool_choice.tools[1].type", VALUE),
    "an allowed tool that is not there": (asked(F, tool_choice={**ALLOWED, "tools": [F, G]}), "tool_choice.tools[1].name", VALUE),
    "an allowed tool without a name": (asked(F, tool_choice={**ALLOWED, "tools": [{"type": "function"}]}), "tool_choice.tools[0].name", MISSING),
    "mode": (asked(F, tool_choice={**ALLOWED, "mode": "maybe", "tools": [F]}), "tool_choice.mode", VALUE),
    "one of none is required": (asked(F, tool_choice={**ALLOWED, "mode": "required", "tools": []}), "tool_choice", VALUE),
}  # fmt: skip


@pytest.mark.parametrize(("body", "param", "code"), REFUSED.values(), ids=REFUSED)
def test_wrong_tools_and_choices_are_refused_by_name(body, param, code):
    with pytest.raises(InvalidRequest) as refused:
        parse(body)
    assert (refused.value.param, refused.value.code) == (param, code)
    assert len(refused.value.message) > 20


ECHOES = {
    "garbage": ({"tools": [5, None, {}, {"type": []}, {"type": "custom"}, {"type": "function", "name": 5}], "tool_choice": []}, [], "auto"),
    "chat's": (
        {
            "messages": [],
            "tools": [{"type": "function", "function": {"name": "f"}}, {"type": "custom", "custom": {"name": "c"}}],
            "tool_choice": {"type": "custom", "custom": {"name": "c"}},
        },
        ["f", "c"],
        {"type": "custom", "name": "c"},
    ),
    "a function in the form of a chat completion": ({"tools": [F], "tool_choice": {"type": "function", "function": {"name": "f"}}}, ["f"], F),
    "chat's functions": ({"messages": [], "functions": [{"name": "f"}, 5], "function_call": {"name": "f"}}, ["f"], F),
    "chat's functions, none to be called": ({"messages": [], "functions": [{"name": "f"}], "function_call": "none"}, ["f"], "none"),
    "chat's allowed tools": (
        {
            "messages": [],
            "tools": [{"type": "function", "function": {"name": "f"}}],
            "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "f"}}, 5]}},
        },
        ["f"],
        {"type": "allowed_tools", "mode": "required", "tools": [F]},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("body", "shown", "choice"), ECHOES.values(), ids=ECHOES)
def test_rows_of_any_kind_are_shown(body, shown, choice):
    response = skeleton(body)
    assert [tool["name"] for tool in response["tools"]] == shown
    assert response["tool_choice"] == choice
