import uuid

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient

from dwctl.config import ConfigError
from dwctl.errors import DwctlError
from dwctl.identity import authentication
from tests.cast import Cast
from tests.identity.doors import (
    ADMIN,
    NOBODY,
    Doors,
    app_with,
    cookie_of,
    insert_key,
    insert_organization,
    insert_user,
    register,
    unique,
)

ME = "/users/current"

Person = tuple[FlaskClient, str, str]


class TestKeys:
    def test_a_platform_key_acts_as_its_creator(
        self, call: Doors, cast: Cast, sql: psycopg.Connection
    ) -> None:
        answer = call.with_key(insert_key(sql, cast["alice"]))
        assert answer.status_code == 200
        assert answer.json["id"] == str(cast["alice"])

    def test_the_scheme_may_be_written_in_any_case(
        self, call: Doors, cast: Cast, sql: psycopg.Connection
    ) -> None:
        secret = insert_key(sql, cast["alice"])
        answer = call(None, "GET", ME, headers={"Authorization": f"bearer  {secret}"})
        assert answer.status_code == 200

    @pytest.mark.parametrize("purpose", ["realtime", "batch", "playground"])
    def test_a_key_of_another_purpose_is_told_so(
        self, call: Doors, cast: Cast, sql: psycopg.Connection, purpose: str
    ) -> None:
        answer = call.with_key(insert_key(sql, cast["alice"], purpose=purpose))
        assert answer.status_code == 401
        assert answer.json["code"] == "wrong_key_purpose"
        assert f"'{purpose}'" in answer.json["message"]
        assert "'platform'" in answer.json["message"]

    @pytest.mark.parametrize(
        "header",
        ["Bearer sk-nonsense", "Bearer ", "Basic c2s6c2s=", "Bearer s\xff-x", "sk-nonsense", "Bearer token"],
    )  # fmt: skip
    def test_what_is_no_key_lets_nobody_in(self, call: Doors, header: str) -> None:
        answer = call(None, "GET", ME, headers={"Authorization": header})
        assert (answer.status_code, answer.json["message"]) == (401, "Authentication required")

    def test_a_key_that_does_not_hold_leaves_the_cookie_its_chance(self, app: Flask) -> None:
        client, user = register(app)
        answer = client.get(ADMIN + ME, headers={"Authorization": "Bearer sk-nonsense"})
        assert answer.json["id"] == user["id"]

    def test_a_key_goes_before_the_trusted_header(
        self, call: Doors, cast: Cast, sql: psycopg.Connection
    ) -> None:
        answer = call.with_key(insert_key(sql, cast["alice"]), **Cast.headers("bob"))
        assert answer.json["id"] == str(cast["alice"])

    def test_a_deleted_key_is_dead(self, call: Doors, cast: Cast, sql: psycopg.Connection) -> None:
        secret = insert_key(sql, cast["alice"])
        sql.execute("UPDATE api_keys SET is_deleted = true WHERE user_id = %s", (cast["alice"],))
        assert call.with_key(secret).status_code == 401

    def test_a_key_dies_with_its_owner_and_with_its_creator(
        self, call: Doors, sql: psycopg.Connection
    ) -> None:
        for dead in ("owner", "creator"):
            creator = insert_user(sql)
            owner = insert_organization(sql, member=creator)
            secret = insert_key(sql, creator, owner)
            assert call.with_key(secret).status_code == 200
            gone = owner if dead == "owner" else creator
            sql.execute("UPDATE users SET is_deleted = true WHERE id = %s", (gone,))
            assert call.with_key(secret).status_code == 401

    def test_its_use_is_noted_but_not_each_time(self, call: Doors, sql: psycopg.Connection) -> None:
        user = insert_user(sql)
        secret = insert_key(sql, user)
        used = "SELECT k.last_used, u.last_login FROM api_keys k JOIN users u ON u.id = k.user_id WHERE u.id = %s"  # fmt: skip
        assert call.with_key(secret).json["last_login"]
        first = sql.execute(used, (user,)).fetchone()
        assert first
        assert all(first)
        call.with_key(secret)
        assert sql.execute(used, (user,)).fetchone() == first


class TestActiveOrganization:
    @pytest.fixture
    def person(self, app: Flask, sql: psycopg.Connection) -> Person:
        """A browser, and two organisations of its user."""
        client, user = register(app)
        user_id = uuid.UUID(user["id"])
        return client, str(insert_organization(sql, owner=user_id)), str(insert_organization(sql, member=user_id))  # fmt: skip

    def test_the_header_goes_before_the_cookie(self, person: Person) -> None:
        client, first, second = person
        client.set_cookie("dw_active_org", first)
        assert client.get(ADMIN + ME).json["active_organization_id"] == first
        answer = client.get(ADMIN + ME, headers={"X-Organization-Id": second})
        assert answer.json["active_organization_id"] == second

    def test_a_cookie_for_a_foreign_organisation_is_ignored(self, person: Person) -> None:
        client, _, _ = person
        for stale in (NOBODY, "nonsense"):
            client.set_cookie("dw_active_org", stale)
            assert "active_organization_id" not in client.get(ADMIN + ME).json

    def test_a_header_for_a_foreign_organisation_is_refused(self, person: Person) -> None:
        client, _, _ = person
        foreign = client.get(ADMIN + ME, headers={"X-Organization-Id": NOBODY})
        assert foreign.status_code == 403
        assert foreign.json["message"] == f"Insufficient permissions to Read Organization {NOBODY}"
        assert client.get(ADMIN + ME, headers={"X-Organization-Id": "x"}).status_code == 400

    def test_an_invitation_is_no_membership(
        self, call: Doors, cast: Cast, sql: psycopg.Connection
    ) -> None:
        organization = insert_organization(sql, member=cast["bob"])
        sql.execute(
            "UPDATE user_organizations SET status = 'pending' WHERE organization_id = %s",
            (organization,),
        )
        headers = {"X-Organization-Id": str(organization)}
        assert call("bob", "GET", ME, headers=headers).status_code == 403

    def test_an_organisation_key_acts_in_its_name_whatever_the_cookie_says(
        self, call: Doors, sql: psycopg.Connection
    ) -> None:
        user = insert_user(sql)
        first, second = (insert_organization(sql, member=user) for _ in range(2))
        secret = insert_key(sql, user, first)
        answer = call.with_key(secret, Cookie=f"dw_active_org={second}")
        assert answer.json["id"] == str(user)
        assert answer.json["active_organization_id"] == str(first)


