from typing import Any
from uuid import UUID

import psycopg
import pytest

from dwctl.identity.routes import groups
from tests.announced import announced
from tests.cast import Cast
from tests.identity.doors import (
    NIL,
    NOBODY,
    USER_FIELDS,
    Doors,
    insert_organization,
    insert_user,
    unique,
)

FIELDS = {"id", "name", "description", "created_by", "created_at", "updated_at", "source"}


@pytest.fixture
def group(call: Doors) -> dict[str, Any]:
    made: dict[str, Any] = call("admin", "POST", "/groups", {"name": unique("team")}).json
    return made


def test_a_group_is_made_and_shown(call: Doors, cast: Cast) -> None:
    name = unique("team")
    answer = call("admin", "POST", "/groups", {"name": f" {name} ", "description": "A team"})
    assert answer.status_code == 201
    assert set(answer.json) == FIELDS
    assert (answer.json["name"], answer.json["description"]) == (name, "A team")
    assert (answer.json["source"], answer.json["created_by"]) == ("native", str(cast["admin"]))
    assert call("admin", "GET", f"/groups/{answer.json['id']}").json == answer.json


def test_a_name_is_used_once(call: Doors, group: dict[str, Any]) -> None:
    answer = call("admin", "POST", "/groups", {"name": group["name"]})
    assert answer.status_code == 409
    assert (answer.json["message"], answer.json["resource"]) == ("Resource already exists", "unknown")  # fmt: skip
    other = call("admin", "POST", "/groups", {"name": unique("team")}).json["id"]
    assert call("admin", "PATCH", f"/groups/{other}", {"name": group["name"]}).status_code == 409


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "name: Missing data for required field."),
        ({"name": "  "}, "name: Must not be blank."),
        ({"name": "x", "description": 5}, "description: Not a valid string."),
    ],
)
def test_a_wrong_shape_is_422(call: Doors, body: dict[str, Any], message: str) -> None:
    answer = call("admin", "POST", "/groups", body)
    assert (answer.status_code, answer.json["message"]) == (422, message)


def test_groups_are_listed_by_name_and_found_by_text(call: Doors) -> None:
    mark = unique("mark")
    for letter in "cab":
        call("admin", "POST", "/groups", {"name": f"{letter}-{mark}"})
    call("admin", "POST", "/groups", {"name": unique("x"), "description": f"has {mark.upper()}"})
    page = call("admin", "GET", f"/groups?search={mark}&limit=2&skip=1").json
    assert [g["name"][0] for g in page["data"]] == ["b", "c"]
    assert (page["total_count"], page["skip"], page["limit"]) == (4, 1, 2)
    assert all(set(g) == FIELDS for g in page["data"])


def test_a_change_leaves_what_it_does_not_name(call: Doors, group: dict[str, Any]) -> None:
    path = f"/groups/{group['id']}"
    first = call("admin", "PATCH", path, {"description": "The team"}).json
    assert (first["name"], first["description"]) == (group["name"], "The team")
    assert first["updated_at"] > group["updated_at"]
    name = unique("team")
    second = call("admin", "PATCH", path, {"name": name, "description": None}).json
    assert (second["name"], second["description"]) == (name, "The team")
    assert call("admin", "PATCH", path, {"name": " "}).status_code == 422


def test_everyone_stays_as_it_is(call: Doors) -> None:
    change = call("admin", "PATCH", f"/groups/{NIL}", {"name": "x"})
    assert change.status_code == 403
    assert change.json["message"] == "Cannot UpdateAll Group: Cannot update the Everyone group"
    removal = call("admin", "DELETE", f"/groups/{NIL}")
    assert removal.status_code == 403
    assert removal.json["message"] == "Cannot DeleteAll Group: Cannot delete the Everyone group"


@pytest.mark.parametrize(("method", "body"), [("GET", None), ("PATCH", {}), ("DELETE", None)])
def test_an_unknown_group_is_404(call: Doors, method: str, body: Any) -> None:
    answer = call("admin", method, f"/groups/{NOBODY}", body)
    assert (answer.status_code, answer.json["message"]) == (404, f"Group with ID {NOBODY} not found")  # fmt: skip
    assert call("admin", method, "/groups/x", body).status_code == 400


def test_a_deleted_group_takes_its_memberships_with_it(
    call: Doors, group: dict[str, Any], cast: Cast, sql: psycopg.Connection
) -> None:
    call("admin", "POST", f"/groups/{group['id']}/users/{cast['bob']}")
    assert call("admin", "DELETE", f"/groups/{group['id']}").status_code == 204
    rows = sql.execute("SELECT 1 FROM user_groups WHERE group_id = %s", (group["id"],)).fetchall()
    assert rows == []


