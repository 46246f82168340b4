import secrets
import threading
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from dwctl import config
from dwctl.db import db
from dwctl.identity import trusted_headers, users
from tests.identity.doors import (
    ADMIN,
    NIL,
    USER_FIELDS,
    Doors,
    app_with,
    insert_key,
    insert_user,
    log_in,
    register,
    unique,
    waits_for_lock,
)


def come(app: Flask, user: str, email: str | None = None, *, peer: str = "127.0.0.1", **more: str) -> TestResponse:  # fmt: skip
    headers = {"x-doubleword-user": user, **more}
    if email is not None:
        headers["x-doubleword-email"] = email
    return app.test_client(use_cookies=False).get(
        f"{ADMIN}/users/current", headers=headers, environ_overrides={"REMOTE_ADDR": peer}
    )


def mail(domain: str = "people.example") -> str:
    return f"{unique()}@{domain}"


def test_a_stranger_is_made_on_first_sight(app: Flask) -> None:
    external, email = unique("idp"), mail()
    user = come(app, external, email).json
    assert set(user) == USER_FIELDS
    assert (user["username"], user["email"], user["external_user_id"]) == (external, email, external)  # fmt: skip
    assert user["auth_source"] == "proxy-header"
    assert user["display_name"]
    assert user["last_login"]
    assert come(app, external, email).json["id"] == user["id"]


def test_one_header_is_enough(app: Flask) -> None:
    email = mail()
    user = come(app, email).json
    assert (user["username"], user["email"], user["external_user_id"]) == (email, email, email)


@pytest.mark.parametrize(
    "peer", ["10.1.2.3", "8.8.8.8", "2001:db8::1", "::ffff:10.1.2.3", "nonsense"]
)
def test_an_untrusted_peer_is_ignored(app: Flask, peer: str) -> None:
    answer = come(app, mail(), peer=peer)
    assert (answer.status_code, answer.json["message"]) == (401, "Authentication required")


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.3.2.1", "::1", "::ffff:127.0.0.1", ""])
def test_loopback_and_unix_sockets_are_trusted(app: Flask, peer: str) -> None:
    assert come(app, mail(), peer=peer).status_code == 200


def test_what_a_client_says_about_its_peer_does_not_count(app: Flask) -> None:
    answer = come(app, mail(), peer="8.8.8.8", **{"X-Forwarded-For": "127.0.0.1"})
    assert answer.status_code == 401


@pytest.mark.parametrize("blank", ["", "   "])
def test_a_blank_header_is_nobody(app: Flask, blank: str) -> None:
    assert come(app, blank, "somebody@people.example").status_code == 401


def test_a_user_of_few_columns_is_recognised_by_email(app: Flask, sql: psycopg.Connection) -> None:
    email = mail()
    user_id = insert_user(sql, email=email)
    user = come(app, email.upper()).json
    assert user["id"] == str(user_id)
    assert user["display_name"] is None
    assert user["external_user_id"] is None


def test_the_external_id_is_filled_in_where_it_says_more_than_the_email(
    app: Flask, sql: psycopg.Connection
) -> None:
    email, external = mail(), unique("idp")
    user_id = insert_user(sql, email=email)
    user = come(app, external, email).json
    assert (user["id"], user["external_user_id"]) == (str(user_id), external)


def test_the_same_email_under_another_external_id_is_another_person(app: Flask) -> None:
    email = mail()
    first, second = (come(app, unique("idp"), email).json for _ in range(2))
    assert first["id"] != second["id"]
    assert first["email"] == second["email"]


def test_a_new_email_is_taken_over(app: Flask) -> None:
    external, email = unique("idp"), mail()
    before = come(app, external, mail()).json
    assert come(app, external).json["email"] == before["email"]
    after = come(app, external, email).json
    assert (after["id"], after["email"]) == (before["id"], email)


def test_a_name_that_is_taken_keeps_nobody_out(app: Flask, sql: psycopg.Connection) -> None:
    external = unique("idp")
    insert_user(sql, username=external)
    user = come(app, external, mail()).json
    assert user["external_user_id"] == external
    assert user["username"].startswith(f"{external} (")


def test_an_email_that_is_the_id_is_one_person_in_any_case(app: Flask) -> None:
    email = f"Ann.{mail()}"
    ids = {come(app, spelling).json["id"] for spelling in (email, email.lower(), email.upper())}
    assert len(ids) == 1
    assert come(app, unique("idp"), email.lower()).json["id"] not in ids


def test_nobody_takes_the_name_that_an_account_gets_when_it_is_deleted(app: Flask) -> None:
    leaver = come(app, mail()).json["id"]
    other = come(app, f"deleted-{leaver}").json
    assert other["username"].startswith(f"deleted-{leaver} (")
    with app.app_context():
        users.delete_account(db.session(), users.get(db.session(), UUID(leaver)))
        db.session.commit()


