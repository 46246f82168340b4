"""The two documents as judges: whether an answer is one that its operation promises."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import orjson
from flask import Flask
from jsonschema_rs import Draft202012Validator

from dwctl import config
from dwctl.app import create_app

Json = dict[str, Any]
DOCUMENTS = ("admin", "ai")
METHODS = ("get", "post", "put", "patch", "delete")


@dataclass(frozen=True)
class Operation:
    """One of a document's. `path` is the whole one, with names in braces."""

    id: str
    document: str
    method: str
    path: str
    described: Json

    @property
    def whole(self) -> Json:
        return documents()[self.document]

    @property
    def parameters(self) -> dict[tuple[str, str], Json]:
        return {(each["in"], each["name"]): each for each in self.described["parameters"]}


@cache
def an_app() -> Flask:
    """The application without a database."""
    return create_app(config.load({"DATABASE_URL": "postgresql://x@127.0.0.1:9/x"}))


@cache
def documents() -> dict[str, Json]:
    """Both, as they are served."""
    client = an_app().test_client()
    return {name: client.get(f"/{name}/openapi.json").json for name in DOCUMENTS}


@cache
def operations() -> dict[str, Operation]:
    """All of them: `admin list_users`, `ai create_batch`."""
    return {f"{each.document} {each.id}": each for name in DOCUMENTS for each in _of(name)}


def _of(name: str) -> Iterator[Operation]:
    document = documents()[name]
    for path, item in document["paths"].items():
        (server,) = item.get("servers", document["servers"])
        for method in METHODS:
            if method in item:
                whole = server["url"].rstrip("/") + path
                yield Operation(item[method]["operationId"], name, method, whole, item[method])


def resolved(operation: Operation, described: Json) -> Json:
    """What a reference stands for."""
    while "$ref" in described:
        found: Any = operation.whole
        for step in described["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        described = found
    return described


def judge(operation: Operation, answer: Any) -> None:
    """Fails where an answer (of requests or of schemathesis) is not a documented one: where the status is not documented, or the body is not of the kind and the shape that go with it."""
    said = f"{operation.id}: {answer.status_code} {answer.text[:2000]}"
    responses = operation.described["responses"]
    assert str(answer.status_code) in responses, f"not documented: {said}"
    response = resolved(operation, responses[str(answer.status_code)])
    headers = {name.lower(): _first(value) for name, value in answer.headers.items()}
    assert headers.get("x-request-id"), said
    if answer.status_code in (429, 503):
        assert headers["retry-after"].isdigit(), said
    kind = headers.get("content-type", "").partition(";")[0]
    if "content" not in response:
        assert not answer.content, said
        return
    assert kind in response["content"], f"{kind}: {said}"
    if kind == "application/json":
        schema = response["content"][kind]["schema"]
        problems = list(
            _validator(operation.document, orjson.dumps(schema)).iter_errors(answer.json())
        )
        assert not problems, "\n".join([*(_told(problem) for problem in problems[:5]), said])


@cache
def _validator(document: str, schema: bytes) -> Draft202012Validator:
    components = documents()[document]["components"]
    return Draft202012Validator({**orjson.loads(schema), "components": components})


def _first(value: str | list[str]) -> str:
    return value if isinstance(value, str) else value[0]


def _told(problem: Any) -> str:
    """Where a body is not what was promised; a null that surprises wants `allow_none=True` on the field that is dumped."""
    return f"{'.'.join(map(str, problem.instance_path))}: {problem.message[:300]} (by {'/'.join(map(str, problem.schema_path))})"
