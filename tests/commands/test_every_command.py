"""All commands, walked: each has help, prints JSON on request, and refuses what it does not know in one line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click
import pytest
from click.testing import Result
from flask import Flask
from sqlalchemy import select

from dwctl.commands import output
from dwctl.commands.main import COMMANDS, cli
from dwctl.db import db
from tests.cast import Cast
from tests.commands.shell import Shell, unique

NOT_WALKED = {
    "up": "starts everything",
    "db": "Flask-Migrate's",
    "config example": "prints a file",
    "assets fetch": "asks npm's registry",
    "audit export": "prints what --format says",
    "requests export": "prints what --format says",
}
UNKNOWN = "11111111-2222-4333-8444-555555555555"
MAKES = {
    "groups create": "makes what it is given",
    "users create": "makes what it is given",
    "composites add": "makes what it is given",
    "credits verify": "has nothing to look up",
    "endpoints add": "calls the server",
    "config check": "has nothing to look up",
    "assets check": "has nothing to look up",
}
"""Commands that need nothing that may be unknown."""


def leaves(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[str, click.Command]]:
    if " ".join(path) in NOT_WALKED:
        return
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            inner = command.get_command(click.Context(command), name)
            assert inner is not None
            yield from leaves(inner, (*path, name))
    else:
        yield " ".join(path), command


def walked() -> dict[str, click.Command]:
    context = click.Context(cli, info_name="dwctl")
    found: dict[str, click.Command] = {}
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        found |= dict(leaves(command, (name,)))
    return found


ALL = walked()


@pytest.fixture
def dwctl(app: Flask, cast: Cast) -> Shell:
    return Shell(app)


@pytest.mark.parametrize("name", ALL)
def test_every_command_says_what_it_does(name: str):
    assert ALL[name].help, "a command's docstring is its help"


@pytest.mark.parametrize("name", ALL)
def test_every_command_prints_json_on_request(name: str):
    assert any("--json" in option.opts for option in ALL[name].params), f"{name} has no --json"


def words(command: click.Command, *, unknown: str) -> list[str]:
    """A command line that is complete, and names nothing that exists."""
    line = []
    for each in command.params:
        if isinstance(each, click.Argument):
            line += [value(each.type, unknown)] * (each.nargs if each.nargs > 0 else int(each.required))  # fmt: skip
        elif each.required or each.name == "yes":
            line += [each.opts[0]] if getattr(each, "is_flag", False) else [each.opts[0], value(each.type, unknown)]  # fmt: skip
    return line


def value(kind: click.ParamType, unknown: str) -> str:
    if isinstance(kind, click.Choice):
        return str(kind.choices[0])
    if isinstance(kind, click.IntRange):
        return "1"
    return "987654321" if isinstance(kind, click.types.IntParamType) else unknown


LOOKS_UP = [
    name for name, command in ALL.items() if name not in MAKES and words(command, unknown=UNKNOWN)
]


@pytest.mark.parametrize("name", LOOKS_UP)
@pytest.mark.parametrize("unknown", [UNKNOWN, "nobody@nowhere.example", "\x1b[2J\nodd"], ids=["id", "name", "odd"])  # fmt: skip
def test_what_is_unknown_is_refused_in_one_line(dwctl: Shell, name: str, unknown: str):
    result = dwctl(*name.split(), *words(ALL[name], unknown=unknown))
    refused(result)


def refused(result: Result) -> None:
    assert result.exit_code in (1, 2), (result.output, result.exception)
    assert isinstance(result.exception, SystemExit), result.exception
    lines = result.stderr.splitlines()
    assert lines[-1].startswith("Error: "), lines
    assert lines[-1].isprintable()
    assert result.exit_code == 2 or len(lines) == 1


@pytest.mark.parametrize("name", [name for name in ALL if name.endswith(" list")])
def test_lists_are_arrays(dwctl: Shell, name: str):
    required = words(ALL[name], unknown="nobody@nowhere.example")
    if not required:
        assert isinstance(dwctl.json(*name.split()), list)
        assert dwctl(*name.split(), "--limit", "0").exit_code == 2


def test_a_person_is_named_by_e_mail_or_id(dwctl: Shell):
    email = f"{unique()}@cli.example"
    made: Any = dwctl.json("users", "create", email)
    for who in (email, email.upper(), made["id"], made["id"].upper()):
        assert dwctl.json("credits", "balance", who) == {"user": email, "balance": "0"}


def test_models_and_endpoints_are_named_by_name_or_id(dwctl: Shell):
    server, alias = unique(), unique()
    endpoint = dwctl.json("endpoints", "add", server, "http://models.example/v1", "--no-sync")
    model = dwctl.json("models", "add", alias, "--endpoint", endpoint["id"])
    assert model["endpoint"] == server
    changed = dwctl.json("models", "set", model["id"].upper(), "capacity=7")
    assert changed == dwctl.json("models", "show", alias)
    assert changed["capacity"] == 7
    waits = dwctl.json("endpoints", "set", endpoint["id"], "idle_timeout_seconds=0.5")
    assert waits == dwctl.json("endpoints", "show", server)
    # What is called like the id of another one is found by its name.
    named = dwctl.json("models", "add", model["id"], "--endpoint", server)
    assert dwctl.json("models", "show", model["id"])["id"] == named["id"]


@pytest.mark.parametrize("what", ["models", "endpoints"])
def test_what_cannot_be_undone_is_asked_first(dwctl: Shell, what: str):
    server, alias = unique(), unique()
    dwctl.json("endpoints", "add", server, "http://models.example/v1", "--no-sync")
    dwctl.json("models", "add", alias, "--endpoint", server)
    name = alias if what == "models" else server
    refused(result := dwctl(what, "remove", name))
    assert result.stderr.endswith("cannot be undone. Say --yes to do it\n")
    assert dwctl(what, "show", name).exit_code == 0
    assert dwctl.json(what, "remove", name, "--yes")["deleted"] is True
    refused(dwctl(what, "show", name))


def test_nothing_is_held_while_somebody_thinks(app: Flask):
    with app.app_context():
        db.session.execute(select(1))
        output.confirm("This", yes=True)
        assert not db.session().in_transaction()


def test_composites_are_listed(dwctl: Shell):
    server, one, both = unique(), unique(), unique()
    dwctl.json("endpoints", "add", server, "http://models.example/v1", "--no-sync")
    dwctl.json("models", "add", one, "--endpoint", server)
    dwctl.json("composites", "add", both, "--component", one, "3")
    listed = {row["alias"]: row for row in dwctl.json("composites", "list", "--limit", "1000")}
    assert listed[both]["components"] == [one]
    assert one not in listed
    assert dwctl.json("composites", "remove-component", both, one) == {"alias": both, "removed": one}  # fmt: skip


def test_json_and_errors_go_to_different_places(dwctl: Shell):
    result = dwctl("credits", "balance", "nobody@nowhere.example", "--json")
    assert (result.stdout, result.exit_code) == ("", 1)
    assert result.stderr == "Error: There is no user with the e-mail nobody@nowhere.example\n"
    assert json.loads(dwctl("users", "list", "--json").stdout)


@pytest.mark.parametrize(
    "line",
    [
        ("users", "create", "{0}@cli.example", "--username", "x" * 256),
        ("users", "create", "{0}@cli.example", "--username", "\x1b[31mred"),
        ("users", "create", "{0}@cli.example", "--display-name", "\x1b[31mred"),
        ("users", "create", "{0}@" + "x" * 300),
        ("orgs", "create", "x" * 256, "{0}@cli.example", "--owner", "admin@cast.example"),
        ("orgs", "create", "\x1b[31mred", "{0}@cli.example", "--owner", "admin@cast.example"),
    ],
)
def test_names_are_held_to_what_the_admin_api_takes(dwctl: Shell, line: tuple[str, ...]):
    refused(dwctl(*(word.format(unique()) for word in line)))


def test_what_is_no_text_is_refused_in_one_line(dwctl: Shell):
    for line in (("users", "show", "\udcff@x"), ("users", "create", "\udcff@x.example"), ("audit", "list", "--search", "\udcff")):  # fmt: skip
        refused(dwctl(*line))
