"""What the queue says of itself, over the routes; rows are written by SQL, as recorders, uploads and operators leave them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient

from dwctl.clock import uuid7
from dwctl.db import Connections
from dwctl.monitoring import queue_depth, requests
from dwctl.monitoring.queue_depth import DepthMetrics
from dwctl.monitoring.requests import Filters
from dwctl.queue.identifiers import line_id
from dwctl.web import current
from tests.cast import Cast
from tests.downloads.batches import Written

AI, ADMIN = "/ai/v1", "/admin/api/v1"
COUNTS = ADMIN + "/monitoring/pending-request-counts"
REQUESTS = ADMIN + "/batches/requests"
TABLES = (
    "requests, batches, request_templates, files, ready, delayed, inflight, queues, model_slots, open_calls, daemons, "
    "file_models, batch_models, finished_lines"
)


@pytest.fixture(autouse=True)
def _nothing_there(sql: psycopg.Connection, cast: Cast) -> None:
    sql.execute("TRUNCATE " + ", ".join(f"fusillade.{name}" for name in TABLES.split(", ")))  # type: ignore[arg-type]
    sql.execute("DELETE FROM http_analytics")


def get(client: FlaskClient, path: str, who: str = "admin", **query: Any) -> Any:
    return client.get(path, headers=Cast.headers(who), query_string=query)


def single(
    sql: psycopg.Connection,
    owner: UUID,
    *,
    state: str = "pending",
    model: str = "m",
    window: str = "1h",
    tier: str = "flex",
    age_s: float = 0.0,
) -> UUID:
    """A single request as the recorder writes it, with what it has in the queue's own tables."""
    sql.execute("SET dwctl.queue = own")
    # Ids are ordered by milliseconds.
    time.sleep(0.002)
    id = uuid7()
    values = {"id": id, "owner": str(owner), "model": model, "window": window, "tier": tier, "state": state, "age": age_s}  # fmt: skip
    runs = "now()" if state in ("processing", "completed") else "NULL"
    for statement in (
        "INSERT INTO fusillade.request_templates (id, endpoint, method, path, body, model, single) VALUES (%(id)s, '', 'POST', '/v1/responses', '{\"q\":1}', %(model)s, true)",
        "INSERT INTO fusillade.batches (id, created_by, completion_window, created_at, expires_at, total_requests, single) VALUES (%(id)s, %(owner)s, %(window)s::text, "
        "now() - %(age)s * interval '1 second', now() - %(age)s * interval '1 second' + %(window)s::text::interval, 1, true)",
        "INSERT INTO fusillade.requests (id, batch_id, template_id, model, state, service_tier, created_at, daemon_id, claimed_at, started_at, response_status, response_body, completed_at, error, failed_at) "
        "VALUES (%(id)s, %(id)s, %(id)s, %(model)s, %(state)s::text, %(tier)s, now() - %(age)s * interval '1 second', "
        f"CASE WHEN %(state)s::text = 'processing' THEN gen_random_uuid() END, {runs}, {runs}, "
        "CASE WHEN %(state)s::text = 'completed' THEN 200 ELSE 500 END, '{}', now() + interval '25 milliseconds', 'it broke', now())",
    ):
        sql.execute(statement, values)  # type: ignore[arg-type]
    if state == "pending":
        sql.execute(
            "INSERT INTO fusillade.ready (model, created_by, deadline, id, batch_id) SELECT r.model, b.created_by, b.expires_at, r.id, b.id "
            "FROM fusillade.requests r JOIN fusillade.batches b ON b.id = r.id WHERE r.id = %s",
            (id,),
        )
        sql.execute(
            "INSERT INTO fusillade.queues (model, created_by, head_deadline) SELECT model, created_by, min(deadline) FROM fusillade.ready GROUP BY 1, 2 "
            "ON CONFLICT DO NOTHING"
        )
        sql.execute(
            "INSERT INTO fusillade.model_slots (model) VALUES (%s) ON CONFLICT DO NOTHING", (model,)
        )
    if state == "processing":
        sql.execute(
            "INSERT INTO fusillade.inflight (id, model, created_by, daemon_id) VALUES (%s, %s, %s, gen_random_uuid())",
            (id, model, str(owner)),
        )
    return id