def test_names_in_other_scripts_arrive_whole(app: Flask) -> None:
    name = f"zoë-{unique()}"
    user = come(app, name.encode().decode("latin-1"), mail()).json
    assert user["external_user_id"] == name


def test_two_first_calls_at_once_make_one_user(app: Flask, sql: psycopg.Connection) -> None:
    external, email = unique("idp"), mail(f"{unique()}.example")
    ids: list[str] = []
    threads = [
        threading.Thread(target=lambda: ids.append(come(app, external, email).json["id"]))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 4
    assert len(set(ids)) == 1


def test_new_users_get_roles_and_credits(environ: dict[str, str], sql: psycopg.Connection) -> None:
    settings = {
        "auth__default_user_roles": "BatchAPIUser,RequestViewer",
        "credits__initial_credits_for_standard_users": "12.5",
    }
    with app_with(environ, **settings) as app:
        email = mail()
        user = come(app, email).json
        assert user["roles"] == ["BatchAPIUser", "RequestViewer", "StandardUser"]
        come(app, email)
    grants = sql.execute(
        "SELECT transaction_type, amount, created_by::text FROM credits_transactions WHERE user_id = %s",
        (user["id"],),
    ).fetchall()
    assert [(kind, float(amount), by) for kind, amount, by in grants] == [
        ("admin_grant", 12.5, NIL)
    ]


class TestOrganisationsByDomain:
    @staticmethod
    def roles(sql: psycopg.Connection, domain: str) -> list[tuple[str, str]]:
        return sql.execute(
            "SELECT m.user_id::text, m.role FROM user_organizations m JOIN users o ON o.id = m.organization_id"
            " WHERE o.username = %s ORDER BY m.role DESC",
            (domain,),
        ).fetchall()

    def test_the_first_of_a_company_owns_it_and_the_others_join(
        self, app: Flask, sql: psycopg.Connection
    ) -> None:
        domain = f"{unique()}.example"
        email = mail(domain)
        first, second = come(app, email).json, come(app, mail(domain.upper())).json
        assert self.roles(sql, domain) == [(first["id"], "owner"), (second["id"], "member")]
        made = sql.execute(
            "SELECT email, display_name, auth_source, user_type FROM users WHERE username = %s",
            (domain,),
        ).fetchone()
        assert made == (email, None, "organization", "organization")

    def test_a_personal_mailbox_is_no_company(self, app: Flask, sql: psycopg.Connection) -> None:
        assert come(app, mail("gmail.com")).status_code == 200
        assert self.roles(sql, "gmail.com") == []

    def test_an_id_that_is_no_address_makes_none(self, app: Flask) -> None:
        assert come(app, unique("idp")).status_code == 200

    def test_a_person_named_like_the_domain_is_left_alone(
        self, app: Flask, sql: psycopg.Connection
    ) -> None:
        domain = f"{unique()}.example"
        insert_user(sql, username=domain)
        assert come(app, mail(domain)).status_code == 200
        assert self.roles(sql, domain) == []

    def test_it_can_be_switched_off(self, environ: dict[str, str], sql: psycopg.Connection) -> None:
        domain = f"{unique()}.example"
        with app_with(environ, auth__proxy_header__auto_create_organizations="false") as app:
            assert come(app, mail(domain)).status_code == 200
        assert self.roles(sql, domain) == []


class TestWithoutAutoCreation:
    @pytest.fixture
    def strict(self, environ: dict[str, str]) -> Iterator[Flask]:
        with app_with(environ, auth__proxy_header__auto_create_users="false") as app:
            yield app

    def test_strangers_stay_outside(self, strict: Flask) -> None:
        assert come(strict, mail()).status_code == 401

    def test_an_account_made_by_an_administrator_is_found(
        self, strict: Flask, sql: psycopg.Connection
    ) -> None:
        email = mail()
        user_id = insert_user(sql, email=email)
        assert come(strict, unique("idp"), email).json["id"] == str(user_id)


def test_switched_off_headers_are_ignored(environ: dict[str, str]) -> None:
    with app_with(environ, auth__proxy_header__enabled="false") as app:
        assert come(app, mail()).status_code == 401


@pytest.fixture(scope="module")
def syncing(environ: dict[str, str]) -> Iterator[Flask]:
    settings = {
        "auth__proxy_header__import_idp_groups": "true",
        "auth__proxy_header__blacklisted_sso_groups": "noise",
    }
    with app_with(environ, **settings) as app:
        yield app


class TestGroups:
    @staticmethod
    def groups(app: Flask, email: str, named: str | None, provider: str = "okta") -> list[str]:
        headers = {"x-doubleword-sso-provider": provider}
        if named is not None:
            headers["x-doubleword-user-groups"] = named
        me = come(app, email, **headers).json
        listed = app.test_client(use_cookies=False).get(
            f"{ADMIN}/users/{me['id']}/groups", headers={"x-doubleword-user": email}
        )
        return [group["name"] for group in listed.json]

    def test_groups_follow_the_header(self, syncing: Flask) -> None:
        email, a, b = mail(), unique("a"), unique("b")
        assert self.groups(syncing, email, f"{a}, {b}, ,noise") == [a, b, "Everyone"]
        assert self.groups(syncing, email, None) == [a, b, "Everyone"]
        assert self.groups(syncing, email, b) == [b, "Everyone"]
        assert self.groups(syncing, email, "") == ["Everyone"]

    def test_others_keep_their_memberships(self, syncing: Flask) -> None:
        one, other, name = mail(), mail(), unique("a")
        self.groups(syncing, one, name)
        assert self.groups(syncing, other, "") == ["Everyone"]
        assert self.groups(syncing, one, None) == [name, "Everyone"]

    def test_a_name_from_elsewhere_is_left_alone(
        self, syncing: Flask, sql: psycopg.Connection
    ) -> None:
        email, name = mail(), unique("mine")
        sql.execute("INSERT INTO groups (name, created_by) VALUES (%s, %s)", (name, NIL))
        assert self.groups(syncing, email, name) == ["Everyone"]
        assert self.groups(syncing, email, name, provider="native") == ["Everyone"]
        assert self.groups(syncing, email, "Everyone") == ["Everyone"]

    def test_groups_of_another_provider_stay(self, syncing: Flask) -> None:
        email, a, b = mail(), unique("a"), unique("b")
        self.groups(syncing, email, a, provider="okta")
        assert self.groups(syncing, email, b, provider="azure") == [a, b, "Everyone"]

    def test_their_members_cannot_be_changed_by_hand(
        self, syncing: Flask, sql: psycopg.Connection
    ) -> None:
        email, name = mail(), unique("a")
        self.groups(syncing, email, name)
        row = sql.execute(
            "SELECT group_id, user_id FROM user_groups JOIN groups g ON g.id = group_id WHERE g.name = %s",
            (name,),
        ).fetchone()
        assert row
        insert_user(sql, "PLATFORMMANAGER", email="boss@people.example")
        for method in ("POST", "DELETE"):
            answer = syncing.test_client().open(
                f"{ADMIN}/groups/{row[0]}/users/{row[1]}",
                method=method,
                headers={"x-doubleword-user": "boss@people.example"},
            )
            assert answer.status_code == 403
            assert "identity provider okta" in answer.json["message"]


class TestLinking:
    """Somebody has registered with an e-mail before its owner comes by header."""

    def test_what_let_the_first_one_in_is_gone(self, app: Flask, sql: psycopg.Connection) -> None:
        squatter, user = register(app)
        key = insert_key(sql, user["id"])
        external = unique("idp")
        owner = come(app, external, user["email"].upper())
        assert (owner.json["id"], owner.json["external_user_id"]) == (user["id"], external)
        assert squatter.get(f"{ADMIN}/users/current").status_code == 401
        assert Doors(app).with_key(key).status_code == 401
        assert log_in(app, user["email"])[1].status_code == 401
        # The second time nothing is taken: what the owner makes stays.
        mine = insert_key(sql, user["id"])
        assert come(app, external, user["email"]).status_code == 200
        assert Doors(app).with_key(mine).status_code == 200

    def test_it_can_be_refused(self, app: Flask, environ: dict[str, str]) -> None:
        first, user = register(app)
        with app_with(environ, auth__proxy_header__link_registered="refuse") as careful:
            answer = come(careful, unique("idp"), user["email"])
        assert (answer.status_code, answer.json["code"]) == (401, "account_not_linked")
        assert first.get(f"{ADMIN}/users/current").status_code == 200
        assert log_in(app, user["email"])[1].status_code == 200

    def test_a_key_on_its_way_is_refused_when_the_owner_was_first(
        self, app: Flask, sql: psycopg.Connection
    ) -> None:
        squatter, user = register(app)
        made: list[TestResponse] = []
        asking = threading.Thread(target=lambda: made.append(ask_for_key(squatter, user)))
        with app.app_context():
            session = db.session()
            trusted_headers.sign_in(session, claim_for(user), config.Settings())
            asking.start()
            waits_for_lock(sql)
            session.commit()
        asking.join(20)
        assert [answer.status_code for answer in made] == [401]
        assert living_keys(sql, user) == 0

    def test_a_key_on_its_way_ends_with_the_rest_when_it_was_first(
        self, app: Flask, sql: psycopg.Connection, database_url: str
    ) -> None:
        squatter, user = register(app)
        external = unique("idp")
        made: list[TestResponse] = []
        with psycopg.connect(database_url) as gate:
            gate.execute("LOCK TABLE api_keys IN EXCLUSIVE MODE")
            asking = threading.Thread(target=lambda: made.append(ask_for_key(squatter, user)))
            asking.start()
            waits_for_lock(sql)
            coming = threading.Thread(target=lambda: made.append(come(app, external, user["email"])))  # fmt: skip
            coming.start()
            waits_for_lock(sql, 2)
        for each in (asking, coming):
            each.join(20)
        assert sorted(answer.status_code for answer in made) == [200, 201]
        assert living_keys(sql, user) == 0

    @pytest.mark.parametrize("revoked", ["session", "key"])
    def test_a_credential_taken_away_meanwhile_makes_no_other(
        self, app: Flask, sql: psycopg.Connection, database_url: str, revoked: str
    ) -> None:
        client, user = register(app)
        key = insert_key(sql, user["id"])
        headers = {"Authorization": f"Bearer {key}"} if revoked == "key" else {}
        made: list[TestResponse] = []
        asking = threading.Thread(target=lambda: made.append(ask_for_key(client, user, headers)))
        Doors(app).with_key(
            key
        )  # so that its use has been noted and nothing but the person is waited for
        with psycopg.connect(database_url) as ours:
            ours.execute("SELECT FROM users WHERE id = %s FOR UPDATE", (user["id"],))
            asking.start()
            waits_for_lock(sql)
            ours.execute("UPDATE api_keys SET is_deleted = true WHERE user_id = %s", (user["id"],))
            ours.execute("DELETE FROM login_sessions WHERE user_id = %s", (user["id"],))
        asking.join(20)
        assert [answer.status_code for answer in made] == [401]
        assert living_keys(sql, user) == 0


def claim_for(user: dict[str, Any]) -> trusted_headers.Claim:
    return trusted_headers.Claim(unique("idp"), user["email"], "okta", None)


def ask_for_key(
    client: FlaskClient, user: dict[str, Any], headers: dict[str, str] | None = None
) -> TestResponse:
    path = f"{ADMIN}/users/{user['id']}/api-keys"
    return client.post(path, json={"name": unique("key")}, headers=headers)


def living_keys(sql: psycopg.Connection, user: dict[str, Any]) -> int:
    count = "SELECT count(*) FROM api_keys WHERE user_id = %s AND NOT is_deleted"
    return int(sql.execute(count, (user["id"],)).fetchone()[0])  # type: ignore[index]


ODD = {"long": "{}@x.example", "control": "u\x07{}", "line": "u\u2028{}".encode().decode("latin-1")}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("header", ["x-doubleword-user", "x-doubleword-email", "x-doubleword-sso-provider"])  # fmt: skip
def test_what_no_name_is_like_is_refused_with_the_reason(
    app: Flask, kind: str, header: str, sql: psycopg.Connection
) -> None:
    # Letters by chance: repeated ones are made short by the database.
    value = ODD[kind].format(secrets.token_urlsafe(3000 if kind == "long" else 3))
    headers = {"x-doubleword-user": unique("odd"), header: value}
    answer = app.test_client().get(ADMIN + "/users/current", headers=headers)
    assert (answer.status_code, answer.json["code"]) == (401, "unusable_identity")
    assert header in answer.json["message"]


def test_thousands_of_groups_are_few_statements(
    environ: dict[str, str], sql: psycopg.Connection
) -> None:
    name = unique("many")
    some = [f"{name}-{n}" for n in range(1500)]
    odd = ["x" * 256, "a\x07b", "", " "]
    headers = {"x-doubleword-user": f"{name}@x.example", "x-doubleword-user-groups": ",".join(some + odd), "x-doubleword-sso-provider": name}  # fmt: skip
    with app_with(environ, auth__proxy_header__import_idp_groups="true") as app:
        for _ in range(2):
            assert app.test_client().get(ADMIN + "/users/current", headers=headers).status_code == 200  # fmt: skip
    joined = sql.execute("SELECT count(*) FROM user_groups m JOIN groups g ON g.id = m.group_id WHERE g.source = %s", (name,)).fetchone()  # fmt: skip
    assert joined == (1500,)


def test_an_email_that_somebody_else_has_opens_nothing_of_theirs(app: Flask) -> None:
    browser, registered = register(app)
    idp = unique("idp")
    me = ADMIN + "/users/current"
    came = {"x-doubleword-user": idp, "x-doubleword-email": f"{idp}@x.example"}
    mine = app.test_client().get(me, headers=came).json["id"]
    moved = app.test_client().get(me, headers=came | {"x-doubleword-email": registered["email"]})
    assert (moved.json["id"], moved.json["email"]) == (mine, registered["email"])
    assert browser.get(me).json["id"] == registered["id"]
    assert log_in(app, registered["email"])[1].json["user"]["id"] == registered["id"]
