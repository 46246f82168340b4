"""`dwctl orgs`, as an operator runs them."""

import psycopg
import pytest
from flask import Flask

from tests.commands.test_people import Shell
from tests.identity.doors import insert_key, insert_user, unique


@pytest.fixture
def dwctl(app: Flask) -> Shell:
    return Shell(app)


def test_an_organization_from_its_beginning_to_its_end(
    dwctl: Shell, sql: psycopg.Connection
) -> None:
    name = f"{unique('o')}.example"
    ada, bob = f"{unique('ada')}@x.example", f"{unique('bob')}@x.example"
    insert_user(sql, email=ada)
    member = insert_user(sql, email=bob)
    made = dwctl.json("orgs", "create", name, f"x@{name}", "--owner", ada, "--display-name", "O")
    assert isinstance(made, dict)
    assert (made["name"], made["members"]) == (name, 1)
    added = dwctl.json("orgs", "add-member", name, bob, "--role", "admin")
    assert isinstance(added, dict)
    assert (added["email"], added["role"], added["user"]) == (bob, "admin", str(member))
    key = insert_key(sql, member, made["id"])
    assert dwctl.json("orgs", "set-role", made["id"], bob, "owner")["role"] == "owner"  # type: ignore[index]
    shown = dwctl.json("orgs", "show", name)
    assert isinstance(shown, dict)
    assert (shown["owners"], shown["balance"]) == ([ada, bob], "0")
    assert [m["email"] for m in dwctl.json("orgs", "members", name)] == [ada, bob]  # type: ignore[attr-defined]
    assert [o["id"] for o in dwctl.json("orgs", "list", "--search", name)] == [made["id"]]  # type: ignore[attr-defined]
    assert name in dwctl("orgs", "list", "--search", name).output
    assert dwctl("orgs", "remove-member", name, bob).exit_code == 0
    ended = sql.execute("SELECT is_deleted FROM api_keys WHERE created_by = %s", (member,)).fetchone()  # fmt: skip
    assert (key[:3], ended) == ("sk-", (True,))
    asked = dwctl("orgs", "delete", name, stdin="n\n")
    assert asked.exit_code == 1
    assert dwctl("orgs", "delete", name, "--yes").exit_code == 0
    assert dwctl("orgs", "show", name).exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("show", "nobody"), "There is no organization nobody"),
        (("add-member", "{org}", "nobody@x.example"), "There is no user with the e-mail"),
        (("remove-member", "{org}", "{owner}"), "Cannot remove the last owner of an organization"),
        (("set-role", "{org}", "{owner}", "member"), "Cannot demote the last owner"),
        (("create", "{org}", "x@y.example", "--owner", "{owner}"), "This username is already taken"),
        (("create", " ", "x@y.example", "--owner", "{owner}"), "Organization name cannot be empty"),
        (("create", "new", "nonsense", "--owner", "{owner}"), "email: Not a valid email address."),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)  # fmt: skip
def test_refusals_are_one_line(
    dwctl: Shell, sql: psycopg.Connection, arguments: tuple[str, ...], said: str
) -> None:
    owner, name = f"{unique()}@x.example", unique("o")
    insert_user(sql, email=owner)
    dwctl.json("orgs", "create", name, "x@y.example", "--owner", owner)
    filled = [argument.format(org=name, owner=owner) for argument in arguments]
    result = dwctl("orgs", *filled)
    assert (result.exit_code, said in result.output) == (1, True), result.output
    assert result.output.count("\n") == 1
