"""Requests for chat/completions, completions and embeddings: what strict mode accepts, and what goes upstream.

Strict mode checks shapes and forwards the caller's bytes; members that nobody here knows are the upstream's business. Ranges
are not checked: servers differ in them, and say so themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import msgspec
import orjson

from dwctl.protocols import shapes
from dwctl.protocols.shapes import Check, each, with_members
from dwctl.protocols.spelling import Names
from dwctl.protocols.splice import open_members, write_members

_TRUE = b"true"
_OPTIONS = Names({"include_usage"})

# --- what strict mode accepts


def validate(accepted: Accepted, body: Mapping[str, Any]) -> None:
    """Raise InvalidRequest naming the first field that is missing or of a wrong type.

    /responses has a model of its own: see `openresponses.request`.
    """
    shapes.members(body, accepted.optional, accepted.required)


@dataclass(frozen=True, slots=True)
class Accepted:
    """What one protocol's requests hold. Members that are in neither may be there too."""

    required: Mapping[str, Check]
    optional: Mapping[str, Check]


def _content(value: object, path: str) -> None:
    if isinstance(value, str):
        return
    if not isinstance(value, list):
        shapes.refuse(path, "a string or an array of content parts", value)
    for index, part in enumerate(value):
        _part(part, f"{path}[{index}]")


def _part(part: Any, path: str) -> None:
    shapes.an_object(part, path)
    if "type" not in part:
        shapes.missing(f"{path}.type")
    check = _PARTS.get(part["type"]) if isinstance(part["type"], str) else None
    if check is None:
        supported = ", ".join(f"'{name}'" for name in _PARTS)
        shapes.refuse_value(f"{path}.type", part["type"], supported)
    check(part, path)


def _function_or_custom(value: Any, path: str) -> None:
    """A tool, or the choice of one: `{type, function: {name}}`, or `{type: custom, custom: {name}}`."""
    shapes.members(value, {}, {"type": shapes.string}, f"{path}.")
    body = "custom" if value["type"] == "custom" else "function"
    shapes.members(value, {}, {body: _NAMED}, f"{path}.")


def _tool(value: object, path: str) -> None:
    shapes.an_object(value, path)
    _function_or_custom(value, path)


def _tool_choice(value: Any, path: str) -> None:
    if isinstance(value, str):
        return
    if not isinstance(value, dict):
        shapes.refuse(path, "a string or an object", value)
    if value.get("type") == "allowed_tools":
        shapes.members(value, {}, {"allowed_tools": shapes.an_object}, f"{path}.")
    else:
        _function_or_custom(value, path)


def _function_call(value: object, path: str) -> None:
    """The older form of a choice: `none`, `auto` or `{name}`."""
    if not isinstance(value, str):
        _NAMED(value, path)


