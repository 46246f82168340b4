"""The published schema (Open Responses, 2026-04-24), OpenAI's own and its SDK, as judges of everything that we send.

Where they disagree:
- `text.format.schema`: the published schema wants null in a Response, the SDK (and OpenAI) the schema that was asked for. We echo
  it; `published()` is told to accept an object.
- `usage.input_tokens_details.cache_write_tokens`: required by the SDK, unknown to the schema. We send it.
- `error.code`: any string in the schema, a list of OpenAI's own codes in the SDK (whose client does not check it). We send
  `server_error` where nothing better is known, and `http_<status>` for a stored failure with a status.
- `reasoning.effort`: "minimal" and "max" are known to the SDK only. We echo what was asked for.
- `usage`, `metadata` and others may be null in the schema and absent in the SDK: we always send them.
- the text of a reasoning item: `response.reasoning_text.delta` to the SDK, `response.reasoning.delta` in the schema. We send the
  SDK's.
- `status` of a reasoning item and `type` of an error: known to the SDK only. We send them.
- `usage` and `text.format.description`: null where there is none in the published schema, absent in OpenAI's. We send null.
- custom tools, their calls and their events: known to OpenAI only. The published schema judges what is beside them.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any, get_args

from jsonschema_rs import Draft202012Validator
from openai.types.responses import Response, ResponseItemList, ResponseStreamEvent

from tests.protocols.streams import data_of

_STANDARDS = Path(__file__).parent.parent / "standards"
_FILE = _STANDARDS / "openresponses" / "openapi-2026-04-24.json"
_OPENAI = _STANDARDS / "openai" / "responses.json"
_CUSTOM_EVENT = "response.custom_tool_call_input."


@cache
def _sdk_events() -> dict[str, Any]:
    """The SDK's class for each type of event. (Its union, asked as a whole, complains of all its members at once.)"""
    union = get_args(get_args(ResponseStreamEvent)[0])
    return {get_args(event.model_fields["type"].annotation)[0]: event for event in union}


@cache
def _schemas() -> dict[str, Any]:
    schemas = json.loads(_FILE.read_text())["components"]["schemas"]
    schemas["JsonSchemaResponseFormat"]["properties"]["schema"] = {"type": ["object", "null"]}
    return schemas


@cache
def published(name: str) -> Draft202012Validator:
    return _judge(_schemas(), name)


@cache
def _openai_schemas() -> dict[str, Any]:
    schemas: dict[str, Any] = json.loads(_OPENAI.read_text())["components"]["schemas"]
    return schemas


@cache
def _openai(name: str) -> Draft202012Validator:
    return _judge(_openai_schemas(), name)


@cache
def _openai_event_names() -> dict[str, str]:
    references = [union["$ref"] for union in _openai_schemas()["ResponseStreamEvent"]["anyOf"]]
    names = [reference.rpartition("/")[2] for reference in references]
    return {_openai_schemas()[n]["properties"]["type"]["enum"][0]: n for n in names}


def _judge(schemas: dict[str, Any], name: str) -> Draft202012Validator:
    reference = {"$ref": f"#/components/schemas/{name}", "components": {"schemas": schemas}}
    return Draft202012Validator(reference)


@cache
def _event_schema_names() -> dict[str, str]:
    events = {n: s for n, s in _schemas().items() if n.endswith("StreamingEvent")}
    return {s["properties"]["type"]["enum"][0]: n for n, s in events.items()}


def check_response(response: dict[str, Any], *, sdk: bool = True) -> None:
    """sdk: False where the error has a code of our own."""
    published("ResponseResource").validate(_without_custom(response))
    if sdk:
        _openai("Response").validate(_as_openai(response))
        Response.model_validate(response)


def _without_custom(response: dict[str, Any]) -> dict[str, Any]:
    """A Response without what the published schema does not know."""
    known = {**response, "output": [i for i in response["output"] if not _is_custom(i)]}
    known["tools"] = [t for t in response["tools"] if t["type"] not in ("custom", "namespace")]
    choice = response["tool_choice"]
    if isinstance(choice, dict) and choice["type"] == "custom":
        known["tool_choice"] = "required"
    elif isinstance(choice, dict) and choice["type"] == "allowed_tools":
        tools = [tool for tool in choice["tools"] if tool["type"] != "custom"]
        known["tool_choice"] = {**choice, "tools": tools}
    return known


def _is_custom(item: dict[str, Any]) -> bool:
    return str(item["type"]).startswith("custom_tool_call")


def _as_openai(response: dict[str, Any]) -> dict[str, Any]:
    """A Response without the nulls that OpenAI leaves out, and the namespaces that this version of its schema does not know (the SDK does)."""
    format = response["text"]["format"]
    described = {n: v for n, v in format.items() if n != "description" or v is not None}
    text = {**response["text"], "format": described}
    tools = [tool for tool in response["tools"] if tool["type"] != "namespace"]
    said = {n: v for n, v in response.items() if n != "usage" or v is not None}
    return said | {"text": text, "tools": tools}


def check_input_items(listed: dict[str, Any]) -> None:
    """A page of `GET /responses/{id}/input_items`: the SDK's list, of items that the published schema knows."""
    ResponseItemList.model_validate(listed)
    for item in listed["data"]:
        published("ItemField").validate(item)


def events_of(stream: bytes) -> list[dict[str, Any]]:
    """A stream's events, each found right by both judges; `[DONE]` is expected at the end, and left out."""
    *events, done = data_of(stream)
    assert done == "[DONE]"
    assert [e["sequence_number"] for e in events] == list(
        range(events[0]["sequence_number"], events[0]["sequence_number"] + len(events))
    )
    names = [line[7:].decode() for line in stream.split(b"\n") if line.startswith(b"event: ")]
    assert names == [event["type"] for event in events]
    for event in events:
        check_event(event)
    return events


_PUBLISHED_NAMES = {
    "response.reasoning_text.delta": "response.reasoning.delta",
    "response.reasoning_text.done": "response.reasoning.done",
}


def check_event(event: dict[str, Any]) -> None:
    type = event["type"]
    response = event.get("response")
    if not type.startswith(_CUSTOM_EVENT) and not _is_custom(event.get("item", {"type": ""})):
        name = _PUBLISHED_NAMES.get(type, type)
        known = {"response": _without_custom(response)} if response else {}
        published(_event_schema_names()[name]).validate({**event, "type": name, **known})
    error = response and response.get("error")
    if not error or error["code"] in ("server_error", "rate_limit_exceeded"):
        known = {"response": _as_openai(response)} if response else {}
        _openai(_openai_event_names()[type]).validate({**event, **known})
        _sdk_events()[type].model_validate(event)
