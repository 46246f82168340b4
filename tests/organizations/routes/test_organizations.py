from decimal import Decimal
from typing import Any

import psycopg
import pytest
from flask import Flask

from tests.cast import Cast
from tests.identity.doors import (
    NIL,
    NOBODY,
    USER_FIELDS,
    Doors,
    insert_key,
    insert_user,
    unique,
)
from tests.organizations.company import company, person

FIELDS = USER_FIELDS | {"member_count"}


def wanted(**more: Any) -> dict[str, Any]:
    name = f"{unique('o')}.example"
    return {"name": name, "email": f"office@{name}", **more}


class TestCreate:
    def test_the_caller_owns_it(self, app: Flask, sql: psycopg.Connection) -> None:
        ann = person(app, sql)
        body = wanted(display_name="Acme")
        answer = ann("POST", "/organizations", body)
        assert answer.status_code == 201
        made = answer.json
        assert set(made) == FIELDS
        assert made["username"] == body["name"]
        assert (made["email"], made["display_name"]) == (body["email"], "Acme")
        assert (made["auth_source"], made["user_type"]) == ("organization", "organization")
        assert (made["roles"], made["member_count"]) == (["StandardUser"], 1)
        assert ann("GET", "/users/current/organizations").json == [
            {"id": made["id"], "name": body["name"], "display_name": "Acme", "role": "owner"}
        ]

    @pytest.mark.parametrize(
        ("change", "status", "message"),
        [
            ({"name": " "}, 400, "Organization name cannot be empty"),
            ({"name": None}, 422, "name: Field may not be null."),
            ({"name": "x" * 256}, 422, "name: Longer than maximum length 255."),
            ({"name": f"Deleted-{NOBODY}"}, 422, "name: Must not be the name of a deleted account."),
            ({"email": "nonsense"}, 422, "email: Not a valid email address."),
            ({"email": f"deleted-{NOBODY}@deleted.local"}, 422, "email: Must not be the name of a deleted account."),
            ({"owner_id": NOBODY}, 403, "Insufficient permissions to Create Organization owner assignment"),
        ],
    )  # fmt: skip
    def test_wrong_ones_are_refused(
        self, call: Doors, change: dict[str, Any], status: int, message: str
    ) -> None:
        answer = call("alice", "POST", "/organizations", wanted() | change)
        assert (answer.status_code, answer.json["message"]) == (status, message)

    def test_a_name_that_any_account_has_is_taken(self, call: Doors, cast: Cast) -> None:
        answer = call("bob", "POST", "/organizations", wanted(name="alice"))
        assert (answer.status_code, answer.json["message"], answer.json["resource"]) == (
            409, "This username is already taken", "user")  # fmt: skip

    def test_a_manager_names_the_owner(
        self, call: Doors, app: Flask, sql: psycopg.Connection
    ) -> None:
        ann = person(app, sql)
        made = call("admin", "POST", "/organizations", wanted(owner_id=str(ann.id))).json
        assert [o["id"] for o in ann("GET", "/users/current/organizations").json] == [made["id"]]

    def test_only_people_own_one(self, call: Doors, app: Flask, sql: psycopg.Connection) -> None:
        for nobody in (NIL, NOBODY, str(company(app, sql).id)):
            answer = call("admin", "POST", "/organizations", wanted(owner_id=nobody))
            assert (answer.status_code, answer.json["message"]) == (404, f"User with ID {nobody} not found")  # fmt: skip

    def test_three_are_enough(self, app: Flask, sql: psycopg.Connection) -> None:
        ann = person(app, sql)
        statuses = [ann("POST", "/organizations", wanted()).status_code for _ in range(4)]
        assert statuses == [201, 201, 201, 400]


