"""Requests for help: what is mailed to whom, and how often."""

from __future__ import annotations

from typing import Any

import orjson
import psycopg
import pytest
from flask import Flask

from dwctl.web import current
from tests.cast import Cast
from tests.identity.doors import Doors, app_with, insert_organization, insert_user, unique

SUPPORT = "/support/requests"
HELP = {"subject": "Help", "message": "It broke"}


@pytest.fixture(autouse=True)
def nobody_has_asked(sql: psycopg.Connection) -> None:
    sql.execute("DELETE FROM sign_in_attempts")
    sql.execute("DELETE FROM outgoing_mails")


def mails(app: Flask, sql: psycopg.Connection) -> list[tuple[str, str | None, dict[str, Any]]]:
    """Recipient, whom to answer, and what is filled in, oldest first."""
    rows = sql.execute("SELECT recipient, reply_to, values_sealed FROM outgoing_mails WHERE template = 'support_request' ORDER BY created_at").fetchall()  # fmt: skip
    sealer = current.parts(app).sealer
    return [(to, reply_to, orjson.loads(sealer.open(sealed))) for to, reply_to, sealed in rows]


def test_it_is_mailed_with_whom_to_answer(
    app: Flask, call: Doors, cast: Cast, sql: psycopg.Connection
) -> None:
    answer = call("alice", "POST", SUPPORT, {"subject": " Help ", "message": "It broke\n\n<b>now</b>\n"})  # fmt: skip
    assert (answer.status_code, answer.json) == (200, {"sent": True})
    ((to, reply_to, values),) = mails(app, sql)
    assert (to, reply_to) == ("admin@example.com", "alice@cast.example")
    assert values == {
        "subject": "Help",
        "message": "It broke\n\n<b>now</b>",
        "username": "alice",
        "email": "alice@cast.example",
        "user_id": str(cast["alice"]),
        "organization": "",
    }


def test_it_says_for_whom_one_acts(
    app: Flask, call: Doors, cast: Cast, sql: psycopg.Connection
) -> None:
    organization = insert_organization(sql, member=cast["alice"])
    call("alice", "POST", SUPPORT, HELP, headers={"X-Organization-Id": str(organization)})
    ((_, _, values),) = mails(app, sql)
    name = sql.execute("SELECT username FROM users WHERE id = %s", (organization,)).fetchone()
    assert (values["organization"],) == name


@pytest.mark.parametrize(
    "form", ["github|{}", "Ada <{}@x.example>", "{}@x.example, evil@y.example"]
)
def test_what_is_no_address_is_nobody_to_answer(
    app: Flask, call: Doors, sql: psycopg.Connection, form: str
) -> None:
    """Else the mail could not be sent at all."""
    id = form.format(unique())
    insert_user(sql, external_user_id=id, email=id)
    answer = call(None, "POST", SUPPORT, HELP, headers={"x-doubleword-user": id})
    assert answer.status_code == 200
    assert mails(app, sql)[0][1] is None


def test_a_setting_says_to_whom(
    environ: dict[str, str], cast: Cast, sql: psycopg.Connection
) -> None:
    with app_with(environ, support_email="help@desk.example") as app:
        assert Doors(app)("alice", "POST", SUPPORT, HELP).status_code == 200
        assert mails(app, sql)[0][0] == "help@desk.example"


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"subject": " "}, 400),
        ({"message": "\n\t "}, 400),
        ({"subject": None}, 422),
        ({"message": 5}, 422),
        ({"subject": "a\r\nBcc: x@y.example"}, 422),
        ({"subject": "x" * 256}, 422),
        ({"message": "x" * 20_001}, 422),
        ({"message": "\x00"}, 422),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_says_nothing_or_too_much_is_refused(
    call: Doors, sql: psycopg.Connection, change: dict[str, Any], status: int
) -> None:
    refused = call("alice", "POST", SUPPORT, HELP | change)
    assert refused.status_code == status, refused.text
    assert next(iter(change)) in refused.json["message"]
    assert sql.execute("SELECT count(*) FROM outgoing_mails").fetchone() == (0,)
    assert call(None, "POST", SUPPORT, HELP).status_code == 401


def test_nobody_floods_the_desk(call: Doors, sql: psycopg.Connection) -> None:
    statuses = [call("alice", "POST", SUPPORT, HELP).status_code for _ in range(7)]
    assert statuses == [200] * 5 + [429] * 2
    refused = call("alice", "POST", SUPPORT, HELP)
    assert 3500 < int(refused.headers["Retry-After"]) <= 3600
    assert refused.json["retry_after_seconds"] == int(refused.headers["Retry-After"])
    assert call("bob", "POST", SUPPORT, HELP).status_code == 200
    assert sql.execute("SELECT count(*) FROM outgoing_mails").fetchone() == (6,)
    sql.execute("UPDATE sign_in_attempts SET began_at = now() - interval '61 minutes'")
    assert call("alice", "POST", SUPPORT, HELP).status_code == 200


def test_many_accounts_together_do_not_either(
    environ: dict[str, str], cast: Cast, sql: psycopg.Connection
) -> None:
    with app_with(environ, support__requests_per_hour="3") as app:
        call = Doors(app)
        who = ["alice", "bob", "viewer", "biller", "alice"]
        statuses = [call(one, "POST", SUPPORT, HELP).status_code for one in who]
    assert statuses == [200, 200, 200, 429, 429]


def test_limits_can_be_switched_off(environ: dict[str, str], cast: Cast) -> None:
    off = {"support__requests_per_hour": "0", "support__requests_per_account_per_hour": "0"}
    with app_with(environ, **off) as app:
        call = Doors(app)
        assert {call("alice", "POST", SUPPORT, HELP).status_code for _ in range(7)} == {200}
