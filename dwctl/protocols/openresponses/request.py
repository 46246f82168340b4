"""A Responses request: what is accepted, and the chat completion request that it becomes.

What cannot be honoured by a chat completion is refused by name (unknown items, parts and tools). What merely has no effect is
echoed in the object.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from dwctl.protocols import shapes
from dwctl.protocols.assembly import text_of
from dwctl.protocols.openresponses.items import reference_of
from dwctl.protocols.shapes import Check, each, one_of, with_members

Item = dict[str, Any]

# --- what is accepted


@dataclass(frozen=True, slots=True)
class ResponsesRequest:
    """A request that was found to be right."""

    body: Mapping[str, Any]  # as the caller sent it
    model: str
    items: list[Item]  # the input; a plain text is one user message
    stream: bool

    def with_items(self, items: list[Item]) -> ResponsesRequest:
        """The same with another input, which may be anything that was stored."""
        return replace(self, items=items)


def parse(body: Mapping[str, Any]) -> ResponsesRequest:
    """Check a request that is going to be a chat completion. Raises InvalidRequest naming the field."""
    _check(body, _INPUT_ITEM, _TOOL, _tool_choice)
    return ResponsesRequest(
        body=body,
        model=body["model"],
        items=_items(body["input"]),
        stream=body.get("stream") is True,
    )


def check_relayed(body: Mapping[str, Any]) -> None:
    """Check a request for an upstream that speaks the Responses API: items and tools are its own business."""
    typed = with_members({}, type=shapes.string)
    _check(body, shapes.an_object, typed, _string_or_object)


def _check(body: Mapping[str, Any], item: Check, tool: Check, choice: Check) -> None:
    def check_input(value: object, path: str) -> None:
        if isinstance(value, str):
            return
        if not isinstance(value, list):
            shapes.refuse(path, "a string or an array of input items", value)
        for index, element in enumerate(value):
            item(element, f"{path}[{index}]")

    required = {"model": shapes.string, "input": check_input}
    shapes.members(body, {**_OPTIONAL, "tools": each(tool), "tool_choice": choice}, required)


def _items(given: str | list[Item]) -> list[Item]:
    if isinstance(given, str):
        return [{"type": "message", "role": "user", "content": given}]
    return given


def _by_type(known: Mapping[str, Check], default: str | None = None) -> Check:
    """An object whose `type` says what else it has."""

    def check(value: object, path: str) -> None:
        shapes.an_object(value, path)
        assert isinstance(value, dict)
        kind = default if value.get("type") is None else value["type"]
        if kind is None:
            shapes.missing(f"{path}.type")
        found = known.get(kind) if isinstance(kind, str) else None
        if found is None:
            supported = ", ".join(f"'{name}'" for name in known)
            shapes.refuse_value(f"{path}.type", kind, supported)
        found(value, path)

    return check


def _image(value: Any, path: str) -> None:
    if value.get("image_url") is None:
        shapes.missing(f"{path}.image_url")
    shapes.string(value["image_url"], f"{path}.image_url")
    shapes.members(value, {"detail": shapes.string}, {}, f"{path}.")


def _file(value: Any, path: str) -> None:
    names = ("file_data", "file_url", "file_id")
    shapes.members(value, dict.fromkeys((*names, "filename"), shapes.string), {}, f"{path}.")
    if all(value.get(name) is None for name in names):
        shapes.missing(f"{path}.file_data")


def _text_or(parts: Check) -> Check:
    def check(value: object, path: str) -> None:
        if isinstance(value, str):
            return
        if not isinstance(value, list):
            shapes.refuse(path, "a string or an array of content parts", value)
        parts(value, path)

    return check


def _string_or_object(value: object, path: str) -> None:
    if not isinstance(value, str | dict):
        shapes.refuse(path, "a string or an object", value)


def _tool_choice(value: object, path: str) -> None:
    if isinstance(value, dict):
        _CHOSEN_TOOL(value, path)
    else:
        _TOOL_CHOICES(value, path)


_TOOL_CHOICES = one_of("auto", "none", "required")
_CHOSEN_TOOL = _by_type(
    {
        "function": with_members({"name": shapes.string}),
        "allowed_tools": with_members(
            {"mode": _TOOL_CHOICES},
            tools=each(_by_type({"function": with_members({}, name=shapes.string)})),
        ),
    }
)
_TOOL = _by_type(
    {
        "function": with_members(
            {
                "description": shapes.string,
                "parameters": shapes.an_object,
                "strict": shapes.boolean,
            },
            name=shapes.string,
        )
    }
)
_PART = _by_type(
    {
        "input_text": with_members({}, text=shapes.string),
        "output_text": with_members({}, text=shapes.string),
        "text": with_members({}, text=shapes.string),
        "refusal": with_members({}, refusal=shapes.string),
        "input_image": _image,
        "input_file": _file,
        "input_audio": with_members(
            {}, input_audio=with_members({}, data=shapes.string, format=shapes.string)
        ),
        "input_video": with_members({}, video_url=shapes.string),
    }
)
_CONTENT = _text_or(each(_PART))
_ITEM = _by_type(
    {
        "message": with_members(
            {}, role=one_of("user", "assistant", "system", "developer"), content=_CONTENT
        ),
        "function_call": with_members(
            {}, call_id=shapes.string, name=shapes.string, arguments=shapes.string
        ),
        "function_call_output": with_members({}, call_id=shapes.string, output=_CONTENT),
        "reasoning": with_members(
            {
                "summary": shapes.array,
                "content": shapes.array,
                "encrypted_content": shapes.string,
            }
        ),
    },
    default="message",
)


def _INPUT_ITEM(value: object, path: str) -> None:
    if isinstance(value, dict) and reference_of(value):
        return
    _ITEM(value, path)


_OPTIONAL: Mapping[str, Check] = {
    "instructions": shapes.string,
    "previous_response_id": shapes.string,
    "store": shapes.boolean,
    "metadata": shapes.an_object,
    "temperature": shapes.number,
    "top_p": shapes.number,
    "presence_penalty": shapes.number,
    "frequency_penalty": shapes.number,
    "top_logprobs": shapes.natural,
    "max_output_tokens": shapes.natural,
    "max_tool_calls": shapes.natural,
    "stop": shapes.string_or_strings,
    "stream": shapes.boolean,
    "stream_options": shapes.an_object,
    "parallel_tool_calls": shapes.boolean,
    "truncation": one_of("auto", "disabled"),
    "user": shapes.string,
    "reasoning": with_members({"effort": shapes.string, "summary": shapes.string}),
    "text": with_members(
        {
            "format": _by_type(
                {
                    "text": shapes.anything,
                    "json_object": shapes.anything,
                    "json_schema": with_members(
                        {"description": shapes.string, "strict": shapes.boolean},
                        name=shapes.string,
                        schema=shapes.an_object,
                    ),
                }
            ),
            "verbosity": shapes.string,
        }
    ),
    "background": shapes.boolean,
    "service_tier": shapes.string,
    "include": each(shapes.string),
    "safety_identifier": shapes.string,
    "prompt_cache_key": shapes.string,
}

KNOWN = frozenset(_OPTIONAL) | {"model", "input", "tools", "tool_choice"}
"""The names of all members that are read here."""

# --- what goes upstream

_SAME_NAME = (
    "temperature",
    "top_p",
    "stop",
    "user",
    "presence_penalty",
    "frequency_penalty",
    "prompt_cache_key",
    "safety_identifier",
)


def to_chat(request: ResponsesRequest, *, stream: bool | None = None) -> dict[str, Any]:
    """The chat completion request for a Responses request.

    stream: whether the upstream streams; None for what the caller asked for.
    """
    body = request.body
    chat: dict[str, Any] = {
        "model": request.model,
        "messages": _messages(body.get("instructions"), request.items),
    }
    chat |= {name: body[name] for name in _SAME_NAME if body.get(name) is not None}
    if body.get("max_output_tokens") is not None:
        chat["max_tokens"] = body["max_output_tokens"]
    chat |= _tools(body) | _output_format(body) | _logprobs(body)
    if effort := (body.get("reasoning") or {}).get("effort"):
        chat["reasoning_effort"] = effort
    if request.stream if stream is None else stream:
        chat |= {"stream": True, "stream_options": {"include_usage": True}}
    return chat


def _messages(instructions: str | None, items: Iterable[Item]) -> list[dict[str, Any]]:
    """The conversation. Items of earlier turns may be anything that was stored, so nothing is taken for granted."""
    messages: list[dict[str, Any]] = []
    if instructions is not None:
        messages.append({"role": "system", "content": instructions})
    for item in items:
        kind = item.get("type") or "message"
        if kind == "message":
            role = item.get("role") or "assistant"
            messages.append({"role": role, "content": _content(item.get("content"))})
        elif kind == "function_call":
            _add_call(messages, item)
        elif kind == "function_call_output":
            call_id, output = item.get("call_id"), _content(item.get("output"))
            messages.append({"role": "tool", "tool_call_id": call_id, "content": output})
    return messages


def _add_call(messages: list[dict[str, Any]], item: Item) -> None:
    """A call belongs to the assistant's message right before it, or to one of its own."""
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant"})
    function = {"name": item.get("name") or "", "arguments": item.get("arguments") or ""}
    call = {"id": item.get("call_id"), "type": "function", "function": function}
    messages[-1].setdefault("tool_calls", []).append(call)