def daemon(
    sql: psycopg.Connection, *, beat_s: float = 0, status: str = "running", kind: str = "worker"
) -> str:
    row = sql.execute(
        "INSERT INTO fusillade.daemons (status, hostname, pid, version, config_snapshot, started_at, last_heartbeat, stopped_at, requests_processed) "
        "VALUES (%s, 'h', 7, '1', jsonb_build_object('type', %s::text), now(), now() - %s * interval '1 second', CASE WHEN %s = 'dead' THEN now() END, 3) RETURNING id",
        (status, kind, beat_s, status),
    ).fetchone()
    assert row
    return str(row[0])


# --- processes


def test_a_process_without_a_beat_is_dead_and_times_that_are_not_there_are_left_out(
    client: FlaskClient, sql: psycopg.Connection
) -> None:
    web = daemon(sql, kind="onwards")
    silent, gone = daemon(sql, beat_s=3600), daemon(sql, status="dead")
    found = {entry["id"]: entry for entry in get(client, AI + "/daemons").json["daemons"]}
    assert {id: entry["status"] for id, entry in found.items()} == {
        web: "running", silent: "dead", gone: "dead",
    }  # fmt: skip
    assert found[web]["config"] == {"type": "onwards"}
    assert set(found[web]) == {
        "id", "status", "hostname", "pid", "version", "started_at", "last_heartbeat", "stats", "config",
    }  # fmt: skip
    assert isinstance(found[web]["started_at"], int)
    assert isinstance(found[gone]["stopped_at"], int)
    assert found[web]["stats"] == {
        "requests_processed": 3, "requests_failed": 0, "requests_in_flight": 0,
    }  # fmt: skip
    running = get(client, AI + "/daemons", status="running").json["daemons"]
    assert [entry["id"] for entry in running] == [web]
    assert get(client, AI + "/daemons", status="nonsense").status_code == 400


# --- pending counts


def test_nothing_pending_is_an_empty_object(client: FlaskClient) -> None:
    assert get(client, COUNTS).json == {}


def test_pending_requests_are_counted_by_the_window_within_which_they_are_due(
    client: FlaskClient, sql: psycopg.Connection, cast: Cast
) -> None:
    alice = cast["alice"]
    batch = Written(sql, alice, 5).run()
    batch.complete(0)
    sql.execute(
        "UPDATE fusillade.batch_models SET completed = 1 WHERE batch_id = %s", (batch.batch,)
    )
    single(sql, alice)
    single(sql, alice, model="n", state="processing", age_s=7200)
    single(sql, alice, model="n", state="completed")
    single(sql, alice, model="n", window="48h")
    assert get(client, COUNTS).json == {"m": {"1h": 1, "24h": 5}, "n": {"1h": 1, "24h": 1}}
    sql.execute("UPDATE fusillade.batches SET cancelling_at = now() WHERE id = %s", (batch.batch,))
    assert get(client, COUNTS).json["m"] == {"1h": 1, "24h": 1}


def test_of_batches_made_by_hand_all_but_priority_requests_are_counted(
    client: FlaskClient, sql: psycopg.Connection
) -> None:
    sql.execute("RESET dwctl.queue")
    for window, tier in (("24h", None), ("1h", None), ("0s", "priority")):
        batch, template = uuid.uuid4(), uuid.uuid4()
        sql.execute(
            "INSERT INTO fusillade.request_templates (id, endpoint, method, path, model) VALUES (%s, '', 'POST', '/v1/responses', 'hand')",
            (template,),
        )
        sql.execute(
            "INSERT INTO fusillade.batches (id, created_by, completion_window, expires_at) VALUES (%s, 'x', %s, now() + %s::interval)",
            (batch, window, window),
        )
        sql.execute(
            "INSERT INTO fusillade.requests (id, batch_id, template_id, model, service_tier) VALUES (%s, %s, %s, 'hand', %s)",
            (uuid.uuid4(), batch, template, tier),
        )
    assert get(client, COUNTS).json == {"hand": {"1h": 1, "24h": 2}}


def test_depth_is_shown_by_model_and_foreign_names_under_one_label(
    app: Flask, sql: psycopg.Connection, cast: Cast
) -> None:
    single(sql, cast["alice"], age_s=90)
    single(sql, cast["alice"], state="processing")
    single(sql, cast["bob"], model="nobody's\n", age_s=30)
    connections: Connections = current.parts(app).connections
    metrics = {
        (family.name, *labels): value
        for family in DepthMetrics(connections).collect({"m"})
        for labels, value in family.rows
    }
    assert {
        key: value for key, value in metrics.items() if key[0] != "dwctl_queue_oldest_seconds"
    } == {
        ("dwctl_queue_pending", "m"): 2,
        ("dwctl_queue_pending", "(other)"): 1,
        ("dwctl_queue_running", "m"): 1,
        ("dwctl_queue_running", "(other)"): 0,
    }
    assert 89 < metrics["dwctl_queue_oldest_seconds", "m"] < 150
    assert 29 < metrics["dwctl_queue_oldest_seconds", "(other)"] < 89
    with connections.transaction() as connection:
        assert queue_depth.by_model(connection)["nobody's\n"].pending == 1


