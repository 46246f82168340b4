import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import psycopg
import pytest
from flask import Flask

from tests.cast import Cast
from tests.identity.doors import (
    NIL,
    NOBODY,
    USER_FIELDS,
    Doors,
    app_with,
    insert_key,
    insert_organization,
    insert_user,
    unique,
    waits_for_lock,
)


def body(**more: Any) -> dict[str, Any]:
    name = unique()
    return {"username": name, "email": f"{name}@made.example", "roles": ["StandardUser"], **more}


class TestCreate:
    def test_a_user_is_shown_whole(self, call: Doors) -> None:
        wanted = body(display_name="Dave", roles=["RequestViewer", "BatchAPIUser"])
        answer = call("admin", "POST", "/users", wanted)
        assert answer.status_code == 201
        assert set(answer.json) == USER_FIELDS
        assert answer.json["roles"] == ["RequestViewer", "BatchAPIUser", "StandardUser"]
        assert answer.json["auth_source"] == "proxy-header"
        assert answer.json["display_name"] == "Dave"
        assert answer.json["user_type"] == "individual"
        assert answer.json["created_at"].endswith("Z")

    def test_no_roles_are_the_base_role(self, call: Doors) -> None:
        answer = call("admin", "POST", "/users", body(roles=[]))
        assert answer.json["roles"] == ["StandardUser"]
        assert answer.json["display_name"] is None

    def test_a_role_named_twice_is_held_once(self, call: Doors) -> None:
        answer = call("admin", "POST", "/users", body(roles=["StandardUser", "StandardUser"]))
        assert answer.json["roles"] == ["StandardUser"]

    @pytest.mark.parametrize(
        ("same", "message"),
        [
            ("username", "This username is already taken"),
            ("email", "An account with this email address already exists"),
        ],
    )
    def test_what_is_taken_in_any_case_is_a_conflict(
        self, call: Doors, same: str, message: str
    ) -> None:
        first = body()
        first[same] = f"É{first[same]}"
        assert call("admin", "POST", "/users", first).status_code == 201
        for spelt in (first[same], first[same].upper(), first[same].replace("u-", "U-")):
            answer = call("admin", "POST", "/users", body(**{same: spelt}))
            assert answer.status_code == 409
            assert (answer.json["message"], answer.json["resource"]) == (message, "user")

    def test_of_two_who_come_at_once_one_is_made(
        self, call: Doors, sql: psycopg.Connection
    ) -> None:
        """However each spells it, and whatever the other has of it."""
        first, second = body(), body()
        second["email"] = first["email"].upper()
        third = body(username=first["username"].upper(), email=second["email"].title())
        with ThreadPoolExecutor() as pool:
            answers = pool.map(lambda one: call("admin", "POST", "/users", one), (first, second, third))  # fmt: skip
            assert sorted(answer.status_code for answer in answers) == [201, 409, 409]

    @pytest.mark.parametrize("name", ["username", "email"])
    def test_nobody_can_keep_an_account_from_being_deleted(
        self, call: Doors, sql: psycopg.Connection, name: str
    ) -> None:
        taken = f"Deleted-{insert_user(sql)}" + ("@deleted.local" if name == "email" else "")
        refused = call("admin", "POST", "/users", body(**{name: taken}))
        assert (refused.status_code, refused.json["message"]) == (422, f"{name}: Must not be the name of a deleted account.")  # fmt: skip

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"roles": ["Emperor"]}, "roles.0: Must be one of: "),
            ({"roles": "StandardUser"}, "roles: Not a valid list."),
            ({"roles": None}, "roles: Field may not be null."),
            ({"username": ""}, "username: Must not be blank."),
            ({"username": "x" * 256}, "username: Longer than maximum length 255."),
            ({"email": "a b@c.example"}, "email: Not a valid email address."),
        ],
    )
    def test_a_wrong_shape_is_422(self, call: Doors, change: dict[str, Any], message: str) -> None:
        answer = call("admin", "POST", "/users", body(**change))
        assert answer.status_code == 422
        assert answer.json["message"].startswith(message)
        assert list(answer.json["details"]["json"]) == list(change)


