"""Forgotten passwords: one answer for every address, a link that works once, and nothing left that the old password had opened."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import orjson
import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from dwctl import config
from dwctl.config import Email
from dwctl.db import db
from dwctl.identity import duties, users
from dwctl.mail.sending import Sending
from dwctl.web import current
from tests.identity.doors import (
    ADMIN,
    NOBODY,
    app_with,
    insert_key,
    insert_user,
    log_in,
    register,
    waits_for_lock,
)

ASKED = "If an account with that email exists, a password reset link has been sent."
NEW = "another-good-password"
ME = f"{ADMIN}/users/current"


@pytest.fixture(autouse=True)
def nothing_waits(sql: psycopg.Connection) -> None:
    sql.execute("TRUNCATE outgoing_mails, password_reset_tokens, sign_in_attempts")


def ask(app: Flask, email: Any, **environ: Any) -> TestResponse:
    body = {"email": email}
    return app.test_client().post("/authentication/password-resets", json=body, **environ)


def send(app: Flask, folder: Path) -> list[str]:
    """Have all mails sent; gives the links in them, and to whom they went, as text of the mails."""
    with app.app_context():
        parts = current.parts()
        settings = replace(parts.settings, email=Email(path=str(folder)))
        sending = Sending(parts.connections, lambda: settings, parts.sealer)
        while sending.send_next():
            pass
    mails = [file.read_text() for file in sorted(folder.glob("*.eml"))]
    for file in folder.glob("*.eml"):
        file.unlink()
    return mails


def link_of(mail: str) -> dict[str, str]:
    text = mail.replace("=\n", "").replace("=3D", "=")
    found = re.search(r"\S+/reset-password\?\S+", text)
    assert found
    return {name: values[0] for name, values in parse_qs(urlsplit(found[0]).query).items()}


def link_for(app: Flask, email: str, folder: Path) -> dict[str, str]:
    assert ask(app, email).status_code == 200
    (mail,) = send(app, folder)
    return link_of(mail)


def confirm(app: Flask, link: dict[str, str], password: str = NEW) -> TestResponse:
    body = {"token": link["token"], "new_password": password}
    return app.test_client().post(f"/authentication/password-resets/{link['id']}/confirm", json=body)  # fmt: skip


def test_a_forgotten_password_is_replaced_and_everybody_signed_out(
    app: Flask, sql: psycopg.Connection, tmp_path: Path
) -> None:
    browser, user = register(app)
    key = insert_key(sql, user["id"])
    link = link_for(app, user["email"], tmp_path)
    answer = confirm(app, link)
    assert (answer.status_code, answer.json["message"]) == (200, "Password has been reset successfully")  # fmt: skip
    assert browser.get(ME).status_code == 401
    assert log_in(app, user["email"])[1].status_code == 401
    assert log_in(app, user["email"], NEW)[1].status_code == 200
    kept = app.test_client().get(ME, headers={"Authorization": f"Bearer {key}"})
    assert kept.status_code == 200  # keys are no sessions


def test_every_address_costs_and_gets_the_same(
    app: Flask, sql: psycopg.Connection, tmp_path: Path
) -> None:
    _, user = register(app)
    insert_user(sql, email="by-header@resets.example")
    insert_user(sql, email="org@resets.example", user_type="organization", password_hash="x")
    insert_user(sql, email="gone@resets.example", is_deleted=True, password_hash="x")
    for email in (user["email"], "nobody@resets.example", "by-header@resets.example", "org@resets.example", "gone@resets.example", "system@internal"):  # fmt: skip
        answer = ask(app, email)
        assert (answer.status_code, answer.json) == (200, {"message": ASKED})
    rows = sql.execute("SELECT template, values_sealed, octet_length(values_sealed) FROM outgoing_mails").fetchall()  # fmt: skip
    assert len(rows) == 6
    assert len({(template, size) for template, _, size in rows}) == 1
    assert sql.execute("SELECT count(*) FROM password_reset_tokens").fetchone() == (0,)
    (mail,) = send(app, tmp_path)
    assert f"To: {user['email']}" in mail
    assert sql.execute("SELECT count(*) FROM outgoing_mails").fetchone() == (0,)


def test_the_token_is_in_the_mail_and_nowhere_else(
    app: Flask, sql: psycopg.Connection, tmp_path: Path
) -> None:
    _, user = register(app)
    link = link_for(app, user["email"], tmp_path)
    assert len(link["token"]) == 43
    row = sql.execute("SELECT to_jsonb(t) FROM password_reset_tokens t").fetchone()
    assert row
    assert link["token"] not in orjson.dumps(row[0]).decode()


def test_the_mail_goes_to_the_address_that_the_account_has(
    app: Flask, sql: psycopg.Connection, tmp_path: Path
) -> None:
    """A database may take two addresses for one of which only one is the account's."""
    _, user = register(app)
    name, _, domain = user["email"].partition("@")
    for spelling in (f"{name.upper()}@{domain}", f"{name}@{domain.title()}"):
        ask(app, spelling)
    mails = send(app, tmp_path)
    assert len(mails) == 2
    assert all(f"To: {user['email']}" in mail for mail in mails)


