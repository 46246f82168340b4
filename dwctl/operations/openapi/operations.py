"""Routes of the URL map as operations: parameters, bodies and answers from what their views declare."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from flask import Flask
from marshmallow import Schema
from werkzeug.routing import Rule

from dwctl.access import guard
from dwctl.operations.openapi import refusals
from dwctl.operations.openapi.kinds import Components, Direction
from dwctl.web import described
from dwctl.web.pagination import PageQuery

Json = dict[str, Any]

_UUID = {"type": "string", "format": "uuid"}
_BY_CONVERTER: dict[str, Json] = {
    "int": {"type": "integer", "minimum": 0},
    "id": _UUID,
    "user": {"anyOf": [_UUID, {"const": "current"}]},
    "path": {"type": "string", "minLength": 1},
    "default": {"type": "string", "minLength": 1, "pattern": "^[^/]+$"},
}
_ARGUMENT = re.compile(r"<(?:(\w+):)?(\w+)>")

KNOWN_AS = {"key": "provider_key", "key_id": "id", "alias": "model", "model_id": "component_id"}
"""Path parameters that clients of the API know by another name than the code."""

_IN_PATH = {
    "user_id": "A user's id, or an organisation's; `current` stands for oneself where it is allowed.",
    "group_id": "A group's id; the nil UUID is Everyone.",
    "deployment_id": "A model's id.",
    "component_id": "The id of the standard model that is a component.",
    "model": "A model's alias; it may contain slashes.",
    "file_id": "A file's id, with or without `file-`.",
    "batch_id": "A batch's id, with or without `batch_`.",
    "response_id": "A response's id, with or without `resp_`.",
    "sync_id": "A synchronisation's id.",
    "id": "The id of what the path names.",
}
_IN_QUERY = {
    "skip": "How many to leave out from the beginning; a negative number counts as 0.",
    "limit": "How many at most; moved into its range.",
    "after": "A cursor: goes on behind it. It comes from the answer before (its `Link` header, or the id of its last element).",
    "search": "Only those whose names contain this text, in any case; blank means all.",
    "include": "What to show with each, comma-separated. Unknown names, and what the caller may not see, are left out.",
    "order": "`asc` or `desc`, by time of creation.",
    "status": "Only those of this status.",
    "purpose": "Only those of this purpose.",
    "member_id": "Only what this member of the account has made.",
    "own": "Only one's own.",
    "completion_window": "The time within which it is to be done, such as `24h`.",
    "created_after": "Only what was made at this time or later.",
    "created_before": "Only what was made before this time.",
    "active_first": "What runs and waits comes first.",
    "cursor": "The `next_cursor` of the page before.",
    "kind": "Only those of this kind.",
    "deleted": "Show deleted ones; for administrators of the system.",
    "inactive": "Show inactive ones; for administrators of the system.",
    "endpoint": "Only those of this endpoint, by id.",
    "accessible": "Only those that the caller's account may use.",
    "is_composite": "Only composite ones, or only standard ones.",
    "provider": "Only those of this provider.",
    "model_type": "Only those of this type.",
    "capability": "Only those that can do this.",
    "sort": "What to sort by.",
    "sort_direction": "`asc` or `desc`; without it, as suits the member sorted by.",
    "all": "The entries of every account, for those who may read them.",
    "group_batches": "Show the usage of a batch as one entry.",
    "start_date": "Only entries from this time on.",
    "end_date": "Only entries up to this time.",
    "model": "Only those of these models, by alias, comma-separated.",
    "service_tiers": "Only those of these tiers, comma-separated.",
}
"""Parameters that many routes have, by name. A field's own description goes before."""


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one rule."""

    rule: Rule
    method: str
    view: Callable[..., Any]
    blueprint: str

    @property
    def endpoint(self) -> str:
        """Blueprint and view."""
        return str(self.rule.endpoint)

    def path_below(self, prefix: str) -> str:
        """As OpenAPI spells it, relative to a server's path."""
        spelled = _ARGUMENT.sub(lambda m: "{" + KNOWN_AS.get(m[2], m[2]) + "}", self.rule.rule)
        return spelled.removeprefix(prefix)


@dataclass(slots=True)
class Surroundings:
    """What the operations of one document share. `security`: what a caller shows; `tag_of`: the tag of a route."""

    components: Components
    security: list[Json]
    tag_of: Callable[[Route], str]
    ids: dict[tuple[str, str], str]


def routes(app: Flask, *prefixes: str) -> list[Route]:
    """All below these prefixes, in a stable order."""
    found = [
        Route(rule, method, app.view_functions[rule.endpoint], rule.endpoint.rpartition(".")[0])
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith(prefixes)
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"})
    ]
    return sorted(found, key=lambda route: (route.rule.rule, route.method))


def names(found: list[Route]) -> dict[tuple[str, str], str]:
    """An operation id for each endpoint and method: the view's name, with its blueprint's before it where several have it."""
    views = [route.view.__name__ for route in found]
    return {
        (route.endpoint, route.method): name
        if views.count(name := route.view.__name__) == 1
        else f"{_word(route.blueprint)}_{name}"
        for route in found
    }