class TestList:
    def test_newest_come_first_in_pages_that_do_not_overlap(self, call: Doors) -> None:
        names = [call("admin", "POST", "/users", body()).json["username"] for _ in range(3)]
        pages = [call("admin", "GET", f"/users?limit=1&skip={skip}").json for skip in range(3)]
        assert [page["data"][0]["username"] for page in pages] == names[::-1]
        assert {(page["skip"], page["limit"]) for page in pages} == {(0, 1), (1, 1), (2, 1)}
        assert len({page["total_count"] for page in pages}) == 1

    @pytest.mark.parametrize(
        ("query", "limit", "skip"),
        [("", 10, 0), ("?limit=0", 1, 0), ("?limit=-1", 1, 0), ("?limit=9999", 101, 0), ("?skip=-3", 10, 0)],
    )  # fmt: skip
    def test_limits_are_moved_into_range(
        self, call: Doors, query: str, limit: int, skip: int
    ) -> None:
        page = call("admin", "GET", f"/users{query}").json
        assert (page["limit"], page["skip"]) == (limit, skip)

    def test_a_limit_that_is_no_number_is_400(self, call: Doors) -> None:
        answer = call("admin", "GET", "/users?limit=x")
        assert (answer.status_code, answer.json["message"]) == (400, "limit: Not a valid integer.")

    def test_search_is_a_plain_substring(self, call: Doors) -> None:
        mark = unique("50%_off")
        call("admin", "POST", "/users", body(display_name=mark.upper()))
        found = call("admin", "GET", "/users", query_string={"search": f" {mark} "}).json
        assert [user["display_name"] for user in found["data"]] == [mark.upper()]
        wild = call("admin", "GET", "/users", query_string={"search": "50%%off"}).json
        assert wild["total_count"] == 0
        assert call("admin", "GET", "/users?search=%20").json["total_count"] > 1
        assert call("admin", "GET", "/users?search=%00").status_code == 400

    def test_only_living_people_are_listed(self, call: Doors, sql: psycopg.Connection) -> None:
        gone = insert_user(sql, is_deleted=True)
        organization = insert_organization(sql)
        seen: set[str] = set()
        while page := call("admin", "GET", f"/users?limit=100&skip={len(seen)}").json["data"]:
            seen |= {user["id"] for user in page}
        assert not {str(gone), str(organization), NIL} & seen

    def test_groups_and_balances_on_request(
        self, call: Doors, cast: Cast, sql: psycopg.Connection
    ) -> None:
        mark = unique()
        user = insert_user(sql, display_name=mark)
        group = call("admin", "POST", "/groups", {"name": unique("A")}).json
        call("admin", "POST", f"/groups/{group['id']}/users/{user}")
        path = f"/users?search={mark}&include= groups,billing,nonsense"
        (shown,) = call("admin", "GET", path).json["data"]
        assert set(shown) == USER_FIELDS | {"groups", "credit_balance", "credit_balance_exact"}
        assert shown["credit_balance"] == 0
        assert [g["name"] for g in shown["groups"]] == [group["name"], "Everyone"]
        assert shown["groups"][0]["created_by"] == str(cast["admin"])

    def test_balances_need_the_permission(self, call: Doors, sql: psycopg.Connection) -> None:
        email = f"{unique()}@sql.example"
        insert_user(sql, "REQUESTVIEWER", "STANDARDUSER", email=email)
        assert "credit_balance" in call("biller", "GET", "/users?include=billing").json["data"][0]