@pytest.mark.parametrize(
    "spoil",
    [
        "UPDATE password_reset_tokens SET expires_at = now()",
        "UPDATE password_reset_tokens SET used_at = now()",
        "DELETE FROM password_reset_tokens",
        "UPDATE users SET password_hash = NULL WHERE email LIKE '%@people.example'",
        "UPDATE users SET is_deleted = true WHERE email LIKE '%@people.example'",
    ],
    ids=["too old", "used", "unknown", "no password", "deleted"],
)
def test_a_link_that_does_not_hold_is_refused_alike(
    app: Flask, sql: psycopg.Connection, tmp_path: Path, spoil: str
) -> None:
    _, user = register(app)
    link = link_for(app, user["email"], tmp_path)
    sql.execute(spoil)
    answer = confirm(app, link)
    assert (answer.status_code, answer.json["message"]) == (400, "Invalid or expired reset token")
    other = confirm(app, {"id": NOBODY, "token": "x" * 43})
    assert (other.status_code, other.json["code"]) == (400, answer.json["code"])


def test_a_wrong_token_for_a_right_id_is_refused_and_uses_nothing_up(
    app: Flask, tmp_path: Path
) -> None:
    _, user = register(app)
    link = link_for(app, user["email"], tmp_path)
    assert confirm(app, {**link, "token": link["token"][::-1]}).status_code == 400
    assert confirm(app, link, "short").json["message"] == "Password must be at least 8 characters"
    assert confirm(app, link).status_code == 200
    assert confirm(app, link).status_code == 400


def test_the_first_link_that_is_used_ends_the_others(app: Flask, tmp_path: Path) -> None:
    _, user = register(app)
    one, two = (link_for(app, user["email"], tmp_path) for _ in range(2))
    assert confirm(app, two).status_code == 200
    assert confirm(app, one).status_code == 400


@pytest.mark.parametrize("end", ["change", "delete", "take over"])
def test_a_link_ends_with_what_it_would_replace(app: Flask, tmp_path: Path, end: str) -> None:
    browser, user = register(app)
    link = link_for(app, user["email"], tmp_path)
    if end == "change":
        change = {"current_password": "a-good-password", "new_password": "changed-password"}
        assert browser.post("/authentication/password-change", json=change).status_code == 200
    elif end == "delete":
        with app.app_context():
            session = db.session()
            users.delete_account(session, users.get(session, UUID(user["id"])))
            session.commit()
    else:
        header = {"x-doubleword-user": user["email"]}
        assert app.test_client().get(ME, headers=header).json["id"] == user["id"]
    assert confirm(app, link).status_code == 400


def test_of_two_at_once_one_wins(
    app: Flask, sql: psycopg.Connection, database_url: str, tmp_path: Path
) -> None:
    _, user = register(app)
    link = link_for(app, user["email"], tmp_path)
    with psycopg.connect(database_url) as holder, ThreadPoolExecutor(2) as pool:
        holder.execute("SELECT FROM users WHERE id = %s FOR UPDATE", (user["id"],))
        both = [pool.submit(confirm, app, link, f"{NEW}-{n}") for n in range(2)]
        waits_for_lock(sql, 2)
        holder.rollback()
        statuses = [one.result().status_code for one in both]
    assert sorted(statuses) == [200, 400]
    winner = statuses.index(200)
    assert log_in(app, user["email"], f"{NEW}-{winner}")[1].status_code == 200


def test_a_sign_in_with_the_old_password_does_not_outlive_the_reset(
    app: Flask, sql: psycopg.Connection, database_url: str, tmp_path: Path
) -> None:
    _, user = register(app)
    link = link_for(app, user["email"], tmp_path)
    with psycopg.connect(database_url) as holder, ThreadPoolExecutor(2) as pool:
        holder.execute("SELECT FROM users WHERE id = %s FOR UPDATE", (user["id"],))
        signing_in = pool.submit(log_in, app, user["email"])
        waits_for_lock(sql, 1)
        resetting = pool.submit(confirm, app, link)
        waits_for_lock(sql, 2)
        holder.rollback()
        browser, _ = signing_in.result()
        assert resetting.result().status_code == 200
    assert browser.get(ME).status_code == 401


