"""`dwctl users`, `groups` and `keys`: what an operator does with accounts that exist."""

from __future__ import annotations

import json
import time
from typing import Any
from uuid import UUID

import psycopg
import pytest
from flask import Flask

from dwctl.analytics.records import file_of, line
from dwctl.analytics.writing import record
from tests.analytics.made import BOB, Calls, final, opening
from tests.commands.shell import Shell, unique
from tests.identity.doors import NIL, Doors, insert_user, register

NOBODY = "11111111-2222-4333-8444-555555555555"


@pytest.fixture
def dwctl(app: Flask) -> Shell:
    return Shell(app)


@pytest.fixture
def email(sql: psycopg.Connection) -> str:
    email = f"{unique()}@cli.example"
    insert_user(sql, email=email)
    return email


@pytest.fixture
def model(sql: psycopg.Connection) -> str:
    alias = unique("model")
    sql.execute("INSERT INTO deployed_models (model_name, alias, created_by, is_composite) VALUES ('m', %s, %s, true)", (alias, NIL))  # fmt: skip
    return alias


class TestUsers:
    def test_one_is_shown_and_changed(self, dwctl: Shell, email: str) -> None:
        dwctl.json("keys", "create", email, "laptop")
        shown = dwctl.json("users", "show", email.upper())
        assert (shown["email"], shown["balance"], shown["groups"], shown["keys"]) == (email, "0", ["Everyone"], 1)  # fmt: skip
        changed = dwctl.json("users", "update", shown["id"], "--display-name", "Ada", "--auto-topup-amount", "5", "--low-balance-threshold", "2.5")  # fmt: skip
        assert changed == shown | {"display_name": "Ada", "auto_topup_amount": 5, "low_balance_threshold": 2.5}  # fmt: skip
        cleared = dwctl.json("users", "update", email, "--low-balance-threshold", "none")
        assert (cleared["low_balance_threshold"], cleared["auto_topup_amount"]) == (None, 5)
        kept = dwctl.json("users", "update", email, "--zero-data-retention", "true", "--log-sample", "0.5")  # fmt: skip
        assert (kept["zero_data_retention"], kept["log_sample"]) == (True, 0.5)

    def test_what_the_calls_of_one_have_said_can_be_deleted(
        self, dwctl: Shell, email: str, sql: psycopg.Connection
    ) -> None:
        calls, id = Calls(sql), UUID(dwctl.json("users", "show", email)["id"])
        said = {"logged_request": "said", "logged_response": "said", "request_headers": '{"a":"b"}'}
        mine, running, untracked = (calls.make(id) for _ in range(3))
        untracked.track = False
        others = calls.make(BOB)
        with sql.transaction():
            owners = json.dumps([{"id": str(file_of(str(owner), time.time())), "owner": str(owner)} for owner in (id, BOB)])  # fmt: skip
            sql.execute("SELECT fusillade.ensure_files(%s)", (owners,))
            opened = line(
                opening(running, owner=str(id), file_id=file_of(str(id), time.time()))
            ).decode()
            sql.execute("SELECT fusillade.open_calls(%s)", (f"[{opened}]",))
            record(sql, [final(mine), final(untracked, **said), final(others)])
        done = dwctl.json("users", "forget", str(id), "--yes")
        assert (done["requests"], done["log_rows"]) == (1, 1)
        assert [calls.state(call) for call in (mine, running, others)] == [None, "processing", "completed"]  # fmt: skip
        assert [calls.counts(call) for call in (mine, untracked, others)] == [(1, 1)] * 3
        texts = "SELECT request_body, response_body, request_headers FROM http_analytics WHERE request_id = %s"
        assert calls.one(texts, untracked.id) == (None, None, None)
        assert dwctl.json("users", "forget", email, "--yes")["requests"] == 0
        assert "cannot be undone" in dwctl("users", "forget", email).stderr

    @pytest.mark.parametrize(
        ("option", "value", "fault"),
        [
            ("--auto-topup-amount", "0", "Auto top-up amount must be positive"),
            ("--display-name", "a\nb", "display_name: Must not contain control characters."),
            ("--low-balance-threshold", "nan", "low_balance_threshold: Special numeric values"),
        ],
    )
    def test_what_the_admin_api_refuses_is_refused(
        self, dwctl: Shell, email: str, option: str, value: str, fault: str
    ) -> None:
        result = dwctl("users", "update", email, option, value)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith(f"Error: {fault}")

    def test_names_are_taken_in_any_case(self, dwctl: Shell, email: str) -> None:
        again = dwctl("users", "create", email.upper())
        assert (again.exit_code, again.stderr) == (1, "Error: An account with this email address already exists\n")  # fmt: skip

    def test_one_is_deleted_after_a_yes(self, app: Flask, dwctl: Shell) -> None:
        client, user = register(app)
        refused = dwctl("users", "delete", user["email"])
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert "--yes" in refused.stderr
        assert client.get("/admin/api/v1/users/current").status_code == 200
        gone = dwctl.json("users", "delete", user["email"], "--yes")
        assert gone == {"id": user["id"], "email": user["email"], "deleted": True}
        assert client.get("/admin/api/v1/users/current").status_code == 401
        again = dwctl("users", "show", user["id"])
        assert (again.exit_code, again.stderr) == (1, f"Error: There is no user with the ID {user['id']}\n")  # fmt: skip

    def test_the_last_manager_stays_one(
        self, dwctl: Shell, email: str, sql: psycopg.Connection
    ) -> None:
        others = "UPDATE users SET is_deleted = %s WHERE email <> %s AND id <> %s AND (is_admin OR EXISTS (SELECT FROM user_roles r WHERE r.user_id = users.id AND role = 'PLATFORMMANAGER'))"
        dwctl.json("users", "set-roles", email, "PlatformManager")
        sql.execute(others, (True, email, NIL))
        try:
            for args in (("set-roles", email), ("delete", email, "--yes")):
                refused = dwctl("users", *args)
                assert refused.exit_code == 1
                assert "is the last account that may manage the platform" in refused.stderr
        finally:
            sql.execute(others, (False, email, NIL))
        assert dwctl.json("users", "set-roles", email)["roles"] == ["StandardUser"]


