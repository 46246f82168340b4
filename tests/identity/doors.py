"""Ways into the API for tests: by trusted header, by cookie, by key."""

from __future__ import annotations

import hashlib
import secrets
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.applications import application
from tests.cast import Cast
from tests.processes import eventually

ADMIN = "/admin/api/v1"
NIL = "00000000-0000-0000-0000-000000000000"
NOBODY = "11111111-1111-4111-8111-111111111111"
PASSWORD = "a-good-password"

USER_FIELDS = {
    "id", "username", "email", "display_name", "avatar_url", "is_admin", "roles", "created_at", "updated_at", "last_login",
    "auth_source", "external_user_id", "has_payment_provider_id", "batch_notifications_enabled", "low_balance_threshold",
    "auto_topup_amount", "auto_topup_threshold", "has_auto_topup_payment_method", "auto_topup_monthly_limit", "user_type",
    "zero_data_retention", "log_sample",
}  # fmt: skip


@dataclass
class Doors:
    """Calls the admin API as somebody of the cast."""

    app: Flask

    def __call__(self, who: str | None, method: str, path: str, json: Any = None, **more: Any) -> TestResponse:  # fmt: skip
        headers = {**(Cast.headers(who) if who else {}), **more.pop("headers", {})}
        # No cookie crosses from one call to the next.
        client = self.app.test_client(use_cookies=False)
        return client.open(ADMIN + path, method=method, json=json, headers=headers, **more)

    def with_key(self, secret: str, path: str = "/users/current", **headers: str) -> TestResponse:
        return self(None, "GET", path, headers={"Authorization": f"Bearer {secret}", **headers})


def unique(prefix: str = "u") -> str:
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


def register(app: Flask, name: str | None = None) -> tuple[FlaskClient, dict[str, Any]]:
    """A new person with the password PASSWORD, signed in by cookie."""
    client, name = app.test_client(), name or unique()
    body = {"username": name, "email": f"{name}@people.example", "password": PASSWORD}
    answer = client.post("/authentication/register", json=body)
    assert answer.status_code == 201, answer.text
    return client, answer.json["user"]


def log_in(app: Flask, email: str, password: str = PASSWORD) -> tuple[FlaskClient, TestResponse]:
    client = app.test_client()
    body = {"email": email, "password": password}
    return client, client.post("/authentication/login", json=body)


def cookie_of(client: FlaskClient) -> str:
    cookie = client.get_cookie("dwctl_session")
    assert cookie
    return cookie.value


def insert_user(sql: psycopg.Connection, *roles: str, **columns: Any) -> UUID:
    """A user by SQL, with as few columns as an operator would give."""
    name = unique()
    columns = {"username": name, "email": f"{name}@sql.example", **columns}
    names, marks = ", ".join(columns), ", ".join(["%s"] * len(columns))
    row = sql.execute(
        f"INSERT INTO users ({names}) VALUES ({marks}) RETURNING id", list(columns.values())
    ).fetchone()
    assert row
    for role in roles or ("STANDARDUSER",):
        sql.execute("INSERT INTO user_roles (user_id, role) VALUES (%s, %s)", (row[0], role))
    return row[0]


def insert_organization(sql: psycopg.Connection, **members: UUID) -> UUID:
    """An organisation whose keyword arguments name a role and who has it."""
    organization = insert_user(sql, user_type="organization", auth_source="organization")
    for role, user_id in members.items():
        sql.execute(
            "INSERT INTO user_organizations (user_id, organization_id, role) VALUES (%s, %s, %s)",
            (user_id, organization, role),
        )
    return organization


def insert_key(
    sql: psycopg.Connection, creator: UUID, owner: UUID | None = None, purpose: str = "platform"
) -> str:
    """A key by SQL; gives its secret."""
    secret = "sk-" + secrets.token_urlsafe(32)
    sql.execute(
        "INSERT INTO api_keys (name, user_id, created_by, purpose, secret_hash) VALUES (%s, %s, %s, %s, %s)",
        (unique("key"), owner or creator, creator, purpose, hashlib.sha256(secret.encode()).digest()),
    )  # fmt: skip
    return secret


def waits_for_lock(sql: psycopg.Connection, how_many: int = 1) -> None:
    """Until that many others of this database wait for somebody's lock."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    eventually(lambda: sql.execute(waiting).fetchone() == (how_many,))


@contextmanager
def app_with(environ: dict[str, str], **settings: str) -> Iterator[Flask]:
    """Another application on the same database; `auth__native__enabled="false"` changes a setting."""
    more = {f"DWCTL_{name.upper()}": value for name, value in settings.items()}
    with application(environ | more) as made:
        yield made