_NAMED = with_members({"description": shapes.string, "strict": shapes.boolean}, name=shapes.string)
_URL = with_members({}, url=shapes.string)
_PARTS: Mapping[str, Check] = {
    "text": with_members({}, text=shapes.string),
    "image_url": with_members({}, image_url=_URL),
    "input_audio": with_members(
        {}, input_audio=with_members({}, data=shapes.string, format=shapes.string)
    ),
    "file": with_members({}, file=shapes.an_object),
    "video_url": with_members({}, video_url=_URL),
    "audio_url": with_members({}, audio_url=_URL),
    "refusal": with_members({}, refusal=shapes.string),
}
_CALL = with_members(
    {
        "function": with_members({}, name=shapes.string, arguments=shapes.string),
        "custom": with_members({}, name=shapes.string, input=shapes.string),
    },
    id=shapes.string,
    type=shapes.string,
)
_MESSAGE = with_members(
    {
        "content": _content,
        "name": shapes.string,
        "tool_calls": each(_CALL),
        "function_call": with_members({}, name=shapes.string, arguments=shapes.string),
        "tool_call_id": shapes.string,
        "reasoning": shapes.string,
        "reasoning_content": shapes.string,
        "reasoning_details": shapes.array,
    },
    role=shapes.string,
)
_SAMPLING: Mapping[str, Check] = {
    "temperature": shapes.number,
    "top_p": shapes.number,
    "n": shapes.natural,
    "stream": shapes.boolean,
    "stream_options": with_members({"include_usage": shapes.boolean}),
    "stop": shapes.string_or_strings,
    "max_tokens": shapes.natural,
    "presence_penalty": shapes.number,
    "frequency_penalty": shapes.number,
    "user": shapes.string,
    "seed": shapes.integer,
    "service_tier": shapes.string,
}
CHAT = Accepted(
    {"model": shapes.string, "messages": each(_MESSAGE)},
    {
        **_SAMPLING,
        "max_completion_tokens": shapes.natural,
        "logprobs": shapes.boolean,
        "top_logprobs": shapes.natural,
        "tools": each(_tool),
        "tool_choice": _tool_choice,
        "functions": each(_NAMED),
        "function_call": _function_call,
        "parallel_tool_calls": shapes.boolean,
        "response_format": with_members({"json_schema": shapes.an_object}, type=shapes.string),
    },
)
COMPLETIONS = Accepted(
    {"model": shapes.string},
    {
        **_SAMPLING,
        "prompt": shapes.texts_or_tokens,
        "suffix": shapes.string,
        "logprobs": shapes.natural,
        "echo": shapes.boolean,
        "best_of": shapes.natural,
    },
)
EMBEDDINGS = Accepted(
    {"model": shapes.string, "input": shapes.texts_or_tokens},
    {
        "encoding_format": shapes.string,
        "dimensions": shapes.natural,
        "user": shapes.string,
        "service_tier": shapes.string,
    },
)

# --- what goes upstream


def prepare(
    raw: bytes,
    body: Mapping[str, Any],
    *,
    model_name: str,
    ask_for_usage: bool = False,
    keep_service_tier: bool = False,
    force_stream: bool = False,
    changes: Mapping[str, bytes | None] = MappingProxyType({}),
) -> bytes:
    """The caller's bytes as they go upstream: the upstream's own model name, nothing that is meant for the gateway only.

    ask_for_usage: a stream is told to report its usage (without that nobody could bill it); its other options stay.
    force_stream: makes a stream of a call that is none. changes: other members' new texts, None for what stays here.
    Of members that are there twice the last one goes: the one that `body` has.
    """
    changes = dict(changes)
    changes["model"] = orjson.dumps(model_name)
    if not keep_service_tier and "service_tier" in body:
        changes["service_tier"] = None
    if "background" in body:
        changes["background"] = None
    if force_stream and body.get("stream") is not True:
        changes["stream"] = _TRUE
    streams = force_stream or body.get("stream") is True
    members = open_members(raw)
    if streams and ask_for_usage and not _asks_for_usage_once(body, members):
        changes["stream_options"] = _with_usage(body.get("stream_options"))
    return write_members(members, changes)


def wants_usage_chunk(body: Mapping[str, Any]) -> bool:
    """Whether the caller itself asked for the usage at the end of its stream."""
    options = body.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def _asks_for_usage_once(body: Mapping[str, Any], members: Mapping[str, msgspec.Raw]) -> bool:
    """Whether the caller's own stream options ask for the usage, and hold nothing that says it otherwise."""
    if not wants_usage_chunk(body):
        return False
    options = body["stream_options"]
    text = bytes(members["stream_options"])
    has_no_twins = text.count(b'"') == 2 * len(options) and b"\\" not in text
    return has_no_twins and not _OPTIONS.misspelt(options)


def _with_usage(options: object) -> bytes:
    """The options with our one, which nothing beside it may contradict."""
    known = dict(options) if isinstance(options, dict) else {}
    for name in _OPTIONS.misspelt(known):
        del known[name]
    return orjson.dumps({**known, "include_usage": True})
