import pytest

from dwctl.protocols.errors import InvalidRequest
from dwctl.protocols.openresponses.request import check_relayed, left_out, parse, to_chat


def asked(input="Hi", **members):
    return {"model": "m", "input": input, **members}


def message(content, role="user", **members):
    return asked([{"type": "message", "role": role, "content": content, **members}])


def chat(body, **options):
    return to_chat(parse(body), **options)


def chat_over(body, items):
    return to_chat(parse(body).with_items(items))


def messages(*items, **members):
    return chat(asked(list(items), **members))["messages"]


CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
RESULT = {"type": "function_call_output", "call_id": "c1", "output": "sunny"}
CHAT_CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
USER = {"role": "user", "content": "Hi"}
FROM_C1 = {"type": "text", "text": "This is from the output of the tool call c1:"}
OPAQUE = [
    "web_search_call",
    "file_search_call",
    "computer_call",
    "computer_call_output",
    "code_interpreter_call",
    "image_generation_call",
    "local_shell_call",
    "local_shell_call_output",
    "shell_call",
    "shell_call_output",
    "apply_patch_call",
    "apply_patch_call_output",
    "mcp_call",
    "mcp_list_tools",
    "mcp_approval_request",
    "mcp_approval_response",
    "tool_search_call",
    "compaction",
    "program",
    "never_heard_of",
]
TOOL = {"type": "function", "name": "f"}

