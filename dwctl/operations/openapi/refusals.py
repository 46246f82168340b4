"""Which errors a route can answer, and what they look like: the admin form, and OpenAI's envelope under /ai."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Json = dict[str, Any]

SAYS: dict[int, tuple[str, str]] = {
    400: ("BadRequest", "The request breaks a rule: a malformed id, query string or body, or a rule of the resource."),
    401: ("Unauthenticated", "No credential holds: none was sent, or it is unknown, expired or of the wrong purpose."),
    402: ("InsufficientCredits", "The account has no credit left for this call."),
    403: ("Forbidden", "The caller may not do this; the message names the missing permission."),
    404: ("NotFound", "There is no such thing, or the caller may not know of it."),
    408: ("RequestTimeout", "The request's body came too slowly."),
    409: ("Conflict", "It contradicts what is there: a name, alias or address is taken, or a rule between resources would break."),
    413: ("PayloadTooLarge", "The request's body is too large."),
    414: ("UriTooLong", "The path with its query string is too long."),
    415: ("UnsupportedMediaType", "The body is not of a kind that this route reads."),
    422: ("UnprocessableRequest", "Well-formed JSON of the wrong shape; `details` lists each field with what is wrong."),
    429: ("TooManyRequests", "A limit of the account, the key, the model or the address; try again after `Retry-After` seconds."),
    500: ("InternalError", "Something failed that should not; the log has the details under the request's id."),
    502: ("UpstreamFailed", "The model's server failed, or refused the gateway's own credential."),
    503: ("Unavailable", "The database or every target is away, or the process is stopping; try again after `Retry-After` seconds."),
    504: ("UpstreamTimeout", "The model's server did not answer in time."),
}  # fmt: skip
"""Name of the component and meaning of each."""

_ANYWHERE = (500, 503)

ADMIN_ERROR: Json = {
    "type": "object",
    "description": "Why a request was refused, for people (`message`) and for programs (`code`).",
    "required": ["code", "message", "request_id"],
    "properties": {
        "code": {"type": "string", "description": "A stable word for the reason."},
        "message": {"type": "string", "description": "What is wrong, and what to do."},
        "request_id": {"type": "string", "format": "uuid", "description": "Finds it in the log."},
        "details": {"type": "object", "description": "Each wrong field, by place (`json`, `query`) and path.", "additionalProperties": True},
        "retry_after_seconds": {"type": "integer", "minimum": 0, "description": "As the header `Retry-After`."},
        "resource": {"type": "string", "description": "Of a conflict: what has the name already."},
        "conflicts": {
            "type": "array",
            "description": "Of a conflict between an endpoint's models and aliases that are taken.",
            "items": {
                "type": "object",
                "properties": {"model_name": {"type": "string"}, "attempted_alias": {"type": "string"}},
            },
        },
    },
    "additionalProperties": True,
    "examples": [
        {"code": "not_found", "message": "Group with ID 0199a8f1-7c5e-7d3a-9b64-5e1f0c2d8a47 not found", "request_id": "0199a8f2-0b7e-7c11-8f3d-6c1d2e3f4a5b"}
    ],
}  # fmt: skip

OPENAI_ERROR: Json = {
    "type": "object",
    "description": "OpenAI's envelope.",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string", "description": "What is wrong, and what to do."},
                "type": {"type": "string", "description": "The kind of error, as OpenAI calls it."},
                "param": {"type": ["string", "null"], "description": "The member of the request that is to blame."},
                "code": {"type": ["string", "null"], "description": "A stable word for the reason."},
            },
            "additionalProperties": True,
        }
    },
    "examples": [
        {"error": {"message": "The model `gpt-oss` does not exist or you do not have access to it.", "type": "invalid_request_error", "param": "model", "code": "model_not_found"}}
    ],
}  # fmt: skip


def of_route(*, caller: bool, arguments: bool, body: bool, query: bool) -> set[int]:
    """What follows from a route's form: it needs a caller, names something in its path, reads a body or a query string."""
    found = set(_ANYWHERE)
    if caller:
        # (A malformed X-Organization-Id is 400.)
        found |= {400, 401, 403}
    if arguments:
        found |= {400, 404}
    if query:
        found |= {400, 414}
    if body:
        found |= {400, 404, 408, 409, 413, 415, 422}
    return found


INFERENCE = (400, 401, 402, 403, 404, 408, 409, 413, 415, 429, 500, 502, 503, 504)
"""What a call of a model can be refused with, by us or by the model's server."""


def components() -> Json:
    """The answers as components, by name. Their body is the document's schema `Error`."""
    return {name: _answer(status, says) for status, (name, says) in SAYS.items()}


def references(statuses: Iterable[int]) -> Json:
    """The answers of an operation, by status."""
    return {str(s): {"$ref": f"#/components/responses/{SAYS[s][0]}"} for s in sorted(statuses)}


def _answer(status: int, says: str) -> Json:
    headers: Json = {"x-request-id": {"$ref": "#/components/headers/RequestId"}}
    if status in (429, 503):
        headers["Retry-After"] = {"$ref": "#/components/headers/RetryAfter"}
    schema = {"$ref": "#/components/schemas/Error"}
    return {
        "description": says,
        "headers": headers,
        "content": {"application/json": {"schema": schema}},
    }
