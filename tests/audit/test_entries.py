"""What an entry says, when there is none, and what it never holds."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from flask import Flask

from dwctl import clock
from dwctl.audit import stamping
from dwctl.catalog.tables import Endpoint
from dwctl.db import db
from dwctl.identity import users
from dwctl.identity.tables import User
from tests.audit.conftest import Entries
from tests.cast import Cast
from tests.identity.doors import (
    NIL,
    PASSWORD,
    Doors,
    insert_key,
    insert_organization,
    insert_user,
    log_in,
    register,
    unique,
)


def count(sql: psycopg.Connection[Any]) -> int:
    row = sql.execute("SELECT count(*) FROM audit_log").fetchone()
    assert row
    return int(row[0])


@contextmanager
def nothing_written(sql: psycopg.Connection[Any]) -> Iterator[None]:
    before = count(sql)
    yield
    assert count(sql) == before


class TestWhatIsSaid:
    def test_who_what_from_where_and_only_the_members_that_changed(
        self, call: Doors, cast: Cast, sql: psycopg.Connection[Any], entries: Entries
    ) -> None:
        person = insert_user(sql, display_name="Old")
        answer = call("admin", "PATCH", f"/users/{person}", {"display_name": "New"})
        (entry,) = entries(answer)
        assert entry["action"] == "user.updated"
        assert (entry["before"], entry["after"]) == ({"display_name": "Old"}, {"display_name": "New"})  # fmt: skip
        assert (entry["actor_id"], entry["actor_name"], entry["through"]) == (cast["admin"], "admin", "proxy_header")  # fmt: skip
        assert (entry["method"], entry["route"]) == ("PATCH", "/admin/api/v1/users/{user_id}")
        assert (entry["resource_type"], entry["resource_id"]) == ("user", str(person))
        assert entry["resource_name"] == answer.json["username"]
        assert entry["organization_id"] is None

    def test_a_key_is_named_beside_its_maker(
        self, call: Doors, cast: Cast, sql: psycopg.Connection[Any], entries: Entries
    ) -> None:
        secret = insert_key(sql, cast["admin"])
        answer = call(None, "POST", "/groups", {"name": unique()}, headers={"Authorization": f"Bearer {secret}"})  # fmt: skip
        (entry,) = entries(answer)
        row = sql.execute("SELECT created_by FROM api_keys WHERE id = %s", (entry["api_key_id"],))
        assert row.fetchone() == (cast["admin"],)
        assert (entry["through"], entry["actor_id"]) == ("api_key", cast["admin"])

    def test_both_sides_of_a_membership_are_there(
        self, call: Doors, sql: psycopg.Connection[Any], entries: Entries
    ) -> None:
        name = unique("group")
        group = call("admin", "POST", "/groups", {"name": name}).json["id"]
        person = str(insert_user(sql))
        (entry,) = entries(call("admin", "POST", f"/groups/{group}/users/{person}"))
        assert (entry["resource_id"], entry["resource_name"]) == (group, name)
        assert entry["related_id"] == person

    def test_what_an_organisation_owns_belongs_to_it(
        self, call: Doors, cast: Cast, sql: psycopg.Connection[Any], entries: Entries
    ) -> None:
        organization = insert_organization(sql, owner=cast["alice"])
        path = f"/users/{organization}/api-keys"
        (entry,) = entries(call("alice", "POST", path, {"name": unique()}))
        assert entry["organization_id"] == organization
        body = {"user_id": str(organization), "transaction_type": "admin_removal", "amount": "2", "source_id": unique()}  # fmt: skip
        (entry,) = entries(call("admin", "POST", "/transactions", body))
        assert (entry["action"], entry["organization_id"]) == ("credit.removed", organization)

    def test_a_deletion_keeps_the_name_that_was_scrubbed(
        self, call: Doors, sql: psycopg.Connection[Any], entries: Entries
    ) -> None:
        person = insert_user(sql, username="gone", email="gone@x.example")
        (entry,) = entries(call("admin", "DELETE", f"/users/{person}"))
        assert (entry["action"], entry["resource_name"]) == ("user.deleted", "gone")
        assert entry["before"]["email"] == "gone@x.example"
        assert entry["after"]["is_deleted"] is True

    def test_a_person_who_comes_by_trusted_header_is_noted_once(
        self, app: Flask, sql: psycopg.Connection[Any]
    ) -> None:
        client, name = app.test_client(), unique()
        headers = {"x-doubleword-user": f"{name}@proxy.example"}
        for _ in range(2):
            assert client.get("/admin/api/v1/users/current", headers=headers).status_code == 200
        rows = sql.execute(
            "SELECT action, through, actor_id FROM audit_log WHERE resource_name LIKE %s AND action = 'user.created'",
            (f"{name}%",),
        ).fetchall()
        assert rows == [("user.created", "sign_in", None)]

    def test_long_texts_are_cut(self, call: Doors, entries: Entries) -> None:
        body = {"name": unique(), "description": "x" * 60_000}
        (entry,) = entries(call("admin", "POST", "/groups", body))
        assert len(entry["after"]["description"]) < 3000
        assert entry["after"]["description"].endswith("…")

    def test_a_command_is_an_actor(self, app: Flask, sql: psycopg.Connection[Any]) -> None:
        from dwctl.commands.main import cli

        email = f"{unique()}@cli.example"
        done = app.test_cli_runner().invoke(cli, ["users", "create", email])
        assert done.exit_code == 0, done.output
        rows = sql.execute(
            "SELECT action, actor_id, through, method, route, request_id FROM audit_log WHERE resource_name = %s ORDER BY id",
            (email,),
        ).fetchall()
        assert [row[0] for row in rows] == ["user.created", "user.role_added"]
        assert {row[1:5] for row in rows} == {(None, "command", None, "dwctl users create")}
        assert len({row[5] for row in rows}) == 1
        names = sql.execute("SELECT actor_name, address FROM audit_log WHERE resource_name = %s", (email,))  # fmt: skip
        assert all(all(row) for row in names.fetchall())

    def test_the_first_administrator_was_made_by_a_command(
        self, sql: psycopg.Connection[Any]
    ) -> None:
        row = sql.execute("SELECT through, route FROM audit_log ORDER BY id LIMIT 1").fetchone()
        assert row == ("command", "dwctl db") or row == ("command", "db")


class TestWhatIsNotSaid:
    def test_reading_and_signing_in_by_header_write_nothing(
        self, call: Doors, sql: psycopg.Connection[Any]
    ) -> None:
        sql.execute("UPDATE users SET last_login = NULL")
        with nothing_written(sql):
            assert call("bob", "GET", "/users/current").status_code == 200
            assert call("admin", "GET", "/users").status_code == 200
        assert sql.execute("SELECT count(last_login) > 0 FROM users").fetchone() == (True,)

    def test_a_change_that_changes_nothing_is_none(
        self, call: Doors, sql: psycopg.Connection[Any], entries: Entries
    ) -> None:
        person = insert_user(sql, display_name="Same")
        assert entries(call("admin", "PATCH", f"/users/{person}", {"display_name": "Same"})) == []

    def test_what_nobody_does_is_none(self, sql: psycopg.Connection[Any]) -> None:
        with nothing_written(sql):
            insert_user(sql)
            sql.execute("UPDATE users SET display_name = 'by hand' WHERE username LIKE 'u-%'")

    def test_the_actor_does_not_outlive_the_transaction(
        self, app: Flask, sql: psycopg.Connection[Any], call: Doors
    ) -> None:
        """Whoever borrows the connection next is nobody until something says otherwise."""
        assert call("admin", "POST", "/groups", {"name": unique()}).status_code == 201
        with app.app_context(), nothing_written(sql):
            for _ in range(3):
                db.session.execute(users.people().with_only_columns(User.id).limit(1))
                db.session.add(User(username=unique(), email=f"{unique()}@x.example"))
                db.session.commit()
                db.session.remove()

    def test_what_is_refused_leaves_nothing(
        self, call: Doors, sql: psycopg.Connection[Any]
    ) -> None:
        name = unique()
        assert call("admin", "POST", "/groups", {"name": name}).status_code == 201
        with nothing_written(sql):
            assert call("admin", "POST", "/groups", {"name": name}).status_code == 409
            assert call("bob", "POST", "/groups", {"name": unique()}).status_code == 403
            assert call("admin", "DELETE", f"/groups/{NIL}").status_code == 403

    def test_what_is_rolled_back_is_gone_with_its_entry(
        self, app: Flask, sql: psycopg.Connection[Any]
    ) -> None:
        with nothing_written(sql), app.test_request_context("/x", method="POST"):
            db.session.add(User(username=unique(), email=f"{unique()}@x.example"))
            db.session.flush()
            db.session.rollback()

    def test_a_savepoint_takes_its_entries_with_it_and_no_others(
        self, app: Flask, sql: psycopg.Connection[Any]
    ) -> None:
        """The name of the actor, which a savepoint takes back too, is there again for what follows."""
        kept, dropped = unique(), unique()
        with app.test_request_context("/x", method="POST"):
            session = db.session()
            savepoint = session.begin_nested()
            session.add(User(username=dropped, email=f"{dropped}@x.example"))
            session.flush()
            savepoint.rollback()
            session.add(User(username=kept, email=f"{kept}@x.example"))
            session.commit()
        rows = sql.execute("SELECT resource_name FROM audit_log WHERE resource_name = ANY(%s)", ([kept, dropped],))  # fmt: skip
        assert rows.fetchall() == [(kept,)]

    def test_hidden_keys_are_nobodys_decision(
        self, app: Flask, sql: psycopg.Connection[Any], cast: Cast
    ) -> None:
        from dwctl.identity import api_keys

        with nothing_written(sql), app.test_request_context("/x", method="POST"):
            session = db.session()
            api_keys.hidden_key(session, cast["bob"], cast["bob"], "batch")
            session.commit()


class TestSecrets:
    def test_no_secret_reaches_the_log_but_that_it_changed_does(
        self, app: Flask, call: Doors, sql: psycopg.Connection[Any], entries: Entries
    ) -> None:
        first, second, of_url = "upstream-secret-1", "upstream-secret-2", "in-the-address"
        body = {"name": unique(), "url": f"http://me:{of_url}@127.0.0.1:9/v1", "api_key": first, "sync": False}  # fmt: skip
        made = call("admin", "POST", "/endpoints", body)
        if made.status_code != 201:  # Where an address may not carry a credential.
            made = call("admin", "POST", "/endpoints", {**body, "url": "http://127.0.0.1:9/v1"})
        (entry,) = entries(made)
        assert entry["after"]["api_key_sealed"] == "(set)"
        changed = call("admin", "PATCH", f"/endpoints/{made.json['id']}", {"api_key": second})
        (entry,) = entries(changed)
        assert entry["action"] == "endpoint.credential_changed"
        assert entry["before"] == {"api_key_sealed": "(set)"}
        assert entry["after"] == {"api_key_sealed": "(changed)"}
        key = call("admin", "POST", "/users/current/api-keys", {"name": unique()}).json
        config = {"bucket": "b", "region": "r", "access_key_id": "a", "secret_access_key": "bucket-secret"}  # fmt: skip
        kept = call("admin", "POST", "/connections", {"provider": "s3", "name": "b", "config": config})  # fmt: skip
        assert kept.status_code == 201
        client, person = register(app)
        cookie = client.get_cookie("dwctl_session")
        assert cookie
        answer = client.post(
            "/authentication/password-change",
            json={"current_password": PASSWORD, "new_password": "another-password"},
        )
        assert answer.status_code == 200
        hidden = [
            *(first, second, of_url, key["key"], key["key"][3:], key["key_prefix"]),
            *("bucket-secret", PASSWORD, "another-password", cookie.value),
            *(text for (text,) in sql.execute("SELECT password_hash FROM users WHERE password_hash IS NOT NULL")),
            *(text for (text,) in sql.execute("SELECT api_key_sealed FROM inference_endpoints WHERE api_key_sealed IS NOT NULL")),
            *(text for (text,) in sql.execute("SELECT config_sealed FROM connections WHERE config_sealed IS NOT NULL")),
            *(text for (text,) in sql.execute("SELECT encode(secret_hash, 'hex') FROM api_keys WHERE secret_hash IS NOT NULL")),
            *(text for (text,) in sql.execute("SELECT encode(token_hash, 'hex') FROM login_sessions")),
        ]  # fmt: skip
        everything = "\n".join(
            row[0] for row in sql.execute("SELECT audit_log::text FROM audit_log")
        )
        assert [secret for secret in hidden if secret in everything] == []

    def test_a_credential_that_is_taken_away_is_null_afterwards(
        self, app: Flask, sql: psycopg.Connection[Any]
    ) -> None:
        with app.test_request_context("/x", method="PATCH"):
            session = db.session()
            made = Endpoint(
                name=unique(), url="http://x.example", api_key_sealed="s", created_by=NIL
            )
            session.add(made)
            session.commit()
            made.api_key_sealed = None
            session.commit()
            id = str(made.id)
        row = sql.execute(
            "SELECT action, before, after FROM audit_log WHERE resource_id = %s ORDER BY id DESC LIMIT 1",
            (id,),
        ).fetchone()
        assert row == ("endpoint.credential_changed", {"api_key_sealed": "(set)"}, {"api_key_sealed": None})  # fmt: skip


class TestSignIns:
    def test_those_that_hold_are_noted_and_wrong_ones_are_not(
        self, app: Flask, sql: psycopg.Connection[Any], entries: Entries
    ) -> None:
        _, person = register(app)
        with nothing_written(sql):
            assert log_in(app, person["email"], "wrong-password")[1].status_code == 401
        (entry,) = entries(log_in(app, person["email"])[1])
        assert (entry["action"], entry["resource_id"]) == ("user.signed_in", person["id"])
        assert entry["actor_id"] is None

    def test_a_session_that_has_run_out_ends_unnoted(
        self, app: Flask, sql: psycopg.Connection[Any], entries: Entries
    ) -> None:
        _, person = register(app)
        sql.execute("UPDATE login_sessions SET expires_at = now() - interval '1 s'")
        (entry,) = entries(log_in(app, person["email"])[1])
        assert entry["action"] == "user.signed_in"


def test_what_goes_along_has_its_entries_too(
    call: Doors, sql: psycopg.Connection[Any], entries: Entries
) -> None:
    group = call("admin", "POST", "/groups", {"name": unique("group")}).json["id"]
    people = [insert_user(sql) for _ in range(30)]
    organization = insert_organization(sql)
    for account in (*people, organization):
        sql.execute("INSERT INTO user_groups (user_id, group_id) VALUES (%s, %s)", (account, group))
    found = entries(call("admin", "DELETE", f"/groups/{group}"))
    (one,) = [entry for entry in found if entry["action"] == "group.deleted"]
    assert (one["resource_id"], one["after"]) == (group, None)
    members = [entry for entry in found if entry is not one]
    assert {entry["action"] for entry in members} == {"group.member_removed"}
    assert {entry["resource_id"] for entry in members} == {group}
    assert {entry["related_id"] for entry in members} == {str(id) for id in (*people, organization)}
    assert all(entry["before"]["user_id"] == entry["related_id"] for entry in members)
    owned = [entry["organization_id"] for entry in members if entry["organization_id"]]
    assert [str(id) for id in owned] == [str(organization)]


def test_many_at_once_are_each_their_own(
    app: Flask, cast: Cast, sql: psycopg.Connection[Any]
) -> None:
    """Connections are shared by turns, actors are not."""
    who = ("admin", "alice", "bob")
    made: list[tuple[str, str]] = []

    def work(name: str) -> None:
        for _ in range(4):
            body = {"name": unique("key")}
            answer = Doors(app)(name, "POST", "/users/current/api-keys", body)
            assert answer.status_code == 201
            made.append((name, answer.json["id"]))

    threads = [threading.Thread(target=work, args=(name,)) for name in who for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 24
    rows = sql.execute("SELECT resource_id, actor_id FROM audit_log WHERE action = 'api_key.created' AND resource_id = ANY(%s)", ([id for _, id in made],))  # fmt: skip
    assert dict(rows.fetchall()) == {id: cast[name] for name, id in made}


@pytest.mark.parametrize(
    ("statement", "writes"),
    [
        ("SELECT 1", False),
        ("SELECT id FROM users FOR UPDATE", False),
        ("SELECT 'updated', offset FROM setting", False),
        ("INSERT INTO users VALUES (1)", True),
        ("insert  into users values (1)", True),
        ("WITH a AS (INSERT INTO b SELECT 1) SELECT 1", True),
        ("UPDATE users SET a = 1", True),
        ("UPDATE users u\n SET a = 1", True),
        ("DELETE FROM users", True),
        ("MERGE INTO users USING x ON true", True),
    ],
)
def test_statements_that_change_something_are_told_from_others(
    statement: str, writes: bool
) -> None:
    assert (stamping._WRITES.search(statement) is not None) is writes


def test_an_actor_is_json_whatever_a_name_holds(app: Flask, cast: Cast) -> None:
    from dwctl.audit.actors import Actor

    odd = Actor("command", clock.uuid7(), "dwctl x", name="a\"'\\\u2028€\n")
    assert json.loads(odd.as_setting())["name"] == odd.name
