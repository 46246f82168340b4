import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.identity.doors import (
    ADMIN,
    PASSWORD,
    USER_FIELDS,
    app_with,
    cookie_of,
    insert_user,
    log_in,
    register,
    unique,
    waits_for_lock,
)

ME = f"{ADMIN}/users/current"


def test_it_says_that_registration_and_login_are_open(client: FlaskClient) -> None:
    for path, message in (("register", "Registration is enabled"), ("login", "Native login is enabled")):  # fmt: skip
        answer = client.get(f"/authentication/{path}")
        assert answer.json == {"enabled": True, "message": message}


def test_registering_signs_in(app: Flask) -> None:
    client, user = register(app)
    assert set(user) == USER_FIELDS
    assert user["auth_source"] == "native"
    assert user["roles"] == ["StandardUser"]
    assert user["display_name"]
    assert user["last_login"] is None
    assert client.get(ME).json["id"] == user["id"]


def test_a_person_may_bring_a_display_name(client: FlaskClient) -> None:
    name = unique()
    body = {"username": name, "email": f"{name}@x.example", "password": PASSWORD, "display_name": "Ada"}  # fmt: skip
    answer = client.post("/authentication/register", json=body)
    assert answer.json["message"] == "Registration successful"
    assert answer.json["user"]["display_name"] == "Ada"


def test_the_cookie_is_for_this_browser_only(app: Flask) -> None:
    _, user = register(app)
    _, answer = log_in(app, user["email"])
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith("dwctl_session=")
    for part in ("HttpOnly", "Path=/", "SameSite=Strict", "Max-Age=86400"):
        assert part in cookie
    assert "Secure" not in cookie  # by the setting of the tests


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"username": "taken"}, 409, "This username is already taken"),
        ({"email": "TAKEN@people.example"}, 409, "An account with this email address already exists"),
        ({"password": "short"}, 400, "Password must be at least 8 characters"),
        ({"password": "x" * 65}, 400, "Password must be no more than 64 characters"),
        ({"password": "ü" * 7}, 400, "Password must be at least 8 characters"),
        ({"email": None}, 422, "email: Field may not be null."),
        ({"email": "nonsense"}, 422, "email: Not a valid email address."),
        ({"username": "  "}, 422, "username: Must not be blank."),
        ({"username": 7}, 422, "username: Not a valid string."),
        ({"username": "a\x00b"}, 422, "username: Must not contain a NUL character."),
        ({"username": "a\x1b[0m"}, 422, "username: Must not contain control characters."),
    ],
)  # fmt: skip
def test_a_bad_registration_is_refused(
    app: Flask, sql: psycopg.Connection, change: dict[str, object], status: int, message: str
) -> None:
    if sql.execute("SELECT FROM users WHERE username = 'taken'").fetchone() is None:
        register(app, "taken")
    name = unique()
    body = {"username": name, "email": f"{name}@x.example", "password": PASSWORD} | change
    answer = app.test_client().post("/authentication/register", json=body)
    assert (answer.status_code, answer.json["message"]) == (status, message)
    assert "Set-Cookie" not in answer.headers


def test_64_letters_of_any_script_are_a_password(client: FlaskClient) -> None:
    name = unique()
    body = {"username": name, "email": f"{name}@x.example", "password": "ü" * 64}
    assert client.post("/authentication/register", json=body).status_code == 201


def test_a_wrong_body_is_refused_before_anything_else(client: FlaskClient) -> None:
    post = "/authentication/login"
    missing = client.post(post, json={"email": "a@b.example"})
    assert missing.status_code == 422
    assert missing.json["details"] == {"json": {"password": ["Missing data for required field."]}}
    assert missing.json["request_id"] == missing.headers["x-request-id"]
    assert client.post(post, data="{", content_type="application/json").status_code == 400
    assert client.post(post, data="{}").status_code == 415
    assert client.post(post, json=[]).status_code == 422


def test_ignored_fields_are_named(client: FlaskClient) -> None:
    body = {"email": "a@b.example", "password": "x", "remember": True, "otp": 1}
    answer = client.post("/authentication/login", json=body)
    assert answer.headers["x-ignored-fields"] == "otp, remember"


def test_logging_in_takes_any_spelling_of_the_email(app: Flask) -> None:
    _, user = register(app)
    client, answer = log_in(app, f" {user['email'].upper()} ")
    assert answer.status_code == 200
    assert answer.json["message"] == "Login successful"
    assert set(answer.json["user"]) == USER_FIELDS
    assert client.get(ME).json["id"] == user["id"]