class TestMembers:
    def test_they_come_and_go(self, call: Doors, group: dict[str, Any], cast: Cast) -> None:
        path = f"/groups/{group['id']}/users"
        assert call("admin", "GET", path).json == []
        for _ in range(2):
            assert call("admin", "POST", f"{path}/{cast['alice']}").status_code == 204
        call("admin", "POST", f"{path}/{cast['bob']}")
        assert call("admin", "GET", path).json == [str(cast["alice"]), str(cast["bob"])]
        assert call("admin", "DELETE", f"{path}/{cast['alice']}").status_code == 204
        assert call("admin", "GET", path).json == [str(cast["bob"])]

    def test_whom_or_what_there_is_not(
        self, call: Doors, group: dict[str, Any], cast: Cast
    ) -> None:
        for method, path in (
            ("POST", f"/groups/{group['id']}/users/{NOBODY}"),
            ("POST", f"/groups/{NOBODY}/users/{cast['alice']}"),
            ("DELETE", f"/groups/{group['id']}/users/{cast['alice']}"),
            ("DELETE", f"/groups/{NOBODY}/users/{cast['alice']}"),
        ):
            answer = call("admin", method, path)
            assert (answer.status_code, answer.json["message"]) == (404, "Resource not found")
        assert call("admin", "GET", f"/groups/{NOBODY}/users").status_code == 404

    def test_deleted_users_are_no_members(
        self, call: Doors, group: dict[str, Any], sql: psycopg.Connection
    ) -> None:
        user = insert_user(sql)
        call("admin", "POST", f"/groups/{group['id']}/users/{user}")
        sql.execute("UPDATE users SET is_deleted = true WHERE id = %s", (user,))
        assert call("admin", "GET", f"/groups/{group['id']}/users").json == []
        assert call("admin", "POST", f"/groups/{group['id']}/users/{user}").status_code == 404

    def test_an_organisation_may_be_a_member(
        self, call: Doors, group: dict[str, Any], sql: psycopg.Connection
    ) -> None:
        organization = insert_organization(sql)
        path = f"/groups/{group['id']}/users"
        assert call("admin", "POST", f"{path}/{organization}").status_code == 204
        assert call("admin", "GET", path).json == [str(organization)]

    def test_everybody_is_in_everyone_but_the_system(
        self, call: Doors, cast: Cast, sql: psycopg.Connection
    ) -> None:
        organization = insert_organization(sql)
        ids = call("admin", "GET", f"/groups/{NIL}/users").json
        assert {str(cast["alice"]), str(organization)} <= set(ids)
        assert NIL not in ids

    def test_nobody_joins_or_leaves_everyone(
        self, call: Doors, cast: Cast, sql: psycopg.Connection
    ) -> None:
        path = f"/groups/{NIL}/users/{cast['alice']}"
        assert call("admin", "POST", path).status_code == 204
        assert sql.execute("SELECT 1 FROM user_groups WHERE group_id = %s", (NIL,)).fetchall() == []
        assert call("admin", "DELETE", path).status_code == 403


class TestIncluded:
    def test_members_are_shown_as_users(
        self, call: Doors, group: dict[str, Any], cast: Cast
    ) -> None:
        call("admin", "POST", f"/groups/{group['id']}/users/{cast['alice']}")
        path = f"/groups?search={group['name']}&include=users,models"
        (shown,) = call("admin", "GET", path).json["data"]
        assert set(shown) == FIELDS | {"users"}
        assert [user["id"] for user in shown["users"]] == [str(cast["alice"])]
        assert set(shown["users"][0]) == USER_FIELDS

    def test_a_group_without_any_shows_none(self, call: Doors, group: dict[str, Any]) -> None:
        path = f"/groups?search={group['name']}&include=users,models"
        (shown,) = call("admin", "GET", path).json["data"]
        assert set(shown) == FIELDS

    @pytest.fixture
    def lister(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(groups, "_MODEL_LISTERS", [])
        groups.show_models_with(lambda _session, caller, ids: {i: [{"alias": caller.username}] for i in ids})  # fmt: skip

    def test_the_catalog_says_which_models(
        self, call: Doors, group: dict[str, Any], lister: None
    ) -> None:
        path = f"/groups?search={group['name']}&include="
        assert call("admin", "GET", path + "models").json["data"][0]["models"] == [{"alias": "admin"}]  # fmt: skip
        assert "models" not in call("admin", "GET", path + "users").json["data"][0]


def test_changes_of_membership_are_notified(
    call: Doors, group: dict[str, Any], cast: Cast, sql: psycopg.Connection
) -> None:
    with announced(sql, 1) as found:
        call("admin", "POST", f"/groups/{group['id']}/users/{cast['alice']}")
    assert found.tables == ["user_groups"]
    assert found.rows == [f"user_groups:{cast['alice']}"]


def test_ids_in_paths_are_judged_before_the_caller(call: Doors) -> None:
    assert call(None, "GET", "/groups/nonsense").status_code == 400
    assert call(None, "GET", f"/groups/{UUID(NOBODY)}").status_code == 401
