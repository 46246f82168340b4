"""Input and output items: their shapes and their identifiers.

An item's identifier holds its response's and its place in it. So it is unique, it can be minted without asking anyone, an object
that is made again from what was stored has the same identifiers as before, and a reference to an item says where it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple
from uuid import UUID

from dwctl.protocols.assembly import text_of
from dwctl.protocols.json_objects import parse_object
from dwctl.protocols.usage import count

Item = dict[str, Any]

_RESPONSE_PREFIX = "resp_"
_ITEM_ID = re.compile(r"[a-z]+_([0-9a-f]{32})_(in)?[0-9]{1,7}")
_ID_PREFIX = {
    "message": "msg_",
    "reasoning": "rs_",
    "function_call": "fc_",
    "function_call_output": "fco_",
    "custom_tool_call": "ctc_",
    "custom_tool_call_output": "ctco_",
}


def response_uuid(response_id: str) -> UUID | None:
    """The request's identifier in `resp_<uuid>` or `<uuid>`; None where it is neither."""
    try:
        return UUID(response_id.removeprefix(_RESPONSE_PREFIX))
    except ValueError:
        return None


def item_id(response_id: str, kind: str, place: int | str) -> str:
    """kind: the item's type. place: its index in the output, or `in` and its index in the input."""
    hex_id = response_id.removeprefix(_RESPONSE_PREFIX).replace("-", "").lower()
    return f"{_ID_PREFIX.get(kind, 'item_')}{hex_id}_{place}"


class Origin(NamedTuple):
    """Where an item is: in a response's input, or in its output."""

    response: UUID
    in_input: bool


def origin_of(id: str) -> Origin | None:
    """Where the item with this identifier is; None for one that was not minted here."""
    found = _ITEM_ID.fullmatch(id)
    return Origin(UUID(found[1]), found[2] is not None) if found else None


# --- output items


def output_text(text: str, annotations: Iterable[Item] = (), logprobs: Iterable[Item] = ()) -> Item:
    return {
        "type": "output_text",
        "text": text,
        "annotations": list(annotations),
        "logprobs": list(logprobs),
    }


def refusal(text: str) -> Item:
    return {"type": "refusal", "refusal": text}


def message(id: str, content: list[Item], status: str = "completed") -> Item:
    return {
        "type": "message",
        "id": id,
        "status": status,
        "role": "assistant",
        "content": content,
    }


def reasoning_text(text: str) -> Item:
    return {"type": "reasoning_text", "text": text}


def reasoning(id: str, content: str = "", summary: str = "", status: str = "completed") -> Item:
    """The model's own text as content, what the upstream calls a summary as summary."""
    return {
        "type": "reasoning",
        "id": id,
        "status": status,
        "summary": [{"type": "summary_text", "text": summary}] if summary else [],
        **({"content": [reasoning_text(content)]} if content else {}),
    }


def function_call(
    id: str,
    *,
    call_id: str,
    name: str,
    arguments: str,
    status: str = "completed",
    namespace: str | None = None,
) -> Item:
    return {
        "type": "function_call",
        "id": id,
        "call_id": call_id,
        "name": name,
        **({} if namespace is None else {"namespace": namespace}),
        "arguments": arguments,
        "status": status,
    }


def custom_tool_call(
    id: str,
    *,
    call_id: str,
    name: str,
    input: str,
    status: str = "completed",
    namespace: str | None = None,
) -> Item:
    return {
        "type": "custom_tool_call",
        "id": id,
        "call_id": call_id,
        "name": name,
        **({} if namespace is None else {"namespace": namespace}),
        "input": input,
        "status": status,
    }


def is_cut_call(item: Mapping[str, Any]) -> bool:
    """Whether it is a call that broke off before it was whole. Streams never say that such a one is done: agents run what is, whatever
    its status.

    What a function takes shows where it ends; the text that a custom tool takes may end anywhere.
    """
    if item.get("status") != "incomplete":
        return False
    kind = item.get("type")
    return kind == "custom_tool_call" or (
        kind == "function_call" and not is_object(item.get("arguments"))
    )


def is_object(arguments: object) -> bool:
    """Whether a call's arguments are the text of a whole JSON object, as they should be."""
    if not isinstance(arguments, str):
        return False
    return parse_object(arguments.encode("utf-8", "replace")) is not None


def minted_call_id(item_id: str) -> str:
    """That of a call to which the upstream gave none: with the rest of its item's identifier."""
    return "call_" + item_id.partition("_")[2]


def arguments(function: Mapping[str, Any]) -> str:
    """The arguments of a chat completion's call, as the text that they should be; some servers send the object itself."""
    given = function.get("arguments", function.get("input"))
    if isinstance(given, dict):
        return json.dumps(given, separators=(",", ":"))
    return given if isinstance(given, str) else ""


