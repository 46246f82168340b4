"""Helpers for tests of the catalog's routes."""

import uuid
from collections.abc import Callable
from typing import Any
from uuid import UUID

import psycopg
import pytest
from flask.testing import FlaskClient

from tests.cast import Cast

ADMIN = "/admin/api/v1"


class Admin:
    """The platform manager at work; each call answers the response."""

    def __init__(self, client: FlaskClient) -> None:
        self._client = client
        self.headers = Cast.headers("admin")

    def get(self, path: str, **query: Any) -> Any:
        return self._client.get(ADMIN + path, query_string=query, headers=self.headers)

    def post(self, path: str, body: Any = None) -> Any:
        return self._client.post(ADMIN + path, json=body, headers=self.headers)

    def patch(self, path: str, body: Any) -> Any:
        return self._client.patch(ADMIN + path, json=body, headers=self.headers)

    def delete(self, path: str) -> Any:
        return self._client.delete(ADMIN + path, headers=self.headers)

    def endpoint(self, **more: Any) -> str:
        """The id of a new endpoint that nobody asks for models."""
        body = {"name": unique("server"), "url": "http://127.0.0.1:9/v1", "sync": False} | more
        answer = self.post("/endpoints", body)
        assert answer.status_code == 201, answer.json
        return str(answer.json["id"])

    def model(self, *, everyone: bool = False, **more: Any) -> dict[str, Any]:
        """A new standard model, on an endpoint of its own unless `hosted_on` says another."""
        body = {"type": "standard", "model_name": unique("model")} | more
        body.setdefault("hosted_on", self.endpoint())
        answer = self.post("/models", body)
        assert answer.status_code == 200, answer.json
        if everyone:
            self.post(f"/groups/{UUID(int=0)}/models/{answer.json['id']}")
        return dict(answer.json)


def unique(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def admin(client: FlaskClient, cast: Cast) -> Admin:
    return Admin(client)


@pytest.fixture
def group(sql: psycopg.Connection, cast: Cast) -> Callable[..., UUID]:
    """Makes a group with these members of the cast."""

    def make(*members: str) -> UUID:
        row = sql.execute(
            "INSERT INTO groups (name, created_by, source) VALUES (%s, %s, 'native') RETURNING id",
            (unique("group"), cast["admin"]),
        ).fetchone()
        assert row
        for member in members:
            sql.execute(
                "INSERT INTO user_groups (user_id, group_id) VALUES (%s, %s)",
                (cast[member], row[0]),
            )
        return UUID(str(row[0]))

    return make
