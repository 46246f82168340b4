"""What answers tell browsers and clients beside their body: challenges, security headers, which headers pages may read."""

from __future__ import annotations

import psycopg
import pytest
from flask import Flask

from tests.cast import Cast
from tests.identity.doors import ADMIN, Doors, app_with, insert_key, register

ME = "/users/current"
POLICIES = ("X-Frame-Options", "Referrer-Policy", "Permissions-Policy", "Content-Security-Policy")


def test_a_401_says_how_to_come_in_and_what_was_wrong(
    app: Flask, call: Doors, cast: Cast, sql: psycopg.Connection
) -> None:
    bare = call(None, "GET", ME)
    assert bare.headers["WWW-Authenticate"] == 'Bearer realm="dwctl"'
    unknown = call.with_key("sk-nonsense")
    assert (unknown.json["code"], unknown.json["message"]) == ("invalid_api_key", "Authentication required")  # fmt: skip
    assert 'error="invalid_token", error_description="invalid_api_key"' in unknown.headers["WWW-Authenticate"]  # fmt: skip
    wrong = call.with_key(insert_key(sql, cast["alice"], purpose="realtime"))
    assert 'error_description="wrong_key_purpose"' in wrong.headers["WWW-Authenticate"]
    client, user = register(app)
    sql.execute("UPDATE login_sessions SET expires_at = now() WHERE user_id = %s", (user["id"],))
    expired = client.get(ADMIN + ME)
    assert 'error_description="session_expired"' in expired.headers["WWW-Authenticate"]
    assert "WWW-Authenticate" not in call("alice", "GET", "/users").headers  # 403


@pytest.mark.parametrize("path", [ADMIN + ME, "/authentication/login", "/healthz", "/nowhere", "/ai/v1/files"])  # fmt: skip
def test_nobody_frames_an_answer(app: Flask, path: str) -> None:
    answer = app.test_client().get(path)
    assert {name: bool(answer.headers.get(name)) for name in POLICIES} == dict.fromkeys(POLICIES, True)  # fmt: skip


def test_a_page_has_its_own_policy(app: Flask) -> None:
    answer = app.test_client().get("/about")
    assert "style-src 'sha256-" in answer.headers["Content-Security-Policy"]
    assert len(answer.headers.getlist("Content-Security-Policy")) == 1
    assert answer.headers.getlist("X-Frame-Options") == ["DENY"]


def test_headers_are_settings(environ: dict[str, str]) -> None:
    with app_with(
        environ, auth__security__headers__frame_options="", auth__security__headers__referrer_policy="no-referrer",
        auth__security__cors__allowed_origins="https://a.example", auth__security__cors__exposed_headers="X-Mine",
    ) as app:  # fmt: skip
        answer = app.test_client().get("/healthz", headers={"Origin": "https://a.example"})
    assert "X-Frame-Options" not in answer.headers
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    exposed = answer.headers["Access-Control-Expose-Headers"].split(", ")
    assert exposed[0] == "x-mine"
    assert {"location", "link", "x-total-count", "retry-after"} <= set(exposed)
