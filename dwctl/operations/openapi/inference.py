"""The operations under /ai/v1 whose views are plain Flask: models, calls of models, stored responses."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from dwctl.operations.openapi import refusals
from dwctl.operations.openapi.operations import (
    Route,
    Surroundings,
    parameter,
    path_parameters,
    said,
)
from dwctl.protocols.surfaces import SURFACES

Json = dict[str, Any]

_EVENT_STREAM = "text/event-stream"
_BEARER: list[Json] = [{"BearerAuth": []}]

SCHEMAS: Json = {
    "Model": {
        "type": "object",
        "description": "A model that the key may call.",
        "required": ["id", "object", "created", "owned_by"],
        "properties": {
            "id": {"type": "string", "description": "Its alias: what calls name as `model`."},
            "object": {"const": "model"},
            "created": {"type": "integer", "description": "Unix seconds."},
            "owned_by": {"type": "string"},
        },
        "examples": [
            {"id": "gpt-oss", "object": "model", "created": 1780000000, "owned_by": "dwctl"}
        ],
    },
    "ModelList": {
        "type": "object",
        "required": ["object", "data"],
        "properties": {
            "object": {"const": "list"},
            "data": {"type": "array", "items": {"$ref": "#/components/schemas/Model"}},
        },
    },
    "ResponseDeleted": {
        "type": "object",
        "required": ["id", "object", "deleted"],
        "properties": {
            "id": {"type": "string"},
            "object": {"type": "string"},
            "deleted": {"type": "boolean"},
        },
    },
    "ResponseInputItems": {
        "type": "object",
        "description": "A page of what went into a response.",
        "required": ["object", "data", "first_id", "last_id", "has_more"],
        "properties": {
            "object": {"const": "list"},
            "data": {"type": "array", "items": {"type": "object", "additionalProperties": True}},
            "first_id": {"type": ["string", "null"]},
            "last_id": {"type": ["string", "null"]},
            "has_more": {"type": "boolean"},
        },
    },
    "CostEstimateRequest": {
        "type": "object",
        "description": "A call, as a line of a batch says it.",
        "required": ["url", "body"],
        "properties": {
            "url": {"enum": [f"/v1/{path}" for path in SURFACES]},
            "body": {
                "type": "object",
                "additionalProperties": True,
                "description": "The call's body.",
            },
            "completion_window": {
                "type": ["string", "null"],
                "description": "Of the batch, where it is a line of one.",
            },
        },
    },
    "CostEstimate": {
        "type": "object",
        "required": [
            "object",
            "model",
            "prompt_tokens",
            "most_prompt_tokens",
            "most_output_tokens",
            "is_bounded",
            "least_cost",
            "most_cost",
            "tariff",
            "balance",
            "calls_covered",
        ],
        "properties": {
            "object": {"const": "cost_estimate"},
            "model": {"type": "string"},
            "prompt_tokens": {"type": "integer", "minimum": 1, "description": "Likely."},
            "most_prompt_tokens": {
                "type": "integer",
                "minimum": 1,
                "description": "Media that are very large may have more.",
            },
            "most_output_tokens": {
                "type": "integer",
                "minimum": 0,
                "description": "Of all its answers.",
            },
            "is_bounded": {
                "type": "boolean",
                "description": "Whether the body says how long an answer may become.",
            },
            "least_cost": {
                "type": "string",
                "description": "USD: the likely prompt, and no answer.",
            },
            "most_cost": {"type": "string", "description": "USD."},
            "tariff": {
                "type": ["object", "null"],
                "description": "Its id and prices, in USD per token; null: the call is free.",
                "required": ["id", "input_price_per_token", "output_price_per_token"],
                "properties": {
                    "id": {"type": "string", "format": "uuid"},
                    "input_price_per_token": {"type": "string"},
                    "output_price_per_token": {"type": "string"},
                    "cached_input_price_per_token": {"type": "string"},
                    "reasoning_price_per_token": {"type": "string"},
                },
            },
            "balance": {"type": "string", "description": "USD."},
            "calls_covered": {
                "type": ["integer", "null"],
                "minimum": 0,
                "description": "How many such calls the balance is enough for; null: any number.",
            },
        },
    },
    "InputTokens": {
        "type": "object",
        "required": ["object", "input_tokens"],
        "properties": {
            "object": {"const": "response.input_tokens"},
            "input_tokens": {"type": "integer", "minimum": 0},
        },
    },
}
"""Ours, beside those that are published."""

_HELLO = [{"role": "user", "content": "Hello"}]


def _call(
    text: str,
    wants: str,
    gives: str,
    example: Json,
    *,
    streams: str | None = None,
    queueable: bool = True,
    background: bool = False,
) -> Callable[[Route, Surroundings], Json]:
    """A call of a model: schemas of its body, its answer, and the events of a stream."""

    def describe(route: Route, around: Surroundings) -> Json:
        content: Json = {"application/json": {"schema": _ref(gives)}}
        if streams:
            content[_EVENT_STREAM] = _events(streams)
        answers: Json = {"200": _answer("The model's answer; a stream of events with `stream: true`.", content, "x-ignored-fields")}  # fmt: skip
        if background:
            taken: Json = {"application/json": {"schema": _ref(gives)}}
            answers["202"] = _answer(
                "Taken on, with `background: true`: ask for it by its id.", taken
            )
        summary, _, more = text.partition(". ")
        operation = _operation(route, around, (summary, more), answers, refusals.INFERENCE)
        operation["parameters"] = [_IDEMPOTENCY_KEY] if queueable else []
        body = {"schema": _ref(wants), "example": example}
        operation["requestBody"] = {"required": True, "content": {"application/json": body}}
        return operation

    return describe


def _stored(
    status: int,
    gives: str,
    means: str,
    *,
    query: Iterable[Json] = (),
    streams: str | None = None,
    security: list[Json] | None = None,
    statuses: Iterable[int] = (400, 401, 404, 429, 500, 503),
) -> Callable[[Route, Surroundings], Json]:
    """A route about what is there."""

    def describe(route: Route, around: Surroundings) -> Json:
        content: Json = {"application/json": {"schema": _ref(gives)}}
        if streams:
            content[_EVENT_STREAM] = _events(streams)
        answers = {str(status): _answer(means, content)}
        operation = _operation(route, around, said(route.view), answers, statuses)
        operation["parameters"] = [*path_parameters(route), *query]
        operation["security"] = security or around.security
        return operation

    return describe


def _count(route: Route, around: Surroundings) -> Json:
    answers = {
        "200": _answer(
            "The number of tokens.", {"application/json": {"schema": _ref("InputTokens")}}
        )
    }
    operation = _operation(route, around, said(route.view), answers, refusals.INFERENCE)
    body = {
        "schema": _ref("CreateResponseBody"),
        "example": {"model": "gpt-oss", "input": "Hello"},
    }
    operation["requestBody"] = {"required": True, "content": {"application/json": body}}
    return operation


def _estimate(route: Route, around: Surroundings) -> Json:
    answers = {"200": _answer("The estimate.", {"application/json": {"schema": _ref("CostEstimate")}})}  # fmt: skip
    operation = _operation(route, around, said(route.view), answers, refusals.INFERENCE)
    call = {"model": "gpt-oss", "messages": _HELLO, "max_tokens": 100}
    body = {
        "schema": _ref("CostEstimateRequest"),
        "example": {"url": "/v1/chat/completions", "body": call},
    }
    operation["requestBody"] = {"required": True, "content": {"application/json": body}}
    return operation


_IDEMPOTENCY_KEY: Json = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "A call that is repeated with the same key and body is answered from the first one, and is not billed again.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}

DESCRIBERS: dict[str, Callable[[Route, Surroundings], Json]] = {
    "ai.create_chat_completions": _call(
        "Answer a conversation. `service_tier: flex` waits for a worker, at the price of the tier. Members that the gateway does not know "
        "travel on to the model's server, in open mode.",
        "CreateChatCompletionRequest",
        "CreateChatCompletionResponse",
        {"model": "gpt-oss", "messages": _HELLO},
        streams="CreateChatCompletionStreamResponse",
    ),
    "ai.create_completions": _call(
        "Continue a text. The older form of chat completions.",
        "CreateCompletionRequest",
        "CreateCompletionResponse",
        {"model": "gpt-oss", "prompt": "Once upon a time"},
        streams="CreateCompletionResponse",
    ),
    "ai.create_embeddings": _call(
        "Embed texts",
        "CreateEmbeddingRequest",
        "CreateEmbeddingResponse",
        {"model": "embedder", "input": "The quick brown fox"},
    ),
    "ai.create_responses": _call(
        "Create a response. It can stream, run in the background (`background: true`: 202 at once, then ask for it by its id), wait for a worker "
        "(`service_tier: flex`), and go on from an earlier one (`previous_response_id`). Tools of other kinds than `function` run where the "
        "model's server has them.",
        "CreateResponseBody",
        "ResponseResource",
        {"model": "gpt-oss", "input": "Hello"},
        streams="ResponseStreamEvent",
        background=True,
    ),
    "ai.list_models": _stored(
        200, "ModelList", "The models.", security=_BEARER, statuses=(401, 429, 500, 503)
    ),
    "ai.get_model": _stored(
        200, "Model", "The model.", security=_BEARER, statuses=(400, 401, 404, 429, 500, 503)
    ),
    "ai.get_response": _stored(
        200,
        "ResponseResource",
        "The response as it stands.",
        query=(
            parameter("stream", False, {"type": "string", "enum": ["true", "false", "1", "0"], "description": "`true`: its events, the past ones and those to come."}),
            parameter("starting_after", False, {"type": "integer", "minimum": 0, "maximum": 2**31 - 1, "description": "With `stream`: only events behind this `sequence_number`."}),
        ),
        streams="ResponseStreamEvent",
    ),
    "ai.delete_response": _stored(200, "ResponseDeleted", "It is gone."),
    "ai.cancel_response": _stored(
        200,
        "ResponseResource",
        "The response as it stands now.",
        statuses=(400, 401, 404, 409, 429, 500, 503),
    ),
    "ai.list_input_items": _stored(
        200,
        "ResponseInputItems",
        "A page of items.",
        query=(
            parameter("limit", False, {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}),
            parameter("order", False, {"type": "string", "enum": ["asc", "desc"], "default": "desc"}),
            parameter("after", False, {"type": "string", "description": "The id of the item before, in that order."}),
        ),
    ),
    "ai.count_input_tokens": _count,
    "ai.estimate_call": _estimate,
}  # fmt: skip
"""How to describe each view."""


def _operation(
    route: Route,
    around: Surroundings,
    text: tuple[str, str],
    answers: Json,
    statuses: Iterable[int],
) -> Json:
    summary, more = text
    return {
        "operationId": around.ids[route.endpoint, route.method],
        "tags": [around.tag_of(route)],
        "summary": summary,
        **({"description": more} if more else {}),
        "parameters": [],
        "responses": {**answers, **refusals.references(statuses)},
        "security": _BEARER,
    }


def _answer(means: str, content: Json, *headers: str) -> Json:
    names = {"x-ignored-fields": "IgnoredFields"}
    known = {name: {"$ref": f"#/components/headers/{names[name]}"} for name in headers}
    request_id = {"x-request-id": {"$ref": "#/components/headers/RequestId"}}
    return {"description": means, "headers": {**request_id, **known}, "content": content}


def _events(name: str) -> Json:
    text = f"Server-sent events; the `data` of each is a {name}, as JSON."
    return {"schema": {"type": "string", "description": text}, "x-event-schema": _ref(name)}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}