MESSAGES = {
    "text": (asked(), [USER]),
    "instructions": (asked(instructions="Be brief"), [{"role": "system", "content": "Be brief"}, USER]),
    "message": (message("Hi"), [USER]),
    "message without type": (asked([{"role": "user", "content": "Hi"}]), [USER]),
    "message whose type is null is one without": (asked([{"type": None, "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}]), [USER]),
    "developer": (message("Hi", "developer"), [{"role": "system", "content": "Hi"}]),
    "what the system says, wherever": (
        {**asked([{"role": "developer", "content": "Be kind"}, {"role": "user", "content": "Hi"}, {"role": "developer", "content": "Now"}]), "instructions": "Be brief"},
        [{"role": "system", "content": "Be brief\n\nBe kind\n\nNow"}, {"role": "user", "content": "Hi"}],
    ),
    "an image of the system": (
        {**asked([{"role": "system", "content": [{"type": "input_image", "image_url": "u"}]}]), "instructions": "Be brief"},
        [{"role": "system", "content": [{"type": "text", "text": "Be brief"}, {"type": "image_url", "image_url": {"url": "u"}}]}],
    ),
    "assistant's earlier words": (message([{"type": "output_text", "text": "Yes", "annotations": []}], "assistant", id="msg_1", status="completed"), [{"role": "assistant", "content": "Yes"}]),
    "refusal": (message([{"type": "refusal", "refusal": "No"}], "assistant"), [{"role": "assistant", "content": "No"}]),
    "two texts": (message([{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]), [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]),
    "no parts": (message([]), [{"role": "user", "content": ""}]),
    "image": (
        message([{"type": "input_text", "text": "a"}, {"type": "input_image", "image_url": "u", "detail": "low"}, {"type": "input_image", "image_url": "v"}]),
        [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "u", "detail": "low"}}, {"type": "image_url", "image_url": {"url": "v"}}]}],
    ),
    "file data": (message([{"type": "input_file", "file_data": "d", "filename": "n"}]), [{"role": "user", "content": [{"type": "file", "file": {"filename": "n", "file_data": "d"}}]}]),
    "file url": (message([{"type": "input_file", "file_url": "u"}]), [{"role": "user", "content": [{"type": "file", "file": {"file_data": "u"}}]}]),
    "file id": (message([{"type": "input_file", "file_id": "i"}]), [{"role": "user", "content": [{"type": "file", "file": {"file_id": "i"}}]}]),
    "audio": (message([{"type": "input_audio", "input_audio": {"data": "d", "format": "wav"}}]), [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "d", "format": "wav"}}]}]),
    "video": (message([{"type": "input_video", "video_url": "u"}]), [{"role": "user", "content": [{"type": "video_url", "video_url": {"url": "u"}}]}]),
    "call and result": (asked([CALL, RESULT]), [{"role": "assistant", "tool_calls": [CHAT_CALL]}, {"role": "tool", "tool_call_id": "c1", "content": "sunny"}]),
    "calls join the assistant's message before them": (
        asked([{"role": "assistant", "content": "Let me"}, CALL, CALL]),
        [{"role": "assistant", "content": "Let me", "tool_calls": [CHAT_CALL, CHAT_CALL]}],
    ),
    "a call after a result begins anew": (
        asked([CALL, RESULT, CALL]),
        [{"role": "assistant", "tool_calls": [CHAT_CALL]}, {"role": "tool", "tool_call_id": "c1", "content": "sunny"}, {"role": "assistant", "tool_calls": [CHAT_CALL]}],
    ),
    "a result in parts": (asked([{**RESULT, "output": [{"type": "input_text", "text": "sun"}]}]), [{"role": "tool", "tool_call_id": "c1", "content": "sun"}]),
    "custom call and result": (
        asked([{"type": "custom_tool_call", "call_id": "c1", "name": "p", "input": 'a "b"\n'}, {**RESULT, "type": "custom_tool_call_output"}]),
        [
            {"role": "assistant", "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "p", "arguments": '{"input":"a \\"b\\"\\n"}'}}]},
            {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
        ],
    ),
    "a result with an image": (
        asked([CALL, {**RESULT, "output": [{"type": "input_text", "text": "sun"}, {"type": "input_image", "image_url": "u"}]}, {"role": "user", "content": "And?"}]),
        [
            {"role": "assistant", "tool_calls": [CHAT_CALL]},
            {"role": "tool", "tool_call_id": "c1", "content": "sun"},
            {"role": "user", "content": [FROM_C1, {"type": "image_url", "image_url": {"url": "u"}}]},
            {"role": "user", "content": "And?"},
        ],
    ),
    "results with nothing but images wait for each other": (
        asked([CALL, {**CALL, "call_id": "c2"}, {**RESULT, "output": [{"type": "input_image", "image_url": "u"}]}, {"type": "reasoning", "summary": []}, {**RESULT, "call_id": "c2"}]),
        [
            {"role": "assistant", "tool_calls": [CHAT_CALL, {**CHAT_CALL, "id": "c2"}]},
            {"role": "tool", "tool_call_id": "c1", "content": "The output is in the user's next message."},
            {"role": "tool", "tool_call_id": "c2", "content": "sunny"},
            {"role": "user", "content": [FROM_C1, {"type": "image_url", "image_url": {"url": "u"}}]},
        ],
    ),
    "a result with a file": (
        asked([CALL, {**RESULT, "output": [{"type": "input_file", "file_data": "d"}]}]),
        [
            {"role": "assistant", "tool_calls": [CHAT_CALL]},
            {"role": "tool", "tool_call_id": "c1", "content": "The output is in the user's next message."},
            {"role": "user", "content": [FROM_C1, {"type": "file", "file": {"file_data": "d"}}]},
        ],
    ),
    "an empty result": (asked([CALL, {**RESULT, "output": []}]), [{"role": "assistant", "tool_calls": [CHAT_CALL]}, {"role": "tool", "tool_call_id": "c1", "content": ""}]),
    "what only its provider understands": (asked([{"role": "user", "content": "Hi"}, *[{"type": kind, "id": "x"} for kind in OPAQUE]]), [USER]),
    "results that do not say of which call": (
        asked([CALL, {**CALL, "call_id": "c2"}, {"type": "function_call_output", "output": "a"}, {"type": "function_call_output", "call_id": None, "output": "b"}]),
        [
            {"role": "assistant", "tool_calls": [CHAT_CALL, {**CHAT_CALL, "id": "c2"}]},
            {"role": "tool", "tool_call_id": "c1", "content": "a"},
            {"role": "tool", "tool_call_id": "c2", "content": "b"},
        ],
    ),
    "a result that does not say of which call, beside one that does": (
        asked([CALL, {**CALL, "call_id": "c2"}, RESULT, {"type": "function_call_output", "output": "b"}]),
        [
            {"role": "assistant", "tool_calls": [CHAT_CALL, {**CHAT_CALL, "id": "c2"}]},
            {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
            {"role": "tool", "tool_call_id": "c2", "content": "b"},
        ],
    ),
    "a result of a call that has one": (
        asked([CALL, RESULT, RESULT]),
        [{"role": "assistant", "tool_calls": [CHAT_CALL]}, *[{"role": "tool", "tool_call_id": "c1", "content": "sunny"}] * 2],
    ),
    "results in another order than their calls": (
        asked([CALL, {**CALL, "call_id": "c2"}, {**RESULT, "call_id": "c2", "output": "b"}, {**RESULT, "output": "a"}]),
        [
            {"role": "assistant", "tool_calls": [CHAT_CALL, {**CHAT_CALL, "id": "c2"}]},
            {"role": "tool", "tool_call_id": "c1", "content": "a"},
            {"role": "tool", "tool_call_id": "c2", "content": "b"},
        ],
    ),
    "what the assistant says between calls and results": (
        asked([{"role": "assistant", "content": "Let me"}, CALL, {"role": "assistant", "content": "look"}, RESULT, {"role": "assistant", "content": "Sun"}]),
        [
            {"role": "assistant", "content": "Let me\n\nlook", "tool_calls": [CHAT_CALL]},
            {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
            {"role": "assistant", "content": "Sun"},
        ],
    ),
    "what the user says between a call and its result": (
        asked([CALL, {"role": "assistant", "content": "Let me"}, {"role": "user", "content": "Quick"}, RESULT]),
        [
            {"role": "assistant", "content": "Let me"},
            {"role": "user", "content": "Quick"},
            {"role": "assistant", "tool_calls": [CHAT_CALL]},
            {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
        ],
    ),
    "what the user says between calls and their results": (
        asked([CALL, {**CALL, "call_id": "c2"}, {"role": "user", "content": "Quick"}, RESULT, {**RESULT, "call_id": "c2"}]),
        [
            {"role": "user", "content": "Quick"},
            {"role": "assistant", "tool_calls": [CHAT_CALL, {**CHAT_CALL, "id": "c2"}]},
            {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
            {"role": "tool", "tool_call_id": "c2", "content": "sunny"},
        ],
    ),
    "what the user says between results": (
        asked([CALL, {**CALL, "call_id": "c2"}, RESULT, {"role": "user", "content": "Quick"}, {**RESULT, "call_id": "c2"}]),
        [
            {"role": "assistant", "tool_calls": [CHAT_CALL]},
            {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
            {"role": "user", "content": "Quick"},
            {"role": "assistant", "tool_calls": [{**CHAT_CALL, "id": "c2"}]},
            {"role": "tool", "tool_call_id": "c2", "content": "sunny"},
        ],
    ),
    "an identifier that comes again": (
        asked([CALL, RESULT, {"role": "user", "content": "Hi"}, CALL, {**RESULT, "output": "rain"}]),
        [
            {"role": "assistant", "tool_calls": [CHAT_CALL]},
            {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
            USER,
            {"role": "assistant", "tool_calls": [CHAT_CALL]},
            {"role": "tool", "tool_call_id": "c1", "content": "rain"},
        ],
    ),
    "a result more, in a later turn": (
        asked([CALL, RESULT, {"role": "user", "content": "Hi"}, {**RESULT, "output": "rain"}]),
        [
            {"role": "assistant", "tool_calls": [CHAT_CALL]},
            {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
            USER,
            {"role": "tool", "tool_call_id": "c1", "content": "rain"},
        ],
    ),
    "a result of a call that is not there": (
        asked([{"role": "user", "content": "Hi"}, RESULT]),
        [USER, {"role": "tool", "tool_call_id": "c1", "content": "sunny"}],
    ),
    "a result of no call at all": (asked([{"type": "function_call_output", "output": "a"}, {"role": "user", "content": "Hi"}]), [USER]),
    "reasoning is left out": (asked([{"type": "reasoning", "summary": [], "encrypted_content": None}, {"role": "user", "content": "Hi"}]), [USER]),
}  # fmt: skip


@pytest.mark.parametrize(("body", "expected"), MESSAGES.values(), ids=MESSAGES)
def test_the_input_becomes_messages(body, expected):
    assert chat(body)["messages"] == expected


SCHEMA = {"type": "object", "properties": {"x": {"type": "string"}}}
CLOSED = {**SCHEMA, "additionalProperties": False}


def tool(**members):
    return {"type": "function", "function": {"name": "f", **members}}


MEMBERS = {
    "nothing": ({}, {}),
    "same names": (
        {"temperature": 0.5, "top_p": 1, "stop": ["a"], "user": "u", "presence_penalty": 1, "frequency_penalty": 0, "prompt_cache_key": "k", "safety_identifier": "s"},
        {"temperature": 0.5, "top_p": 1, "stop": ["a"], "user": "u", "presence_penalty": 1, "frequency_penalty": 0, "prompt_cache_key": "k", "safety_identifier": "s"},
    ),
    "nulls": ({"temperature": None, "tools": None, "text": None, "reasoning": None, "include": None, "tool_choice": None, "stream": None}, {}),
    "most tokens": ({"max_output_tokens": 50}, {"max_tokens": 50}),
    "log probabilities": ({"top_logprobs": 3}, {"logprobs": True, "top_logprobs": 3}),
    "log probabilities without alternatives": ({"include": ["message.output_text.logprobs"], "top_logprobs": 0}, {"logprobs": True}),
    "effort": ({"reasoning": {"effort": "low", "summary": "auto"}}, {"reasoning_effort": "low"}),
    "summary alone": ({"reasoning": {"summary": "auto"}}, {}),
    "text format": ({"text": {"format": {"type": "text"}}}, {}),
    "JSON": ({"text": {"format": {"type": "json_object"}, "verbosity": "low"}}, {"response_format": {"type": "json_object"}, "verbosity": "low"}),
    "JSON schema": (
        {"text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": True, "description": None}}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "strict": True}}},
    ),
    "tool": ({"tools": [TOOL]}, {"tools": [tool()]}),
    "tool in full": (
        {"tools": [{**TOOL, "description": "d", "parameters": SCHEMA, "strict": True}], "parallel_tool_calls": False},
        {"tools": [tool(description="d", parameters=CLOSED, strict=True)], "parallel_tool_calls": False},
    ),
    "tool that says nothing of strictness": ({"tools": [{**TOOL, "parameters": SCHEMA}]}, {"tools": [tool(parameters=CLOSED)]}),
    "loose tool": ({"tools": [{**TOOL, "parameters": SCHEMA, "strict": False}]}, {"tools": [tool(parameters=SCHEMA, strict=False)]}),
    "parameters without properties": ({"tools": [{**TOOL, "parameters": {"type": "object"}}]}, {"tools": [tool(parameters={"type": "object"})]}),
    "open parameters": ({"tools": [{**TOOL, "parameters": {**SCHEMA, "additionalProperties": True}}]}, {"tools": [tool(parameters={**SCHEMA, "additionalProperties": True})]}),
    "choice": ({"tools": [TOOL], "tool_choice": "required"}, {"tools": [tool()], "tool_choice": "required"}),
    "choice of one": ({"tools": [TOOL], "tool_choice": {"type": "function", "name": "f"}}, {"tools": [tool()], "tool_choice": {"type": "function", "function": {"name": "f"}}}),
    "choice without a name": ({"tools": [TOOL], "tool_choice": {"type": "function"}}, {"tools": [tool()], "tool_choice": "auto"}),
    "allowed tools hide the others": (
        {"tools": [TOOL, {**TOOL, "name": "g"}], "tool_choice": {"type": "allowed_tools", "mode": "required", "tools": [TOOL]}},
        {"tools": [tool()], "tool_choice": "required"},
    ),
    "allowed tools without a mode": ({"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "tools": [TOOL]}}, {"tools": [tool()], "tool_choice": "auto"}),
    "a choice without tools": ({"tool_choice": "auto", "parallel_tool_calls": True}, {}),
    "stream": ({"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}),
    "what only the gateway knows": ({"metadata": {"a": "b"}, "store": False, "truncation": "auto", "service_tier": "flex", "background": True, "max_tool_calls": 1}, {}),
}  # fmt: skip


@pytest.mark.parametrize(("members", "expected"), MEMBERS.values(), ids=MEMBERS)
def test_members_are_mapped(members, expected):
    assert chat(asked(**members)) == {"model": "m", "messages": [USER], **expected}


def test_the_caller_of_to_chat_can_decide_about_streaming():
    assert "stream" not in chat(asked(stream=True), stream=False)
    assert chat(asked(), stream=True)["stream"] is True


def test_the_request_itself_is_not_changed():
    body = asked([CALL], tools=[{**TOOL, "parameters": dict(SCHEMA)}])
    before = repr(body)
    chat(body)
    assert repr(body) == before


def test_earlier_turns_come_after_the_instructions_and_may_be_anything():
    prior = [
        {"type": "message", "content": "flex result"},
        {"type": "message", "role": "user"},
        {"content": [{"type": "text", "text": "a"}, 5]},
        {"type": "function_call"},
        {"type": "function_call_output"},
        {"type": "something"},
    ]
    assert chat_over(asked(instructions="I"), [*prior, USER])["messages"] == [
        {"role": "system", "content": "I"},
        {"role": "assistant", "content": "flex result"},
        {"role": "user", "content": ""},
        {
            "role": "assistant",
            "content": "a",
            "tool_calls": [
                {"id": None, "type": "function", "function": {"name": "", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "tool_call_id": None, "content": ""},
        USER,
    ]


MISSING, TYPE, VALUE = "missing_required_parameter", "invalid_type", "invalid_value"
REFUSED = {
    "no input": ({"model": "m"}, "input", MISSING),
    "null input": (asked(None), "input", TYPE),
    "input is a number": (asked(5), "input", TYPE),
    "no model": ({"input": "Hi"}, "model", MISSING),
    "model is a number": (asked(model=5), "model", TYPE),
    "item is text": (asked(["Hi"]), "input[0]", TYPE),
    "reference to no item": (asked([{"type": "item_reference"}]), "input[0].id", MISSING),
    "reference by a number": (asked([{"type": "item_reference", "id": 5}]), "input[0].id", TYPE),
    "item whose type is a list": (asked([{"type": []}]), "input[0].type", VALUE),
    "no role": (asked([{"content": "Hi"}]), "input[0].role", MISSING),
    "unknown role": (message("Hi", "critic"), "input[0].role", VALUE),
    "role is a number": (message("Hi", 5), "input[0].role", TYPE),
    "no content": (asked([{"role": "user"}]), "input[0].content", MISSING),
    "null content": (message(None), "input[0].content", TYPE),
    "part is text": (message(["a"]), "input[0].content[0]", TYPE),
    "unknown part": (message([{"type": "input_smell"}]), "input[0].content[0].type", VALUE),
    "part without type": (message([{"text": "a"}]), "input[0].content[0].type", MISSING),
    "text part without text": (message([{"type": "input_text"}]), "input[0].content[0].text", MISSING),
    "image by id": (message([{"type": "input_image", "file_id": "f"}]), "input[0].content[0].image_url", MISSING),
    "image whose url is an object": (message([{"type": "input_image", "image_url": {"url": "u"}}]), "input[0].content[0].image_url", TYPE),
    "empty file": (message([{"type": "input_file", "filename": "n"}]), "input[0].content[0].file_data", MISSING),
    "call without id": (asked([{"type": "function_call", "name": "f", "arguments": ""}]), "input[0].call_id", MISSING),
    "custom call without input": (asked([{"type": "custom_tool_call", "call_id": "c", "name": "p"}]), "input[0].input", MISSING),
    "custom result without output": (asked([{"type": "custom_tool_call_output", "call_id": "c"}]), "input[0].output", MISSING),
    "call with arguments as object": (asked([{**CALL, "arguments": {}}]), "input[0].arguments", TYPE),
    "result without output": (asked([{"type": "function_call_output", "call_id": "c"}]), "input[0].output", MISSING),
    "result as object": (asked([{**RESULT, "output": {}}]), "input[0].output", TYPE),
    "a conversation that is to be compacted": (asked([{"role": "user", "content": "Hi"}, {"type": "compaction_trigger"}]), "input[1].type", "unsupported_value"),
    "tool without name": (asked(tools=[{"type": "function"}]), "tools[0].name", MISSING),
    "tool parameters": (asked(tools=[{**TOOL, "parameters": "x"}]), "tools[0].parameters", TYPE),
    "tools as object": (asked(tools={}), "tools", TYPE),
    "tool choice": (asked(tool_choice="maybe"), "tool_choice", VALUE),
    "tool choice as number": (asked(tool_choice=5), "tool_choice", TYPE),
    "choice of a hosted tool": (asked(tool_choice={"type": "file_search"}), "tool_choice.type", VALUE),
    "allowed tools without tools": (asked(tool_choice={"type": "allowed_tools"}), "tool_choice.tools", MISSING),
    "truncation": (asked(truncation="some"), "truncation", VALUE),
    "temperature": (asked(temperature="hot"), "temperature", TYPE),
    "max_output_tokens": (asked(max_output_tokens=-1), "max_output_tokens", TYPE),
    "metadata": (asked(metadata=[]), "metadata", TYPE),
    "metadata that is no text": (asked(metadata={"a": 5}), "metadata.a", TYPE),
    "metadata that is null": (asked(metadata={"a": None}), "metadata.a", TYPE),
    "too many pairs of metadata": (asked(metadata={str(n): "" for n in range(17)}), "metadata", VALUE),
    "a long key of metadata": (asked(metadata={"k" * 65: ""}), "metadata", VALUE),
    "a long value of metadata": (asked(metadata={"a": "v" * 513}), "metadata.a", VALUE),
    "stream": (asked(stream=1), "stream", TYPE),
    "background": (asked(background="yes"), "background", TYPE),
    "effort": (asked(reasoning={"effort": 5}), "reasoning.effort", TYPE),
    "format": (asked(text={"format": {"type": "xml"}}), "text.format.type", VALUE),
    "schema without name": (asked(text={"format": {"type": "json_schema", "schema": {}}}), "text.format.name", MISSING),
    "previous response": (asked(previous_response_id=5), "previous_response_id", TYPE),
    "instructions": (asked(instructions=["a"]), "instructions", TYPE),
}  # fmt: skip


@pytest.mark.parametrize(("body", "param", "code"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_honoured_is_refused_by_name(body, param, code):
    with pytest.raises(InvalidRequest) as refused:
        parse(body)
    assert (refused.value.param, refused.value.code) == (param, code)


def test_an_upstream_of_the_same_protocol_judges_items_and_tools_itself():
    check_relayed(asked([{"type": "web_search_call", "id": "x"}], tools=[{"type": "mcp"}], tool_choice={"type": "mcp"}))  # fmt: skip
    for body, param in [
        (asked(["Hi"]), "input[0]"),
        (asked(tools=[{}]), "tools[0].type"),
        (asked(temperature="hot"), "temperature"),
        ({"input": "Hi"}, "model"),
    ]:
        with pytest.raises(InvalidRequest) as refused:
            check_relayed(body)
        assert refused.value.param == param


def test_items_that_only_their_provider_understands_are_named():
    given = [{"role": "user", "content": "Hi"}, CALL, RESULT, {"type": "compaction", "encrypted_content": "x"}, {"type": "mcp_call"}]  # fmt: skip
    assert left_out(asked(given)) == ["input[3] (compaction)", "input[4] (mcp_call)"]
    assert left_out(asked()) == []


def test_metadata_up_to_the_limits_is_right():
    parse(asked(metadata={f"{n:064}": "v" * 512 for n in range(16)}))


def test_members_that_are_not_ours_may_go_on_but_change_nothing_of_ours():
    others = {"top_k": 5, "n": 2, "seed": 1, "messages": [], "model": "x", "max_tokens": 1}
    sent = to_chat(parse(asked(max_output_tokens=9)), others=others)
    assert sent == {
        "model": "m",
        "messages": [USER],
        "max_tokens": 9,
        "top_k": 5,
        "n": 2,
        "seed": 1,
    }


ARGUMENTS = {
    "an object": ('{"x": 1}', '{"x": 1}'),
    "nothing": ("", "{}"),
    "blanks": (" \n", "{}"),
    "cut": ('{"cmd":"e', '{"unreadable":"{\\"cmd\\":\\"e"}'),
    "no object": ("5", '{"unreadable":"5"}'),
}


@pytest.mark.parametrize(("said", "sent"), ARGUMENTS.values(), ids=ARGUMENTS)
def test_arguments_of_earlier_calls_are_sent_as_an_object_whatever_they_were(said, sent):
    chat = to_chat(parse(asked([USER, {**CALL, "arguments": said, "status": "incomplete"}])))
    assert chat["messages"][-1]["tool_calls"][0]["function"]["arguments"] == sent


LEFT_OUT = {
    "nothing": ({}, {}, []),
    "nulls": ({"include": None, "truncation": None, "x": None}, {"strict": True}, []),
    "what is honoured": ({"include": ["message.output_text.logprobs"], "truncation": "disabled", "metadata": {}}, {"strict": True}, []),
    "wishes": (
        {"include": ["message.output_text.logprobs", "reasoning.encrypted_content", "x\n" + "y" * 200]}, {},
        ["include[1] (reasoning.encrypted_content)", f"include[2] (x\n{'y' * 78}...)"],
    ),
    "truncation where nobody knows the size": ({"truncation": "auto"}, {}, ["truncation"]),
    "truncation": ({"truncation": "auto"}, {"context_length": 8192}, []),
    "unknown members in open mode": ({"top_k": 5}, {}, []),
    "what an agent says of itself": ({"top_k": 5, "client_metadata": {"session_id": "s"}}, {}, ["client_metadata"]),
    "the same in strict mode": ({"client_metadata": {"session_id": "s"}}, {"strict": True}, ["client_metadata"]),
    "unknown members in strict mode": ({"top_k": 5, "stop": "a", "seed": 1}, {"strict": True}, ["top_k", "seed"]),
}  # fmt: skip


@pytest.mark.parametrize(("members", "options", "expected"), LEFT_OUT.values(), ids=LEFT_OUT)
def test_what_has_no_effect_is_named(members, options, expected):
    assert left_out(asked(**members), **options) == expected
