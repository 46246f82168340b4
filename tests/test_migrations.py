"""Migrations back and forth on a database that is in use."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
from flask import Flask

from tests.processes import eventually

MIGRATION_LOCK = 0x6477_6374_6C00


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


def test_an_index_whose_building_was_interrupted_is_built_again(
    app: Flask, sql: psycopg.Connection[Any]
) -> None:
    run(app, "downgrade", "0022")
    # What an interruption leaves.
    sql.execute("CREATE INDEX api_keys_listed_idx ON api_keys (user_id)")
    sql.execute(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'api_keys_listed_idx'::regclass"
    )
    run(app, "upgrade")
    found = sql.execute(
        "SELECT indisvalid, indnatts FROM pg_index WHERE indexrelid = 'api_keys_listed_idx'::regclass"
    )
    assert found.fetchall() == [(True, 3)]


def test_limits_that_meant_nothing_become_none(app: Flask, sql: psycopg.Connection[Any]) -> None:
    run(app, "downgrade", "0008")
    (user,) = sql.execute("SELECT id FROM users LIMIT 1").fetchone()  # type: ignore[misc]  # the system is one
    model = (
        "INSERT INTO deployed_models (model_name, alias, created_by, is_composite, requests_per_second, burst_size, capacity,"
        " batch_capacity, lb_strategy, fallback_max_attempts, fallback_on_status)"
        " VALUES ('m', %s, %s, true, %s, %s, %s, %s, %s, %s, %s)"
    )
    key = (
        "INSERT INTO api_keys (name, user_id, created_by, hidden, purpose, requests_per_second, burst_size)"
        " VALUES (%s, %s, %s, true, %s, %s, %s)"
    )
    fine = (0.5, 1, 2, 3, "priority", 4, [5, 42, 599])
    nothing = (None, None, None, None, "weighted_random", None, [429, 500, 502, 503, 504])
    cases = {
        "fine": (fine, fine),
        "zero": ((0, 0, 0, 0, "other", 0, [0]), nothing),
        "below": ((-1, -1, -1, -1, "", -1, [600]), nothing),
        "none": (("NaN", None, None, None, "x", None, [500, None]), nothing),
        "endless": (("Infinity", 1, 2, 3, "x", 4, []), (None, 1, 2, 3, "weighted_random", 4, [])),
    }
    for name, (given, _) in cases.items():
        sql.execute(model, (name, user, *given))
    for purpose, rate, burst in (("batch", "NaN", 0), ("playground", 0.5, 1)):
        sql.execute(key, (purpose, user, user, purpose, rate, burst))
    run(app, "upgrade")
    rows = sql.execute(
        "SELECT alias, requests_per_second, burst_size, capacity, batch_capacity, lb_strategy, fallback_max_attempts, fallback_on_status"
        " FROM deployed_models"
    ).fetchall()
    assert {row[0]: row[1:] for row in rows} == {name: kept for name, (_, kept) in cases.items()}
    keys = sql.execute("SELECT name, requests_per_second, burst_size FROM api_keys ORDER BY name")
    assert keys.fetchall() == [("batch", None, None), ("playground", 0.5, 1)]


def test_an_index_whose_building_was_broken_off_is_built_anew(
    app: Flask, sql: psycopg.Connection[Any]
) -> None:
    shown = "SELECT indexdef FROM pg_indexes WHERE indexname = 'api_keys_listed_idx'"
    right = sql.execute(shown).fetchall()
    run(app, "downgrade", "0022")
    sql.execute("CREATE INDEX api_keys_listed_idx ON api_keys (name)")
    run(app, "upgrade")
    assert sql.execute(shown).fetchall() == right


def test_keys_that_have_expired_stay_shut_in_a_version_without_expiry(
    app: Flask, sql: psycopg.Connection[Any]
) -> None:
    sql.execute(
        "INSERT INTO api_keys (name, user_id, created_by, secret_hash, expires_at)"
        " SELECT name, u.id, u.id, name::bytea, now() + make_interval(hours => hours)"
        " FROM (SELECT id FROM users LIMIT 1) u, (VALUES ('over', -1), ('living', 1)) v (name, hours)"
    )
    run(app, "downgrade", "0021")
    shown = sql.execute(
        "SELECT name FROM api_keys WHERE NOT is_deleted AND name IN ('over', 'living')"
    )
    assert shown.fetchall() == [("living",)]
    run(app, "upgrade")


def test_a_release_waits_for_another_one_without_a_snapshot(
    app: Flask, sql: psycopg.Connection[Any]
) -> None:
    sql.execute("SELECT pg_advisory_lock(%s)", (MIGRATION_LOCK,))
    with ThreadPoolExecutor(1) as threads:
        release = threads.submit(run, app, "upgrade")
        asking = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND query LIKE '%pg_try_advisory_lock%'"
        )
        eventually(lambda: sql.execute(asking).fetchone() != (0,))
        waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        assert sql.execute(waits).fetchone() == (0,)
        assert not release.done()
        sql.execute("SELECT pg_advisory_unlock(%s)", (MIGRATION_LOCK,))
        release.result(30)
