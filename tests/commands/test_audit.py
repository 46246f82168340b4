"""`dwctl audit`, as an operator runs it."""

from __future__ import annotations

import csv
import io
import json

import pytest
from flask import Flask

from tests.commands.test_people import Shell
from tests.identity.doors import unique


@pytest.fixture
def dwctl(app: Flask) -> Shell:
    return Shell(app)


@pytest.fixture
def email(dwctl: Shell) -> str:
    """Of somebody whom a command has made."""
    email = f"{unique()}@cli.example"
    assert dwctl("users", "create", email).exit_code == 0
    return email


def test_changes_are_listed_shown_and_exported(dwctl: Shell, email: str) -> None:
    rows = dwctl.json("audit", "list", "--search", email)
    assert isinstance(rows, list)
    assert [row["action"] for row in rows] == ["user.role_added", "user.created"]
    assert {row["route"] for row in rows} == {"dwctl users create"}
    table = dwctl("audit", "list", "--search", email).output
    assert "user.created" in table
    assert email in table
    shown = dwctl.json("audit", "show", str(rows[1]["id"]))
    assert shown == rows[1]
    lines = dwctl("audit", "export", "--search", email).output.splitlines()
    assert [json.loads(line) for line in lines] == rows
    cells = csv.DictReader(io.StringIO(dwctl("audit", "export", "--search", email, "--format", "csv").output))  # fmt: skip
    assert [cell["id"] for cell in cells] == [str(row["id"]) for row in rows]


def test_filters_narrow(dwctl: Shell, email: str) -> None:
    (created,) = dwctl.json("audit", "list", "--search", email, "--action", "user.created")  # type: ignore[misc]
    person, request = created["resource_id"], created["request_id"]
    for filters, found in (
        (("--resource", person, "--limit", "1"), 1),
        (("--resource", person, "--resource-type", "group"), 0),
        (("--request", request), 2),
        (("--resource", person, "--since", "2020-01-01"), 2),
        (("--resource", person, "--until", "2020-01-01T10:20Z"), 0),
        (("--actor", email), 0),
        (("--actor", person), 0),
    ):
        rows = dwctl.json("audit", "list", *filters)
        assert isinstance(rows, list)
        assert len(rows) == found, filters


@pytest.mark.parametrize(
    "arguments",
    [
        ("show", "999999999999"),
        ("list", "--since", "yesterday"),
        ("list", "--actor", "nobody@x.example"),
        ("export", "--until", "13:00 o'clock"),
    ],
)
def test_what_makes_no_sense_is_one_line(dwctl: Shell, arguments: tuple[str, ...]) -> None:
    result = dwctl("audit", *arguments)
    assert result.exit_code == 1
    assert len(result.output.strip().splitlines()) == 1
