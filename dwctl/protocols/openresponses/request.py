"""A Responses request: what is accepted, and the chat completion request that it becomes.

What cannot be honoured by a chat completion is refused by name (unknown parts, say), or left out and named (`left_out`: tools that nobody
here can run, items that only their provider understands). What merely has no effect is echoed in the object.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from dwctl.protocols import shapes
from dwctl.protocols.errors import InvalidRequest
from dwctl.protocols.openresponses import conversation, namespaces, tools
from dwctl.protocols.openresponses.items import reference_of
from dwctl.protocols.shapes import Check, each, one_of, with_members

Item = dict[str, Any]

_LOGPROBS = "message.output_text.logprobs"
_MOST_PAIRS = 16
_LONGEST_KEY = 64
_LONGEST_VALUE = 512

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


def parse(body: Mapping[str, Any], *, refuses_unrunnable_tools: bool = False) -> ResponsesRequest:
    """Check a request that is going to be a chat completion. Raises InvalidRequest naming the field.

    refuses_unrunnable_tools: a tool that nobody here can run is an error. Otherwise it is left out.
    """
    _check(body, _INPUT_ITEM, tools.check_tool, tools.check_choice)
    tools.check(body, refuses_unrunnable=refuses_unrunnable_tools)
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


def left_out(
    body: Mapping[str, Any], *, strict: bool = False, context_length: int | None = None
) -> list[str]:
    """What of a request that was found to be right has no effect, each as its place and kind.

    strict, context_length: as for `Surface.left_out`.
    """
    given = body["input"]
    listed = enumerate(given if isinstance(given, list) else ())
    wishes = enumerate(body.get("include") or ())
    return [
        *(unknown_members(body) if strict else ()),
        *(name for name in _ABOUT_CLIENTS if body.get(name) is not None),
        *tools.left_out(body),
        *(f"input[{i}] ({shapes.short(item['type'])})" for i, item in listed if _is_opaque(item)),
        *(f"include[{i}] ({shapes.short(wish)})" for i, wish in wishes if wish != _LOGPROBS),
        *(["truncation"] if body.get("truncation") == "auto" and context_length is None else ()),
    ]


def unknown_members(body: Mapping[str, Any]) -> list[str]:
    """The names of those that mean nothing here, but may to a chat upstream."""
    ours = KNOWN.union(_ABOUT_CLIENTS)
    return [name for name, value in body.items() if name not in ours and value is not None]


def _items(given: str | list[Item]) -> list[Item]:
    if isinstance(given, str):
        return [{"type": "message", "role": "user", "content": given}]
    return given


def _by_type(
    known: Mapping[str, Check], default: str | None = None, others: Check | None = None
) -> Check:
    """An object whose `type` says what else it has. others: takes those of unknown types."""

    def check(value: object, path: str) -> None:
        shapes.an_object(value, path)
        assert isinstance(value, dict)
        kind = default if value.get("type") is None else value["type"]
        if kind is None:
            shapes.missing(f"{path}.type")
        found = known.get(kind, others) if isinstance(kind, str) else None
        if found is None:
            supported = ", ".join(f"'{name}'" for name in known)
            shapes.refuse_value(f"{path}.type", kind, supported)
        found(value, path)

    return check


def _is_opaque(item: Item) -> bool:
    """Whether only its provider understands an item: the call of a tool that it ran, a compacted history."""
    return (item.get("type") or "message") not in _UNDERSTOOD


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


def _metadata(value: Any, path: str) -> None:
    shapes.an_object(value, path)
    if len(value) > _MOST_PAIRS:
        raise _refused_metadata(path, f"`metadata` may have up to {_MOST_PAIRS} pairs.")
    for name, text in value.items():
        if len(name) > _LONGEST_KEY:
            raise _refused_metadata(
                path, f"The keys of `metadata` may have up to {_LONGEST_KEY} characters."
            )
        shapes.string(text, f"{path}.{name}")
        if len(text) > _LONGEST_VALUE:
            raise _refused_metadata(
                f"{path}.{name}",
                f"The values of `metadata` may have up to {_LONGEST_VALUE} characters.",
            )


def _refused_metadata(path: str, message: str) -> InvalidRequest:
    return InvalidRequest(message, param=path, code="invalid_value")


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
_UNDERSTOOD = frozenset(
    [
        "message",
        "function_call",
        "function_call_output",
        "custom_tool_call",
        "custom_tool_call_output",
        "reasoning",
        "item_reference",
        namespaces.ADDITIONAL_TOOLS,
    ]
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
        "function_call_output": with_members({"call_id": shapes.string}, output=_CONTENT),
        "custom_tool_call": with_members(
            {}, call_id=shapes.string, name=shapes.string, input=shapes.string
        ),
        "custom_tool_call_output": with_members({"call_id": shapes.string}, output=_CONTENT),
        "item_reference": with_members({}, id=shapes.string),
        namespaces.ADDITIONAL_TOOLS: with_members({"tools": each(tools.check_tool)}),
        "reasoning": with_members(
            {
                "summary": shapes.array,
                "content": shapes.array,
                "encrypted_content": shapes.string,
            }
        ),
    },
    default="message",
    others=shapes.anything,
)


def _INPUT_ITEM(value: object, path: str) -> None:
    if isinstance(value, dict) and reference_of(value):
        return
    _ITEM(value, path)
    if isinstance(value, dict) and value.get("type") == "compaction_trigger":
        # It asks for a summary in a form of its own. Left out, the model would answer the whole conversation once more, which nobody could use.
        raise InvalidRequest(
            "Compaction is not supported: send a shorter `input`, or `truncation: auto`.",
            param=f"{path}.type",
            code="unsupported_value",
        )


_OPTIONAL: Mapping[str, Check] = {
    "instructions": shapes.string,
    "previous_response_id": shapes.string,
    "store": shapes.boolean,
    "metadata": _metadata,
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

_ABOUT_CLIENTS = ("client_metadata",)
"""What coding agents tell the Responses API of themselves: sessions, folders, repositories. Chat completions have no such member: strict
servers refuse a request for it, and the others have no business with it."""

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


def to_chat(
    request: ResponsesRequest,
    *,
    stream: bool | None = None,
    others: Mapping[str, Any] = MappingProxyType({}),
    reasoning_input: str | None = None,
) -> dict[str, Any]:
    """The chat completion request for a Responses request.

    others: members that go on as they are; what the request itself says wins.
    stream: whether the upstream streams; None for what the caller asked for. reasoning_input: see `conversation.messages`.
    """
    body = request.body
    chat: dict[str, Any] = {
        **others,
        "model": request.model,
        "messages": conversation.messages(body.get("instructions"), request.items, reasoning_input),
    }
    chat |= {name: body[name] for name in _SAME_NAME if body.get(name) is not None}
    if body.get("max_output_tokens") is not None:
        chat["max_tokens"] = body["max_output_tokens"]
    chat |= tools.to_chat({**body, "input": request.items}) | _output_format(body) | _logprobs(body)
    if effort := (body.get("reasoning") or {}).get("effort"):
        chat["reasoning_effort"] = effort
    if request.stream if stream is None else stream:
        chat |= {"stream": True, "stream_options": {"include_usage": True}}
    return chat


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
    included = _LOGPROBS in (body.get("include") or ())
    return {"logprobs": True} if included else {}