class TestGroups:
    def test_they_are_made_changed_listed_and_deleted(self, dwctl: Shell) -> None:
        name, other = unique("team"), unique("other")
        made = dwctl.json("groups", "create", f" {name} ", "--description", "A team")
        assert made == {"id": made["id"], "name": name, "description": "A team", "source": "native"}
        assert dwctl.json("groups", "list", "--search", name) == [made]
        changed = dwctl.json("groups", "update", made["id"], "--name", other)
        assert changed == made | {"name": other}
        assert dwctl("groups", "create", other).stderr == "Error: There is a group with that name already\n"  # fmt: skip
        assert "--yes" in dwctl("groups", "delete", other).stderr
        assert dwctl.json("groups", "delete", other, "--yes")["deleted"] is True
        assert dwctl("groups", "delete", other, "--yes").stderr == f"Error: There is no group with the name or ID {other}\n"  # fmt: skip
        assert "Everyone" in dwctl("groups", "delete", "Everyone", "--yes").stderr
        assert dwctl("groups", "create", " ").stderr == "Error: name: Must not be blank.\n"

    def test_members_and_models_come_and_go(
        self, dwctl: Shell, email: str, model: str, sql: psycopg.Connection
    ) -> None:
        team = unique("team")
        dwctl.json("groups", "create", team)
        user = dwctl.json("users", "show", email)["id"]
        for _ in range(2):
            assert dwctl.json("groups", "add", team, email) == {"group": team, "added": email}
            assert dwctl.json("groups", "grant", team, model) == {"group": team, "granted": model}
        assert dwctl.json("groups", "members", team) == [{"id": user, "email": email, "type": "individual"}]  # fmt: skip
        assert [one["alias"] for one in dwctl.json("groups", "models", team)] == [model]
        assert [one["name"] for one in dwctl.json("users", "groups", email)] == [team, "Everyone"]
        for args, fault in (
            (("remove", team, user), f"{email} is not in the group {team}"),
            (("revoke", team, model), f"{model} is not granted to the group {team}"),
        ):
            assert dwctl("groups", *args).exit_code == 0
            assert dwctl("groups", *args).stderr == f"Error: {fault}\n"
        assert dwctl.json("groups", "members", team) == dwctl.json("groups", "models", team) == []


