"""The sums over HTTP: whose they are, what is refused, how they look."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from flask.testing import FlaskClient

from dwctl.usage import folding
from tests.cast import Cast
from tests.identity.doors import insert_key, insert_organization, unique
from tests.usage.deltas import NOBODY, add

ADMIN = "/admin/api/v1"
AGGREGATE, BY_USER, USAGE = (f"{ADMIN}/{path}" for path in ("requests/aggregate", "requests/aggregate-by-user", "usage"))  # fmt: skip
NOW = datetime.now(UTC)
HOUR_AGO = NOW - timedelta(hours=1)

Sql = psycopg.Connection[Any]


@pytest.fixture(autouse=True)
def _nothing_there(sql: Sql, cast: Cast) -> None:
    sql.execute("TRUNCATE usage_deltas, account_rollups, caller_rollups, model_rollups, latency_histograms, batch_usage")  # fmt: skip


def ask(client: FlaskClient, path: str, who: str = "admin", *, acting_for: UUID | None = None, **query: Any) -> Any:  # fmt: skip
    headers = Cast.headers(who)
    if acting_for:
        headers["X-Organization-Id"] = str(acting_for)
    return client.get(path, headers=headers, query_string=query)


def key_of(sql: Sql, creator: UUID, owner: UUID) -> UUID:
    insert_key(sql, creator, owner)
    row = sql.execute("SELECT id FROM api_keys WHERE created_by = %s AND user_id = %s", (creator, owner)).fetchone()  # fmt: skip
    assert row
    found: UUID = row[0]
    return found


# --- empty


def test_without_calls_everything_is_there_and_nothing(client: FlaskClient) -> None:
    shown = ask(client, AGGREGATE).json
    assert (shown["total_requests"], shown["status_codes"], shown["cost"]) == (0, [], "0")
    assert "models" not in shown
    assert "model" not in shown
    assert len(shown["time_series"]) == 25
    hours = {point["timestamp"][14:] for point in shown["time_series"]}
    assert hours == {"00:00Z"}
    for point in shown["time_series"]:
        assert (point["duration_minutes"], point["requests"], point["input_tokens"]) == (60, 0, 0)
        assert {point[f"{what}_latency_ms"] for what in ("avg", "p50", "p95", "p99")} == {None}
    users = ask(client, BY_USER, model="x").json
    assert (users["model"], users["total_requests"], users["total_cost"], users["users"]) == ("x", 0, None, [])  # fmt: skip
    assert ask(client, USAGE, "alice").json == {
        "total_input_tokens": 0,
        "total_output_tokens": 0,
        "total_request_count": 0,
        "total_batch_count": 0,
        "avg_requests_per_batch": 0.0,
        "batch_request_count": 0,
        "total_cost": "0",
        "estimated_realtime_cost": "0",
        "by_model": [],
    }
    assert ask(client, f"{AGGREGATE}/export").data == b""
    assert ask(client, f"{USAGE}/export", "alice", format="csv").data.count(b"\n") == 1


# --- what is shown


def test_calls_are_shown_by_status_by_model_and_over_time(sql: Sql, client: FlaskClient) -> None:
    for status, model in ((200, "a"), (200, "a"), (429, "a"), (200, "b"), (404, "")):
        add(sql, HOUR_AGO, status_code=status, model=model)
    shown_before = []
    for _ in range(2):
        shown = ask(client, AGGREGATE, timestamp_before=NOW.isoformat()).json
        assert [(s["status"], s["count"], s["percentage"]) for s in shown["status_codes"]] == [("200", 3, 60.0), ("404", 1, 20.0), ("429", 1, 20.0)]  # fmt: skip
        assert [(m["model"], m["count"], m["errors"], m["avg_latency_ms"]) for m in shown["models"]] == [("a", 3, 1, 100.0), ("b", 1, 0, 100.0)]  # fmt: skip
        assert sum(point["requests"] for point in shown["time_series"]) == shown["total_requests"] == 5  # fmt: skip
        assert (shown["errors"], shown["cost"], shown["p95_latency_ms"]) == (2, "0.500000000000000", 101.8)  # fmt: skip
        only = ask(client, AGGREGATE, model="a").json
        assert (only["model"], only["total_requests"], "models" in only) == ("a", 3, False)
        shown_before.append(shown)
        folding.fold(sql, 100)
    assert shown_before[0] == shown_before[1]


@pytest.mark.parametrize(
    ("since", "until", "minutes", "points"),
    [
        ("2026-01-01T10:07:00Z", "2026-01-01T11:00:00Z", 10, 6),
        ("2026-01-01T10:07:00Z", "2026-01-02T10:07:00Z", 60, 25),
        ("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z", 1440, 31),
        ("0001-01-01T00:00:00Z", "9999-12-31T00:00:00Z", 13 * 10_080, 924),
        ("2026-01-01T12:00:00+02:00", "2026-01-01T11:00:00Z", 10, 6),
        # A plus that was not encoded is a space.
        ("2026-01-01T12:00:00 02:00", "2026-01-01T11:00:00Z", 10, 6),
        ("2026-01-01T10:00:00Z", "2026-01-01T10:00:00Z", 10, 0),
    ],
)  # fmt: skip
def test_points_become_longer_with_the_time(
    client: FlaskClient, since: str, until: str, minutes: int, points: int
) -> None:
    answer = client.get(f"{AGGREGATE}?timestamp_after={since.replace('+', '%2B')}&timestamp_before={until}", headers=Cast.headers("admin"))  # fmt: skip
    assert answer.status_code == 200, answer.text
    series = answer.json["time_series"]  # type: ignore[index]
    assert len(series) == points
    assert {point["duration_minutes"] for point in series} <= {minutes}


def test_users_of_a_model_by_calls(sql: Sql, cast: Cast, client: FlaskClient) -> None:
    alice, gone = cast["alice"], uuid4()
    for user, status in ((alice, 200), (alice, 500), (gone, 200), (NOBODY, 200)):
        add(sql, HOUR_AGO, user_id=user, status_code=status, cost=Decimal("0.25") if user == alice else 0)  # fmt: skip
    add(sql, HOUR_AGO, user_id=alice, model="other")
    shown = ask(client, BY_USER, model="m").json
    assert (shown["total_requests"], shown["total_tokens"], shown["total_cost"]) == (3, 45, 0.5)
    first, second = shown["users"]
    assert (first["user_id"], first["user_email"], first["request_count"], first["total_cost"]) == (str(alice), "alice@cast.example", 2, 0.5)  # fmt: skip
    assert first["last_active_at"] == HOUR_AGO.isoformat().replace("+00:00", "Z")
    assert (second["user_id"], second["user_email"], second["total_cost"]) == (str(gone), None, None)  # fmt: skip


def test_usage_is_of_what_succeeded_and_priced_as_of_today_too(
    sql: Sql, cast: Cast, client: FlaskClient
) -> None:
    alice, alias = cast["alice"], unique("m")
    sql.execute(
        "WITH m AS (INSERT INTO deployed_models (model_name, alias, created_by, is_composite) VALUES ('m', %s, %s, true) RETURNING id)"
        " INSERT INTO model_tariffs (deployed_model_id, name, input_price_per_token, output_price_per_token, api_key_purpose)"
        " SELECT id, purpose, price, price * 2, purpose FROM m, (VALUES ('realtime', 0.001), ('playground', 0.5)) p(purpose, price)",
        (alias, alice),
    )
    old = NOW - timedelta(days=300)
    for at, model, status in ((HOUR_AGO, alias, 200), (old, alias, 201), (HOUR_AGO, alias, 500), (HOUR_AGO, "", 200), (HOUR_AGO, "free", 200)):  # fmt: skip
        add(sql, at, user_id=alice, model=model, status_code=status, cost=0 if model == "free" else Decimal("0.015"))  # fmt: skip
    add(sql, HOUR_AGO, user_id=cast["bob"])
    for batch, owner, requests, created in ((uuid4(), alice, 3, HOUR_AGO), (uuid4(), alice, 0, HOUR_AGO), (uuid4(), alice, 2, old), (uuid4(), cast["bob"], 5, HOUR_AGO)):  # fmt: skip
        sql.execute("INSERT INTO fusillade.batches (id, created_by, created_at, expires_at, requests_started_at, total_requests) VALUES (%s, %s, %s, now(), now(), 1)", (batch, str(owner), created))  # fmt: skip
        sql.execute("INSERT INTO batch_usage VALUES (%s, %s, 0, 0, 0, 0, 0, 0, 0, 0)", (batch, requests))  # fmt: skip
    shown = ask(client, USAGE, "alice", refresh="true").json
    assert shown == {
        "total_input_tokens": 30,
        "total_output_tokens": 15,
        "total_request_count": 3,
        "total_batch_count": 2,
        "avg_requests_per_batch": 1.5,
        "batch_request_count": 5,
        "total_cost": "0.030000000000000",
        "estimated_realtime_cost": "0.04000000",
        "by_model": [
            {"model": alias, "input_tokens": 20, "output_tokens": 10, "reasoning_tokens": 0, "cached_tokens": 0, "cost": "0.030000000000000", "request_count": 2},
            {"model": "free", "input_tokens": 10, "output_tokens": 5, "reasoning_tokens": 0, "cached_tokens": 0, "cost": "0", "request_count": 1},
        ],
    }  # fmt: skip
    lately = ask(client, USAGE, "alice", start_date=(NOW - timedelta(days=1)).isoformat()).json
    assert (lately["total_request_count"], lately["total_cost"], lately["total_batch_count"]) == (2, "0.01500000", 1)  # fmt: skip


# --- whose


def test_usage_of_an_organisation_and_of_its_members(sql: Sql, cast: Cast, client: FlaskClient) -> None:  # fmt: skip
    alice, bob, viewer = cast["alice"], cast["bob"], cast["viewer"]
    organization = insert_organization(sql, owner=alice, member=bob)
    elsewhere = insert_organization(sql, member=alice, owner=viewer)
    of_bob, of_alice = key_of(sql, bob, organization), key_of(sql, alice, organization)
    for owner, key in ((organization, of_bob), (organization, of_bob), (organization, of_alice), (bob, uuid4()), (elsewhere, key_of(sql, viewer, elsewhere))):  # fmt: skip
        add(sql, HOUR_AGO, user_id=owner, api_key_id=key)

    def calls(who: str, **query: Any) -> Any:
        answer = ask(client, USAGE, who, **query)
        return answer.json["total_request_count"] if answer.status_code == 200 else answer.status_code  # fmt: skip

    assert calls("bob") == 1
    assert calls("bob", acting_for=organization) == 3
    assert calls("bob", user_id=organization) == 3
    assert calls("bob", user_id=alice) == 403
    # Who manages sees what a member used in the organisation's name, not what is the member's own.
    assert calls("alice", user_id=bob) == 2
    assert calls("alice", user_id=organization) == 3
    assert calls("alice", user_id=elsewhere) == 1
    assert calls("alice", user_id=viewer) == 403
    assert calls("alice", user_id=uuid4()) == 403
    assert calls("biller", user_id=organization) == 403
    for everybody in ("admin", "viewer"):
        assert calls(everybody, user_id=bob) == 1
        assert calls(everybody, user_id=organization) == 3
    lines = ask(client, f"{USAGE}/export", "alice", user_id=bob, by="key").data.splitlines()
    assert [json.loads(line)["api_key_id"] for line in lines] == [str(of_bob)]


# --- refused


@pytest.mark.parametrize(
    ("path", "query", "field"),
    [
        (AGGREGATE, {"timestamp_after": "nonsense"}, "timestamp_after"),
        (AGGREGATE, {"timestamp_after": "NaN"}, "timestamp_after"),
        (AGGREGATE, {"timestamp_before": "2026-02-30"}, "timestamp_before"),
        (AGGREGATE, {"timestamp_before": "1e400"}, "timestamp_before"),
        (AGGREGATE, {"timestamp_after": "2026-01-02T00:00:00Z", "timestamp_before": "2026-01-01T00:00:00Z"}, "timestamp_after"),
        (AGGREGATE, {"duration_minutes": "7"}, "duration_minutes"),
        (AGGREGATE, {"duration_minutes": "NaN"}, "duration_minutes"),
        (AGGREGATE, {"model": "a\x00b"}, "model"),
        (f"{AGGREGATE}/export", {"by": "colour"}, "by"),
        (f"{AGGREGATE}/export", {"by": ","}, "by"),
        (f"{AGGREGATE}/export", {"format": "xml"}, "format"),
        (BY_USER, {}, "Model parameter is required"),
        (BY_USER, {"model": ""}, "Model parameter is required"),
        (BY_USER, {"model": "m", "start_date": "2026-01-02", "end_date": "2026-01-01"}, "start_date"),
        (USAGE, {"start_date": "2026-01-02T00:00:00Z", "end_date": "2026-01-01T00:00:00Z"}, "start_date"),
        (USAGE, {"end_date": "tomorrow"}, "end_date"),
        (USAGE, {"user_id": "me"}, "user_id"),
        (USAGE, {"refresh": "yes"}, "refresh"),
        (f"{USAGE}/export", {"by": "user"}, "by"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(client: FlaskClient, path: str, query: dict[str, str], field: str) -> None:  # fmt: skip
    answer = ask(client, path, **query)
    assert answer.status_code == 400, answer.text
    assert field in answer.text


@pytest.mark.parametrize(
    "query",
    [
        {"model": "%"}, {"model": "x" * 512}, {"model": "'; --"}, {"model": "{of_model}"}, {"timestamp_after": "2999-01-01T00:00:00Z"}, {"timestamp_before": "1969-01-01"},
        {"timestamp_after": "0001-01-01T00:00:00+14:00"}, {"timestamp_before": "9999-12-31T23:59:59.999999Z"}, {"duration_minutes": "1", "timestamp_after": "1970-01-01"},
    ],
)  # fmt: skip
def test_what_is_odd_finds_nothing(client: FlaskClient, query: dict[str, str]) -> None:
    for path in (AGGREGATE, f"{AGGREGATE}/export"):
        answer = ask(client, path, **query)
        assert answer.status_code == (400 if "+14:00" in str(query) else 200), answer.text
    assert len(ask(client, AGGREGATE, **query).json.get("time_series", [])) <= 1001


# --- downloads


def test_downloads_tell_apart_by_what_is_asked_for(sql: Sql, cast: Cast, client: FlaskClient) -> None:  # fmt: skip
    at = datetime(2026, 1, 1, 10, 7, tzinfo=UTC)
    for model, status in (("=1+1", 200), ("a", 200), ("a", 500)):
        add(sql, at, user_id=cast["alice"], model=model, status_code=status)
    whole = {"timestamp_after": "2026-01-01T00:00:00Z", "timestamp_before": "2026-01-02T00:00:00Z", "duration_minutes": "1440"}  # fmt: skip
    lines = ask(client, f"{AGGREGATE}/export", by="model,status", **whole)
    assert lines.content_type == "application/x-ndjson"
    rows = [json.loads(line) for line in lines.data.splitlines()]
    assert [(row["model"], row["status_code"], row["requests"]) for row in rows] == [("=1+1", 200, 1), ("a", 200, 1), ("a", 500, 1)]  # fmt: skip
    assert rows[0] == {
        "timestamp": "2026-01-01T00:00:00Z",
        "model": "=1+1",
        "status_code": 200,
        "requests": 1,
        "errors": 0,
        "input_tokens": 10,
        "output_tokens": 5,
        "reasoning_tokens": 0,
        "cached_tokens": 0,
        "total_tokens": 15,
        "cost": "0.100000000000000",
        "avg_latency_ms": 100.0,
        "duration_minutes": 1440,
    }
    table = ask(client, f"{AGGREGATE}/export", by="model", format="csv", **whole)
    assert table.headers["Content-Disposition"] == 'attachment; filename="requests.csv"'
    cells = list(csv.DictReader(io.StringIO(table.text)))
    assert [(row["model"], row["requests"]) for row in cells] == [("'=1+1", "1"), ("a", "2")]
    mine = ask(client, f"{USAGE}/export", "alice", start_date="2026-01-01", end_date="2026-01-02").data.splitlines()  # fmt: skip
    assert [(row["model"], row["requests"]) for row in map(json.loads, mine)] == [("=1+1", 1), ("a", 1)]  # fmt: skip


@pytest.mark.parametrize("minutes", [1, 10, 60, 1440, 10080])
def test_a_download_finds_what_lies_behind_a_long_time_without_calls(sql: Sql, cast: Cast, client: FlaskClient, minutes: int) -> None:  # fmt: skip
    calls = [datetime(2025, 1, 2, 3, 4, tzinfo=UTC), datetime(2025, 12, 31, 23, 59, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 3, 1, 12, tzinfo=UTC)]  # fmt: skip
    for number, at in enumerate(calls):
        add(sql, at, user_id=cast["alice"], model=f"m{number}")
        if number == 2:
            folding.fold(sql, 100)
    whole = {"timestamp_after": "2024-12-01T00:00:00Z", "timestamp_before": "2026-03-02T00:00:00Z", "duration_minutes": minutes}  # fmt: skip
    for path, more in ((f"{AGGREGATE}/export", whole), (f"{USAGE}/export", {"user_id": cast["alice"], "start_date": whole["timestamp_after"], "end_date": whole["timestamp_before"]})):  # fmt: skip
        rows = [json.loads(line) for line in ask(client, path, by="model", **more).data.splitlines()]  # fmt: skip
        assert [(row["model"], row["requests"]) for row in rows] == [("m0", 1), ("m1", 1), ("m2", 1), ("m3", 1)]  # fmt: skip