def described_route(route: Route, around: Surroundings) -> Json:
    """The operation that a view with flask-smorest's decorators declares."""
    declared = getattr(route.view, "_apidoc", {})
    more = described.of(route.view)
    summary, text = said(route.view)
    bodies, queries = _arguments(declared, "json"), _arguments(declared, "query")
    needs_caller = guard.rule_of(route.blueprint) == "a caller"
    statuses = refusals.of_route(
        caller=needs_caller,
        arguments=bool(route.rule.arguments),
        body=bool(bodies),
        query=bool(queries),
    )
    statuses |= set(more.refusals) | ({409} if route.method in ("DELETE", "POST") else set())
    operation: Json = {
        "operationId": around.ids[route.endpoint, route.method],
        "tags": [around.tag_of(route)],
        "summary": summary,
        **({"description": text} if text else {}),
        **({"deprecated": True} if more.deprecated else {}),
        "parameters": [*path_parameters(route), *_query_parameters(queries, around.components)],
    }
    if bodies:
        operation["requestBody"] = _body(bodies[0], around.components)
    operation["responses"] = {
        **_successes(declared, more, around.components, is_read=bool(bodies)),
        **refusals.references(statuses),
    }
    operation["security"] = around.security if needs_caller else []
    return operation


def said(view: Callable[..., Any]) -> tuple[str, str]:
    """Summary and description: the docstring's first sentence, and the rest."""
    text = inspect.cleandoc(view.__doc__ or "")
    first, _, rest = text.partition("\n")
    sentence = re.match(r".*?[^.]\.(?=\s|$)(?<!e\.g\.)", first)
    if sentence is None or sentence.end() == len(first):
        return first.rstrip("."), rest.strip()
    return sentence[0].rstrip("."), f"{first[sentence.end() :].strip()}\n{rest}".strip()


def path_parameters(route: Route) -> Iterator[Json]:
    """Those of a rule."""
    for converter, name in _ARGUMENT.findall(route.rule.rule):
        known = KNOWN_AS.get(name, name)
        yield {
            "name": known,
            "in": "path",
            "required": True,
            "description": _IN_PATH.get(known) or sentence_of(known),
            "schema": _BY_CONVERTER[converter or "default"],
        }


def sentence_of(name: str) -> str:
    """A description of what its name says already."""
    words = name.replace("_", " ").removesuffix(" id")
    return f"The id of the {words}." if name.endswith("_id") else f"{words.capitalize()}."


def parameter(name: str, required: bool, shape: Json) -> Json:
    """One of a query string."""
    text = shape.pop("description", None) or _IN_QUERY.get(name) or sentence_of(name)
    return {
        "name": name,
        "in": "query",
        "required": required,
        "description": text,
        "schema": shape,
    }


def _query_parameters(kinds: list[type[Schema]], components: Components) -> Iterator[Json]:
    for kind in kinds:
        for name, required, shape in components.parameters(kind):
            yield parameter(name, required, shape)


def _arguments(declared: Json, place: str) -> list[type[Schema]]:
    found = declared.get("arguments", {}).get("parameters", ())
    kinds = (each["schema"] for each in found if each["in"] == place)
    return [kind if isinstance(kind, type) else type(kind) for kind in kinds]


def _body(kind: type[Schema], components: Components) -> Json:
    content: Json = {"schema": components.reference(kind, Direction.READ)}
    example = getattr(kind, "example", None)
    if example is not None and _is_read(example, kind):
        content["example"] = example
    required = not getattr(kind, "may_be_absent", False)
    return {"required": required, "content": {"application/json": content}}


def _is_read(example: Json, kind: type[Schema]) -> bool:
    return example.keys() <= kind().load_fields.keys()


def _successes(
    declared: Json, more: described.Description, components: Components, *, is_read: bool
) -> Json:
    headers: Json = {"x-request-id": {"$ref": "#/components/headers/RequestId"}}
    if is_read:
        headers["x-ignored-fields"] = {"$ref": "#/components/headers/IgnoredFields"}
    if any(issubclass(kind, PageQuery) for kind in _arguments(declared, "query")):
        headers["Link"] = {"$ref": "#/components/headers/Link"}
    for name, text in more.headers.items():
        headers[name] = {"description": text, "schema": {"type": "string"}}
    answers = {}
    for status, variants in declared.get("response", {}).get("responses", {}).items():
        (answer,) = variants if isinstance(variants, list) else [variants]
        text = answer["description"]
        if text == HTTPStatus(int(status)).phrase:
            text = _MEANS.get(int(status), text)
        shown: Json = {"description": text, "headers": headers}
        if (content := _content(answer, more, components)) and int(status) != 204:
            shown["content"] = content
        answers[str(status)] = shown
    return answers


_MEANS = {
    200: "Done.",
    201: "Made.",
    202: "Taken on; it goes on by itself.",
    204: "Done; there is nothing to say.",
}


def _content(answer: Json, more: described.Description, components: Components) -> Json:
    kind = answer.get("content_type") or "application/json"
    schema = answer.get("schema")
    if schema is not None:
        shape = components.reference(schema, Direction.SHOWN)
        example = getattr(schema, "example", None)
        many = isinstance(schema, Schema) and schema.many
        if example is not None and example.keys() <= schema.dump_fields.keys():
            return {kind: {"schema": shape, "example": [example] if many else example}}
        return {kind: {"schema": shape}}
    if more.body is not None:
        example = {} if more.example is None else {"example": more.example}
        return {kind: {"schema": dict(more.body), **example}}
    kinds = () if kind == "application/json" else (kind, *more.also_as)
    return {kind: {"schema": {"type": "string"}} for kind in kinds}


def _word(name: str) -> str:
    return re.sub(r"\W+", "_", name)
