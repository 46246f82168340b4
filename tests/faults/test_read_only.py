"""A database that takes no changes for a while: a fail-over has left it behind, or its provider has made it so for want of disk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient

from dwctl.db import Connections, DatabaseAway, db
from tests.cast import Cast
from tests.commands.shell import Shell

ADMIN = "/admin/api/v1"
GROUP = {"name": "read-only"}


@pytest.fixture
def read_only(app: Flask, sql: psycopg.Connection[Any], cast: Cast) -> Iterator[None]:
    """For every connection that begins from now on."""
    name = sql.info.dbname
    sql.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')  # type: ignore[arg-type]
    with app.app_context():
        db.engine.dispose()
    yield
    sql.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')  # type: ignore[arg-type]
    with app.app_context():
        db.engine.dispose()


def test_a_change_is_put_off(client: FlaskClient, read_only: None) -> None:
    refused = client.post(f"{ADMIN}/groups", json=GROUP, headers=Cast.headers("admin"))
    assert (refused.status_code, refused.json["code"]) == (503, "database_unavailable")
    assert int(refused.headers["retry-after"]) > 0


def test_statements_of_our_own_say_the_same(app: Flask, read_only: None) -> None:
    with app.app_context(), pytest.raises(DatabaseAway):
        with Connections(db.engine).transaction() as connection:
            connection.execute("DELETE FROM groups")


def test_a_command_says_why_in_one_line(app: Flask, read_only: None) -> None:
    refused = Shell(app)("groups", "create", "read-only")
    assert refused.exit_code == 1
    assert refused.stderr.count("\n") == 1
    assert "read-only transaction (25006)" in refused.stderr


def test_it_goes_on_afterwards(client: FlaskClient, cast: Cast) -> None:
    assert client.post(f"{ADMIN}/groups", json=GROUP, headers=Cast.headers("admin")).status_code == 201  # fmt: skip