class TestGet:
    def test_oneself(self, call: Doors, cast: Cast) -> None:
        me = call("alice", "GET", "/users/current").json
        assert set(me) == USER_FIELDS
        assert me["id"] == str(cast["alice"])
        assert call("alice", "GET", f"/users/{cast['alice']}").json == me

    def test_everything_about_oneself(
        self, call: Doors, cast: Cast, sql: psycopg.Connection
    ) -> None:
        organization = insert_organization(sql, admin=cast["bob"])
        headers = {"X-Organization-Id": str(organization)}
        path = "/users/current?include=billing,organizations,groups"
        me = call("bob", "GET", path, headers=headers).json
        assert me["credit_balance"] == 0
        (shown,) = me["organizations"]
        assert (shown["id"], shown["role"]) == (str(organization), "admin")
        assert me["active_organization_id"] == str(organization)
        assert [group["name"] for group in me["groups"]] == ["Everyone"]
        assert "created_by" not in me["groups"][0]

    def test_the_name_of_an_organisation_is_its_display_name_where_it_has_one(
        self, call: Doors, sql: psycopg.Connection
    ) -> None:
        email = f"{unique()}@sql.example"
        organization = insert_organization(sql, owner=insert_user(sql, email=email))
        path, headers = "/users/current?include=organizations", {"x-doubleword-user": email}
        name = sql.execute("SELECT username FROM users WHERE id = %s", (organization,)).fetchone()
        (before,) = call(None, "GET", path, headers=headers).json["organizations"]
        sql.execute("UPDATE users SET display_name = 'Acme' WHERE id = %s", (organization,))
        (after,) = call(None, "GET", path, headers=headers).json["organizations"]
        assert name
        assert (before["name"], after["name"]) == (name[0], "Acme")

    def test_a_member_sees_the_organisation_and_its_balance(
        self, call: Doors, sql: psycopg.Connection, cast: Cast
    ) -> None:
        organization = insert_organization(sql, member=cast["alice"])
        shown = call("alice", "GET", f"/users/{organization}?include=billing").json
        assert (shown["user_type"], shown["credit_balance"]) == ("organization", 0)
        assert call("viewer", "GET", f"/users/{organization}").status_code == 403

    def test_another_user_is_not_shown(self, call: Doors, cast: Cast) -> None:
        answer = call("alice", "GET", f"/users/{cast['bob']}")
        assert answer.status_code == 403
        assert answer.json["message"] == f"Insufficient permissions to Read user data for user {cast['bob']}"  # fmt: skip
        assert answer.json["code"] == "forbidden"

    @pytest.mark.parametrize(
        ("who", "path", "status", "message"),
        [
            ("admin", f"/users/{NOBODY}", 404, f"User with ID {NOBODY} not found"),
            ("admin", f"/users/{NIL}", 404, f"User with ID {NIL} not found"),
            ("admin", "/users/not-an-id", 400, "Invalid ID format: 'not-an-id' is not a UUID"),
            (None, "/users/not-an-id", 400, "Invalid ID format: 'not-an-id' is not a UUID"),
            (None, f"/users/{NOBODY}", 401, "Authentication required"),
            ("alice", f"/users/{NOBODY}", 403, f"Insufficient permissions to Read user data for user {NOBODY}"),
        ],
    )  # fmt: skip
    def test_what_is_not_there(
        self, call: Doors, who: str | None, path: str, status: int, message: str
    ) -> None:
        answer = call(who, "GET", path)
        assert (answer.status_code, answer.json["message"]) == (status, message)
        assert answer.json["request_id"] == answer.headers["x-request-id"]

    def test_whoever_is_new_is_sent_through_the_onboarding(
        self, environ: dict[str, str], sql: psycopg.Connection
    ) -> None:
        with app_with(environ, onboarding_url="https://welcome.example") as app:
            name = unique()
            headers = {"x-doubleword-user": name}
            get = Doors(app)
            new = get(None, "GET", "/users/current", headers=headers).json
            assert new["onboarding_redirect_url"] == "https://welcome.example"
            sql.execute("UPDATE users SET created_at = now() - interval '1 day' WHERE username = %s", (name,))  # fmt: skip
            old = get(None, "GET", "/users/current", headers=headers).json
            assert "onboarding_redirect_url" not in old


