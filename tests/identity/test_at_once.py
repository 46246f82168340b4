"""What is deleted while somebody changes it: real requests in parallel, on a real database."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from flask import Flask
from sqlalchemy import event
from werkzeug.test import TestResponse

from dwctl.db import db
from tests.identity.doors import Doors, insert_user, unique, waits_for_lock
from tests.identity.test_trusted_headers import come

Ask = Callable[[], TestResponse]


@pytest.fixture
def one_after_the_other(database_url: str, sql: psycopg.Connection) -> Callable[..., list[int]]:
    """Both wait for a row, in this order, before either goes on; their statuses."""

    def run(row: str, id: object, first: Ask, second: Ask) -> list[int]:
        with ThreadPoolExecutor(2) as pool:
            with psycopg.connect(database_url) as other:
                other.execute(f"SELECT 1 FROM {row} WHERE id = %s FOR UPDATE", (id,))
                running = []
                for ask in (first, second):
                    running.append(pool.submit(ask))
                    waits_for_lock(sql, len(running))
            return [done.result().status_code for done in running]

    return run


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_a_group_that_is_going_is_not_found(
    call: Doors, one_after_the_other: Callable[..., list[int]], method: str
) -> None:
    id = call("admin", "POST", "/groups", {"name": unique("team")}).json["id"]
    body = {"description": "Late"} if method == "PATCH" else None
    statuses = one_after_the_other(
        "groups",
        id,
        lambda: call("admin", "DELETE", f"/groups/{id}"),
        lambda: call("admin", method, f"/groups/{id}", body),
    )
    assert statuses == [204, 404]


def test_who_is_being_deleted_gets_no_name_any_more(
    call: Doors, sql: psycopg.Connection, one_after_the_other: Callable[..., list[int]]
) -> None:
    id = insert_user(sql)
    statuses = one_after_the_other(
        "users",
        id,
        lambda: call("admin", "DELETE", f"/users/{id}"),
        lambda: call("admin", "PATCH", f"/users/{id}", {"display_name": "Ada"}),
    )
    assert statuses == [204, 404]
    shown = sql.execute("SELECT display_name FROM users WHERE id = %s", (id,))
    assert shown.fetchone() == (None,)


def test_who_is_being_deleted_gets_no_address_any_more(
    app: Flask, call: Doors, sql: psycopg.Connection, one_after_the_other: Callable[..., list[int]]
) -> None:
    name = unique("idp")
    id = come(app, name, f"{name}@before.example").json["id"]
    one_after_the_other(
        "users",
        id,
        lambda: call("admin", "DELETE", f"/users/{id}"),
        lambda: come(app, name, f"{name}@after.example"),
    )
    (email,) = sql.execute("SELECT email FROM users WHERE id = %s", (id,)).fetchone() or ("",)
    assert email == f"deleted-{id}@deleted.local"


@pytest.mark.parametrize(
    ("path", "table", "more", "status"),
    [
        ("groups", "groups", {}, 404),
        # Read before it was committed.
        ("endpoints", "inference_endpoints", {"url": "http://127.0.0.1:9", "sync": False}, 200),
    ],
)
def test_what_goes_right_after_its_change_is_no_fault(
    call: Doors, sql: psycopg.Connection, path: str, table: str, more: dict[str, Any], status: int
) -> None:
    id = call("admin", "POST", f"/{path}", {"name": unique(), **more}).json["id"]
    commits = []

    def delete(*_args: Any) -> None:
        commits.append(None)
        # The first one is that of signing in.
        if len(commits) == 2:
            sql.execute(f"DELETE FROM {table} WHERE id = %s", (id,))

    event.listen(db.session, "after_commit", delete)
    try:
        body = {"description": "Short-lived", **({"alias_mapping": {}} if more else {})}
        assert call("admin", "PATCH", f"/{path}/{id}", body).status_code == status
    finally:
        event.remove(db.session, "after_commit", delete)
