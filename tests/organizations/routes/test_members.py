from typing import Any

import psycopg
import pytest
from flask import Flask

from tests.identity.doors import NIL, NOBODY, Doors, insert_key
from tests.organizations.company import Company, company, person


@pytest.fixture
def acme(app: Flask, sql: psycopg.Connection) -> Company:
    return company(app, sql, second="owner", adam="admin", ann="member")


class TestList:
    def test_members_come_first_then_invitations(
        self, app: Flask, sql: psycopg.Connection, acme: Company
    ) -> None:
        known = person(app, sql)
        acme.invite(known.email.upper(), "admin")
        acme.invite("nobody-yet@people.example")
        answer = acme["owner"]("GET", f"{acme.path}/members")
        assert answer.headers["X-Total-Count"] == "6"
        shown = answer.json
        assert [m["role"] for m in shown] == ["owner", "owner", "admin", "member", "admin", "member"]  # fmt: skip
        assert [m["status"] for m in shown] == ["active"] * 4 + ["pending"] * 2
        assert set(shown[0]) == {"id", "user", "role", "status", "created_at"}
        assert set(shown[4]) == {"id", "user", "role", "status", "created_at", "invite_email", "expires_at"}  # fmt: skip
        assert (shown[4]["user"]["id"], shown[4]["invite_email"]) == (str(known.id), known.email.upper())  # fmt: skip
        assert set(shown[5]) == {"id", "role", "status", "created_at", "invite_email", "expires_at"}
        page = acme["owner"]("GET", f"{acme.path}/members?skip=1&limit=2").json
        assert [m["id"] for m in page] == [m["id"] for m in shown[1:3]]

    def test_plain_members_do_not_learn_who_has_an_account(
        self, app: Flask, sql: psycopg.Connection, acme: Company
    ) -> None:
        acme.invite(person(app, sql).email)
        assert "user" not in acme["ann"]("GET", f"{acme.path}/members").json[-1]

    def test_what_is_private_is_shown_to_oneself_and_managers(
        self, call: Doors, sql: psycopg.Connection, acme: Company
    ) -> None:
        ann = acme["ann"]
        sql.execute("UPDATE users SET external_user_id = id::text, low_balance_threshold = 5 WHERE id = %s", (ann.id,))  # fmt: skip

        def seen(members: Any) -> tuple[Any, Any]:
            (user,) = (m["user"] for m in members.json if m["user"]["id"] == str(ann.id))
            return user["external_user_id"], user["low_balance_threshold"]

        path = f"{acme.path}/members"
        assert seen(acme["owner"]("GET", path)) == (None, None)
        assert seen(ann("GET", path)) == seen(call("admin", "GET", path)) == (str(ann.id), 5.0)


class TestAdd:
    def test_by_an_admin(self, app: Flask, sql: psycopg.Connection, acme: Company) -> None:
        ben = person(app, sql)
        made = acme["adam"]("POST", f"{acme.path}/members", {"user_id": str(ben.id)})
        assert made.status_code == 201
        assert (made.json["user"]["id"], made.json["role"], made.json["status"]) == (str(ben.id), "member", "active")  # fmt: skip
        assert acme.roles()[ben.id] == "member"

    @pytest.mark.parametrize(
        ("who", "body", "status", "message"),
        [
            ("adam", {"role": "king"}, 400, "Invalid role 'king'. Must be one of: owner, admin, member"),
            ("adam", {"role": 5}, 422, "role: Not a valid string."),
            ("adam", {"user_id": "x"}, 422, "user_id: Not a valid UUID."),
            ("adam", {"user_id": NOBODY}, 404, f"User with ID {NOBODY} not found"),
            ("adam", {"user_id": NIL}, 404, f"User with ID {NIL} not found"),
            ("adam", {"role": "owner"}, 403, "Insufficient permissions to Update Organization {id} owners: only an owner makes, changes or removes owners"),
            ("ann", {}, 403, "Insufficient permissions to Update Organization {id} members"),
            ("stranger", {}, 403, "Insufficient permissions to Update Organization {id} members"),
            ("owner", {"role": "owner"}, 201, None),
        ],
    )  # fmt: skip
    def test_rules(
        self, app: Flask, sql: psycopg.Connection, acme: Company, who: str, body: dict[str, Any], status: int, message: str | None
    ) -> None:  # fmt: skip
        ben = acme.people["stranger"] = person(app, sql)
        answer = acme[who]("POST", f"{acme.path}/members", {"user_id": str(ben.id)} | body)
        assert answer.status_code == status, answer.text
        if message:
            assert answer.json["message"] == message.format(id=acme.id)

    def test_nobody_twice(self, app: Flask, sql: psycopg.Connection, acme: Company) -> None:
        path = f"{acme.path}/members"
        again = acme["owner"]("POST", path, {"user_id": str(acme["ann"].id)})
        assert (again.status_code, again.json["message"], again.json["resource"]) == (409, "This person is a member already", "unknown")  # fmt: skip
        ben = person(app, sql)
        acme.invite(ben.email.upper())
        assert acme["owner"]("POST", path, {"user_id": str(ben.id)}).status_code == 409

    def test_nobody_into_a_fourth(self, app: Flask, sql: psycopg.Connection) -> None:
        ben = {"user_id": str(person(app, sql).id)}
        companies = [company(app, sql) for _ in range(4)]
        added = [c["owner"]("POST", f"{c.path}/members", ben) for c in companies]
        assert [a.status_code for a in added] == [201, 201, 201, 400]
        assert added[-1].json["code"] == "too_many_organizations"