class TestUpdate:
    @pytest.fixture
    def user(self, sql: psycopg.Connection) -> UUID:
        return insert_user(sql, "STANDARDUSER", "BATCHAPIUSER")

    def test_an_administrator_changes_everything(self, call: Doors, user: UUID) -> None:
        changes = {
            "display_name": "David",
            "avatar_url": "https://a.example/x.png",
            "roles": ["RequestViewer", "StandardUser"],
            "batch_notifications_enabled": True,
            "low_balance_threshold": 5.5,
            "auto_topup_amount": 20,
            "auto_topup_threshold": 0,
            "auto_topup_monthly_limit": 100,
            "zero_data_retention": True,
            "log_sample": 0.25,
        }
        answer = call("admin", "PATCH", f"/users/{user}", changes)
        assert answer.status_code == 200
        assert {name: answer.json[name] for name in changes} == changes
        assert call("admin", "GET", f"/users/{user}").json == answer.json

    def test_null_clears_limits_and_leaves_the_rest(self, call: Doors, user: UUID) -> None:
        given = {
            "display_name": "D",
            "low_balance_threshold": 1,
            "auto_topup_amount": 2,
            "zero_data_retention": True,
            "log_sample": 0.5,
        }
        call("admin", "PATCH", f"/users/{user}", given)
        nulls = {**dict.fromkeys(given), "roles": None, "batch_notifications_enabled": None}
        after = call("admin", "PATCH", f"/users/{user}", nulls).json
        assert after["display_name"] == "D"
        assert after["roles"] == ["StandardUser", "BatchAPIUser"]
        assert after["low_balance_threshold"] is after["auto_topup_amount"] is None
        assert (after["zero_data_retention"], after["log_sample"]) == (True, None)

    def test_nothing_changes_nothing(self, call: Doors, user: UUID) -> None:
        before = call("admin", "GET", f"/users/{user}").json
        assert call("admin", "PATCH", f"/users/{user}", {}).json == before

    def test_a_new_limit_is_told_about_anew(
        self, call: Doors, user: UUID, sql: psycopg.Connection
    ) -> None:
        told = "low_balance_notification_sent, auto_topup_limit_notification_sent"
        sql.execute(f"UPDATE users SET ({told}) = (true, true) WHERE id = %s", (user,))
        call("admin", "PATCH", f"/users/{user}", {"low_balance_threshold": 3})
        assert sql.execute(f"SELECT {told} FROM users WHERE id = %s", (user,)).fetchone() == (False, True)  # fmt: skip
        call("admin", "PATCH", f"/users/{user}", {"auto_topup_monthly_limit": 3})
        assert sql.execute(f"SELECT {told} FROM users WHERE id = %s", (user,)).fetchone() == (False, False)  # fmt: skip

    @pytest.mark.parametrize(
        ("changes", "status", "message"),
        [
            ({"auto_topup_amount": -1}, 400, "Auto top-up amount must be positive"),
            ({"auto_topup_amount": 0}, 400, "Auto top-up amount must be positive"),
            ({"auto_topup_threshold": -0.5}, 400, "Auto top-up threshold must not be negative"),
            ({"auto_topup_monthly_limit": 0}, 400, "Auto top-up monthly limit must be positive"),
            ({"roles": ["Emperor"]}, 422, "roles.0: Must be one of: "),
            ({"low_balance_threshold": "much"}, 422, "low_balance_threshold: Not a valid number."),
            ({"log_sample": 1.01}, 422, "log_sample: Must be greater than or equal to 0 and less"),
            ({"log_sample": "nan"}, 422, "log_sample: Not a valid number."),
            ({"zero_data_retention": "maybe"}, 422, "zero_data_retention: Not a valid boolean."),
        ],
    )
    def test_wrong_values_are_refused(
        self, call: Doors, user: UUID, changes: dict[str, Any], status: int, message: str
    ) -> None:
        answer = call("admin", "PATCH", f"/users/{user}", changes)
        assert answer.status_code == status
        assert answer.json["message"].startswith(message)

    def test_one_may_change_oneself_but_not_ones_roles(self, call: Doors, cast: Cast) -> None:
        path = f"/users/{cast['alice']}"
        assert call("alice", "PATCH", path, {"display_name": "A."}).json["display_name"] == "A."
        answer = call("alice", "PATCH", path, {"roles": ["PlatformManager"]})
        assert answer.status_code == 403
        assert answer.json["message"] == "Insufficient permissions to Update user roles"

    def test_one_may_not_change_others(self, call: Doors, cast: Cast) -> None:
        answer = call("alice", "PATCH", f"/users/{cast['bob']}", {})
        assert answer.status_code == 403

    def test_username_and_email_are_no_fields(self, call: Doors, user: UUID) -> None:
        answer = call("admin", "PATCH", f"/users/{user}", {"email": "new@x.example"})
        assert answer.headers["x-ignored-fields"] == "email"
        assert answer.json["email"] != "new@x.example"

    @pytest.mark.parametrize(("path", "status"), [(NIL, 404), (NOBODY, 404), ("current", 400)])
    def test_whom_there_is_not(self, call: Doors, path: str, status: int) -> None:
        assert call("admin", "PATCH", f"/users/{path}", {}).status_code == status

    def test_a_manager_cannot_lock_themself_out(self, call: Doors, cast: Cast) -> None:
        path = f"/users/{cast['admin']}"
        answer = call("admin", "PATCH", path, {"roles": ["StandardUser"]})
        assert answer.status_code == 400
        assert call("admin", "GET", "/users").status_code == 200


