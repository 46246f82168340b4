"""Who may do what to whose batches, by which way in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from werkzeug.test import TestResponse

from tests.batches.desk import Desk
from tests.identity.doors import (
    NOBODY,
    insert_key,
    insert_organization,
    insert_user,
    register,
    unique,
)

Way = Callable[..., TestResponse]
ROUTES: dict[str, tuple[str, str, Any, int]] = {
    "get": ("GET", "/batches/{id}", None, 200),
    "analytics": ("GET", "/batches/{id}/analytics", None, 200),
    "cancel": ("POST", "/batches/{id}/cancel", None, 200),
    "retry": ("POST", "/batches/{id}/retry", None, 400),
    "retry-requests": ("POST", "/batches/{id}/retry-requests", {"request_ids": ["x"]}, 400),
    "delete": ("DELETE", "/batches/{id}", None, 204),
}
"""What each route answers to whoever may use it on a batch of which no line has failed."""


@dataclass
class Scene:
    """A person, their organisation, and the ways in which they and others come."""

    desk: Desk
    person: UUID
    organization: UUID
    model: str
    ways: dict[str, Way]

    def batch(self, owner: UUID) -> str:
        """A batch of that owner's, by SQL."""
        id: UUID = self.desk.one(
            "INSERT INTO fusillade.batches (created_by, expires_at, requests_started_at, total_requests) VALUES (%s, now() + interval '1 day', now(), 1) RETURNING id",
            str(owner),
        )
        return str(id)


@pytest.fixture(scope="module")
def scene(desk: Desk) -> Scene:
    def user(*roles: str) -> tuple[UUID, str]:
        email = f"{unique('person')}@roles.example"
        return insert_user(desk.sql, *roles, email=email, external_user_id=email), email

    batch_user = ("STANDARDUSER", "BATCHAPIUSER")
    person, email = user(*batch_user)
    organization = insert_organization(desk.sql, member=person)
    cookie, signed_in = register(desk.app)
    for role in batch_user:
        desk.sql.execute("INSERT INTO user_roles (user_id, role) VALUES (%s, %s) ON CONFLICT DO NOTHING", (signed_in["id"], role))  # fmt: skip
    desk.sql.execute("INSERT INTO user_organizations (user_id, organization_id, role) VALUES (%s, %s, 'member')", (signed_in["id"], organization))  # fmt: skip

    def by_header(email: str, **headers: str) -> Way:
        return by({"x-doubleword-user": email, **headers})

    def by_key(owner: UUID, purpose: str, creator: UUID = person) -> Way:
        return by({"Authorization": f"Bearer {insert_key(desk.sql, creator, owner, purpose)}"})

    def by(headers: dict[str, str]) -> Way:
        client = desk.app.test_client(use_cookies=False)
        return lambda method, path, json: client.open(
            f"/ai/v1{path}", method=method, json=json, headers=headers
        )

    def by_cookie(**headers: str) -> Way:
        return lambda method, path, json: cookie.open(
            f"/ai/v1{path}", method=method, json=json, headers=headers
        )

    context = {"X-Organization-Id": str(organization)}
    ways = {
        "header": by_header(email),
        "header in the organisation": by_header(email, **context),
        "session in the organisation": by_cookie(**context),
        "session of another": by_cookie(),
        "realtime key": by_key(person, "realtime"),
        "batch key": by_key(person, "batch"),
        "organisation's key": by_key(organization, "realtime"),
        "platform key": by_key(person, "platform"),
        "another user": by_header(user(*batch_user)[1]),
        "manager": by_header("admin@cast.example"),
        "connections user": by_header(user("CONNECTIONSUSER")[1]),
        "standard user": by_header(user("STANDARDUSER")[1]),
        "nobody": by({}),
    }
    return Scene(desk, person, organization, desk.model(), ways)


ALLOWED = {
    "header": {"own"},
    "header in the organisation": {"own", "organisation's"},
    "session in the organisation": {"organisation's"},
    "session of another": set(),
    "realtime key": {"own"},
    "batch key": {"own"},
    "organisation's key": {"own", "organisation's"},
    "another user": set(),
    "manager": {"own", "organisation's"},
    "connections user": set(),
}
FORBIDDEN = {"platform key": 403, "standard user": 403, "nobody": 401}
READS = {"get", "analytics"}


@pytest.mark.parametrize("way", [*ALLOWED, *FORBIDDEN])
def test_whose_batches_can_be_reached(scene: Scene, way: str) -> None:
    owners = {"own": scene.person, "organisation's": scene.organization}
    for owner, id in owners.items():
        for route, (method, path, body, status) in ROUTES.items():
            answer = scene.ways[way](method, path.format(id=scene.batch(id)), body)
            expected = FORBIDDEN.get(way, status if owner in ALLOWED.get(way, ()) else 404)
            if way == "connections user" and route not in READS:
                expected = 403
            assert answer.status_code == expected, (owner, route, answer.text)
            missing = scene.ways[way](method, path.format(id=NOBODY), body)
            assert missing.status_code == (expected if expected in (401, 403) else 404), route


@pytest.mark.parametrize("way", [*ALLOWED, *FORBIDDEN])
def test_who_makes_and_lists_batches(scene: Scene, way: str) -> None:
    desk = scene.desk
    files = {
        "own": desk.file(scene.person, scene.model),
        "organisation's": desk.file(scene.organization, scene.model),
    }
    for owner, file in files.items():
        body = {
            "input_file_id": str(file),
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
        }
        answer = scene.ways[way]("POST", "/batches", body)
        expected = FORBIDDEN.get(way, 201 if owner in ALLOWED.get(way, ()) else 403)
        assert answer.status_code == expected, (owner, answer.text)
    own, shared = scene.batch(scene.person), scene.batch(scene.organization)
    listed = scene.ways[way]("GET", "/batches?limit=100", None)
    if way in FORBIDDEN:
        assert listed.status_code == FORBIDDEN[way]
        return
    seen = {batch["id"] for batch in listed.json["data"]} & {own, shared}
    in_context = "organisation" in way
    expected_ids = {shared} if in_context else {own} if "own" in ALLOWED[way] else set()
    assert seen == ({own, shared} if way == "manager" else expected_ids)