def test_nobody_learns_which_accounts_exist(app: Flask, sql: psycopg.Connection) -> None:
    _, user = register(app)
    without_password = insert_user(sql, email=f"{unique()}@sql.example")
    email = sql.execute("SELECT email FROM users WHERE id = %s", (without_password,)).fetchone()
    assert email
    answers = [
        log_in(app, user["email"], "wrong")[1],
        log_in(app, f"{unique()}@x.example")[1],
        log_in(app, email[0])[1],
    ]
    for answer in answers:
        assert answer.status_code == 401
        assert answer.json["message"] == "Invalid email or password"
        assert "Set-Cookie" not in answer.headers


def test_an_unreadable_hash_lets_nobody_in(app: Flask, sql: psycopg.Connection) -> None:
    email = f"{unique()}@sql.example"
    insert_user(sql, email=email, password_hash="plain text")
    assert log_in(app, email)[1].status_code == 401


def test_a_token_planted_before_login_is_worth_nothing(app: Flask) -> None:
    _, user = register(app)
    client = app.test_client()
    client.set_cookie("dwctl_session", "planted")
    client.post("/authentication/login", json={"email": user["email"], "password": PASSWORD})
    assert cookie_of(client) != "planted"
    other = app.test_client()
    other.set_cookie("dwctl_session", "planted")
    assert other.get(ME).status_code == 401


def test_the_database_does_not_hold_the_token(app: Flask, sql: psycopg.Connection) -> None:
    client, user = register(app)
    rows = sql.execute(
        "SELECT token_hash FROM login_sessions WHERE user_id = %s", (user["id"],)
    ).fetchall()
    assert rows == [(hashlib.sha256(cookie_of(client).encode()).digest(),)]


def test_logging_out_ends_the_session_on_the_server(app: Flask) -> None:
    client, _ = register(app)
    stolen = cookie_of(client)
    answer = client.post("/authentication/logout")
    assert answer.json == {"message": "Logout successful"}
    cleared = answer.headers.getlist("Set-Cookie")
    assert [c.split("=")[0] for c in cleared] == ["dwctl_session", "dw_active_org"]
    assert all("Max-Age=0" in c for c in cleared)
    thief = app.test_client()
    thief.set_cookie("dwctl_session", stolen)
    assert thief.get(ME).status_code == 401


def test_logging_out_needs_no_session(client: FlaskClient) -> None:
    assert client.post("/authentication/logout").status_code == 200


NAVIGATION = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


@pytest.mark.parametrize("site", ["same-origin", "same-site", "none"])
def test_a_link_of_ours_logs_out_too(app: Flask, site: str) -> None:
    client, _ = register(app)
    answer = client.get("/authentication/logout", headers={**NAVIGATION, "Sec-Fetch-Site": site})
    assert (answer.status_code, answer.headers["Location"]) == (302, "/")
    assert client.get(ME).status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {**NAVIGATION, "Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
        {**NAVIGATION, "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Dest": "iframe"},
        {**NAVIGATION, "Sec-Fetch-Site": "none", "Sec-Purpose": "prefetch"},
    ],
    ids=["unknown", "elsewhere", "image", "frame", "prefetch"],
)
def test_other_links_ask_first(app: Flask, headers: dict[str, str]) -> None:
    client, _ = register(app)
    answer = client.get("/authentication/logout", headers=headers)
    assert answer.status_code == 200
    assert '<form method="post"' in answer.text
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "Set-Cookie" not in answer.headers
    assert client.get(ME).status_code == 200


def test_signing_in_elsewhere_ends_no_session(app: Flask) -> None:
    here, user = register(app)
    there, _ = log_in(app, user["email"])
    assert here.get(ME).status_code == there.get(ME).status_code == 200


def test_an_expired_session_is_refused_by_name(app: Flask, sql: psycopg.Connection) -> None:
    client, user = register(app)
    sql.execute("UPDATE login_sessions SET expires_at = now() WHERE user_id = %s", (user["id"],))
    answer = client.get(ME)
    assert answer.status_code == 401
    assert answer.json["code"] == "session_expired"
    assert answer.json["message"] == "Authentication required"


