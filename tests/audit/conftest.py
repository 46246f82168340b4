"""What the audit log holds, as tests ask it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from flask import Flask
from psycopg.rows import dict_row
from werkzeug.test import TestResponse

from tests.cast import Cast
from tests.identity.doors import Doors

Entry = dict[str, Any]
Entries = Callable[[TestResponse], list[Entry]]


@pytest.fixture
def call(app: Flask, cast: Cast) -> Doors:
    return Doors(app)


@pytest.fixture
def entries(sql: psycopg.Connection[Any]) -> Entries:
    """The entries of one answer's request, in their order."""

    def find(answer: TestResponse) -> list[Entry]:
        assert answer.status_code < 400, answer.text
        rows = sql.cursor(row_factory=dict_row).execute(
            "SELECT * FROM audit_log WHERE request_id = %s ORDER BY id",
            (answer.headers["x-request-id"],),
        )
        return rows.fetchall()

    return find