def _content(content: object) -> str | list[dict[str, Any]]:
    """A message's content. One text is sent as such: every server understands that."""
    if not isinstance(content, list):
        return content if isinstance(content, str) else ""
    parts = [_part(part) for part in content if isinstance(part, dict)]
    if not parts or (len(parts) == 1 and parts[0].get("type") == "text"):
        return text_of(parts)
    return parts


def _part(part: Item) -> dict[str, Any]:
    kind = part.get("type")
    if kind == "input_image":
        detail = {"detail": part["detail"]} if part.get("detail") else {}
        return {"type": "image_url", "image_url": {"url": part.get("image_url"), **detail}}
    if kind == "input_file":
        return {"type": "file", "file": _file_of(part)}
    if kind == "input_video":
        return {"type": "video_url", "video_url": {"url": part.get("video_url")}}
    if kind == "refusal":
        return {"type": "text", "text": part.get("refusal")}
    if isinstance(part.get("text"), str):
        return {"type": "text", "text": part["text"]}
    return part  # a part of a chat message already, such as audio


def _file_of(part: Item) -> dict[str, Any]:
    data = part.get("file_data") or part.get("file_url")
    given = {"filename": part.get("filename"), "file_data": data, "file_id": part.get("file_id")}
    return {name: value for name, value in given.items() if value is not None}


