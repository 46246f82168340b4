"""Input and output items: their shapes and their identifiers.

An item's identifier follows from its response's and its place in it. So it is unique, it can be minted without asking anyone,
and an object that is made again from what was stored has the same identifiers as before.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import Any
from uuid import UUID

from dwctl.protocols.assembly import text_of

Item = dict[str, Any]

_RESPONSE_PREFIX = "resp_"
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
    """kind: the item's type. place: its index in the output, or anything else that is unique in the response."""
    digest = blake2b(f"{response_id}/{place}".encode(), digest_size=16).hexdigest()
    return f"{_ID_PREFIX.get(kind, 'item_')}{digest}"


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
    id: str, *, call_id: str, name: str, arguments: str, status: str = "completed"
) -> Item:
    return {
        "type": "function_call",
        "id": id,
        "call_id": call_id,
        "name": name,
        "arguments": arguments,
        "status": status,
    }


def custom_tool_call(
    id: str, *, call_id: str, name: str, input: str, status: str = "completed"
) -> Item:
    return {
        "type": "custom_tool_call",
        "id": id,
        "call_id": call_id,
        "name": name,
        "input": input,
        "status": status,
    }


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
    return int(value) if isinstance(value, int | float) else 0


# --- input items


def input_items(body: Mapping[str, Any], response_id: str) -> list[Item]:
    """What a stored request put in, as items with identifiers: of a Responses request, or of a chat request's messages."""
    given = body.get("input", body.get("messages"))
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    if not isinstance(given, list):
        return []
    items = [part for item in given if isinstance(item, dict) for part in _split(item)]
    return [_with_id(item, f"in/{place}", response_id) for place, item in enumerate(items)]


def _split(item: Item) -> Iterator[Item]:
    """An input item is one already; a chat message may be a tool's result, or hold tool calls beside its text."""
    if item.get("role") == "tool":
        yield {
            "type": "function_call_output",
            "call_id": item.get("tool_call_id"),
            "output": text_of(item.get("content")),
        }
        return
    calls = item.get("tool_calls")
    calls = calls if isinstance(calls, list) else []
    if item.get("content") or not calls:
        yield {"type": "message", **{n: v for n, v in item.items() if n != "tool_calls"}}
    for call in calls:
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            named = {name: function.get(name) for name in ("name", "arguments")}
            yield {"type": "function_call", "call_id": call.get("id"), **named}


def _with_id(item: Item, place: str, response_id: str) -> Item:
    kind = str(item["type"] or "message")
    given = {name: value for name, value in item.items() if name not in ("id", "type")}
    if kind == "message" and not isinstance(given.get("content"), list):
        given["content"] = [_text_part(given.get("role"), text_of(given.get("content")))]
    known = item.get("id")
    id = known if isinstance(known, str) and known else item_id(response_id, kind, place)
    return {"type": kind, "id": id, "status": "completed", **given}


def _text_part(role: object, text: str) -> Item:
    return output_text(text) if role == "assistant" else {"type": "input_text", "text": text}


def conversation(body: Mapping[str, Any], response: Mapping[str, Any]) -> list[Item]:
    """One earlier turn, to be put before a new request's input: what went in, then what came out."""
    output = response.get("output")
    given = input_items(body, str(response.get("id")))
    listed = output if isinstance(output, list) else []
    return given + [item for item in listed if isinstance(item, dict)]
