"""What `GET /responses/{id}` answers from a stored row, whoever wrote it and whatever it holds. Never raises.

A complete Response object is given out as it was stored. Chat completions, text completions, embeddings, streams and objects
that were written by hand are turned into one.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from dwctl.protocols import forms
from dwctl.protocols.assembly import Assembler, text_of
from dwctl.protocols.failures import http_failure, read_failure
from dwctl.protocols.json_objects import parse_object
from dwctl.protocols.openresponses import items, resource
from dwctl.protocols.openresponses.items import Item, item_id
from dwctl.protocols.openresponses.resource import Response
from dwctl.protocols.parts import TooMuch
from dwctl.protocols.rows import StoredRow
from dwctl.protocols.usage import TokenUsage, counts_of, prompt_estimate, settled, text_chars
from dwctl.upstream.sse import EventTooLarge, SseParser

_STATUS = {
    "pending": "queued",
    "claimed": "in_progress",
    "processing": "in_progress",
    "completed": "completed",
    "failed": "failed",
    "canceled": "cancelled",
}


def from_row(row: StoredRow) -> Response:
    """The Response object of a row."""
    body = _object(row.response_body)
    status = _STATUS.get(row.state, "failed")
    if body is not None and resource.is_complete(body) and _may_be(body, status):
        return {**body, "id": row.response_id}
    response = _skeleton(row, status)
    if status == "completed" and (row.response_status or 200) >= 400:
        return _failed_with_status(response, row)
    if status == "completed":
        return _completed(response, row, body)
    response["output"] = _output(body, row.response_id)
    if status == "failed":
        failure = read_failure(row.error)
        return resource.failed(
            response, code=failure.code, message=failure.message, type=failure.type
        )
    return response


def _may_be(body: Mapping[str, Any], status: str) -> bool:
    """A row is completed for every end that has a body of its own; otherwise the two must say the same."""
    if status == "completed":
        return resource.is_terminal(body)
    return body.get("status") == status


def _skeleton(row: StoredRow, status: str) -> Response:
    request = _object(row.request_body) or {}
    return resource.skeleton(
        request,
        response_id=row.response_id,
        created_at=row.created_at,
        model=row.model,
        status=status,
        service_tier=_tier(row, request),
        background=request.get("background") is True,
    )


def _tier(row: StoredRow, request: Mapping[str, Any]) -> str:
    """All realtime rows are of tier `priority`; the object says so only to who asked for it."""
    if row.service_tier == "priority" and request and request.get("service_tier") != "priority":
        return "default"
    return row.service_tier or "default"


def _failed_with_status(response: Response, row: StoredRow) -> Response:
    failure = http_failure(row.response_status or 500, row.response_body)
    return resource.failed(response, code=failure.code, message=failure.message, type=failure.type)


def _completed(response: Response, row: StoredRow, body: dict[str, Any] | None) -> Response:
    completed_at = row.created_at if row.completed_at is None else row.completed_at
    if body is None:
        body = _from_stream(row.response_body or "")
    if isinstance(body.get("response"), dict):  # the last event of a stream of Responses
        body = body["response"]
    paid = functools.partial(_paid, row, body)
    choices = body.get("choices")
    if isinstance(choices, list) and choices and "output" not in body:
        return resource.from_chat(response, body, completed_at=completed_at, settled=paid)
    return {
        **response,
        "completed_at": completed_at,
        **_as_given_out(body, response),
        **_ending(body),
        "output": _output(body, row.response_id),
        "usage": resource.usage(body.get("usage"), paid),
    }


def _paid(row: StoredRow, body: Mapping[str, Any]) -> TokenUsage | None:
    """What the call was charged for, which is more than its answer says where that says only a part."""
    embeds = isinstance(body.get("data"), list)
    return settled(
        counts_of(body),
        written_chars=lambda: text_chars(body.get("choices") or body.get("output")),
        prompt_tokens=lambda: prompt_estimate(_object(row.request_body) or {}),
        ended=True,
        writes=not embeds,
    )


def _as_given_out(body: Mapping[str, Any], response: Response) -> dict[str, Any]:
    """What an upstream's own Response says, which its caller was given as it came (open mode). Members of a wrong type count as absent."""
    if body.get("object") != "response":
        return {}
    ours = {name: value for name, value in response.items() if value is not None}
    given = {n: v for n, v in body.items() if v is not None and n not in ("id", "status")}
    return {n: v for n, v in given.items() if n not in ours or _is_like(v, ours[n])}


def _is_like(value: object, ours: object) -> bool:
    """Whether it is of the same type; JSON has one for numbers."""
    return isinstance(value, int | float if isinstance(ours, float) else type(ours))


def _ending(body: Mapping[str, Any]) -> dict[str, Any]:
    """How an object that is not complete says it ended."""
    ending = {}
    if resource.is_terminal(body):
        ending["status"] = body["status"]
    error = body.get("error")
    if isinstance(error, dict):
        code, message = str(error.get("code") or "server_error"), str(error.get("message") or "")
        ending["error"] = {**error, "code": code, "message": message}
    details = body.get("incomplete_details")
    if isinstance(details, dict) and isinstance(details.get("reason"), str):
        ending["incomplete_details"] = details
    return ending


def _output(body: Mapping[str, Any] | None, response_id: str) -> list[Item]:
    """A stored object's output, with what its items need and do not have."""
    listed = body.get("output") if body else None
    if not isinstance(listed, list):
        return []
    found = [item for item in listed if isinstance(item, dict)]
    return [_item(item, index, response_id) for index, item in enumerate(found)]


def _item(item: Item, index: int, response_id: str) -> Item:
    kind = item.get("type") or "message"
    filled = {"type": kind, "id": item_id(response_id, str(kind), index), "status": "completed"}
    if kind == "message":
        filled["role"] = "assistant"
        if not isinstance(item.get("content"), list):
            item = {**item, "content": [items.output_text(text_of(item.get("content")))]}
    return filled | {name: value for name, value in item.items() if value is not None}


def _from_stream(text: str) -> dict[str, Any]:
    """What a stored stream amounts to: the last Response in it, or the chat completion that it makes up."""
    assembler = Assembler(forms.CHAT)
    found: dict[str, Any] = {}
    usage = None
    for chunk in _chunks(text):
        if isinstance(chunk.get("response"), dict):
            found = chunk["response"]
        elif not isinstance(chunk.get("type"), str):
            _add(assembler, chunk)
            usage = chunk.get("usage") or usage
    answer = assembler.answer(usage=usage)
    return answer if not found and answer["choices"] else found


def _add(assembler: Assembler, chunk: dict[str, Any]) -> None:
    with suppress(TooMuch):
        assembler.add(chunk)


def _chunks(text: str) -> list[dict[str, Any]]:
    if not text.lstrip("\ufeff \r\n").startswith(("data:", "event:", ":", "id:", "retry:")):
        return []
    parser = SseParser()
    try:
        events = parser.feed(text.encode(errors="replace")) + parser.close()
    except EventTooLarge:
        return []
    found = [_object(event.data) for event in events if event.data is not None]
    return [chunk for chunk in found if chunk is not None]


def _object(text: str | bytes | None) -> dict[str, Any] | None:
    return parse_object(text.encode(errors="replace") if isinstance(text, str) else text or b"")
