from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pytest
from flask import Flask

from dwctl.identity.bootstrap import Bootstrap, bootstrap
from dwctl.web import current
from tests.identity.doors import insert_user, log_in, unique


@pytest.fixture
def email() -> str:
    return f"{unique('admin')}@first.example"


@pytest.fixture(autouse=True)
def context(app: Flask) -> Iterator[None]:
    with app.app_context():
        yield


def run(email: str, password: str | None = None, *, invent: bool = False) -> Bootstrap:
    settings = replace(current.settings(), admin_email=email, admin_password=password)
    return bootstrap(settings, invent_password=invent)


def test_the_first_administrator_is_made(app: Flask, email: str, sql: psycopg.Connection) -> None:
    assert run(email, "pass") == Bootstrap(created=True, email=email, password=None)
    user = log_in(app, email, "pass")[1].json["user"]
    assert user["is_admin"] is True
    assert user["roles"] == ["PlatformManager", "StandardUser"]
    assert (user["username"], user["auth_source"], user["display_name"]) == (email, "system", None)


def test_a_password_that_was_changed_stays(app: Flask, email: str) -> None:
    run(email, "first-password")
    client, _ = log_in(app, email, "first-password")
    change = {"current_password": "first-password", "new_password": "second-password"}
    client.post("/authentication/password-change", json=change)
    assert run(email.upper(), "first-password").created is False
    assert log_in(app, email, "first-password")[1].status_code == 401
    assert log_in(app, email, "second-password")[1].status_code == 200


def test_without_a_setting_there_is_no_password(app: Flask, email: str) -> None:
    assert run(email) == Bootstrap(created=True, email=email, password=None)
    assert log_in(app, email, "")[1].status_code == 401


def test_a_password_is_invented_once_and_only_when_asked_for(app: Flask, email: str) -> None:
    run(email)
    done = run(email, invent=True)
    assert done.created is False
    assert done.password
    assert log_in(app, email, done.password)[1].status_code == 200
    assert run(email, invent=True).password is None


def test_a_password_set_later_is_taken(app: Flask, email: str) -> None:
    run(email)
    run(email, "set-later")
    assert log_in(app, email, "set-later")[1].status_code == 200


def test_somebody_elses_account_is_left_alone(
    app: Flask, email: str, sql: psycopg.Connection
) -> None:
    insert_user(sql, email=email)
    assert run(email, "password-1").created is False
    assert log_in(app, email, "password-1")[1].status_code == 401


def test_migrating_makes_the_administrator(app: Flask, sql: psycopg.Connection) -> None:
    sql.execute("DELETE FROM users WHERE email = 'admin@example.com'")
    result = app.test_cli_runner().invoke(args=["db", "upgrade"])
    assert result.exit_code == 0, result.output
    rows = sql.execute(
        "SELECT is_admin, password_hash FROM users WHERE email = 'admin@example.com'"
    )
    assert rows.fetchall() == [(True, None)]
    sql.execute("DELETE FROM users WHERE email = 'admin@example.com'")
    assert app.test_cli_runner().invoke(args=["db", "current"]).exit_code == 0
    again = sql.execute("SELECT 1 FROM users WHERE email = 'admin@example.com'")
    assert again.fetchall() == []
