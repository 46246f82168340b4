"""Which browsers are signed in, and how to sign them out."""

from __future__ import annotations

import psycopg
import pytest
from flask import Flask

from tests.cast import Cast
from tests.identity.doors import (
    ADMIN,
    NOBODY,
    PASSWORD,
    Doors,
    insert_key,
    insert_user,
    log_in,
    register,
)

ME = f"{ADMIN}/users/current"
MINE = f"{ME}/sessions"


def test_a_person_sees_where_they_are_signed_in(app: Flask) -> None:
    here, user = register(app)
    there = app.test_client()
    body = {"email": user["email"], "password": PASSWORD}
    there.post("/authentication/login", json=body, headers={"User-Agent": "Browser\u202e/1 " + "x" * 999}, environ_base={"REMOTE_ADDR": "192.0.2.9"})  # fmt: skip
    answer = here.get(MINE)
    assert answer.status_code == 200
    assert {k: answer.json[k] for k in ("total_count", "skip", "limit")} == {"total_count": 2, "skip": 0, "limit": 10}  # fmt: skip
    newest, oldest = answer.json["data"]
    assert set(newest) == {"id", "created_at", "last_used_at", "expires_at", "address", "user_agent", "is_current"}  # fmt: skip
    assert (newest["address"], newest["is_current"], oldest["is_current"]) == ("192.0.2.9", False, True)  # fmt: skip
    assert newest["user_agent"].startswith("Browser")
    assert len(newest["user_agent"]) <= 300
    assert "token" not in answer.text


def test_what_has_run_out_is_not_listed(app: Flask, sql: psycopg.Connection) -> None:
    here, user = register(app)
    log_in(app, user["email"])
    sql.execute("UPDATE login_sessions SET expires_at = now() WHERE id = (SELECT id FROM login_sessions WHERE user_id = %s ORDER BY created_at DESC LIMIT 1)", (user["id"],))  # fmt: skip
    assert here.get(MINE).json["total_count"] == 1


def test_one_browser_is_signed_out(app: Flask) -> None:
    here, user = register(app)
    there, _ = log_in(app, user["email"])
    (other,) = (one["id"] for one in here.get(MINE).json["data"] if not one["is_current"])
    assert here.delete(f"{MINE}/{other}").status_code == 204
    assert there.get(ME).status_code == 401
    assert here.get(ME).status_code == 200
    again = here.delete(f"{MINE}/{other}")
    assert (again.status_code, again.json["message"]) == (404, f"Session with ID {other} not found")


def test_everywhere_or_everywhere_else(app: Flask) -> None:
    here, user = register(app)
    there, _ = log_in(app, user["email"])
    assert here.delete(f"{MINE}?others=true").status_code == 204
    assert (here.get(ME).status_code, there.get(ME).status_code) == (200, 401)
    answer = here.delete(MINE)
    assert answer.status_code == 204
    assert "Max-Age=0" in answer.headers["Set-Cookie"]
    assert here.get(ME).status_code == 401


def test_managers_may_and_others_may_not(
    app: Flask, call: Doors, cast: Cast, sql: psycopg.Connection
) -> None:
    here, user = register(app)
    path = f"/users/{user['id']}/sessions"
    session_id = here.get(MINE).json["data"][0]["id"]
    for who in ("alice", "viewer", "biller"):
        assert call(who, "GET", path).status_code == 403
        assert call(who, "DELETE", path).status_code == 403
        assert call(who, "DELETE", f"{path}/{session_id}").status_code == 403
        # Somebody else's session under one's own name is nobody's.
        assert call(who, "DELETE", f"/users/current/sessions/{session_id}").status_code == 404
    assert call(None, "GET", path).status_code == 401
    assert call("admin", "GET", path).json["data"][0]["is_current"] is False
    assert call("admin", "GET", f"/users/{NOBODY}/sessions").status_code == 404
    assert call("admin", "DELETE", path).status_code == 204
    assert here.get(ME).status_code == 401
    assert call("alice", "GET", "/users/current/sessions").json["data"] == []


def test_a_key_ends_no_key(app: Flask, sql: psycopg.Connection) -> None:
    here, user = register(app)
    key = {"Authorization": f"Bearer {insert_key(sql, user['id'])}"}
    fresh = app.test_client()
    assert fresh.delete(f"{MINE}?others=true", headers=key).status_code == 204
    assert here.get(ME).status_code == 401
    assert fresh.get(ME, headers=key).status_code == 200


@pytest.mark.parametrize("query", ["others=maybe", "skip=x"])
def test_a_bad_query_is_refused(app: Flask, query: str) -> None:
    here, _ = register(app)
    method = here.delete if query.startswith("others") else here.get
    assert method(f"{MINE}?{query}").status_code == 400


def test_a_user_without_sessions_has_none(call: Doors, sql: psycopg.Connection) -> None:
    user = insert_user(sql)
    assert call("admin", "GET", f"/users/{user}/sessions").json["total_count"] == 0
