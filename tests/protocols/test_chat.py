import json

import orjson
import pytest

from dwctl.protocols.chat import CHAT, COMPLETIONS, EMBEDDINGS, prepare, validate, wants_usage_chunk
from dwctl.protocols.errors import InvalidRequest


def chat(**members):
    return {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **members}


def message(content, **members):
    return {"model": "m", "messages": [{"role": "user", "content": content, **members}]}


ACCEPTED = {
    "text": (CHAT, chat()),
    "no content": (CHAT, {"model": "m", "messages": [{"role": "assistant"}]}),
    "null content": (CHAT, message(None)),
    "text part": (CHAT, message([{"type": "text", "text": "Hi"}])),
    "image": (CHAT, message([{"type": "image_url", "image_url": {"url": "u", "detail": "low"}}])),
    "audio": (CHAT, message([{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}])),
    "file": (CHAT, message([{"type": "file", "file": {"file_id": "f"}}])),
    "video": (CHAT, message([{"type": "video_url", "video_url": {"url": "u"}}])),
    "refusal": (CHAT, message([{"type": "refusal", "refusal": "no"}])),
    "any role": (CHAT, {"model": "m", "messages": [{"role": "critic", "content": "Hi"}]}),
    "no messages at all is the upstream's business": (CHAT, {"model": "m", "messages": []}),
    "tool calls": (CHAT, message(None, tool_calls=[{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}])),
    "null tool calls": (CHAT, message("x", tool_calls=None, name=None, tool_call_id=None)),
    "function tool": (CHAT, chat(tools=[{"type": "function", "function": {"name": "f"}}])),
    "function tool in full": (CHAT, chat(tools=[{"type": "function", "function": {"name": "f", "description": "d", "parameters": {}, "strict": True}}])),
    "functions": (CHAT, chat(functions=[{"name": "f"}, {"name": "g", "description": "d", "parameters": {"type": "object"}}], function_call="auto")),
    "one function": (CHAT, chat(functions=[{"name": "f"}], function_call={"name": "f"})),
    "function call and its result": (CHAT, chat(messages=[{"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}, {"role": "function", "name": "f", "content": "x"}])),
    "custom tool": (CHAT, chat(tools=[{"type": "custom", "custom": {"name": "f", "format": {"type": "text"}}}])),
    "tool choice": (CHAT, chat(tool_choice="auto")),
    "tool choice of a function": (CHAT, chat(tool_choice={"type": "function", "function": {"name": "f"}})),
    "tool choice of a custom tool": (CHAT, chat(tool_choice={"type": "custom", "custom": {"name": "f"}})),
    "allowed tools": (CHAT, chat(tool_choice={"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}})),
    "unknown member": (CHAT, chat(unknown_field={"a": 1})),
    "nulls count as absent": (CHAT, chat(temperature=None, tools=None, stop=None, stream=None, stream_options=None, seed=None)),
    "numbers": (CHAT, chat(temperature=1, top_p=0.5, n=1, max_tokens=5.0, seed=-3)),
    "stop list": (CHAT, chat(stop=["a", "b"])),
    "logit bias of any shape": (CHAT, chat(logit_bias=[1])),
    "response format": (CHAT, chat(response_format={"type": "json_schema", "json_schema": {"name": "n"}})),
    "prompt": (COMPLETIONS, {"model": "m", "prompt": "x"}),
    "no prompt": (COMPLETIONS, {"model": "m"}),
    "prompts": (COMPLETIONS, {"model": "m", "prompt": ["x", "y"]}),
    "prompt tokens": (COMPLETIONS, {"model": "m", "prompt": [1, 2]}),
    "prompts of tokens": (COMPLETIONS, {"model": "m", "prompt": [[1], [2, 3]]}),
    "input": (EMBEDDINGS, {"model": "m", "input": "x"}),
    "inputs": (EMBEDDINGS, {"model": "m", "input": ["x", "y"], "dimensions": 5, "encoding_format": "base64"}),
    "flat tokens": (EMBEDDINGS, {"model": "m", "input": [1, 2]}),
    "lists of tokens": (EMBEDDINGS, {"model": "m", "input": [[1], []]}),
}  # fmt: skip


@pytest.mark.parametrize(("endpoint", "body"), ACCEPTED.values(), ids=ACCEPTED)
def test_strict_mode_accepts(endpoint, body):
    validate(endpoint, body)


REFUSED = {
    "no model": (CHAT, {"messages": []}, "model", "missing_required_parameter"),
    "model is null": (CHAT, chat(model=None), "model", "invalid_type"),
    "model is a number": (CHAT, chat(model=5), "model", "invalid_type"),
    "no messages": (CHAT, {"model": "m"}, "messages", "missing_required_parameter"),
    "messages is text": (CHAT, chat(messages="Hi"), "messages", "invalid_type"),
    "message is text": (CHAT, chat(messages=["Hi"]), "messages[0]", "invalid_type"),
    "no role": (CHAT, chat(messages=[{"content": "Hi"}]), "messages[0].role", "missing_required_parameter"),
    "role is a number": (CHAT, chat(messages=[{"role": 1}]), "messages[0].role", "invalid_type"),
    "content is a number": (CHAT, message(5), "messages[0].content", "invalid_type"),
    "part is text": (CHAT, message(["Hi"]), "messages[0].content[0]", "invalid_type"),
    "part without type": (CHAT, message([{"text": "Hi"}]), "messages[0].content[0].type", "missing_required_parameter"),
    "part of unknown type": (CHAT, message([{"type": "text", "text": ""}, {"type": "smell"}]), "messages[0].content[1].type", "invalid_value"),
    "part whose type is a list": (CHAT, message([{"type": []}]), "messages[0].content[0].type", "invalid_value"),
    "text part without text": (CHAT, message([{"type": "text"}]), "messages[0].content[0].text", "missing_required_parameter"),
    "image without url": (CHAT, message([{"type": "image_url", "image_url": {}}]), "messages[0].content[0].image_url.url", "missing_required_parameter"),
    "image as text": (CHAT, message([{"type": "image_url", "image_url": "u"}]), "messages[0].content[0].image_url", "invalid_type"),
    "tool call without id": (CHAT, message(None, tool_calls=[{"type": "function"}]), "messages[0].tool_calls[0].id", "missing_required_parameter"),
    "tool call arguments": (CHAT, message(None, tool_calls=[{"id": "c", "type": "function", "function": {"name": "f", "arguments": {}}}]), "messages[0].tool_calls[0].function.arguments", "invalid_type"),
    "temperature": (CHAT, chat(temperature="hot"), "temperature", "invalid_type"),
    "temperature is a boolean": (CHAT, chat(temperature=True), "temperature", "invalid_type"),
    "max_tokens": (CHAT, chat(max_tokens=-1), "max_tokens", "invalid_type"),
    "max_tokens is half": (CHAT, chat(max_tokens=1.5), "max_tokens", "invalid_type"),
    "stream": (CHAT, chat(stream="yes"), "stream", "invalid_type"),
    "stream options": (CHAT, chat(stream_options=[]), "stream_options", "invalid_type"),
    "include usage": (CHAT, chat(stream_options={"include_usage": 1}), "stream_options.include_usage", "invalid_type"),
    "stop": (CHAT, chat(stop=[1]), "stop", "invalid_type"),
    "functions as an object": (CHAT, chat(functions={"name": "f"}), "functions", "invalid_type"),
    "function without name": (CHAT, chat(functions=[{"description": "d"}]), "functions[0].name", "missing_required_parameter"),
    "function is text": (CHAT, chat(functions=["f"]), "functions[0]", "invalid_type"),
    "function's description": (CHAT, chat(functions=[{"name": "f", "description": 5}]), "functions[0].description", "invalid_type"),
    "choice of a function without name": (CHAT, chat(functions=[{"name": "f"}], function_call={}), "function_call.name", "missing_required_parameter"),
    "choice of a function as number": (CHAT, chat(functions=[{"name": "f"}], function_call=5), "function_call", "invalid_type"),
    "function call without arguments": (CHAT, message(None, function_call={"name": "f"}), "messages[0].function_call.arguments", "missing_required_parameter"),
    "function call with arguments as object": (CHAT, message(None, function_call={"name": "f", "arguments": {}}), "messages[0].function_call.arguments", "invalid_type"),
    "tool without function": (CHAT, chat(tools=[{"type": "function"}]), "tools[0].function", "missing_required_parameter"),
    "tool without type": (CHAT, chat(tools=[{"function": {"name": "f"}}]), "tools[0].type", "missing_required_parameter"),
    "tool without name": (CHAT, chat(tools=[{"type": "function", "function": {}}]), "tools[0].function.name", "missing_required_parameter"),
    "tool is text": (CHAT, chat(tools=["f"]), "tools[0]", "invalid_type"),
    "custom tool without name": (CHAT, chat(tools=[{"type": "custom", "custom": {}}]), "tools[0].custom.name", "missing_required_parameter"),
    "tool choice": (CHAT, chat(tool_choice=5), "tool_choice", "invalid_type"),
    "tool choice without name": (CHAT, chat(tool_choice={"type": "function"}), "tool_choice.function", "missing_required_parameter"),
    "service tier": (CHAT, chat(service_tier=1), "service_tier", "invalid_type"),
    "prompt": (COMPLETIONS, {"model": "m", "prompt": 5}, "prompt", "invalid_type"),
    "mixed prompt": (COMPLETIONS, {"model": "m", "prompt": ["a", 1]}, "prompt", "invalid_type"),
    "no input": (EMBEDDINGS, {"model": "m"}, "input", "missing_required_parameter"),
    "null input": (EMBEDDINGS, {"model": "m", "input": None}, "input", "invalid_type"),
    "mixed input": (EMBEDDINGS, {"model": "m", "input": [[1], "a"]}, "input", "invalid_type"),
    "tokens that are text": (EMBEDDINGS, {"model": "m", "input": [["a"]]}, "input", "invalid_type"),
}  # fmt: skip


@pytest.mark.parametrize(("endpoint", "body", "param", "code"), REFUSED.values(), ids=REFUSED)
def test_strict_mode_refuses_and_names_the_field(endpoint, body, param, code):
    with pytest.raises(InvalidRequest) as refused:
        validate(endpoint, body)
    assert (refused.value.param, refused.value.code) == (param, code)
    assert param in refused.value.message


USAGE = '"stream_options":{"include_usage":true}'
PREPARED = {
    "model": (CHAT, '{"model":"a", "x": 1.50}', {}, '{"model":"up","x":1.50}'),
    "model that is not there": (CHAT, '{"x":1}', {}, '{"x":1,"model":"up"}'),
    "gateway-only members": (CHAT, '{"service_tier":"flex","model":"a","background":false}', {}, '{"model":"up"}'),
    "the tier stays where it is wanted": (CHAT, '{"model":"a","service_tier":"flex"}', {"keep_service_tier": True}, '{"model":"up","service_tier":"flex"}'),
    "streams report usage": (CHAT, '{"model":"a","stream":true}', {}, f'{{"model":"up","stream":true,{USAGE}}}'),
    "completions too": (COMPLETIONS, '{"model":"a","stream":true}', {}, f'{{"model":"up","stream":true,{USAGE}}}'),
    "null options": (CHAT, '{"model":"a","stream":true,"stream_options":null}', {}, f'{{"model":"up","stream":true,{USAGE}}}'),
    "usage switched off": (CHAT, '{"model":"a","stream":true,"stream_options":{"include_usage":false,"z":1}}', {}, '{"model":"up","stream":true,"stream_options":{"include_usage":true,"z":1}}'),
    "usage asked for": (CHAT, '{"model":"a","stream":true,"stream_options":{ "include_usage":true}}', {}, '{"model":"up","stream":true,"stream_options":{ "include_usage":true}}'),
    "no stream": (CHAT, '{"model":"a","stream":false}', {}, '{"model":"up","stream":false}'),
    "a stream of responses": (None, '{"model":"a","stream":true}', {}, '{"model":"up","stream":true}'),
    "forced": (CHAT, '{"model":"a"}', {"force_stream": True}, f'{{"model":"up","stream":true,{USAGE}}}'),
    "forced against the body": (COMPLETIONS, '{"model":"a","stream":false}', {"force_stream": True}, f'{{"model":"up","stream":true,{USAGE}}}'),
    "forced responses": (None, '{"model":"a"}', {"force_stream": True}, '{"model":"up","stream":true}'),
    "embeddings": (EMBEDDINGS, '{"model":"a","input":[1],"service_tier":"flex"}', {}, '{"model":"up","input":[1]}'),
    "big integers": (CHAT, '{"seed":123456789012345678901234567890,"model":"a"}', {}, '{"seed":123456789012345678901234567890,"model":"up"}'),
}  # fmt: skip


@pytest.mark.parametrize(
    ("endpoint", "raw", "options", "expected"), PREPARED.values(), ids=PREPARED
)
def test_what_goes_upstream(endpoint, raw, options, expected):
    body = orjson.loads(raw)
    sent = prepare(
        raw.encode(),
        body,
        ask_for_usage=endpoint in (CHAT, COMPLETIONS),
        model_name="up",
        **options,
    )
    assert sent.decode() == expected


def test_a_model_name_with_quotes_is_escaped():
    sent = prepare(b'{"model":"a"}', {"model": "a"}, model_name='we"ird/é')
    assert json.loads(sent) == {"model": 'we"ird/é'}


@pytest.mark.parametrize(
    ("options", "wants"),
    [({"include_usage": True}, True), ({"include_usage": False}, False), (None, False), ({}, False), ([], False)],
)  # fmt: skip
def test_who_asked_for_the_usage_chunk(options, wants):
    assert wants_usage_chunk({"stream_options": options}) is wants


def test_who_said_nothing_gets_no_usage_chunk():
    assert wants_usage_chunk({}) is False
