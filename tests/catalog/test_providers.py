"""How providers are shown: configured ones, and those that models name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient

from tests.cast import Cast
from tests.catalog.conftest import Admin, unique

ALL = "/provider-display-configs"
ROUTE = "/admin/api/v1" + ALL


def used(admin: Admin, *names: str) -> None:
    endpoint = admin.endpoint()
    for name in names:
        admin.model(hosted_on=endpoint, metadata={"provider": name})


def found(admin: Admin, key: str) -> dict[str, Any] | None:
    rows = [row for row in admin.get(ALL).json if row["provider_key"] == key]
    assert len(rows) < 2
    return rows[0] if rows else None


def test_a_provider_that_models_name_is_there_unconfigured(admin: Admin) -> None:
    key = unique("näme")
    used(admin, key, f" {key.upper()} ", "   ")
    plain = {"provider_key": key, "display_name": key, "icon": None, "model_count": 2, "configured": False,
             "created_by": None, "created_at": None, "updated_at": None}  # fmt: skip
    assert found(admin, key) == plain
    assert admin.get(f"{ALL}/{quote(key.upper())}").json == plain
    assert found(admin, "") is None


def test_a_configuration_is_made_changed_and_forgotten(admin: Admin, cast: Cast) -> None:
    key = unique("acme/labs")
    used(admin, key)
    body = {"provider_key": f" {key.upper()} ", "display_name": "Acme", "icon": "openai"}
    made = admin.post(ALL, body)
    assert made.status_code == 201
    shown = made.json
    assert (shown["provider_key"], shown["display_name"], shown["icon"]) == (key, "Acme", "openai")
    assert (shown["model_count"], shown["configured"]) == (1, True)
    assert shown["created_by"] == str(cast["admin"])
    assert found(admin, key) == shown
    taken = admin.post(ALL, {"provider_key": key})
    assert (taken.status_code, taken.json["resource"]) == (409, "unknown")
    same = admin.patch(f"{ALL}/{key}", {"display_name": None, "icon": None}).json
    assert (same["display_name"], same["icon"]) == ("Acme", "openai")
    changed = admin.patch(f"{ALL}/{key}", {"display_name": "Acme Inc", "icon": " "}).json
    assert (changed["display_name"], changed["icon"]) == ("Acme Inc", None)
    assert changed["updated_at"] > shown["updated_at"]
    assert admin.patch(f"{ALL}/{key}", {"display_name": " "}).json["display_name"] == key
    assert admin.delete(f"{ALL}/{key}").status_code == 204
    assert admin.delete(f"{ALL}/{key}").status_code == 404
    assert admin.get(f"{ALL}/{key}").json["configured"] is False


def test_providers_come_by_the_name_that_is_shown_and_deleted_models_do_not_count(
    admin: Admin,
) -> None:
    first, second = unique("zz"), unique("aa")
    admin.post(ALL, {"provider_key": first, "display_name": "0 first"})
    model = admin.model(metadata={"provider": second})
    keys = [row["provider_key"] for row in admin.get(ALL).json]
    assert keys.index(first) < keys.index(second)
    admin.delete(f"/models/{model['id']}")
    gone = admin.get(f"{ALL}/{second}")
    assert gone.status_code == 404
    assert gone.json["message"] == f"provider display config with ID {second} not found"


@pytest.mark.parametrize(
    ("icon", "status"),
    [("google", 201), ("https://x.example/a.svg", 201), ("/icons/a.svg", 201), ("", 201), (None, 201),
     ("Google", 400), ("http://x.example/a.svg", 400), ("//x.example/a.svg", 400), ("/\\x.example/a", 400), ("javascript:alert(1)", 400),
     ("data:image/svg+xml,x", 400), ("https://", 400), ("https://x/'><script>", 400), ("icons/a.svg", 400)],
)  # fmt: skip
def test_an_icon_is_one_that_a_page_may_load(admin: Admin, icon: str | None, status: int) -> None:
    answer = admin.post(ALL, {"provider_key": unique("icon"), "icon": icon})
    assert answer.status_code == status, answer.json
    assert status == 201 or answer.json["message"].startswith("icon must be an https URL")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"provider_key": " "}, 400),
        ({"provider_key": 5}, 422),
        ({"provider_key": " .. "}, 422),
    ],
)
def test_a_provider_needs_its_key(admin: Admin, body: dict[str, Any], status: int) -> None:
    assert admin.post(ALL, body).status_code == status


def test_users_read_and_managers_change(
    admin: Admin, client: FlaskClient, cast: Cast, group: Callable[..., Any]
) -> None:
    key = unique("roles")
    admin.post(ALL, {"provider_key": key})
    alice = Cast.headers("alice")
    assert client.get(f"{ROUTE}/{key}", headers=alice).json["created_by"] == str(cast["admin"])
    assert client.get(ROUTE, headers=alice).status_code == 200
    assert client.post(ROUTE, json={"provider_key": "x"}, headers=alice).status_code == 403
    assert client.patch(f"{ROUTE}/{key}", json={}, headers=alice).status_code == 403
    assert client.delete(f"{ROUTE}/{key}", headers=alice).status_code == 403
    assert client.get(ROUTE).status_code == 401