def test_a_deleted_user_loses_every_way_in(
    app: Flask, call: Doors, sql: psycopg.Connection
) -> None:
    client, user = register(app)
    user_id = uuid.UUID(user["id"])
    external = unique("idp")
    sql.execute("UPDATE users SET external_user_id = %s WHERE id = %s", (external, user_id))
    headers = {"x-doubleword-user": external, "x-doubleword-email": user["email"]}
    secret = insert_key(sql, user_id)
    insert_organization(sql, owner=user_id)
    assert call(None, "GET", ME, headers=headers).json["id"] == user["id"]

    assert call("admin", "DELETE", f"/users/{user_id}").status_code == 204

    assert client.get(ADMIN + ME).status_code == 401
    assert call.with_key(secret).status_code == 401
    login = {"email": user["email"], "password": "a-good-password"}
    assert app.test_client().post("/authentication/login", json=login).status_code == 401
    # The identity is free again, and another person's.
    assert call(None, "GET", ME, headers=headers).json["id"] != user["id"]
    for table, column in (("login_sessions", "user_id"), ("user_organizations", "user_id")):
        assert not sql.execute(f"SELECT 1 FROM {table} WHERE {column} = %s", (user_id,)).fetchall()


def test_the_system_user_cannot_sign_in(call: Doors, sql: psycopg.Connection) -> None:
    assert call.with_key(insert_key(sql, uuid.UUID(int=0))).status_code == 401


def test_the_session_part_alone_takes_no_key(
    app: Flask, cast: Cast, sql: psycopg.Connection
) -> None:
    client, user = register(app)
    key = {"HTTP_AUTHORIZATION": f"Bearer {insert_key(sql, cast['alice'])}"}
    with app.test_request_context("/ai/v1/responses/x", environ_overrides=key) as context:
        assert authentication.caller_of_session(context.request) is None
    cookie = {"HTTP_COOKIE": f"dwctl_session={cookie_of(client)}"}
    with app.test_request_context("/ai/v1/responses/x", environ_overrides=key | cookie) as context:
        for request in (context.request, context.request.environ):
            caller = authentication.caller_of_session(request)
            assert caller is not None
            assert str(caller.user_id) == user["id"]
            assert caller.source == "session"


def test_resolving_holds_no_connection(app: Flask, cast: Cast) -> None:
    peer = {"REMOTE_ADDR": "127.0.0.1"}
    with app.test_request_context(
        "/", headers=Cast.headers("alice"), environ_overrides=peer
    ) as context:
        caller = authentication.resolve(context.request)
        assert caller is not None
        assert caller.user_id == cast["alice"]
        assert app.extensions["sqlalchemy"].engine.pool.checkedout() == 0


@pytest.mark.parametrize(
    ("path", "purpose", "holds"),
    [
        ("/admin/api/v1/users", "platform", True),
        ("/admin/api/v1/ai/v1/models", "realtime", False),
        ("/ai/v1/files", "platform", False),
        ("/ai/v1/files", "realtime", True),
        ("/ai/v1/batches", "batch", True),
        ("/ai/v1/batches", "playground", True),
        ("/authentication/password-change", "realtime", True),
    ],
)
def test_purposes_and_paths(
    app: Flask, cast: Cast, sql: psycopg.Connection, path: str, purpose: str, holds: bool
) -> None:
    headers = {"Authorization": f"Bearer {insert_key(sql, cast['alice'], purpose=purpose)}"}
    with app.test_request_context(path, headers=headers) as context:
        if holds:
            assert authentication.resolve(context.request) is not None
        else:
            with pytest.raises(DwctlError, match="purpose") as refused:
                authentication.resolve(context.request)
            assert refused.value.status == (403 if path.startswith("/ai/") else 401)
            assert refused.value.code == "wrong_key_purpose"


def test_a_database_that_is_away_is_503(environ: dict[str, str]) -> None:
    nowhere = environ | {"DATABASE_URL": "postgresql://x@127.0.0.1:9/x"}
    with app_with(nowhere) as app:
        client = app.test_client()
        client.set_cookie("dwctl_session", "whatever")
        for headers in ({}, {"Authorization": "Bearer sk-x"}, {"x-doubleword-user": "x"}):
            answer = client.get(ADMIN + ME, headers=headers)
            assert answer.status_code == 503
            assert answer.headers["Retry-After"]
        login = client.post("/authentication/login", json={"email": "a@b.example", "password": "x"})
        assert login.status_code == 503


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("auth__proxy_header__trusted_proxies", "10.0.0.0/8,nonsense"),
        ("auth__default_user_roles", "StandardUser,Emperor"),
    ],
)
def test_settings_that_let_the_wrong_ones_in_stop_the_start(
    environ: dict[str, str], setting: str, value: str
) -> None:
    with pytest.raises(ConfigError, match=setting.replace("__", ".")), app_with(environ, **{setting: value}):  # fmt: skip
        pass