class TestRead:
    def test_members_see_it_with_its_balance(
        self, call: Doors, app: Flask, sql: psycopg.Connection
    ) -> None:
        acme = company(app, sql, ann="member")
        credit = {"user_id": str(acme.id), "transaction_type": "admin_grant", "amount": 12.5, "source_id": unique()}  # fmt: skip
        assert call("admin", "POST", "/transactions", credit).status_code == 201
        shown = acme["ann"]("GET", acme.path).json
        assert set(shown) == FIELDS | {"credit_balance", "credit_balance_exact"}
        assert (shown["member_count"], shown["credit_balance"]) == (2, 12.5)
        assert Decimal(shown["credit_balance_exact"]) == Decimal("12.5")
        of_account = acme["ann"]("GET", f"/users/{acme.id}?include=billing")
        assert of_account.json["credit_balance"] == 12.5
        ledger = acme["ann"]("GET", f"/transactions?user_id={acme.id}")
        assert ledger.json["total_count"] == 1

    @pytest.mark.parametrize("who", ["alice", "viewer", "biller"])
    def test_to_strangers_it_does_not_exist(
        self, call: Doors, app: Flask, sql: psycopg.Connection, who: str
    ) -> None:
        acme = company(app, sql)
        for path in (acme.path, f"{acme.path}/members", f"/organizations/{NOBODY}"):
            assert call(who, "GET", path).status_code == 404

    def test_managers_see_it(self, call: Doors, app: Flask, sql: psycopg.Connection) -> None:
        acme = company(app, sql)
        assert call("admin", "GET", acme.path).json["credit_balance"] == 0
        assert call("admin", "GET", f"/organizations/{NOBODY}").json["message"] == f"Organization with ID {NOBODY} not found"  # fmt: skip

    def test_a_person_is_no_organization(self, call: Doors, cast: Cast) -> None:
        for method, body in (("GET", None), ("PATCH", {}), ("DELETE", None)):
            assert call("admin", method, f"/organizations/{cast['bob']}", body).status_code == 404


class TestList:
    def test_managers_search_all_newest_first(
        self, call: Doors, app: Flask, sql: psycopg.Connection
    ) -> None:
        ann, mark = person(app, sql), unique("mark")
        made = [ann("POST", "/organizations", wanted(display_name=mark)).json["id"] for _ in "123"]
        page = call("admin", "GET", f"/organizations?search={mark}&limit=2").json
        assert [o["id"] for o in page["data"]] == made[:0:-1]
        assert (page["total_count"], page["skip"], page["limit"]) == (3, 0, 2)
        assert [set(o) for o in page["data"]] == [FIELDS, FIELDS]
        rest = call("admin", "GET", f"/organizations?search={mark}&limit=2&skip=2").json
        assert [o["id"] for o in rest["data"]] == made[:1]

    def test_others_see_their_own(self, app: Flask, sql: psycopg.Connection) -> None:
        ann = person(app, sql)
        empty = ann("GET", "/organizations").json
        assert empty == {"data": [], "total_count": 0, "skip": 0, "limit": 0}
        made = [ann("POST", "/organizations", wanted()).json["id"] for _ in "12"]
        all_of_them = ann("GET", "/organizations").json
        assert [o["id"] for o in all_of_them["data"]] == made
        assert (all_of_them["total_count"], all_of_them["limit"]) == (2, 2)
        second = ann("GET", "/organizations?skip=1&limit=1").json
        assert [o["id"] for o in second["data"]] == made[1:]

    def test_of_one_user(self, call: Doors, app: Flask, sql: psycopg.Connection) -> None:
        acme = company(app, sql)
        path = f"/users/{acme['owner'].id}/organizations"
        for who, status in (("admin", 200), ("biller", 200), ("alice", 403), ("viewer", 403)):
            assert call(who, "GET", path).status_code == status
        assert acme["owner"]("GET", path).json[0]["id"] == str(acme.id)
        assert call("admin", "GET", f"/users/{NOBODY}/organizations").status_code == 404