def test_a_session_in_use_is_extended_without_a_new_cookie(
    app: Flask, sql: psycopg.Connection
) -> None:
    client, user = register(app)
    left = "SELECT extract(epoch FROM expires_at - now())::int FROM login_sessions WHERE user_id = %s"  # fmt: skip
    sql.execute(
        "UPDATE login_sessions SET expires_at = now() + interval '5 minutes' WHERE user_id = %s",
        (user["id"],),
    )
    assert "Set-Cookie" not in client.get(ME).headers
    assert sql.execute(left, (user["id"],)).fetchone()[0] > 86000  # type: ignore[index]


def test_a_session_is_extended_at_most_once_a_minute(app: Flask, sql: psycopg.Connection) -> None:
    client, user = register(app)
    ends = "SELECT expires_at FROM login_sessions WHERE user_id = %s"
    before = sql.execute(ends, (user["id"],)).fetchone()
    client.get(ME)
    assert sql.execute(ends, (user["id"],)).fetchone() == before


def test_a_session_has_an_absolute_end(app: Flask, sql: psycopg.Connection) -> None:
    client, user = register(app)
    of_user = "WHERE user_id = %s"
    sql.execute(
        f"UPDATE login_sessions SET created_at = now() - interval '7 days' + interval '1 hour', expires_at = now() + interval '5 minutes' {of_user}",
        (user["id"],),
    )
    assert client.get(ME).status_code == 200
    (left_s,) = sql.execute(f"SELECT extract(epoch FROM expires_at - now()) FROM login_sessions {of_user}", (user["id"],)).fetchone()  # type: ignore[misc]  # fmt: skip
    assert 3000 < left_s <= 3600
    # One that an older version has extended beyond its end.
    sql.execute(
        f"UPDATE login_sessions SET created_at = now() - interval '7 days', expires_at = now() + interval '1 day' {of_user}",
        (user["id"],),
    )
    assert client.get(ME).json["code"] == "session_expired"


def test_changing_the_password_ends_the_other_sessions(app: Flask) -> None:
    here, user = register(app)
    there, _ = log_in(app, user["email"])
    body = {"current_password": PASSWORD, "new_password": "a-better-password"}
    answer = here.post("/authentication/password-change", json=body)
    assert answer.json == {"message": "Password changed successfully"}
    assert here.get(ME).status_code == 200
    assert there.get(ME).status_code == 401
    assert log_in(app, user["email"])[1].status_code == 401
    assert log_in(app, user["email"], "a-better-password")[1].status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"current_password": "wrong", "new_password": "long-enough"}, 401, "Current password is incorrect"),
        ({"current_password": PASSWORD, "new_password": "short"}, 400, "Password must be at least 8 characters"),
        ({"current_password": PASSWORD}, 422, "new_password: Missing data for required field."),
    ],
)  # fmt: skip
def test_a_bad_change_of_password_is_refused(
    app: Flask, body: dict[str, str], status: int, message: str
) -> None:
    client, _ = register(app)
    answer = client.post("/authentication/password-change", json=body)
    assert (answer.status_code, answer.json["message"]) == (status, message)


def test_a_stranger_changes_no_password(client: FlaskClient) -> None:
    body = {"current_password": "a", "new_password": "b"}
    answer = client.post("/authentication/password-change", json=body)
    assert (answer.status_code, answer.json["message"]) == (401, "Authentication required")