class TestChange:
    @pytest.mark.parametrize(
        ("who", "whom", "role", "status"),
        [
            ("owner", "second", "member", 200),
            ("owner", "owner", "admin", 200),
            ("owner", "ann", "owner", 200),
            ("adam", "ann", "admin", 200),
            ("adam", "adam", "member", 200),
            ("adam", "owner", "member", 403),
            ("adam", "adam", "owner", 403),
            ("adam", "ann", "owner", 403),
            ("ann", "ann", "admin", 403),
            ("owner", "ann", "queen", 400),
        ],
    )
    def test_rules(self, acme: Company, who: str, whom: str, role: str, status: int) -> None:
        before = acme.roles()
        answer = acme[who]("PATCH", acme.member(whom), {"role": role})
        assert answer.status_code == status, answer.text
        after = before | ({acme[whom].id: role} if status == 200 else {})
        assert acme.roles() == after
        if status == 200:
            assert (answer.json["user"]["id"], answer.json["role"]) == (str(acme[whom].id), role)

    def test_who_is_no_member_has_no_role(
        self, app: Flask, sql: psycopg.Connection, acme: Company
    ) -> None:
        ben = acme.people["ben"] = person(app, sql)
        answer = acme["owner"]("PATCH", acme.member("ben"), {"role": "admin"})
        assert (answer.status_code, answer.json["message"]) == (404, f"Organization membership with ID {ben.id} in organization {acme.id} not found")  # fmt: skip


class TestRemove:
    @pytest.mark.parametrize(
        ("who", "whom", "status"),
        [
            ("owner", "second", 204),
            ("owner", "owner", 204),
            ("adam", "ann", 204),
            ("adam", "adam", 204),
            ("adam", "owner", 403),
            ("ann", "ann", 403),
            ("ann", "adam", 403),
        ],
    )
    def test_rules(self, acme: Company, who: str, whom: str, status: int) -> None:
        assert acme[who]("DELETE", acme.member(whom)).status_code == status
        assert (acme[whom].id in acme.roles()) == (status != 204)

    def test_keys_for_the_organization_end_and_no_others(
        self, call: Doors, sql: psycopg.Connection, acme: Company
    ) -> None:
        ann, adam = acme["ann"], acme["adam"]
        lost, kept = insert_key(sql, ann.id, acme.id), insert_key(sql, adam.id, acme.id)
        acting = {"X-Organization-Id": str(acme.id)}
        assert ann("GET", "/users/current", headers=acting).status_code == 200
        assert acme["owner"]("DELETE", acme.member("ann")).status_code == 204
        assert [call.with_key(k).status_code for k in (lost, kept, ann.key)] == [401, 200, 200]
        assert ann("GET", "/users/current", headers=acting).status_code == 403
        assert acme["owner"]("DELETE", acme.member("ann")).status_code == 404

    def test_by_oneself(self, call: Doors, sql: psycopg.Connection, acme: Company) -> None:
        ann = acme["ann"]
        key = insert_key(sql, ann.id, acme.id)
        assert ann("POST", f"{acme.path}/leave").status_code == 204
        assert call.with_key(key).status_code == 401
        again = ann("POST", f"{acme.path}/leave")
        assert (again.status_code, again.json["message"]) == (404, f"Organization membership with ID {ann.id} in organization {acme.id} not found")  # fmt: skip


class TestLastOwner:
    @pytest.mark.parametrize("pending", [True, False])
    def test_stays(self, call: Doors, app: Flask, sql: psycopg.Connection, pending: bool) -> None:
        acme = company(app, sql, ann="member")
        if pending:
            acme.invite(person(app, sql).email, "owner")
        owner = acme["owner"]
        attempts = {
            "Cannot demote the last owner. Assign another owner first.": owner("PATCH", acme.member("owner"), {"role": "member"}),
            "Cannot remove the last owner of an organization. Transfer ownership first.": owner("DELETE", acme.member("owner")),
            "Cannot leave as the last owner. Transfer ownership first.": owner("POST", f"{acme.path}/leave"),
        }  # fmt: skip
        for message, answer in attempts.items():
            assert (answer.status_code, answer.json["message"]) == (400, message)
        for method, body in (("PATCH", {"role": "admin"}), ("DELETE", None)):
            assert call("admin", method, acme.member("owner"), body).status_code == 400
        refused = call("admin", "DELETE", f"/users/{owner.id}")
        assert (refused.status_code, refused.json["code"]) == (400, "last_owner")
        assert acme.roles()[owner.id] == "owner"

    def test_the_last_but_one_may_go(self, call: Doors, acme: Company) -> None:
        assert call("admin", "DELETE", f"/users/{acme['owner'].id}").status_code == 204
        assert list(acme.roles().values()) == ["owner", "admin", "member"]

    def test_an_organization_goes_with_its_only_member(
        self, call: Doors, app: Flask, sql: psycopg.Connection
    ) -> None:
        acme, rich = company(app, sql), company(app, sql)
        sql.execute("INSERT INTO user_balance_checkpoints (user_id, checkpoint_seq, balance) VALUES (%s, 0, 1)", (rich.id,))  # fmt: skip
        assert call("admin", "DELETE", f"/users/{acme['owner'].id}").status_code == 204
        assert call("admin", "GET", acme.path).status_code == 404
        refused = call("admin", "DELETE", f"/users/{rich['owner'].id}")
        assert (refused.status_code, "has credit left" in refused.json["message"]) == (400, True)
        assert call("admin", "GET", rich.path).status_code == 200
