"""Sign-in of a command line: keys for whoever is in the browser, and for nobody by a page's doing."""

from __future__ import annotations

import base64
import hashlib
from urllib.parse import parse_qsl, urlsplit

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.cast import Cast
from tests.identity.doors import (
    ADMIN,
    PASSWORD,
    Doors,
    insert_key,
    insert_organization,
    insert_user,
    log_in,
    register,
    unique,
)

PATH = f"{ADMIN}/auth/cli-callback"
QUERY = "?port=8999&state=abc"
ME = f"{ADMIN}/users/current"
BY_HAND = {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Accept": "text/html"}  # fmt: skip
VERIFIER = "v" * 43
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()  # fmt: skip


@pytest.fixture(autouse=True)
def no_attempts(sql: psycopg.Connection) -> None:
    sql.execute("TRUNCATE sign_in_attempts")


def told(answer: TestResponse) -> list[tuple[str, str]]:
    assert answer.status_code == 302, answer.text
    location = urlsplit(answer.headers["Location"])
    assert (location.scheme, location.netloc, location.path) == ("http", "127.0.0.1:8999", "/callback")  # fmt: skip
    return parse_qsl(location.query, strict_parsing=True)


def keys_of(sql: psycopg.Connection, user_id: str) -> int:
    row = sql.execute("SELECT count(*) FROM api_keys WHERE created_by = %s AND NOT hidden", (user_id,)).fetchone()  # fmt: skip
    assert row
    return int(row[0])


@pytest.mark.parametrize("headers", [{}, {"Accept": "*/*"}, BY_HAND], ids=["bare", "curl", "browser"])  # fmt: skip
def test_the_keys_are_handed_to_the_command_line(app: Flask, headers: dict[str, str]) -> None:
    browser, user = register(app)
    answer = browser.get(PATH + QUERY, headers=headers)
    given = told(answer)
    assert [name for name, _ in given] == [
        "state", "inference_key", "inference_key_id", "platform_key", "platform_key_id", "user_id", "email", "display_name",
        "account_name", "account_type",
    ]  # fmt: skip
    values = dict(given)
    assert (values["state"], values["user_id"], values["account_name"], values["account_type"]) == ("abc", user["id"], user["username"], "personal")  # fmt: skip
    assert (answer.data, answer.content_type) == (b"", None)
    for name, value in (("Cache-Control", "no-store"), ("Pragma", "no-cache"), ("Referrer-Policy", "no-referrer")):  # fmt: skip
        assert answer.headers[name] == value
    works = app.test_client().get(ME, headers={"Authorization": f"Bearer {values['platform_key']}"})
    assert works.json["id"] == user["id"]
    listed = browser.get(f"{ME}/api-keys").json["data"]
    assert [key["purpose"] for key in listed] == ["realtime", "platform"]
    assert all(key["description"] == "Created by dw login" for key in listed)
    assert listed[0]["name"].startswith("DW CLI inference (")


def test_two_at_once_do_not_collide(app: Flask) -> None:
    browser, _ = register(app)
    assert len({dict(told(browser.get(PATH + QUERY)))["platform_key"] for _ in range(5)}) == 5


def test_an_organisation_is_found_by_either_name(app: Flask, sql: psycopg.Connection) -> None:
    browser, user = register(app)
    name, shown = unique("org"), unique("Display Name")
    organization = insert_organization(sql, member=user["id"])
    sql.execute("UPDATE users SET username = %s, display_name = %s WHERE id = %s", (name, shown, organization))  # fmt: skip
    for wanted in (name, name.upper(), shown.lower(), f" {shown} "):
        given = dict(told(browser.get(PATH, query_string={"port": 8999, "state": "s", "org": wanted})))  # fmt: skip
        assert given["user_id"] == given["org_id"] == str(organization)
        assert given["account_name"] == f"{user['username']}@{name}"
        assert (given["account_type"], given["org_name"]) == ("organization", name)
    row = sql.execute("SELECT user_id, created_by FROM api_keys WHERE id = %s", (given["inference_key_id"],)).fetchone()  # fmt: skip
    assert tuple(map(str, row or ())) == (str(organization), user["id"])


@pytest.mark.parametrize(
    ("query", "status", "named"),
    [
        ("", 400, "port"), ("?port=8999", 400, "state"), ("?state=a", 400, "port"), ("?port=1023&state=a", 400, "port"), ("?port=65536&state=a", 400, "port"),
        ("?port=x&state=a", 400, "port"), ("?port=-1&state=a", 400, "port"), ("?port=8999&state=a%00", 400, "state"), ("?port=8999&state=" + "a" * 1025, 400, "state"),
        ("?port=8999&state=a&org=unknown", 400, "unknown"), ("?port=8999&state=a&org=", 400, "organization"), ("?port=8999&state=a&code_challenge=short", 400, "code_challenge"),
        ("?port=80.5&state=a", 400, "port"), ("?port=8999&state=a%0d%0aX:1", 400, "state"),
    ],
)  # fmt: skip
def test_a_bad_query_is_refused(call: Doors, query: str, status: int, named: str) -> None:
    answer = call("alice", "GET", "/auth/cli-callback" + query)
    assert (answer.status_code, named in answer.json["message"]) == (status, True)


def test_others_are_refused(app: Flask, call: Doors, cast: Cast, sql: psycopg.Connection) -> None:
    assert call(None, "GET", "/auth/cli-callback" + QUERY).status_code == 401
    secret = insert_key(sql, cast["alice"])
    assert call.with_key(secret, "/auth/cli-callback" + QUERY).status_code == 401
    browser, user = register(app)
    for bearer in (secret, "sk-nonsense", "x"):
        answer = browser.get(PATH + QUERY, headers={"Authorization": f"Bearer {bearer}"})
        assert answer.status_code == 401
    theirs = insert_organization(sql, owner=insert_user(sql))
    name = sql.execute("SELECT username FROM users WHERE id = %s", (theirs,)).fetchone()
    assert name
    assert browser.get(PATH, query_string={"port": 8999, "state": "s", "org": name[0]}).status_code == 400  # fmt: skip
    assert keys_of(sql, user["id"]) == 0


FOREIGN = {
    "a link elsewhere": BY_HAND | {"Sec-Fetch-Site": "cross-site"},
    "a sibling host": BY_HAND | {"Sec-Fetch-Site": "same-site"},
    "an image": {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
    "an image of ours": {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
    "a frame": BY_HAND | {"Sec-Fetch-Dest": "iframe"},
    "read ahead": BY_HAND | {"Sec-Purpose": "prefetch"},
    "a browser that does not say": {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"},
    "an image of one": {"Accept": "image/webp,*/*;q=0.5", "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:78.0) Firefox/78.0"},
}  # fmt: skip


@pytest.mark.parametrize("headers", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("way", ["cookie", "header"])
def test_no_page_makes_keys_by_a_link(
    app: Flask, cast: Cast, sql: psycopg.Connection, headers: dict[str, str], way: str
) -> None:
    browser, user = register(app)
    more = {} if way == "cookie" else Cast.headers("bob")
    if way == "header":
        browser = app.test_client()
    who = user["id"] if way == "cookie" else str(cast["bob"])
    before = keys_of(sql, who)
    answer = browser.get(PATH + QUERY, headers={**headers, **more})
    assert (answer.status_code, answer.mimetype) == (200, "text/html")
    assert keys_of(sql, who) == before
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert "form-action 'self' http://127.0.0.1:8999;" in answer.headers["Content-Security-Policy"]
    foreign = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site", **more}
    assert browser.post(PATH + QUERY, headers=foreign).status_code == 403
    assert keys_of(sql, who) == before
    pressed = {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin", **more}
    assert dict(told(browser.post(PATH + QUERY, headers=pressed)))["user_id"] == who


def reset(app: Flask, sql: psycopg.Connection, user_id: str) -> TestResponse:
    token = unique("token")
    (id,) = sql.execute(
        "INSERT INTO password_reset_tokens (user_id, token_hash, expires_at) VALUES (%s, %s, now() + interval '1 minute') RETURNING id",
        (user_id, hashlib.sha256(token.encode()).hexdigest()),
    ).fetchone() or ("",)
    body = {"token": token, "new_password": "another-password"}
    return app.test_client().post(f"/authentication/password-resets/{id}/confirm", json=body)


class TestCodes:
    def ask(self, browser: FlaskClient) -> str:
        query = f"{QUERY}&code_challenge={CHALLENGE}"
        assert browser.get(PATH + query, headers=BY_HAND).mimetype == "text/html"
        given = told(browser.post(PATH + query))
        assert [name for name, _ in given] == ["state", "code"]
        return dict(given)["code"]

    def exchange(self, app: Flask, code: str, verifier: str = VERIFIER) -> TestResponse:
        body = {"code": code, "code_verifier": verifier}
        return app.test_client().post("/authentication/cli-token", json=body)

    def test_a_code_becomes_keys_once(self, app: Flask, sql: psycopg.Connection) -> None:
        browser, user = register(app)
        code = self.ask(browser)
        assert keys_of(sql, user["id"]) == 0
        answer = self.exchange(app, code)
        assert answer.status_code == 200
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.json["account_name"] == user["username"]
        key = {"Authorization": f"Bearer {answer.json['platform_key']}"}
        assert app.test_client().get(ME, headers=key).json["id"] == user["id"]
        assert self.exchange(app, code).json["message"] == "Invalid or expired code"
        assert keys_of(sql, user["id"]) == 2

    def test_a_wrong_verifier_uses_the_code_up(self, app: Flask, sql: psycopg.Connection) -> None:
        browser, user = register(app)
        code = self.ask(browser)
        assert self.exchange(app, code, "w" * 43).status_code == 400
        assert self.exchange(app, code).status_code == 400
        assert keys_of(sql, user["id"]) == 0

    @pytest.mark.parametrize(
        "spoil",
        [
            "UPDATE command_line_codes SET expires_at = now()",
            "UPDATE users SET is_deleted = true WHERE id = (SELECT user_id FROM command_line_codes ORDER BY created_at DESC LIMIT 1)",
            "DELETE FROM command_line_codes",
        ],
        ids=["too old", "a deleted person", "unknown"],
    )
    def test_what_does_not_hold_is_refused(self, app: Flask, sql: psycopg.Connection, spoil: str) -> None:  # fmt: skip
        browser, user = register(app)
        code = self.ask(browser)
        sql.execute(spoil)
        assert self.exchange(app, code).status_code == 400
        assert keys_of(sql, user["id"]) == 0

    @pytest.mark.parametrize(
        "end", ["out", "out of it", "out everywhere", "another password", "a reset", "taken over"]
    )
    def test_a_code_ends_with_the_session_that_asked_for_it(
        self, app: Flask, sql: psycopg.Connection, end: str
    ) -> None:
        browser, user = register(app)
        code = self.ask(browser)
        elsewhere, _ = log_in(app, user["email"])
        (mine,) = [one for one in browser.get(f"{ME}/sessions").json["data"] if one["is_current"]]
        new = {"current_password": PASSWORD, "new_password": "another-password"}
        owner = {"x-doubleword-user": unique("idp"), "x-doubleword-email": user["email"]}
        answer = {
            "out": lambda: browser.post("/authentication/logout"),
            "out of it": lambda: elsewhere.delete(f"{ME}/sessions/{mine['id']}"),
            "out everywhere": lambda: elsewhere.delete(f"{ME}/sessions?others=true"),
            "another password": lambda: elsewhere.post("/authentication/password-change", json=new),
            "a reset": lambda: reset(app, sql, user["id"]),
            "taken over": lambda: app.test_client().get(ME, headers=owner),
        }[end]()
        assert answer.status_code < 300, answer.text
        assert self.exchange(app, code).json["message"] == "Invalid or expired code"
        assert keys_of(sql, user["id"]) == 0

    def test_other_sessions_end_without_it(self, app: Flask) -> None:
        browser, user = register(app)
        code = self.ask(browser)
        elsewhere, _ = log_in(app, user["email"])
        assert elsewhere.post("/authentication/logout").status_code == 200
        assert self.exchange(app, code).status_code == 200

    def test_who_has_left_gets_no_keys_of_the_organisation(self, app: Flask, sql: psycopg.Connection) -> None:  # fmt: skip
        browser, user = register(app)
        organization = insert_organization(sql, member=user["id"])
        (name,) = sql.execute("SELECT username FROM users WHERE id = %s", (organization,)).fetchone() or ("",)  # fmt: skip
        code = dict(told(browser.post(f"{PATH}{QUERY}&org={name}&code_challenge={CHALLENGE}")))["code"]  # fmt: skip
        sql.execute("DELETE FROM user_organizations WHERE user_id = %s", (user["id"],))
        assert self.exchange(app, code).status_code == 400
        assert keys_of(sql, user["id"]) == 0
