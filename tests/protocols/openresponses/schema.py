"""The published schema (Open Responses, 2026-04-24) and OpenAI's SDK, as two judges of everything that we send.

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
"""

import json
from functools import cache
from pathlib import Path
from typing import Any, get_args

from jsonschema import Draft202012Validator
from openai.types.responses import Response, ResponseStreamEvent

from tests.protocols.streams import data_of

_FILE = Path(__file__).parent.parent / "standards" / "openresponses" / "openapi-2026-04-24.json"


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
    reference = {"$ref": f"#/components/schemas/{name}", "components": {"schemas": _schemas()}}
    return Draft202012Validator(reference)


@cache
def _event_schema_names() -> dict[str, str]:
    events = {n: s for n, s in _schemas().items() if n.endswith("StreamingEvent")}
    return {s["properties"]["type"]["enum"][0]: n for n, s in events.items()}


def check_response(response: dict[str, Any], *, sdk: bool = True) -> None:
    """sdk: False where the error has a code of our own."""
    published("ResponseResource").validate(response)
    if sdk:
        Response.model_validate(response)


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
    type = _PUBLISHED_NAMES.get(event["type"], event["type"])
    published(_event_schema_names()[type]).validate({**event, "type": type})
    error = event.get("response", {}).get("error")
    if not error or error["code"] in ("server_error", "rate_limit_exceeded"):
        _sdk_events()[event["type"]].model_validate(event)