class TestTheLastManager:
    """Somebody must be left who manages the platform."""

    @pytest.fixture
    def alone(self, call: Doors, cast: Cast, sql: psycopg.Connection) -> Iterator[UUID]:
        """The only other manager, beside the one who asks: an administrator who is about to be none."""
        sql.execute("DELETE FROM user_roles WHERE role = 'PLATFORMMANAGER' AND user_id <> %s", (NIL,))  # fmt: skip
        admins = sql.execute("UPDATE users SET is_admin = false WHERE is_admin AND id <> %s RETURNING id", (NIL,)).fetchall()  # fmt: skip
        sql.execute("INSERT INTO user_roles (user_id, role) VALUES (%s, 'PLATFORMMANAGER')", (cast["admin"],))  # fmt: skip
        yield insert_user(sql, "PLATFORMMANAGER")
        for (admin,) in admins:
            sql.execute("UPDATE users SET is_admin = true WHERE id = %s", (admin,))

    @pytest.mark.parametrize(
        ("method", "body"), [("PATCH", {"roles": ["StandardUser"]}), ("DELETE", None)]
    )
    def test_of_two_who_remove_each_other_one_stays(
        self, app: Flask, call: Doors, cast: Cast, sql: psycopg.Connection, alone: UUID, method: str, body: Any
    ) -> None:  # fmt: skip
        secret = insert_key(sql, alone)
        with psycopg.connect(sql.info.dsn, password=sql.info.password) as holder:
            holder.execute("SELECT pg_advisory_xact_lock(hashtextextended('platform managers', 0))")
            with ThreadPoolExecutor() as pool:
                first = pool.submit(call, "admin", method, f"/users/{alone}", body)
                second = pool.submit(call, None, method, f"/users/{cast['admin']}", body, headers={"Authorization": f"Bearer {secret}"})  # fmt: skip
                waits_for_lock(sql, 2)
                holder.rollback()
                answers = sorted((first.result(), second.result()), key=lambda answer: answer.status_code)  # fmt: skip
        assert [answer.status_code for answer in answers] == [204 if method == "DELETE" else 200, 400]  # fmt: skip
        assert "is the last account that may manage the platform" in answers[1].json["message"]
        left = sql.execute("SELECT count(*) FROM user_roles r JOIN users u ON u.id = r.user_id WHERE role = 'PLATFORMMANAGER' AND NOT is_deleted AND u.id <> %s", (NIL,))  # fmt: skip
        assert left.fetchone() == (1,)
        if method == "DELETE":
            sql.execute("UPDATE users SET is_deleted = false, external_user_id = 'admin@cast.example' WHERE id = %s", (cast["admin"],))  # fmt: skip


