"""The documents themselves, and the pages that show them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from flask import Flask
from flask.testing import FlaskClient
from jsonschema_rs import Draft202012Validator
from marshmallow import Schema
from openapi_spec_validator import validate

from dwctl import config
from dwctl.app import create_app
from dwctl.operations import reference
from dwctl.operations.openapi import published
from dwctl.operations.openapi.documents import NOT_DESCRIBED
from dwctl.operations.openapi.refusals import SAYS
from dwctl.web.schemas import ApiSchema
from tests.operations.documented import DOCUMENTS, Json, an_app, documents, operations, resolved
from tests.processes import ROOT

PAGES = ("/admin/docs", "/admin/docs/", "/ai/docs", "/ai/docs/")
AWAY = "postgresql://x@127.0.0.1:9/x"


@pytest.fixture
def away() -> FlaskClient:
    """A client of the application without a database."""
    return an_app().test_client()


def an_app_with(**more: str) -> Flask:
    names = {f"DWCTL_{name}": value for name, value in more.items()}
    return create_app(config.load({"DATABASE_URL": AWAY, **names}))


# --- the documents


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_is_openapi(name: str) -> None:
    validate(documents()[name])
    assert documents()[name]["openapi"] == "3.1.0"


def test_a_list_says_where_it_goes_on() -> None:
    admin, _ = (documents()[name] for name in DOCUMENTS)
    lists = {
        path: "Link" in operation["get"]["responses"]["200"]["headers"]
        for path, operation in admin["paths"].items()
        for parameter in operation.get("get", {}).get("parameters", ())
        if parameter.get("name") == "after"
    }
    assert {"/users", "/models", "/audit-log"} <= {path for path, has_link in lists.items() if has_link}  # fmt: skip


def test_they_say_what_they_are() -> None:
    admin, ai = (documents()[name] for name in DOCUMENTS)
    assert admin["info"]["title"] == "Admin API"
    assert ai["info"]["title"] == "AI API"
    assert [admin["servers"], ai["servers"]] == [[{"url": "/admin/api/v1"}], [{"url": "/ai/v1"}]]


def test_no_schema_is_chosen_by_a_name_that_nobody_sends() -> None:
    """A discriminator without a mapping has generated clients send `ChatCompletionRequestUserMessage` as a role."""
    for document in documents().values():
        assert b'"discriminator":' not in orjson.dumps(document)


def test_a_body_that_may_be_absent_is_not_required() -> None:
    required = {
        each.id
        for each in operations().values()
        if each.described.get("requestBody", {}).get("required")
    }
    assert "create_api_key" in required
    assert "rotate_api_key" not in required


def test_credentials_have_their_configured_names() -> None:
    app = an_app_with(
        AUTH__NATIVE__SESSION__COOKIE_NAME="our_session",
        AUTH__PROXY_HEADER__HEADER_NAME="x-our-user",
    )
    for name in DOCUMENTS:
        schemes = app.test_client().get(f"/{name}/openapi.json").json["components"]["securitySchemes"]  # fmt: skip
        assert schemes["BearerAuth"]["scheme"] == "bearer"
        assert schemes["CookieAuth"]["name"] == "our_session"
        assert schemes["ProxyHeaderAuth"]["name"] == "x-our-user"


def test_every_route_is_described_or_left_out_for_a_reason() -> None:
    described = {(one.method.upper(), one.path) for one in operations().values()}
    prefixes = ("/admin/api/", "/ai/v1", "/authentication/")
    missing, found = [], set()
    for rule in an_app().url_map.iter_rules():
        path = re.sub(r"<(?:\w+:)?(\w+)>", "{}", rule.rule)
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            known = (method, path) in {(m, re.sub(r"{\w+}", "{}", p)) for m, p in described}
            if rule.rule.startswith(prefixes) and not known:
                missing.append(rule.endpoint)
        found.add(rule.endpoint)
    assert {*missing} == set(NOT_DESCRIBED)
    assert all(len(reason) > 20 for reason in NOT_DESCRIBED.values())


@pytest.mark.parametrize("name", DOCUMENTS)
def test_names_of_operations_are_unique(name: str) -> None:
    ids = [one.id for one in operations().values() if one.document == name]
    listed = [op["operationId"] for item in documents()[name]["paths"].values() for method, op in item.items() if method != "servers"]  # fmt: skip
    assert sorted(ids) == sorted(listed)
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", id) for id in ids)


@pytest.mark.parametrize("id", sorted(operations()))
def test_an_operation_says_everything(id: str) -> None:
    operation = operations()[id]
    described = operation.described
    assert described["summary"]
    tags = {tag["name"]: tag["description"] for tag in operation.whole["tags"]}
    assert all(tags[tag] for tag in described["tags"])
    for each in described["parameters"]:
        assert each["description"], each
        assert each["schema"], each
    in_path = re.findall(r"{(\w+)}", operation.path)
    assert [n for place, n in operation.parameters if place == "path"] == in_path
    successes = [status for status in described["responses"] if status < "400"]
    assert successes
    for status, response in described["responses"].items():
        found = resolved(operation, response)
        assert found["description"], status
        assert "x-request-id" in found["headers"]
        if status in ("429", "503"):
            assert "Retry-After" in found["headers"]
        if status != "204" and status != "302":
            assert found["content"], f"{id} {status} has no schema"
    assert {"500", "503"} <= described["responses"].keys()
    if described["security"]:
        assert "401" in described["responses"]


def test_refusals_are_those_that_have_a_meaning() -> None:
    for one in operations().values():
        said = {int(status) for status in one.described["responses"]}
        assert {status for status in said if status >= 400} <= SAYS.keys()


def test_the_operations_that_clients_of_the_reference_know_are_there() -> None:
    admin, ai = documents()["admin"]["paths"], documents()["ai"]["paths"]
    for path in ("/endpoints/{id}/synchronize", "/groups/{group_id}/models/{deployment_id}", "/groups/{group_id}/users/{user_id}", "/models/{id}/components/{component_id}",
                 "/models/{deployment_id}/groups", "/transactions/{transaction_id}", "/users/{user_id}/api-keys/{id}", "/users/{user_id}/groups/{group_id}",
                 "/admin/api/v1/monitoring/pending-request-counts", "/authentication/login"):  # fmt: skip
        assert path in admin
    for path in ("/models/{model}", "/batches/{batch_id}/retry-requests", "/files/{file_id}/cost-estimate", "/responses"):  # fmt: skip
        assert path in ai


def test_without_batches_their_routes_are_not_described() -> None:
    app = an_app_with(BATCHES__ENABLED="false")
    paths = app.test_client().get("/ai/openapi.json").json["paths"]
    assert "/chat/completions" in paths
    assert not [path for path in paths if path.startswith(("/files", "/batches"))]


# --- examples


def _kinds(kind: type[Schema]) -> Iterator[type[Schema]]:
    for below in kind.__subclasses__():
        yield below
        yield from _kinds(below)


EXAMPLES = sorted(
    (kind for kind in _kinds(ApiSchema) if "example" in vars(kind)),
    key=lambda kind: f"{kind.__module__}.{kind.__qualname__}",
)


BODIES = {
    parameter["schema"]
    for view in an_app().view_functions.values()
    for parameter in getattr(view, "_apidoc", {}).get("arguments", {}).get("parameters", ())
    if parameter["in"] == "json"
}


@pytest.mark.parametrize("kind", EXAMPLES, ids=lambda kind: kind.__name__)
def test_an_example_is_one(kind: type[Schema]) -> None:
    """One of a body to send can be loaded; one of an answer has members that the answer has (their values: see below)."""
    example: Json = vars(kind)["example"]
    if kind in BODIES:
        assert kind().validate(example) == {}
        return
    shown = {field.data_key or name for name, field in kind().dump_fields.items()}
    assert example.keys() <= shown


def test_every_body_has_an_example() -> None:
    """What is sent, and what is answered with a schema of its own."""
    without = [kind.__name__ for kind in BODIES if not hasattr(kind, "example")]
    assert without == []
    answers = {
        (one.id, status)
        for one in operations().values()
        for status, response in one.described["responses"].items()
        if status < "400" and one.document == "admin"
        for content in resolved(one, response).get("content", {}).values()
        if "$ref" in repr(content["schema"]) and "example" not in content
    }
    # (Its schema is that of its body too, which has the example.)
    assert answers <= {("choose_organization", "200")}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_examples_in_a_document_keep_to_their_schemas(name: str) -> None:
    document = documents()[name]
    others = published.schemas()
    ours = {n: s for n, s in document["components"]["schemas"].items() if "examples" in s and n not in others}  # fmt: skip
    assert len(ours) > 5
    for schema_name, schema in ours.items():
        judge = Draft202012Validator({**schema, "components": document["components"]})
        for example in schema["examples"]:
            assert [error.message for error in judge.iter_errors(example)] == [], schema_name


# --- how they are served


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_is_asked_for_again_only_when_it_changes(away: FlaskClient, name: str) -> None:
    first = away.get(f"/{name}/openapi.json")
    assert first.status_code == 200
    assert first.mimetype == "application/json"
    assert first.headers["Cache-Control"] == "no-cache"
    again = away.get(f"/{name}/openapi.json", headers={"If-None-Match": first.headers["ETag"]})
    assert again.status_code == 304
    assert not again.data
    assert away.head(f"/{name}/openapi.json").headers["Content-Length"] == str(len(first.data))
    assert away.post(f"/{name}/openapi.json").status_code == 405


def test_a_document_is_the_same_in_every_process() -> None:
    """Each hashes in its own way, so what comes out of a set must be sorted: the ETag is of the text."""
    code = "from tests.operations.documented import an_app; print(an_app().test_client().get('/admin/openapi.json').text, end='')"
    environ = os.environ | {"PYTHONHASHSEED": "1"}
    other = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environ, capture_output=True, text=True, check=True)  # fmt: skip
    assert an_app().test_client().get("/admin/openapi.json").text == other.stdout


def test_no_more_documents_are_kept_than_there_may_be_paths_in_front() -> None:
    app = an_app_with(FORWARDED_HEADERS="x-forwarded-prefix")
    for number in range(reference._MOST_WRITTEN + 2):
        path = f"/at-{number}"
        found = app.test_client().get("/ai/openapi.json", headers={"X-Forwarded-Prefix": path}).json
        assert found["servers"] == [{"url": f"{path}/ai/v1"}]
    assert len(app.extensions["dwctl.reference"]) <= reference._MOST_WRITTEN


def test_behind_a_path_of_a_trusted_proxy_servers_have_it() -> None:
    app = an_app_with(FORWARDED_HEADERS="x-forwarded-prefix")
    headers = {"X-Forwarded-Prefix": "/llm"}
    client = app.test_client()
    document = client.get("/admin/openapi.json", headers=headers).json
    assert document["servers"] == [{"url": "/llm/admin/api/v1"}]
    assert document["paths"]["/authentication/login"]["servers"][0]["url"] == "/llm/"
    page = client.get("/admin/docs", headers=headers).text
    assert 'data-document="/llm/admin/openapi.json"' in page


@pytest.mark.parametrize("path", PAGES)
def test_a_page_shows_a_document(away: FlaskClient, path: str) -> None:
    page = away.get(path)
    assert page.status_code == 200
    assert page.mimetype == "text/html"
    assert "Doubleword Control Layer</title>" in page.text
    assert f'data-document="/{path.split("/")[1]}/openapi.json"' in page.text


@pytest.mark.parametrize("path", ["/admin/docs", "/ai/docs"])
def test_a_page_loads_nothing_from_elsewhere_and_runs_no_script_of_its_own(
    away: FlaskClient, path: str
) -> None:
    page = away.get(path)
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<script(?![^>]* src=)", page.text)
    assert " style=" not in page.text
    assert not re.search(r" on\w+=", page.text)
    loaded = re.findall(r'(?:src|href|data-document)="([^"]+)"', page.text)
    assert len(loaded) > 5
    for address in loaded:
        assert address.startswith("/")
        assert away.get(address).status_code == 200


def test_what_a_page_loads_is_kept_for_ever(away: FlaskClient) -> None:
    assets = re.findall(r'"(/assets/[^"]+)"', away.get("/ai/docs").text)
    assert {address.rpartition(".")[2] for address in assets} == {"css", "js", "png"}
    for address in assets:
        asset = away.get(address)
        assert asset.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert asset.mimetype in ("text/css", "text/javascript", "image/png")
        assert len(asset.data) > 100


@pytest.mark.parametrize(
    "path",
    ["/assets/reference-0/start.js", "/assets/reference-{}/index.html", "/assets/reference-{}/../start.js", "/assets/reference-{}/oauth2-redirect.html", "/assets/reference-{}/..%2f__init__.py"],
)  # fmt: skip
def test_nothing_else_of_the_package_is_served(away: FlaskClient, path: str) -> None:
    found = re.search(r"/assets/reference-([^/]+)/", away.get("/ai/docs").text)
    assert found
    answer = away.get(path.format(found[1]))
    assert answer.status_code == 404
    assert answer.mimetype == "application/json"


def test_health_answers_like_healthz(away: FlaskClient) -> None:
    asked: Any = [away.get(path) for path in ("/health", "/healthz", "/health/")]
    assert {(one.status_code, one.text, one.mimetype) for one in asked} == {(200, "OK", "text/plain")}  # fmt: skip