def citation(value: object) -> Item | None:
    """A chat completion's annotation as a Response's; None where it is not a complete citation."""
    if not isinstance(value, dict):
        return None
    body = value.get("url_citation", value)
    if not isinstance(body, dict) or not isinstance(body.get("url"), str):
        return None
    title = body.get("title")
    return {
        "type": "url_citation",
        "url": body["url"],
        "title": title if isinstance(title, str) else "",
        "start_index": _int(body.get("start_index")),
        "end_index": _int(body.get("end_index")),
    }


def citations(values: object) -> list[Item]:
    found = map(citation, values) if isinstance(values, list) else ()
    return [value for value in found if value is not None]


def logprobs(values: object) -> list[Item]:
    """A chat choice's `logprobs`, or the list in it, as a Response's."""
    listed = values.get("content") if isinstance(values, dict) else values
    if not isinstance(listed, list):
        return []
    return [_logprob(v) | {"top_logprobs": _top(v)} for v in listed if isinstance(v, dict)]


def _top(value: Mapping[str, Any]) -> list[Item]:
    listed = value.get("top_logprobs")
    return [_logprob(v) for v in listed if isinstance(v, dict)] if isinstance(listed, list) else []


def _logprob(value: Mapping[str, Any]) -> Item:
    token, known = value.get("token"), value.get("bytes")
    token = token if isinstance(token, str) else ""
    logprob = value.get("logprob")
    return {
        "token": token,
        "logprob": logprob if isinstance(logprob, int | float) else 0.0,
        "bytes": known if isinstance(known, list) else list(token.encode(errors="replace")),
    }


def _int(value: object) -> int:
    return count(value) or 0


# --- input items


def given_items(body: Mapping[str, Any]) -> list[Item]:
    """What a stored request put in, as it came: a Responses request's items, or what a chat's messages (a completion's prompt) amount to."""
    given = body.get("input", body.get("prompt"))
    if isinstance(given, str):
        return [{"type": "message", "role": "user", "content": given}]
    if isinstance(given, list):
        return [item for item in given if isinstance(item, dict)]
    messages = body.get("messages")
    listed = messages if isinstance(messages, list) else []
    return [part for message in listed if isinstance(message, dict) for part in _split(message)]


def input_items(body: Mapping[str, Any], response_id: str) -> list[Item]:
    """The same, each whole and with an identifier, as lists show it."""
    return [_listed(item, n, response_id) for n, item in enumerate(given_items(body))]


def reference_of(item: Mapping[str, Any]) -> str | None:
    """The identifier of the item that this one only names; None for an item that is there itself. The type may be left out."""
    kind, id = item.get("type"), item.get("id")
    if not isinstance(id, str):
        return None
    bare = kind is None and "role" not in item and "content" not in item
    return id if bare or kind == "item_reference" else None


def _split(message: Item) -> Iterator[Item]:
    """A chat message as items: it may be a tool's result, or hold tool calls beside its text."""
    if message.get("role") == "tool":
        yield {
            "type": "function_call_output",
            "call_id": message.get("tool_call_id"),
            "output": text_of(message.get("content")),
        }
        return
    calls = message.get("tool_calls")
    calls = calls if isinstance(calls, list) else []
    content = message.get("content")
    if content or not calls:
        kept = {n: v for n, v in message.items() if n != "tool_calls"}
        if isinstance(content, list):
            role = message.get("role")
            kept["content"] = [_part(role, part) for part in content if isinstance(part, dict)]
        yield {"type": "message", **kept}
    for call in calls:
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            named = {name: function.get(name) for name in ("name", "arguments")}
            yield {"type": "function_call", "call_id": call.get("id"), **named}


def _listed(item: Item, place: int, response_id: str) -> Item:
    if reference_of(item):
        return {"type": "item_reference", **item}
    kind = str(item.get("type") or "message")
    given = {name: value for name, value in item.items() if name not in ("id", "type")}
    if kind == "message" and not isinstance(given.get("content"), list):
        given["content"] = [_text_part(given.get("role"), text_of(given.get("content")))]
    known = item.get("id")
    id = known if isinstance(known, str) and known else item_id(response_id, kind, f"in{place}")
    return {"type": kind, "id": id, "status": "completed", **given}


def _part(role: object, part: Item) -> Item:
    """A part of a chat message by the name that it has here."""
    kind = part.get("type")
    if kind == "text":
        return _text_part(role, text_of(part.get("text")))
    image = part.get("image_url")
    if kind == "image_url" and isinstance(image, dict):
        detail = image.get("detail") or "auto"
        return {"type": "input_image", "image_url": image.get("url"), "detail": detail}
    file = part.get("file")
    if kind == "file" and isinstance(file, dict):
        return {"type": "input_file", **file}
    return part


def _text_part(role: object, text: str) -> Item:
    return output_text(text) if role == "assistant" else {"type": "input_text", "text": text}


def output_items(response: Mapping[str, Any]) -> list[Item]:
    """What came out of a response."""
    listed = response.get("output")
    return [item for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []
