"""Tool sources by the admin API: made, changed, attached, deleted; their credentials stay here."""

from __future__ import annotations

import threading
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient

from dwctl.encryption import Sealer
from tests.cast import Cast
from tests.catalog.conftest import ADMIN, Admin, unique
from tests.conftest import SECRET

NOBODY = "00000000-0000-4000-8000-00000000dead"
EVERYONE = "00000000-0000-0000-0000-000000000000"
CITY = {"type": "object", "properties": {"city": {"type": "string"}}}


@pytest.fixture
def admin(client: FlaskClient, cast: Cast) -> Admin:
    return Admin(client)


def tool(admin: Admin, **more: Any) -> dict[str, Any]:
    body = {"name": unique("tool"), "url": "https://tools.example/weather"} | more
    answer = admin.post("/tool-sources", body)
    assert answer.status_code == 201, answer.json
    return dict(answer.json)


def put(admin: Admin, client: FlaskClient, path: str) -> int:
    return client.put(ADMIN + path, headers=admin.headers).status_code


def stored_key(sql: psycopg.Connection[Any], id: str) -> str | None:
    (sealed,) = sql.execute("SELECT api_key_sealed FROM tool_sources WHERE id = %s", (id,)).fetchone()  # type: ignore[misc]  # fmt: skip
    return Sealer([SECRET]).open(sealed) if sealed else None


def test_a_tool_source_is_answered_without_its_key(
    admin: Admin, sql: psycopg.Connection[Any]
) -> None:
    made = tool(admin, description="Weather", parameters=CITY, api_key="hush", timeout_secs=7)
    assert made.keys() == {"id", "kind", "name", "description", "parameters", "url", "has_api_key", "timeout_secs", "created_at", "updated_at"}  # fmt: skip
    assert (made["kind"], made["parameters"], made["has_api_key"]) == ("http", CITY, True)
    assert (made["url"], made["timeout_secs"]) == ("https://tools.example/weather", 7)
    assert admin.get(f"/tool-sources/{made['id']}").json == made
    assert made in admin.get("/tool-sources").json
    assert stored_key(sql, made["id"]) == "hush"
    plain = tool(admin)
    assert (plain["description"], plain["parameters"], plain["timeout_secs"]) == (None, None, 30)


def test_tool_sources_come_by_name(admin: Admin) -> None:
    for name in ("b", "a", "c"):
        tool(admin, name=f"zz-order-{name}")
    names = [row["name"] for row in admin.get("/tool-sources").json]
    assert [name for name in names if name.startswith("zz-order-")] == ["zz-order-a", "zz-order-b", "zz-order-c"]  # fmt: skip


def test_absent_stays_null_clears_and_a_name_is_used_once(
    admin: Admin, sql: psycopg.Connection[Any]
) -> None:
    made = tool(admin, description="Weather", parameters=CITY, api_key="hush")
    path = f"/tool-sources/{made['id']}"
    kept = admin.patch(path, {"name": None, "url": None, "timeout_secs": None, "kind": None}).json
    assert kept | {"updated_at": ""} == made | {"updated_at": ""}
    new = unique("renamed")
    assert admin.patch(path, {"name": f" {new} ", "timeout_secs": 5}).json["name"] == new
    assert stored_key(sql, made["id"]) == "hush"
    bare = admin.patch(path, {"description": None, "parameters": None, "api_key": None}).json
    assert (bare["description"], bare["parameters"], bare["has_api_key"]) == (None, None, False)
    other = tool(admin)["name"]
    for taken in (admin.patch(path, {"name": other}), admin.post("/tool-sources", {"name": other, "url": "http://x.example"})):  # fmt: skip
        assert (taken.status_code, taken.json["resource"]) == (409, "unknown")


def test_a_credential_stays_with_its_origin(admin: Admin, sql: psycopg.Connection[Any]) -> None:
    made = tool(admin, api_key="hush")
    path = f"/tool-sources/{made['id']}"
    assert admin.patch(path, {"url": "https://tools.example/rain"}).json["has_api_key"] is True
    assert admin.patch(path, {"url": "https://tools.example:444/rain"}).json["has_api_key"] is False
    moved = admin.patch(path, {"url": "https://other.example/", "api_key": "new"}).json
    assert moved["has_api_key"] is True
    assert stored_key(sql, made["id"]) == "new"


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [({"timeout_secs": 0}, 400, "timeout_secs must be positive"),
     ({"timeout_secs": -1}, 400, "timeout_secs must be positive"),
     ({"timeout_secs": "x"}, 422, "timeout_secs"),
     ({"url": "tools.example"}, 400, "Invalid URL"),
     ({"url": "ftp://tools.example"}, 400, "Invalid URL"),
     ({"url": "http://169.254.169.254/latest"}, 400, "169.254.169.254 is an address that may not be called: outbound.tools is 'private'"),
     ({"url": "http://[fd00:ec2::254]/"}, 400, "may not be called"),
     ({"name": " "}, 422, "name: Must not be blank."),
     ({"kind": "agent"}, 422, "kind"),
     ({"parameters": []}, 422, "parameters"),
     ({"parameters": {"type": "string"}}, 400, "parameters describes no object"),
     ({"parameters": {"properties": {"a": {"type": "strin"}}}}, 400, "parameters is no JSON Schema, at properties/a/type"),
     ({"parameters": {"properties": {"a": {"pattern": "("}}}}, 400, "is not a \"regex\""),
     ({"parameters": {"$ref": "http://127.0.0.1:9/x"}}, 400, "another document"),
     ({"parameters": {"$ref": "#/$defs/none"}}, 400, "does not exist"),
     ({"parameters": {"$schema": "http://127.0.0.1:9/x"}}, 400, "not known here"),
     ({"parameters": {"$schema": 5}}, 400, "not known here"),
     ({"parameters": {"description": "x" * 70_000}}, 400, "parameters is larger than 64 KiB")],
)  # fmt: skip
def test_what_could_not_be_called_is_refused(
    admin: Admin, body: dict[str, Any], status: int, says: str
) -> None:
    whole = {"name": unique("tool"), "url": "http://x.example"} | body
    answer = admin.post("/tool-sources", whole)
    assert (answer.status_code, says in answer.json["message"]) == (status, True), answer.json
    kept = tool(admin)
    assert admin.patch(f"/tool-sources/{kept['id']}", body).status_code == status
    assert admin.get(f"/tool-sources/{kept['id']}").json == kept


@pytest.mark.parametrize(
    "schema",
    [{}, {"type": "object"}, {"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {}},
     {"$defs": {"a": {"type": "object"}}, "properties": {"a": {"$ref": "#/$defs/a"}, "b": {"$ref": "#"}}}],
    ids=["empty", "object", "draft 7", "references within"],
)  # fmt: skip
def test_parameters_are_a_json_schema(admin: Admin, schema: dict[str, Any]) -> None:
    assert tool(admin, parameters=schema)["parameters"] == schema


@pytest.mark.parametrize("owner", ["model", "group"])
def test_a_tool_source_is_attached_and_taken_off(
    admin: Admin, client: FlaskClient, owner: str
) -> None:
    made = tool(admin)
    model = admin.model()
    room = f"/deployments/{model['id']}" if owner == "model" else f"/groups/{EVERYONE}"
    path = f"{room}/tool-sources/{made['id']}"
    assert [put(admin, client, path) for _ in range(2)] == [204, 204]
    assert made in admin.get(f"{room}/tool-sources").json
    assert admin.delete(path).status_code == 204
    again = admin.delete(path)
    assert again.status_code == 404
    assert "ToolSource with ID" in again.json["message"]
    put(admin, client, path)
    assert admin.delete(f"/tool-sources/{made['id']}").status_code == 204
    assert made not in admin.get(f"{room}/tool-sources").json


def test_what_is_unknown_is_404(admin: Admin, client: FlaskClient) -> None:
    made, model = tool(admin)["id"], admin.model()["id"]
    unknown = [f"/deployments/{NOBODY}/tool-sources/{made}", f"/deployments/{model}/tool-sources/{NOBODY}",
               f"/groups/{NOBODY}/tool-sources/{made}", f"/groups/{EVERYONE}/tool-sources/{NOBODY}"]  # fmt: skip
    assert [put(admin, client, path) for path in unknown] == [404] * 4
    admin.delete(f"/models/{model}")
    assert put(admin, client, f"/deployments/{model}/tool-sources/{made}") == 404
    lists = (f"/deployments/{model}/tool-sources", f"/deployments/{NOBODY}/tool-sources", f"/groups/{NOBODY}/tool-sources")  # fmt: skip
    assert [admin.get(path).status_code for path in lists] == [404] * 3
    answers = (admin.get, admin.delete, lambda path: admin.patch(path, {}))
    for answer in [ask(f"/tool-sources/{NOBODY}") for ask in answers]:
        assert answer.status_code == 404
        assert answer.json["message"] == f"ToolSource with ID {NOBODY} not found"


def test_tool_sources_are_for_platform_managers(
    admin: Admin, client: FlaskClient, cast: Cast
) -> None:
    one = f"/tool-sources/{NOBODY}"
    routes = [("GET", "/tool-sources"), ("POST", "/tool-sources"), ("GET", one), ("PATCH", one), ("DELETE", one)]  # fmt: skip
    for room in (f"/deployments/{NOBODY}", f"/groups/{NOBODY}"):
        routes += [("GET", f"{room}/tool-sources"), ("PUT", room + one), ("DELETE", room + one)]
    for method, path in routes:
        for name in ("alice", "viewer", "biller"):
            answer = client.open(ADMIN + path, method=method, json={}, headers=Cast.headers(name))
            assert answer.status_code == 403, (method, path)
            assert answer.json["message"].endswith("ToolSources")


def test_one_name_at_once_is_taken_once(app: Flask, cast: Cast) -> None:
    body = {"name": f"raced-{uuid4().hex}", "url": "http://x.example"}
    statuses: list[int] = []

    def create() -> None:
        answer = Admin(app.test_client()).post("/tool-sources", body)
        statuses.append(answer.status_code)

    threads = [threading.Thread(target=create) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [201, 409, 409, 409]


def test_changes_are_in_the_audit_log_without_the_key(
    admin: Admin, client: FlaskClient, sql: psycopg.Connection[Any]
) -> None:
    made = tool(admin, api_key="hush-hush")
    admin.patch(f"/tool-sources/{made['id']}", {"api_key": "quiet-quiet"})
    put(admin, client, f"/groups/{EVERYONE}/tool-sources/{made['id']}")
    admin.delete(f"/tool-sources/{made['id']}")
    rows = sql.execute(
        "SELECT action, before::text, after::text FROM audit_log WHERE resource_id = %(id)s OR related_id = %(id)s ORDER BY id",
        {"id": made["id"]},
    ).fetchall()
    assert {row[0] for row in rows} == {"tool_source.created", "tool_source.credential_changed", "tool_source.deleted", "group.tool_attached", "group.tool_detached"}  # fmt: skip
    assert "hush" not in str(rows)
    assert "quiet" not in str(rows)
    assert "v1:" not in str(rows)
