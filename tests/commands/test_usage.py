"""`dwctl usage`, as an operator runs it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from flask import Flask

from tests.cast import Cast
from tests.commands.test_people import Shell
from tests.usage.deltas import add
from tests.usage.test_routes import key_of

NOW = datetime.now(UTC)


@pytest.fixture
def dwctl(app: Flask) -> Shell:
    return Shell(app)


def test_usage_is_shown_by_what_is_asked_for(
    dwctl: Shell, sql: psycopg.Connection[Any], cast: Cast
) -> None:
    alice = cast["alice"]
    key = key_of(sql, alice, alice)
    for model, more in (("a", {"user_id": alice, "api_key_id": key}), ("a", {}), ("b", {"status_code": 500})):  # fmt: skip
        add(sql, NOW - timedelta(hours=1), model=model, **more)
    add(sql, NOW - timedelta(days=3), model="c")
    rows: Any = dwctl.json("usage", "show")
    assert [(row["model"], row["requests"], row["errors"]) for row in rows] == [("a", 2, 0), ("b", 1, 1)]  # fmt: skip
    rows = dwctl.json("usage", "show", "--by", "user,key", "--model", "a")
    assert {(row["user"], row["key"][:3], row["cost"]) for row in rows} == {
        ("alice@cast.example", "key", "0.100000000000000"),
        ("", "", "0.100000000000000"),
    }
    rows = dwctl.json("usage", "show", "--user", "alice@cast.example", "--by", "status")
    assert [(row["status"], row["requests"]) for row in rows] == [(200, 1)]
    since = (NOW - timedelta(days=4)).date().isoformat()
    assert len(dwctl.json("usage", "show", "--since", since)) == 3
    assert len(dwctl.json("usage", "show", "--since", since, "--limit", "1")) == 1
    table = dwctl("usage", "show", "--by", "model").output
    assert table.split()[:3] == ["model", "requests", "errors"]


@pytest.mark.parametrize(
    "wrong",
    [("--by", "colour"), ("--by", ""), ("--since", "yesterday"), ("--since", "2026-02-01", "--until", "2026-01-01"), ("--user", "nobody@cast.example")],
)  # fmt: skip
def test_what_is_wrong_is_one_line(dwctl: Shell, wrong: tuple[str, ...]) -> None:
    done = dwctl("usage", "show", *wrong)
    assert done.exit_code == 1
    assert done.stderr.count("\n") == 1