class TestUpdate:
    def test_null_clears_what_can_be_cleared(self, app: Flask, sql: psycopg.Connection) -> None:
        acme = company(app, sql)
        full = {"display_name": "Acme", "email": "x@y.example", "batch_notifications_enabled": True, "low_balance_threshold": 2.5}  # fmt: skip
        owner = acme["owner"]
        assert owner("PATCH", acme.path, full).json.items() >= full.items()
        kept = owner("PATCH", acme.path, dict.fromkeys(full)).json
        assert kept.items() >= (full | {"display_name": None, "low_balance_threshold": None}).items()  # fmt: skip

    @pytest.mark.parametrize(
        ("who", "status"), [("owner", 200), ("adam", 200), ("ann", 403), ("stranger", 403)]
    )
    def test_owners_and_admins_change_it(
        self, app: Flask, sql: psycopg.Connection, who: str, status: int
    ) -> None:
        acme = company(app, sql, adam="admin", ann="member")
        acme.people["stranger"] = person(app, sql)
        answer = acme[who]("PATCH", acme.path, {"display_name": "New"})
        assert answer.status_code == status
        if status == 403:
            assert answer.json["message"] == f"Insufficient permissions to Update Organization {acme.id}"  # fmt: skip

    def test_a_manager_changes_any(self, call: Doors, app: Flask, sql: psycopg.Connection) -> None:
        acme = company(app, sql)
        assert call("admin", "PATCH", acme.path, {"email": "a@b.example"}).json["email"] == "a@b.example"  # fmt: skip


class TestDelete:
    def test_owners_may_not(self, app: Flask, sql: psycopg.Connection) -> None:
        acme = company(app, sql)
        answer = acme["owner"]("DELETE", acme.path)
        assert (answer.status_code, answer.json["message"]) == (403, f"Insufficient permissions to Delete Organization {acme.id}")  # fmt: skip

    def test_everything_of_it_ends(self, call: Doors, app: Flask, sql: psycopg.Connection) -> None:
        acme = company(app, sql, ann="member")
        owner, invited = acme["owner"], f"{unique()}@people.example"
        token = acme.invite(invited)
        key = insert_key(sql, acme["ann"].id, acme.id)
        (batch,) = sql.execute(
            "INSERT INTO fusillade.batches (created_by, endpoint, completion_window, expires_at)"
            " VALUES (%s, '/v1/chat/completions', '24h', now() + interval '1 day') RETURNING id",
            (str(acme.id),),
        ).fetchone()  # type: ignore[misc]
        assert call.with_key(key).status_code == 200
        assert call("admin", "DELETE", acme.path).status_code == 204
        assert call.with_key(key).status_code == 401
        assert owner("GET", acme.path).status_code == 404
        assert owner("GET", "/users/current/organizations").json == []
        assert person(app, sql, email=invited)("GET", f"/organizations/invites/{token}").status_code == 404  # fmt: skip
        assert sql.execute("SELECT count(*) FROM user_organizations WHERE organization_id = %s", (acme.id,)).fetchone() == (0,)  # fmt: skip
        assert sql.execute("SELECT cancelling_at IS NOT NULL FROM fusillade.batches WHERE id = %s", (batch,)).fetchone() == (True,)  # fmt: skip
        # Its members are still there, and its name is free.
        assert call.with_key(acme["ann"].key).status_code == 200
        assert call("admin", "DELETE", acme.path).status_code == 404


class TestKeys:
    def test_each_member_has_their_own(self, app: Flask, sql: psycopg.Connection) -> None:
        acme = company(app, sql, ann="member")
        path = f"/users/{acme.id}/api-keys"
        made = acme["ann"]("POST", path, {"name": "ci"}).json
        assert (made["user_id"], made["created_by"]) == (str(acme.id), str(acme["ann"].id))
        assert acme["owner"]("GET", path).json["total_count"] == 0
        assert acme["owner"]("DELETE", f"{path}/{made['id']}").status_code == 404
        assert acme["ann"]("DELETE", f"{path}/{made['id']}").status_code == 204

    def test_a_manager_makes_one_for_a_member(
        self, call: Doors, app: Flask, sql: psycopg.Connection
    ) -> None:
        acme, path = company(app, sql), ""
        path = f"/users/{acme.id}/api-keys"
        owner = str(acme["owner"].id)
        made = call("admin", "POST", path, {"name": "k", "member_id": owner}).json
        assert (made["user_id"], made["created_by"]) == (str(acme.id), owner)
        stranger = str(insert_user(sql))
        refused = call("admin", "POST", path, {"name": "k", "member_id": stranger})
        assert (refused.status_code, refused.json["message"]) == (400, "This user is not a member of the organization")  # fmt: skip
        assert acme["owner"]("POST", path, {"name": "x", "member_id": owner}).status_code == 403
