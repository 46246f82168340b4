"""The schemas that OpenAI and Open Responses publish, as far as our routes speak them, with what we promise less or take more.

`published/*.json` are cut out of their OpenAPI documents (OpenAI: MIT; Open Responses 2026-04-24: Apache 2.0; licences beside them), without
vendor extensions. What servers of models leave out of their answers is not required in ours.
"""

from __future__ import annotations

from importlib import resources
from typing import Any

import orjson

Json = dict[str, Any]


def schemas() -> Json:
    """All of them by name; each call makes new ones."""
    folder = resources.files("dwctl.operations.openapi").joinpath("published")
    found: Json = {}
    for name in ("openai.json", "openresponses.json"):
        found |= orjson.loads(folder.joinpath(name).read_bytes())
    _tell_apart_by_content(found)
    _loosen(found)
    return found


def _tell_apart_by_content(shape: Any) -> None:
    """A discriminator without a mapping says that the member holds the name of a schema, and generated clients send that: they name their members' values, which several schemas share."""
    if isinstance(shape, dict):
        shape.pop("discriminator", None)
    for each in shape.values() if isinstance(shape, dict) else shape:
        if isinstance(each, (dict, list)):
            _tell_apart_by_content(each)


def _loosen(found: Json) -> None:
    choice = found["CreateChatCompletionResponse"]["properties"]["choices"]["items"]
    choice["required"] = ["index", "message", "finish_reason"]
    found["ChatCompletionResponseMessage"]["required"] = ["role"]
    # Upstream servers have reasons of their own, and null for none.
    for name in ("CreateChatCompletionResponse", "CreateCompletionResponse"):
        reason = found[name]["properties"]["choices"]["items"]["properties"]["finish_reason"]
        reason.pop("enum", None)
        reason["type"] = ["string", "null"]
    completion = found["CreateCompletionResponse"]["properties"]["choices"]["items"]
    completion["required"] = ["index", "text", "finish_reason"]
    # With `encoding_format: base64`.
    vector = found["Embedding"]["properties"]["embedding"]
    found["Embedding"]["properties"]["embedding"] = {"anyOf": [vector, {"type": "string"}]}
    function = found["FunctionTool"]["properties"]
    function["parameters"] = {
        "anyOf": [{"$ref": "#/components/schemas/FunctionParameters"}, {"type": "null"}]
    }
    # What was asked for is echoed, not left out.
    echoed = found["JsonSchemaResponseFormat"]["properties"]
    echoed["schema"] = {"type": ["object", "null"], "additionalProperties": True}
    # Tools and items of other kinds are those of upstreams that speak the protocol themselves.
    other = {"type": "object", "required": ["type"], "additionalProperties": True}
    body, shown = found["CreateResponseBody"], found["ResponseResource"]["properties"]
    body["required"] = ["model", "input"]
    for listed in (body["properties"]["tools"]["anyOf"][0], shown["tools"], shown["output"]):
        listed["items"] = {"anyOf": [listed["items"], other]}
