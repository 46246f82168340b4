"""The documents as a whole: what they are called, whom they ask for a credential, what they leave out and why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Flask
from flask_smorest import Blueprint as Described

from dwctl import __version__
from dwctl.config import Settings
from dwctl.operations.openapi import inference, operations, published, refusals
from dwctl.operations.openapi.kinds import Components
from dwctl.operations.openapi.operations import Route, Surroundings

Json = dict[str, Any]

ADMIN_SERVER = "/admin/api/v1"
AI_SERVER = "/ai/v1"
_AUTHENTICATION = "/authentication"
_IN_FULL = ("/monitoring/", "/requests")
"""Below the admin API, but listed with their whole path, as clients know them."""

NOT_DESCRIBED = {
    "ai.unknown": "whatever a model's server may know, handed on in open mode",
    "ai.compact": "always refused: only a provider can do it with its own models",
    "playground.infer": "inference for the dashboard, the same as /ai/v1 on the caller's session",
    "playground.list_models": "the same as /ai/v1/models on the caller's session",
}
"""Routes below the documents' prefixes that they leave out, with the reason."""

_ABOUT_ADMIN = """Users, groups, keys, endpoints, models, credit and everything else that is administered.

Show who you are by an API key of purpose `platform` (`Authorization: Bearer sk-...`), by the session cookie of a sign-in, or by the header that
a trusted proxy sets. Every answer carries `x-request-id`, which finds it in the log; request fields that mean nothing are ignored and
named in `x-ignored-fields`. In a PATCH an absent field stays as it is. Conventions: docs/admin-api.md."""
_ABOUT_AI = """OpenAI-compatible inference, files and batches.

Calls of models take API keys only (`Authorization: Bearer sk-...`, purpose `realtime`); files, batches and stored responses also the session
cookie or the header of a trusted proxy. Errors have OpenAI's envelope. Every answer carries `x-request-id`."""

_AI_TAGS = {
    "chat": "Conversations with a model.",
    "completions": "Texts that a model continues.",
    "embeddings": "Texts as vectors.",
    "responses-api": "Responses: streamed, in the background, or waiting for a worker; stored, and shown again.",
    "models": "The models that a key may call.",
    "cost-estimate": "What a call would cost.",
    "files": "Files of requests for batches, and what comes out of them.",
    "batches": "Files of requests, run once.",
    "daemons": "The processes that run requests.",
}
_TAG_OF_SEGMENT = {"responses": "responses-api"}


def admin(app: Flask, settings: Settings) -> Json:
    """Everything below /admin/api/v1 and /authentication."""
    found = _routes(app, ADMIN_SERVER + "/", _AUTHENTICATION + "/")
    tags = {
        name.replace("_", " "): getattr(blueprint, "description", None) or ""
        for name, blueprint in sorted(app.blueprints.items())
        if isinstance(blueprint, Described) and any(route.blueprint == name for route in found)
    }
    document, around = _document(
        found,
        settings,
        title="Admin API",
        about=_ABOUT_ADMIN,
        server=ADMIN_SERVER,
        tags=tags,
        tag_of=lambda route: route.blueprint.replace("_", " "),
    )
    around.components.schemas["Error"] = refusals.ADMIN_ERROR
    for route in found:
        path = route.path_below(ADMIN_SERVER)
        at_root = path.startswith((_AUTHENTICATION, *_IN_FULL))
        if path.startswith(_IN_FULL):
            path = ADMIN_SERVER + path
        item = document["paths"].setdefault(path, {})
        if at_root:
            item["servers"] = [{"url": "/", "description": "Not below the server of the others."}]
        item[route.method.lower()] = operations.described_route(route, around)
    return _finished(document, around)


def ai(app: Flask, settings: Settings) -> Json:
    """Everything below /ai/v1."""
    found = _routes(app, AI_SERVER + "/")
    used = {_segment(route) for route in found}
    document, around = _document(
        found,
        settings,
        title="AI API",
        about=_ABOUT_AI,
        server=AI_SERVER,
        tags={name: text for name, text in _AI_TAGS.items() if name in used},
        tag_of=_segment,
    )
    schemas = around.components.schemas
    schemas |= published.schemas() | inference.SCHEMAS | {"Error": refusals.OPENAI_ERROR}
    for route in found:
        describe = inference.DESCRIBERS.get(route.endpoint, operations.described_route)
        item = document["paths"].setdefault(route.path_below(AI_SERVER), {})
        item[route.method.lower()] = describe(route, around)
    if "/files" in document["paths"]:
        document["paths"]["/files"]["post"]["requestBody"] = _UPLOAD
    return _finished(document, around)


_UPLOAD: Json = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file", "purpose"],
                "properties": {
                    "file": {"type": "string", "format": "binary", "description": "JSON lines, one request in each: `custom_id`, `method`, `url`, `body`. May be compressed (`.gz`, `.zst`)."},
                    "purpose": {"const": "batch", "description": "What the file is for."},
                    "expires_after[anchor]": {"const": "created_at", "description": "When its life begins."},
                    "expires_after[seconds]": {"type": "integer", "minimum": 1, "description": "How long it is kept."},
                },
            },
            "encoding": {"file": {"contentType": "application/jsonl"}},
        }
    },
}  # fmt: skip


def _routes(app: Flask, *prefixes: str) -> list[Route]:
    found = operations.routes(app, *prefixes)
    return [route for route in found if route.endpoint not in NOT_DESCRIBED]


def _segment(route: Route) -> str:
    first = route.path_below(AI_SERVER).split("/")[1]
    return _TAG_OF_SEGMENT.get(first, first)


def _document(
    found: list[Route],
    settings: Settings,
    *,
    title: str,
    about: str,
    server: str,
    tags: dict[str, str],
    tag_of: Callable[[Route], str],
) -> tuple[Json, Surroundings]:
    native, proxy = settings.auth.native.session, settings.auth.proxy_header
    schemes: Json = {
        "BearerAuth": {"type": "http", "scheme": "bearer", "description": "An API key, `sk-...`."},
        "CookieAuth": {"type": "apiKey", "in": "cookie", "name": native.cookie_name, "description": "The session of a sign-in by password."},
        "ProxyHeaderAuth": {"type": "apiKey", "in": "header", "name": proxy.header_name, "description": "Set by a trusted proxy that has signed its user in; believed from nobody else."},
    }  # fmt: skip
    document: Json = {
        "openapi": "3.1.0",
        "info": {"title": title, "version": __version__, "description": about},
        "servers": [{"url": server}],
        "tags": [{"name": name, "description": text} for name, text in tags.items()],
        "paths": {},
        "components": {"securitySchemes": schemes},
    }
    security: list[Json] = [{name: []} for name in schemes]
    around = Surroundings(Components(), security, tag_of, operations.names(found))
    return document, around


_HEADERS: Json = {
    "RequestId": {"description": "Finds the request in the log, and the call in its record.", "schema": {"type": "string", "format": "uuid"}},
    "IgnoredFields": {"description": "Fields of the request that had no effect, comma-separated; absent where there are none.", "schema": {"type": "string"}},
    "RetryAfter": {"description": "Seconds after which it makes sense to try again.", "schema": {"type": "integer", "minimum": 0}},
    "Link": {"description": '`<...>; rel="next"` (RFC 8288): the next page, where there is one.', "schema": {"type": "string"}},
}  # fmt: skip


def _finished(document: Json, around: Surroundings) -> Json:
    schemas = dict(sorted(around.components.schemas.items()))
    document["components"] |= {
        "schemas": schemas,
        "responses": refusals.components(),
        "headers": _HEADERS,
    }
    return document