# --- requests of all batches


def test_requests_are_listed_with_what_they_used(
    client: FlaskClient, sql: psycopg.Connection, cast: Cast
) -> None:
    id = single(sql, cast["alice"], state="completed")
    [found] = get(client, REQUESTS, "alice").json["data"]
    unlogged = ("prompt_tokens", "completion_tokens", "reasoning_tokens", "total_tokens", "total_cost")  # fmt: skip
    assert [found[name] for name in unlogged] == [None] * 5
    row = sql.execute("SELECT created_at FROM fusillade.requests WHERE id = %s", (id,)).fetchone()
    assert row
    sql.execute(
        "INSERT INTO http_analytics (request_id, timestamp, method, uri, status_code, duration_ms, prompt_tokens, completion_tokens, total_tokens, total_cost) "
        "VALUES (%s, %s, 'POST', '/x', 200, 25, 9, 3, 12, 0.5)",
        (id, row[0]),
    )
    page = get(client, REQUESTS, "alice").json
    assert {name: page[name] for name in ("total_count", "skip", "limit")} == {
        "total_count": 1, "skip": 0, "limit": 10,
    }  # fmt: skip
    [found] = page["data"]
    assert found | {"created_at": "", "completed_at": "", "duration_ms": 0.0} == {
        "id": str(id), "batch_id": str(id), "model": "m", "status": "completed", "created_at": "", "completed_at": "", "failed_at": found["failed_at"],
        "duration_ms": 0.0, "response_status": 200, "service_tier": "flex", "prompt_tokens": 9, "completion_tokens": 3, "reasoning_tokens": 0,
        "total_tokens": 12, "total_cost": 0.5, "created_by_email": "alice@cast.example",
    }  # fmt: skip
    assert found["created_at"].endswith("Z")
    assert isinstance(found["duration_ms"], float)
    detail = get(client, f"{REQUESTS}/{id}", "alice").json
    assert detail == found | {
        "body": '{"q":1}', "response_body": "{}", "error": None, "completion_window": "1h", "batch_created_by": str(cast["alice"]),
    }  # fmt: skip


@pytest.fixture
def many(sql: psycopg.Connection, cast: Cast) -> dict[str, UUID]:
    """Requests in several states, of two owners, in this order of age; and a batch of three lines."""
    alice, bob = cast["alice"], cast["bob"]
    made = {
        "done": single(sql, alice, state="completed"),
        "waits": single(sql, alice),
        "waits too": single(sql, alice, model="n", window="24h"),
        "bob's": single(sql, bob, tier="priority", state="failed"),
        "failed": single(sql, alice, state="failed"),
        "runs": single(sql, alice, state="processing"),
        "done again": single(sql, alice, state="completed"),
    }
    time.sleep(0.002)
    batch = Written(sql, alice, 2, batch=uuid7()).run()
    time.sleep(0.002)
    batch.complete(1)
    made |= {"line 0": line_id(batch.batch, 0), "line 1": line_id(batch.batch, 1)}
    sql.execute(
        "INSERT INTO fusillade.ready (model, created_by, deadline, id, batch_id) VALUES ('m', %s, now(), %s, %s)",
        (str(alice), made["line 0"], batch.batch),
    )
    return made


LISTS = {
    "active first": ({}, ["runs", "line 0", "waits too", "waits", "line 1", "done again", "failed", "done"]),
    "newest first": ({"active_first": "false"}, ["line 1", "line 0", "done again", "runs", "failed", "waits too", "waits", "done"]),
    "a page over two groups": ({"skip": 2, "limit": 3}, ["waits too", "waits", "line 1"]),
    "a page behind two groups": ({"skip": 5, "limit": 2}, ["done again", "failed"]),
    "the last": ({"skip": 7}, ["done"]),
    "behind the end": ({"skip": 8}, []),
    "of a status": ({"status": "failed"}, ["failed"]),
    "of two": ({"status": "pending, failed"}, ["line 0", "waits too", "waits", "failed"]),
    "of a model": ({"model": "n,o"}, ["waits too"]),
    "of a tier": ({"service_tiers": "flex", "active_first": "false", "limit": 1}, ["done again"]),
    "of a window": ({"completion_window": "24h"}, ["line 0", "waits too", "line 1"]),
    "later than": ({"created_after": "2999-01-01T00:00:00Z"}, []),
    "earlier than": ({"created_before": "2999-01-01T00:00:00Z", "limit": 1}, ["runs"]),
}  # fmt: skip


@pytest.mark.parametrize(("query", "expected"), LISTS.values(), ids=LISTS)
def test_lists_are_filtered_and_ordered(
    client: FlaskClient, many: dict[str, UUID], query: Any, expected: list[str]
) -> None:
    answer = get(client, REQUESTS, "alice", **query)
    assert answer.status_code == 200, answer.data
    names = {str(id): name for name, id in many.items()}
    assert [names[entry["id"]] for entry in answer.json["data"]] == expected


def test_owners_see_their_own_and_managers_all(
    client: FlaskClient, many: dict[str, UUID], cast: Cast, sql: psycopg.Connection
) -> None:
    bobs = str(many["bob's"])
    assert [entry["id"] for entry in get(client, REQUESTS, "bob").json["data"]] == [bobs]
    assert get(client, REQUESTS, "admin").json["total_count"] == 9
    only = get(client, REQUESTS, "admin", member_id=str(cast["bob"])).json
    assert (only["total_count"], only["data"][0]["id"]) == (1, bobs)
    refused = get(client, REQUESTS, "alice", member_id=str(cast["bob"]))
    assert refused.status_code == 400
    assert refused.json["message"] == "member_id filter requires platform manager permissions"
    assert get(client, f"{REQUESTS}/{bobs}", "alice").status_code == 404
    assert get(client, f"{REQUESTS}/{bobs}", "admin").json["error"] == "it broke"
    assert get(client, REQUESTS, "alice", status="nonsense").status_code == 400
    sql.execute("UPDATE fusillade.batches SET deleted_at = now() WHERE id = %s", (bobs,))
    assert get(client, REQUESTS, "bob").json["total_count"] == 0
    gone = get(client, f"{REQUESTS}/{bobs}", "bob")
    assert (gone.status_code, gone.json["message"]) == (
        404,
        f"BatchRequest with ID {bobs} not found",
    )


WALKS = {name: case for name, case in LISTS.items() if case[0].get("active_first") == "false"}


@pytest.mark.parametrize(("query", "expected"), WALKS.values(), ids=WALKS)
@pytest.mark.parametrize("made", ["populated", "by hand"])
def test_a_search_by_batches_finds_what_the_walk_finds(
    app: Flask,
    many: dict[str, UUID],
    cast: Cast,
    sql: psycopg.Connection,
    query: Any,
    expected: list[str],
    made: str,
) -> None:
    if made == "by hand":
        sql.execute("UPDATE fusillade.batches SET populated_lines = 0")
    filters = Filters(
        owner=str(cast["alice"]), tiers=("flex",) if "service_tiers" in query else None
    )
    connections: Connections = current.parts(app).connections
    names = {id: name for name, id in many.items()}
    found: list[UUID] = []
    for statement in ("walk", "search"):
        with connections.transaction() as connection:
            text, values = requests._statement(statement, filters)
            values |= {"skip": 0, "limit": query.get("limit", 10)}
            found = [row[0] for row in connection.execute(text, values).fetchall()]
        assert [names[id] for id in found] == expected


# --- progress


@pytest.fixture
def known(sql: psycopg.Connection) -> Iterator[None]:
    """A model of that name."""
    sql.execute(
        "INSERT INTO deployed_models (model_name, alias, created_by, is_composite) SELECT 'm', 'm', id, true FROM users LIMIT 1"
    )
    yield
    sql.execute("DELETE FROM deployed_models WHERE alias = 'm'")