def test_an_account_without_password_has_none_to_change(
    app: Flask, sql: psycopg.Connection
) -> None:
    email = f"{unique()}@sql.example"
    insert_user(sql, email=email)
    body = {"current_password": "a", "new_password": "long-enough"}
    answer = app.test_client().post(
        "/authentication/password-change", json=body, headers={"x-doubleword-user": email}
    )
    assert (answer.status_code, answer.json["message"]) == (400, "This account has no password")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://localhost"}, 200),
        ({"Origin": "http://localhost:3001"}, 200),  # dashboard_url
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost:3001"}, 200),
        # No proxy is known to write this one.
        ({"Origin": "https://gate.example", "X-Forwarded-Host": "gate.example"}, 403),
    ],
)
def test_changes_by_cookie_are_not_taken_from_foreign_pages(
    app: Flask, headers: dict[str, str], status: int
) -> None:
    client, _ = register(app)
    change = client.post(f"{ADMIN}/session/organization", json={}, headers=headers)
    assert change.status_code == status
    assert client.get(ME, headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ({}, False),
        ({"Origin": "http://localhost"}, False),
        ({"Origin": "http://localhost:3001"}, False),
        ({"Origin": "https://evil.example"}, True),
        ({"Origin": "null"}, True),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "null"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, True),
        ({"Sec-Fetch-Site": "same-site"}, True),
    ],
)
@pytest.mark.parametrize("cookie", [True, False], ids=["cookie", "no cookie"])
@pytest.mark.parametrize("path", ["logout", "login", "register"])
def test_foreign_pages_sign_nobody_in_or_out(
    app: Flask, path: str, cookie: bool, headers: dict[str, str], refused: bool
) -> None:
    client, user = register(app)
    name = unique()
    bodies = {
        "logout": None,
        "login": {"email": user["email"], "password": PASSWORD},
        "register": {"username": name, "email": f"{name}@people.example", "password": PASSWORD},
    }
    asking = client if cookie else app.test_client()
    answer = asking.post(f"/authentication/{path}", json=bodies[path], headers=headers)
    assert (answer.status_code == 403) is refused
    assert ("Set-Cookie" in answer.headers) is not refused
    if refused:
        assert answer.json["code"] == "foreign_origin"
        assert client.get(ME).status_code == 200


def test_signing_out_while_a_session_is_extended_is_no_error(
    app: Flask, sql: psycopg.Connection, database_url: str
) -> None:
    client, user = register(app)
    of_user = "login_sessions WHERE user_id = %s"
    sql.execute(
        "UPDATE login_sessions SET expires_at = now() + interval '5 minutes' WHERE user_id = %s",
        (user["id"],),
    )
    got: list[TestResponse] = []
    asking = threading.Thread(target=lambda: got.append(client.get(ME)))
    with psycopg.connect(database_url) as other:
        other.execute(f"DELETE FROM {of_user}", (user["id"],))
        asking.start()
        waits_for_lock(sql)
    asking.join(20)
    assert [answer.status_code for answer in got] == [200]
    assert client.get(ME).status_code == 401


def test_foreign_pages_cannot_use_trusted_headers_either(
    app: Flask, sql: psycopg.Connection
) -> None:
    email = f"{unique()}@sql.example"
    insert_user(sql, email=email)
    headers = {"x-doubleword-user": email, "Origin": "https://evil.example"}
    answer = app.test_client().post(f"{ADMIN}/session/organization", json={}, headers=headers)
    assert (answer.status_code, answer.json["code"]) == (403, "foreign_origin")


@pytest.fixture(scope="module")
def closed(environ: dict[str, str]) -> Iterator[Flask]:
    with app_with(environ, auth__native__enabled="false") as app:
        yield app


class TestSwitchedOff:
    def test_nothing_is_open(self, closed: Flask) -> None:
        client = closed.test_client()
        for path in ("register", "login"):
            assert client.get(f"/authentication/{path}").json["enabled"] is False
        body = {"username": "x", "email": "x@y.example", "password": PASSWORD}
        for path in ("register", "login"):
            answer = client.post(f"/authentication/{path}", json=body)
            assert answer.status_code == 400
            assert answer.json["message"] == "Native authentication is disabled"

    def test_cookies_are_no_credential(self, app: Flask, closed: Flask) -> None:
        client, _ = register(app)
        other = closed.test_client()
        other.set_cookie("dwctl_session", cookie_of(client))
        assert other.get(ME).status_code == 401

    def test_registration_alone_can_be_closed(self, environ: dict[str, str]) -> None:
        with app_with(environ, auth__native__allow_registration="false") as app:
            assert app.test_client().get("/authentication/register").json == {
                "enabled": False,
                "message": "Registration is disabled",
            }
            body = {"username": "x", "email": "x@y.example", "password": PASSWORD}
            answer = app.test_client().post("/authentication/register", json=body)
            assert answer.json["message"] == "User registration is disabled"


