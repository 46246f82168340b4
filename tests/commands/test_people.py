"""`dwctl users` and `dwctl keys`, as an operator runs them."""

import json

import psycopg
import pytest
from click.testing import Result
from flask import Flask

from dwctl.commands.main import cli
from tests.identity.doors import Doors, insert_user, log_in, register, unique


class Shell:
    """Runs commands against the test's application."""

    def __init__(self, app: Flask) -> None:
        self._runner = app.test_cli_runner()

    def __call__(self, *args: str, stdin: str | None = None) -> Result:
        return self._runner.invoke(cli, list(args), input=stdin)

    def json(self, *args: str, stdin: str | None = None) -> object:
        result = self(*args, "--json", stdin=stdin)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)


@pytest.fixture
def dwctl(app: Flask) -> Shell:
    return Shell(app)


def test_a_user_is_created_and_signs_in(app: Flask, dwctl: Shell) -> None:
    email = f"{unique()}@cli.example"
    made = dwctl.json("users", "create", email, "--role", "BatchAPIUser", "--password-stdin", stdin="a-password-1\n")  # fmt: skip
    assert isinstance(made, dict)
    assert made["roles"] == ["BatchAPIUser", "StandardUser"]
    assert (made["username"], made["source"], made["admin"]) == (email, "native", False)
    assert log_in(app, email, "a-password-1")[1].json["user"]["id"] == made["id"]


def test_an_administrator_is_created(dwctl: Shell) -> None:
    made = dwctl.json("users", "create", f"{unique()}@cli.example", "--admin")
    assert isinstance(made, dict)
    assert made["admin"] is True
    assert made["roles"] == ["PlatformManager", "StandardUser"]
    assert made["source"] == "proxy-header"


def test_users_are_listed(dwctl: Shell, sql: psycopg.Connection) -> None:
    mark = unique()
    user = insert_user(sql, display_name=mark)
    (row,) = dwctl.json("users", "list", "--search", mark)  # type: ignore[misc]
    assert row["id"] == str(user)
    table = dwctl("users", "list", "--search", mark)
    assert table.exit_code == 0
    assert str(user) in table.output
    assert "StandardUser" in table.output
    assert dwctl("users", "list", "--search", unique()).output == ""


def test_roles_are_replaced(dwctl: Shell, sql: psycopg.Connection) -> None:
    email = f"{unique()}@cli.example"
    insert_user(sql, email=email)
    for given, roles in (
        (["BatchAPIUser", "ConnectionsUser"], ["BatchAPIUser", "ConnectionsUser", "StandardUser"]),
        ([], ["StandardUser"]),
    ):
        made = dwctl.json("users", "set-roles", email, *given)
        assert isinstance(made, dict)
        assert made["roles"] == roles
    assert dwctl("users", "set-roles", email, "Batches").exit_code == 2


def test_a_new_password_ends_the_sessions(app: Flask, dwctl: Shell) -> None:
    client, user = register(app)
    args = ("users", "set-password", user["email"].upper())
    assert dwctl(*args, "--password-stdin", stdin="a-password-2\n").exit_code == 0
    assert client.get("/admin/api/v1/users/current").status_code == 401
    assert log_in(app, user["email"], "a-password-2")[1].status_code == 200
    assert dwctl(*args, stdin="a-password-3\na-password-3\n").exit_code == 0
    assert log_in(app, user["email"], "a-password-3")[1].status_code == 200


def test_a_key_is_created_and_shown_once(app: Flask, dwctl: Shell, sql: psycopg.Connection) -> None:
    email = f"{unique()}@cli.example"
    user = insert_user(sql, email=email)
    made = dwctl.json("keys", "create", email, "laptop", "--purpose", "platform")
    assert isinstance(made, dict)
    assert Doors(app).with_key(made["key"]).json["id"] == str(user)
    shown = dwctl("keys", "create", email, "desktop")
    assert shown.exit_code == 0
    assert "  sk-" in shown.output
    again = dwctl("keys", "create", email, "desktop")
    assert (again.exit_code, again.stderr) == (1, "Error: This user has a key with that name already: choose another, or give that one a new secret (dwctl keys rotate)\n")  # fmt: skip


@pytest.mark.parametrize(
    ("args", "fault"),
    [
        (["users", "create", "nonsense"], "email: Not a valid email address."),
        (["users", "create", "a@b.example", "--username", "a\nb"], "username: Must not contain control characters."),
        (["users", "set-password", "no@one.example"], "There is no user with the e-mail no@one.example"),
        (["users", "set-roles", "no@one.example", "BatchAPIUser"], "There is no user with the e-mail no@one.example"),
        (["keys", "create", "no@one.example", "k"], "There is no user with the e-mail no@one.example"),
        (["users", "create", "twice@cli.example"], "This username is already taken"),
        (["users", "set-password", "twice@cli.example", "--password-stdin"], "Password must be at least 8 characters"),
        (["keys", "create", "twice@cli.example", " "], "API key name cannot be empty"),
    ],
)  # fmt: skip
def test_a_fault_is_one_line(
    dwctl: Shell, sql: psycopg.Connection, args: list[str], fault: str
) -> None:
    if sql.execute("SELECT 1 FROM users WHERE username = 'twice@cli.example'").fetchone() is None:
        insert_user(sql, username="twice@cli.example", email="twice@cli.example")
    result = dwctl(*args, stdin="short\n")
    assert result.exit_code == 1
    assert result.stderr == f"Error: {fault}\n"
    assert result.stdout == ""