class TestDelete:
    def test_a_deleted_user_is_scrubbed_and_free_again(
        self, call: Doors, sql: psycopg.Connection
    ) -> None:
        made = call("admin", "POST", "/users", body(display_name="Gone")).json
        key = call("admin", "POST", f"/users/{made['id']}/api-keys", {"name": "k"}).json
        assert call("admin", "DELETE", f"/users/{made['id']}").status_code == 204
        row = sql.execute(
            "SELECT username, email, display_name, avatar_url, password_hash, external_user_id, is_deleted FROM users WHERE id = %s",
            (made["id"],),
        ).fetchone()
        name = f"deleted-{made['id']}"
        assert row == (name, f"{name}@deleted.local", None, None, None, None, True)
        assert sql.execute("SELECT is_deleted FROM api_keys WHERE id = %s", (key["id"],)).fetchone() == (True,)  # fmt: skip
        for method in ("GET", "PATCH", "DELETE"):
            answer = call("admin", method, f"/users/{made['id']}", {} if method == "PATCH" else None)  # fmt: skip
            assert (answer.status_code, answer.json["message"]) == (404, f"User with ID {made['id']} not found")  # fmt: skip
        again = {"username": made["username"], "email": made["email"], "roles": []}
        assert call("admin", "POST", "/users", again).status_code == 201

    def test_nobody_keeps_an_account_by_having_its_name_to_be(
        self, call: Doors, sql: psycopg.Connection
    ) -> None:
        """No door takes such a name; a row of before may have it."""
        user, squatter = insert_user(sql), insert_user(sql)
        name = f"deleted-{user}"
        sql.execute("UPDATE users SET username = %s WHERE id = %s", (name, squatter))
        for account in (user, squatter):
            assert call("admin", "DELETE", f"/users/{account}").status_code == 204
        (scrubbed,) = sql.execute("SELECT username FROM users WHERE id = %s", (user,)).fetchone() or ("",)  # fmt: skip
        assert scrubbed.startswith(f"{name}-")

    def test_204_has_neither_body_nor_type(self, call: Doors, sql: psycopg.Connection) -> None:
        answer = call("admin", "DELETE", f"/users/{insert_user(sql)}")
        assert answer.data == b""
        assert "Content-Type" not in answer.headers

    def test_not_oneself(self, call: Doors, cast: Cast) -> None:
        answer = call("admin", "DELETE", f"/users/{cast['admin']}")
        assert (answer.status_code, answer.json["message"]) == (400, "You cannot delete your own account")  # fmt: skip

    def test_not_the_system_user(self, call: Doors) -> None:
        assert call("admin", "DELETE", f"/users/{NIL}").status_code == 404

    def test_an_organisation_goes_with_its_keys_and_memberships(
        self, call: Doors, cast: Cast, sql: psycopg.Connection
    ) -> None:
        organization = insert_organization(sql, owner=cast["alice"])
        call("alice", "POST", f"/users/{organization}/api-keys", {"name": "k"})
        assert call("admin", "DELETE", f"/users/{organization}").status_code == 204
        keys = sql.execute("SELECT is_deleted FROM api_keys WHERE user_id = %s", (organization,))
        assert keys.fetchall() == [(True,)]
        assert call("alice", "GET", f"/users/{organization}").status_code == 403


class TestGroupsOfAUser:
    def test_by_name_and_everyone_last(
        self, call: Doors, cast: Cast, sql: psycopg.Connection
    ) -> None:
        user = insert_user(sql)
        names = sorted(unique("Z") for _ in range(2))
        for name in reversed(names):
            group = call("admin", "POST", "/groups", {"name": name}).json["id"]
            assert call("admin", "POST", f"/users/{user}/groups/{group}").status_code == 204
        shown = call("admin", "GET", f"/users/{user}/groups").json
        assert [group["name"] for group in shown] == [*names, "Everyone"]
        assert shown[0]["created_by"] == str(cast["admin"])
        assert call("admin", "DELETE", f"/users/{user}/groups/{group}").status_code == 204
        assert call("admin", "DELETE", f"/users/{user}/groups/{group}").status_code == 404

    def test_ones_own_are_masked(self, call: Doors, cast: Cast) -> None:
        for path in (f"/users/{cast['alice']}/groups", "/users/current/groups"):
            (everyone,) = call("alice", "GET", path).json
            assert set(everyone) == {"id", "name", "description", "created_at", "updated_at", "source"}  # fmt: skip

    def test_not_those_of_others(self, call: Doors, cast: Cast) -> None:
        assert call("alice", "GET", f"/users/{cast['bob']}/groups").status_code == 403
        assert call("admin", "GET", f"/users/{NOBODY}/groups").status_code == 404
        path = f"/users/{cast['bob']}/groups/{uuid.uuid4()}"
        assert call("alice", "POST", path).status_code == 403
        assert call("admin", "POST", path).status_code == 404


def test_a_wrong_method_names_the_right_ones(call: Doors) -> None:
    answer = call("admin", "PUT", "/users", {})
    assert answer.status_code == 405
    assert {"GET", "POST"} <= set(answer.headers["Allow"].split(", "))
    assert answer.json["code"] == "method_not_allowed"