def _tools(body: Mapping[str, Any]) -> dict[str, Any]:
    tools = body.get("tools") or []
    choice = body.get("tool_choice")
    if isinstance(choice, dict) and choice["type"] == "allowed_tools":
        # What the model may not call it does not get to see: that holds with every upstream.
        allowed = {tool["name"] for tool in choice["tools"]}
        tools = [tool for tool in tools if tool["name"] in allowed]
        choice = choice.get("mode") or "auto"
    if not tools:
        return {}
    chat: dict[str, Any] = {"tools": [_tool(tool) for tool in tools]}
    if choice is not None:
        chat["tool_choice"] = _chosen(choice)
    if body.get("parallel_tool_calls") is not None:
        chat["parallel_tool_calls"] = body["parallel_tool_calls"]
    return chat


def _tool(tool: Item) -> dict[str, Any]:
    function = {
        name: tool[name]
        for name in ("name", "description", "parameters", "strict")
        if tool.get(name) is not None
    }
    parameters = function.get("parameters")
    if parameters and tool.get("strict") is not False and "properties" in parameters:
        function["parameters"] = {**parameters}
        function["parameters"].setdefault("additionalProperties", False)
    return {"type": "function", "function": function}


def _chosen(choice: str | Item) -> Any:
    if isinstance(choice, str):
        return choice
    if not choice.get("name"):
        return "auto"
    return {"type": "function", "function": {"name": choice["name"]}}


def _output_format(body: Mapping[str, Any]) -> dict[str, Any]:
    text = body.get("text") or {}
    format = text.get("format") or {"type": "text"}
    chat: dict[str, Any] = {}
    if format["type"] == "json_schema":
        schema = {n: v for n, v in format.items() if n != "type" and v is not None}
        chat["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif format["type"] == "json_object":
        chat["response_format"] = {"type": "json_object"}
    if text.get("verbosity") is not None:
        chat["verbosity"] = text["verbosity"]
    return chat


def _logprobs(body: Mapping[str, Any]) -> dict[str, Any]:
    wanted = body.get("top_logprobs")
    if wanted:
        return {"logprobs": True, "top_logprobs": wanted}
    included = "message.output_text.logprobs" in (body.get("include") or ())
    return {"logprobs": True} if included else {}
