"""Migrations back and forth on a database that is in use."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
from flask import Flask

from dwctl.usage import folding
from dwctl.usage.verification import CHECKS
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
    # Its question is over at once; what is seen of it afterwards is the end of its transaction.
    asked = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND (query LIKE '%%pg_try_advisory_lock%%' OR query = 'COMMIT') AND query_start > %s"
    )
    waits = "SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()"
    began = sql.execute("SELECT clock_timestamp()").fetchone()
    with ThreadPoolExecutor(1) as threads:
        release = threads.submit(run, app, "upgrade")
        try:
            eventually(lambda: sql.execute(asked, began).fetchone() != (0,))
            assert sql.execute(waits).fetchone() == (0,)
            assert not release.done()
        finally:
            sql.execute("SELECT pg_advisory_unlock(%s)", (MIGRATION_LOCK,))
        release.result(30)


def test_sums_by_ten_minutes_become_exact_sums_and_back(
    app: Flask, sql: psycopg.Connection[Any]
) -> None:
    run(app, "downgrade", "0024")
    sql.execute(
        "INSERT INTO usage_rollups (bucket, model, user_id, requests, succeeded, prompt_tokens, completion_tokens, duration_ms, cost, last_at)"
        " SELECT date_bin('10 minutes', now(), 'epoch') - n * interval '10 minutes', 'm' || n % 3, '00000000-0000-0000-0000-000000000000', n, n / 2, n * 10, n, n * 100,"
        " n * 0.5, date_bin('10 minutes', now(), 'epoch') - n * interval '10 minutes' + interval '5 minutes' FROM generate_series(1, 300) n"
    )
    kept = "SELECT * FROM usage_rollups ORDER BY bucket, model"
    before = sql.execute(kept).fetchall()
    run(app, "upgrade")
    assert sql.execute(kept).fetchall() == []
    # Some are added to the sums before it is gone back to, some are not.
    folded = folding.fold(sql, 200)
    assert folded == 200
    run(app, "downgrade", "0024")
    assert sql.execute(kept).fetchall() == before
    run(app, "upgrade")
    folding.fold(sql, 1000)
    calls = sql.execute("SELECT sum(calls) FROM account_rollups GROUP BY grain").fetchall()
    assert calls == [(300 * 301 // 2,)] * 4
    sql.execute("TRUNCATE account_rollups, caller_rollups, model_rollups, latency_histograms")


def test_histograms_become_rows_by_slot_and_back(app: Flask, sql: psycopg.Connection[Any]) -> None:
    sql.execute("TRUNCATE latency_histograms, latency_rollups")
    sql.execute(
        "INSERT INTO usage_deltas (at, model, user_id, api_key_id, status_code, calls, prompt_tokens, completion_tokens, reasoning_tokens, cached_tokens,"
        " total_tokens, cost, duration_ms, ttfb_ms) SELECT now() - n * interval '7 minutes', 'm' || n % 3, gen_random_uuid(), gen_random_uuid(), 200, 1, 1, 1, 0, 0,"
        " 2, 0, n * n, nullif(n % 5, 0) FROM generate_series(0, 200) n"
    )
    folding.fold(sql, 1000)
    # What is taken back can come before it.
    sql.execute(
        "INSERT INTO latency_histograms (of_all, model, grain, bucket, durations, ttfbs) VALUES"
        " (false, 'early', 60, '2026-01-01Z', slot_histogram(30::smallint, 2) - slot_histogram(3::smallint, 1), slot_histogram(7::smallint, -1)),"
        " (false, 'full', 60, '2026-01-01Z', slot_histogram(1::smallint, 499999999999), 0)"
    )
    kept = "SELECT of_all, model, grain, bucket, sum(durations), sum(ttfbs) FROM latencies GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4"
    before = sql.execute(kept).fetchall()
    run(app, "downgrade", "0032")
    rows = sql.execute("SELECT sum(calls) FROM latency_rollups WHERE of_all AND measure = 'duration' GROUP BY grain").fetchall()  # fmt: skip
    assert rows == [(201,)] * 3
    early = "SELECT measure, slot, calls FROM latency_rollups WHERE model = 'early' ORDER BY 1, 2"
    assert sql.execute(early).fetchall() == [("duration", 3, -1), ("duration", 30, 2), ("ttfb", 7, -1)]  # fmt: skip
    run(app, "upgrade")
    assert sql.execute(kept).fetchall() == before
    folding.adopt_latencies(sql, 100_000)
    assert sql.execute(kept).fetchall() == before
    assert sql.execute("SELECT count(*) FROM latency_rollups").fetchone() == (0,)
    sql.execute("TRUNCATE account_rollups, caller_rollups, model_rollups, latency_histograms")


def test_sums_of_callers_are_made_of_those_there_are(app: Flask, sql: psycopg.Connection[Any]) -> None:  # fmt: skip
    """Also where a worker of the release before folds after the migration: it knows nothing of them."""
    sql.execute("TRUNCATE usage_deltas, account_rollups, caller_rollups, model_rollups, latency_histograms")  # fmt: skip
    run(app, "downgrade", "0035")
    delta = (
        "INSERT INTO usage_deltas (at, model, user_id, api_key_id, status_code, calls, prompt_tokens, completion_tokens, reasoning_tokens, cached_tokens,"
        " total_tokens, cost, duration_ms) SELECT now() - n * interval '7 minutes', 'm' || n % 3, uuid_in(md5('u' || n % 2)::cstring), uuid_in(md5('k' || n % 4)::cstring),"
        " 200 + n % 5 / 4 * 300, 1, n, 1, 0, 0, n + 1, n * 0.5, n FROM generate_series(0, 99) n"
    )
    sql.execute(delta)
    folding.fold(sql, 1000)
    run(app, "upgrade")
    sql.execute(delta)
    folding.fold(sql, 1000)
    for grain in (60, 3600, 86400):
        assert sql.execute(
            "SELECT sum(calls), sum(errors), sum(prompt_tokens), sum(total_tokens), sum(cost), sum(duration_ms) FROM caller_rollups WHERE grain = %s", (grain,)
        ).fetchone() == (200, 40, 2 * 4950, 2 * 5050, 4950, 2 * 4950)  # fmt: skip
    (differences,) = [check.statement for check in CHECKS if check.name == "usage_callers"]
    assert sql.execute(differences).fetchall() == []
    sql.execute("TRUNCATE account_rollups, caller_rollups, model_rollups, latency_histograms")


def test_indexes_of_claims_are_exchanged_while_some_are_under_way(
    app: Flask, sql: psycopg.Connection[Any]
) -> None:
    """A claim writes to queues, then to inflight; whoever ends a request, the other way round."""
    waits = (
        "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
        " WHERE NOT l.granted AND a.datname = current_database()"
    )
    run(app, "downgrade", "0036")
    for direction in (["downgrade", "0035"], ["upgrade"]):
        with ThreadPoolExecutor(1) as threads:
            with sql.transaction():
                sql.execute("SELECT fusillade.end_pauses()")
                release = threads.submit(run, app, *direction)
                eventually(lambda: sql.execute(waits).fetchone() != (0,))
                sql.execute("LOCK TABLE fusillade.inflight IN ROW EXCLUSIVE MODE")
            release.result(60)
    run(app, "check")