@pytest.fixture
def throttled(environ: dict[str, str]) -> Iterator[Flask]:
    """With the limits that are the default."""
    default = config.Settings().auth.native.throttle
    with app_with(
        environ,
        auth__native__throttle__resets_per_minute=str(default.resets_per_minute),
        auth__native__throttle__resets_per_account=str(default.resets_per_account),
    ) as app:
        yield app


def test_mails_to_one_account_are_few_while_one_of_them_holds(throttled: Flask) -> None:
    for email in ("somebody@limits.example", "Nobody@limits.example"):
        for n in range(5):
            from_there = {"environ_base": {"REMOTE_ADDR": f"192.0.2.{n}"}}
            assert ask(throttled, email, **from_there).status_code == 200
        for spelled in (email.upper(), email.replace("i", "İ")):
            refused = ask(throttled, spelled, environ_base={"REMOTE_ADDR": "192.0.2.77"})
            assert refused.status_code == 429
            assert 1700 < int(refused.headers["Retry-After"]) <= 1800


def test_one_address_asks_for_few(throttled: Flask) -> None:
    there = {"environ_base": {"REMOTE_ADDR": "198.51.100.4"}}
    statuses = [ask(throttled, f"{n}@many.example", **there).status_code for n in range(12)]
    assert statuses == [200] * 10 + [429] * 2


def test_without_passwords_there_is_nothing_to_reset(environ: dict[str, str]) -> None:
    with app_with(environ, auth__native__enabled="false") as app:
        assert ask(app, "a@b.example").json["message"] == "Native authentication is disabled"
        assert confirm(app, {"id": NOBODY, "token": "x"}).status_code == 400


def test_no_link_is_made_once_passwords_are_switched_off(
    app: Flask, environ: dict[str, str], sql: psycopg.Connection, tmp_path: Path
) -> None:
    _, user = register(app)
    ask(app, user["email"])
    with app_with(environ, auth__native__enabled="false") as off:
        assert send(off, tmp_path) == []
    assert sql.execute("SELECT count(*) FROM password_reset_tokens").fetchone() == (0,)


class TestThePage:
    def test_it_takes_a_person_through(self, app: Flask, client: FlaskClient, tmp_path: Path) -> None:  # fmt: skip
        _, user = register(app)
        link = link_for(app, user["email"], tmp_path)
        page = client.get("/reset-password", query_string=link)
        assert page.status_code == 200
        assert link["token"] in page.text
        assert page.headers["Cache-Control"] == "no-store"
        assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
        form = {**link, "new_password": NEW, "again": NEW}
        differs = client.post("/reset-password", data={**form, "again": "x"})
        assert (differs.status_code, "different" in differs.text) == (400, True)
        done = client.post("/reset-password", data=form)
        assert (done.status_code, "Your password is changed" in done.text) == (200, True)
        assert log_in(app, user["email"], NEW)[1].status_code == 200
        assert client.post("/reset-password", data=form).status_code == 400

    @pytest.mark.parametrize(
        "given",
        [{}, {"id": "x"}, {"id": NOBODY}, {"id": NOBODY, "token": "\x00" * 500, "new_password": NEW, "again": NEW}, {"id": '"><script>', "token": '"><script>'}],
        ids=range(5),
    )  # fmt: skip
    def test_nonsense_is_refused_in_words(self, client: FlaskClient, given: dict[str, str]) -> None:  # fmt: skip
        for answer in (client.get("/reset-password", query_string=given), client.post("/reset-password", data=given)):  # fmt: skip
            assert answer.status_code in (200, 400)
            assert "<script>" not in answer.text


def test_links_are_forgotten_a_day_after_their_end(
    app: Flask, sql: psycopg.Connection, tmp_path: Path
) -> None:
    _, user = register(app)
    for _ in range(2):
        link_for(app, user["email"], tmp_path)
    with app.app_context():
        sql.execute("UPDATE password_reset_tokens SET expires_at = now() - interval '25 hours' WHERE id = (SELECT min(id::text)::uuid FROM password_reset_tokens)")  # fmt: skip
        assert duties.forget_resets(sql, current.settings()) == 3600
    assert sql.execute("SELECT count(*) FROM password_reset_tokens").fetchone() == (1,)