class TestThrottled:
    @pytest.fixture
    def narrow(self, environ: dict[str, str]) -> Iterator[Flask]:
        limits = {
            "auth__native__throttle__sign_ins_per_minute": "3",
            "auth__native__throttle__registrations_per_minute": "1",
            "auth__native__throttle__failures_per_account_per_minute": "2",
        }
        with app_with(environ, **limits) as app:
            yield app

    @staticmethod
    def post(app: Flask, path: str, body: dict[str, str], address: str) -> tuple[int, str | None]:
        answer = app.test_client().post(
            f"/authentication/{path}", json=body, environ_overrides={"REMOTE_ADDR": address}
        )
        if answer.status_code == 429:
            assert answer.json["error"] == "too_many_requests"
            assert 1 <= int(answer.headers["Retry-After"]) <= 60
            assert answer.json["retry_after_seconds"] == int(answer.headers["Retry-After"])
        return answer.status_code, answer.headers.get("Retry-After")

    def test_an_address_may_try_so_often(self, app: Flask, narrow: Flask) -> None:
        _, user = register(app)
        good = {"email": user["email"], "password": PASSWORD}
        assert [self.post(narrow, "login", good, "203.0.113.1")[0] for _ in range(4)] == [200, 200, 200, 429]  # fmt: skip
        assert self.post(narrow, "login", good, "203.0.113.2")[0] == 200

    def test_of_an_account_only_failures_of_the_same_address_count(
        self, app: Flask, narrow: Flask
    ) -> None:
        _, user = register(app)
        good = {"email": user["email"], "password": PASSWORD}
        bad = good | {"password": "wrong", "email": user["email"].upper()}
        # One subscriber, at three addresses of the same /64.
        here = ("2001:db8::1", "2001:db8::2", "2001:db8::3")
        tries = [self.post(narrow, "login", bad, address)[0] for address in here]
        assert tries == [401, 401, 429]
        assert self.post(narrow, "login", good, "2001:db8::4")[0] == 429
        assert self.post(narrow, "login", good, "203.0.113.10")[0] == 200

    def test_an_account_is_counted_in_whatever_spelling_it_is_found_by(
        self, app: Flask, narrow: Flask
    ) -> None:
        """Python's lower case of the Turkish `İ` are two characters, the database's is `i`."""
        browser, user = app.test_client(), unique("mimi")
        body = {"username": user, "email": f"{user}@x.example", "password": PASSWORD}
        assert browser.post("/authentication/register", json=body).status_code == 201
        spellings = [user, user.replace("i", "İ"), user.replace("i", "İ", 1)]
        good = [{"email": f"{name}@x.example", "password": PASSWORD} for name in spellings]
        assert [self.post(app, "login", one, "203.0.113.70")[0] for one in good] == [200] * 3
        tries = [self.post(narrow, "login", one | {"password": "x"}, "203.0.113.71")[0] for one in good]  # fmt: skip
        assert tries == [401, 401, 429]

    def test_an_account_under_attack_leaves_each_address_one_try(self, app: Flask, environ: dict[str, str]) -> None:  # fmt: skip
        _, user = register(app)
        good = {"email": user["email"], "password": PASSWORD}
        bad = good | {"password": "wrong"}
        with app_with(environ, auth__native__throttle__failures_per_account_per_hour="3") as slow:
            for n in range(3):
                assert self.post(slow, "login", bad, f"203.0.113.{50 + n}")[0] == 401
            tries = [self.post(slow, "login", bad, "203.0.113.60")[0] for _ in range(2)]
            assert tries == [401, 429]
            assert self.post(slow, "login", good, "203.0.113.61")[0] == 200

    def test_a_hundred_guesses_at_once_are_verified_as_often_as_allowed(
        self, app: Flask, narrow: Flask
    ) -> None:
        _, user = register(app)
        bad = {"email": user["email"], "password": "wrong"}
        with ThreadPoolExecutor(20) as pool:
            tries = pool.map(lambda _: self.post(narrow, "login", bad, "100.64.0.1")[0], range(30))
            assert sorted(tries).count(401) == 2

    def test_registrations_are_counted_by_address(self, narrow: Flask) -> None:
        def body() -> dict[str, str]:
            name = unique()
            return {"username": name, "email": f"{name}@x.example", "password": PASSWORD}

        assert self.post(narrow, "register", body(), "203.0.113.30")[0] == 201
        assert self.post(narrow, "register", body(), "203.0.113.30")[0] == 429

    def test_a_minute_later_all_is_forgiven(self, narrow: Flask, sql: psycopg.Connection) -> None:
        body = {"email": f"{unique()}@x.example", "password": "x"}
        address = "203.0.113.40"
        statuses = [self.post(narrow, "login", body, address)[0] for _ in range(3)]
        sql.execute("UPDATE sign_in_attempts SET began_at = began_at - interval '61 seconds'")
        assert statuses == [401, 401, 429]
        assert self.post(narrow, "login", body, address)[0] == 401
