"""Migrations back and forth on a database that is in use."""

from __future__ import annotations

from typing import Any

import psycopg
from flask import Flask


def run(app: Flask, *arguments: str) -> None:
    done = app.test_cli_runner().invoke(args=["db", *arguments])
    assert done.exit_code == 0, done.output


def test_a_version_can_be_gone_back_to_and_taken_again(
    app: Flask, sql: psycopg.Connection[Any]
) -> None:
    sql.execute(
        "INSERT INTO fusillade.requests (id, model, state, canceled_at) VALUES (gen_random_uuid(), 'm', 'canceled', now())"
    )
    run(app, "downgrade", "0003")
    run(app, "upgrade")
    run(app, "check")
    assert sql.execute("SELECT count(*) FROM fusillade.requests").fetchall() == [(1,)]