@pytest.mark.usefixtures("known")
def test_progress_says_what_is_left_and_what_comes_before(
    client: FlaskClient, sql: psycopg.Connection, cast: Cast
) -> None:
    daemon(sql)
    before = Written(sql, cast["bob"], 7).run()
    sql.execute("UPDATE fusillade.batches SET expires_at = now() WHERE id = %s", (before.batch,))
    batch = Written(sql, cast["alice"], 5).run()
    batch.complete(0, 1)
    batch.fail(2)
    sql.execute(
        "UPDATE fusillade.batch_models SET completed = 2, failed = 1 WHERE batch_id = %s",
        (batch.batch,),
    )
    sql.execute(
        "UPDATE fusillade.requests SET completed_at = now() - interval '10 seconds' WHERE batch_id = %s AND state = 'completed'",
        (batch.batch,),
    )
    found = get(client, f"{AI}/batches/{batch.batch}/progress", "alice").json
    assert found["requests"] == {
        "total": 5, "prepared": 5, "running": 0, "completed": 2, "failed": 1, "cancelled": 0, "remaining": 2,
    }  # fmt: skip
    assert found["lines_ahead"] == 7
    assert found["limited_by"] == "waiting_for_worker"
    assert 0.15 < found["lines_per_second"] <= 0.2
    assert found["estimated_in_time"] is True
    assert found["models"][0] | {"concurrency": 0} == {
        "model": "m", "requests": 5, "remaining": 2, "lines_ahead": 7, "in_flight": 0, "concurrency": 0,
        "limited_by": "waiting_for_worker", "paused_until": None,
    }  # fmt: skip
    batch.end()
    over = get(client, f"{AI}/batches/{batch.batch}/progress", "alice").json
    assert (over["limited_by"], over["estimated_end_at"], over["requests"]["remaining"]) == (
        None,
        None,
        0,
    )
    assert get(client, f"{AI}/batches/{batch.batch}/progress", "bob").status_code == 404


LIMITS = {
    "no worker": ("UPDATE fusillade.daemons SET last_heartbeat = now() - interval '1 hour'", "no_worker"),
    "no credit": ("INSERT INTO fusillade.queues (model, created_by, head_deadline, paused_until, pause_reason) VALUES ('m', %(owner)s, now(), now() + interval '1 minute', 'no_credit')", "no_credit"),
    "a pause that is over": ("INSERT INTO fusillade.queues (model, created_by, head_deadline, paused_until, pause_reason) VALUES ('m', %(owner)s, now(), now() - interval '1 minute', 'no_credit')", "waiting_for_worker"),
    "upstream pressure": ("INSERT INTO fusillade.model_slots (model, paused_until, pause_reason) VALUES ('m', now() + interval '1 minute', 'upstream_pressure')", "upstream_pressure"),
    "concurrency": ("INSERT INTO fusillade.inflight (id, model, created_by, daemon_id) SELECT gen_random_uuid(), 'm', 'x', gen_random_uuid() FROM generate_series(1, 10)", "concurrency"),
    "a model that is gone": ("UPDATE deployed_models SET deleted = true WHERE alias = 'm' OR %(owner)s = ''", "model_unknown"),
    "not prepared": ("UPDATE fusillade.batches SET populated_lines = 0, requests_started_at = NULL", "preparing"),
}  # fmt: skip


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(("change", "expected"), LIMITS.values(), ids=LIMITS)
def test_progress_names_what_holds_a_batch_up(
    client: FlaskClient, sql: psycopg.Connection, cast: Cast, change: str, expected: str
) -> None:
    daemon(sql)
    batch = Written(sql, cast["alice"], 2).run()
    sql.execute(change, {"owner": str(cast["alice"])})  # type: ignore[arg-type]
    found = get(client, f"{AI}/batches/{batch.batch}/progress", "alice").json
    assert found["limited_by"] == expected


# --- who may


ROLES = {
    "/ai/v1/daemons": {"admin": 200, "alice": 403, "viewer": 403, "biller": 403},
    COUNTS: {"admin": 200, "alice": 403, "viewer": 403, "biller": 403},
    REQUESTS: {"admin": 200, "alice": 200, "viewer": 403, "biller": 403},
    f"{REQUESTS}/018f0000-0000-7000-8000-00000000dead": {"admin": 404, "alice": 404, "viewer": 403, "biller": 403},
    "/ai/v1/batches/018f0000-0000-7000-8000-00000000dead/progress": {"admin": 404, "alice": 404, "viewer": 403, "biller": 403},
}  # fmt: skip


@pytest.mark.parametrize("path", ROLES)
def test_roles_see_what_they_may(client: FlaskClient, path: str) -> None:
    assert {who: get(client, path, who).status_code for who in ROLES[path]} == ROLES[path]
    assert client.get(path).status_code == 401


def test_refusals_name_the_permission(client: FlaskClient) -> None:
    message = get(client, AI + "/daemons", "alice").json["error"]["message"]
    assert message == "Insufficient permissions to Read System"
