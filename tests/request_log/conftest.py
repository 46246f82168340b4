"""A log of the test's own, written as the recorder writes it, and readers."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
import pytest
from flask import Flask

from dwctl.clock import uuid7
from tests.cast import Cast
from tests.identity.doors import Doors, insert_user, unique

Entry = dict[str, Any]
LOG = "/requests"


@dataclass
class Log:
    """Writes calls by SQL."""

    sql: psycopg.Connection[Any]

    def __post_init__(self) -> None:
        self._numbers = itertools.count()

    def call(self, *, ago_s: float = 0.0, at: float | None = None, **columns: Any) -> UUID:
        """A call that arrived so long ago."""
        at = time.time() - ago_s if at is None else at
        values = {
            "request_id": uuid7(at),
            "method": "POST",
            "uri": "/chat/completions",
            "model": "m",
            "status_code": 200,
            "duration_ms": 10,
            **columns,
        }
        names, marks = ", ".join(values), ", ".join(f"%({name})s" for name in values)
        self.sql.execute(
            f"INSERT INTO http_analytics (timestamp, {names}) VALUES (to_timestamp(%(at)s), {marks})",
            values | {"at": at},
        )
        id: UUID = values["request_id"]
        return id

    def tracked(self, request: str, response: str, **columns: Any) -> UUID:
        """A call with a row in the queue's tables, where its bodies stand."""
        id = self.call(**columns)
        self.sql.execute("SET dwctl.queue = own")
        values = {"id": id, "request": request, "response": response}
        self.sql.execute(
            "INSERT INTO fusillade.request_templates (id, endpoint, method, path, body, model, body_byte_size, single)"
            " VALUES (%(id)s, '', 'POST', '/v1/chat/completions', %(request)s, 'm', octet_length(%(request)s), true)",
            values,
        )
        self.sql.execute(
            "INSERT INTO fusillade.requests (id, batch_id, template_id, model, state, service_tier, claimed_at, started_at, response_status,"
            " response_body, response_size, completed_at)"
            " VALUES (%(id)s, %(id)s, %(id)s, 'm', 'completed', 'priority', now(), now(), 200, %(response)s, octet_length(%(response)s), now())",
            values,
        )
        return id


@pytest.fixture
def log(sql: psycopg.Connection[Any]) -> Log:
    sql.execute("TRUNCATE http_analytics")
    return Log(sql)


@pytest.fixture
def call(app: Flask, cast: Cast) -> Doors:
    return Doors(app)


Ask = Callable[..., Any]


@pytest.fixture
def ask(call: Doors) -> Ask:
    """The body of a success."""

    def ask(path: str = LOG, who: str = "viewer", **query: Any) -> Any:
        answer = call(who, "GET", path, query_string=query)
        assert answer.status_code == 200, answer.text
        return answer.json

    return ask


@pytest.fixture
def person(sql: psycopg.Connection[Any]) -> Callable[..., tuple[str, UUID]]:
    """Somebody of one test's own: the name by which they call, and their id."""

    def make(*roles: str) -> tuple[str, UUID]:
        name = unique()
        email = f"{name}@cast.example"
        return name, insert_user(sql, *roles, username=name, email=email, external_user_id=email)

    return make


def ids(body: Any) -> list[UUID]:
    return [UUID(entry["request_id"]) for entry in body["entries"]]