class TestKeys:
    def test_one_is_listed_shown_and_changed(self, dwctl: Shell, email: str) -> None:
        made = dwctl.json("keys", "create", email, "laptop", "--purpose", "platform", "--expires-at", "2031-01-01T00:00:00Z")  # fmt: skip
        (listed,) = dwctl.json("keys", "list", email)
        assert (listed["id"], listed["owner"], listed["created_by"], listed["expires_at"]) == (made["id"], email, email, "2031-01-01T00:00:00Z")  # fmt: skip
        assert made["key"].startswith(listed["prefix"])
        assert dwctl.json("keys", "list", email, "--purpose", "realtime") == []
        assert [one["id"] for one in dwctl.json("keys", "list", "--search", listed["prefix"])] == [made["id"]]  # fmt: skip
        by = {dwctl.json("keys", "show", which)["id"] for which in (made["id"], listed["prefix"], made["key"])}  # fmt: skip
        assert by == {made["id"]}
        changed = dwctl.json("keys", "update", made["id"], "--name", "desk", "--capacity", "3", "--expires-at", "none")  # fmt: skip
        assert (changed["name"], changed["capacity"], changed["expires_at"]) == ("desk", 3, None)
        assert dwctl.json("keys", "update", made["id"], "--capacity", "none")["capacity"] is None
        kept = dwctl.json("keys", "update", made["id"], "--zero-data-retention", "true", "--log-sample", "none")  # fmt: skip
        assert (kept["zero_data_retention"], kept["log_sample"]) == (True, None)

    def test_one_is_rotated_and_revoked(self, app: Flask, dwctl: Shell, email: str) -> None:
        call = Doors(app)
        first = dwctl.json("keys", "create", email, "ci", "--purpose", "platform")
        second = dwctl.json("keys", "rotate", first["id"])
        assert [call.with_key(one["key"]).status_code for one in (first, second)] == [200, 200]
        assert second["earlier_secrets"][0].startswith(first["key"][:10])
        assert dwctl.json("keys", "show", first["key"])["id"] == first["id"]
        third = dwctl.json("keys", "rotate", first["id"], "--overlap-seconds", "0")
        statuses = [call.with_key(one["key"]).status_code for one in (first, second, third)]
        assert statuses == [401, 401, 200]
        assert "--yes" in dwctl("keys", "revoke", third["key"]).stderr
        gone = dwctl.json("keys", "revoke", third["key"], "--yes")
        assert gone == {"id": first["id"], "name": "ci", "revoked": True}
        assert call.with_key(third["key"]).status_code == 401
        assert dwctl("keys", "revoke", first["id"], "--yes").exit_code == 1

    @pytest.mark.parametrize(
        ("args", "fault"),
        [
            (["show", NOBODY], f"There is no key with the ID or prefix {NOBODY}"),
            (["show", "sk-abcdefghijklmnop"], "There is no key with the ID or prefix sk-abcdefg"),
            (["list", "no@one.example"], "There is no user with the e-mail no@one.example"),
            (["create", "no@one.example", "k", "--expires-at", "soon"], "expires_at: Not a valid datetime."),
        ],
    )  # fmt: skip
    def test_a_fault_is_one_line_without_a_secret(
        self, dwctl: Shell, args: list[str], fault: str
    ) -> None:
        result = dwctl("keys", *args)
        assert (result.exit_code, result.stdout, result.stderr) == (1, "", f"Error: {fault}\n")


def test_lists_are_tables_for_people(dwctl: Shell, email: str) -> None:
    dwctl.json("keys", "create", email, "laptop")
    for args in (("keys", "list", email), ("groups", "list"), ("users", "groups", email)):
        table: Any = dwctl(*args)
        assert table.exit_code == 0
        assert len(table.stdout.splitlines()) >= 2
        assert len(json.loads(dwctl(*args, "--json").stdout)) == len(table.stdout.splitlines()) - 1
