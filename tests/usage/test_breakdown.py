"""Calls told apart, over HTTP: every call counts once, whoever reads it and in whatever zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import psycopg
import pytest
from flask.testing import FlaskClient

from dwctl.usage import folding, points, spans
from tests.cast import Cast
from tests.identity.doors import insert_key
from tests.usage.deltas import NOBODY, add, today

ADMIN = "/admin/api/v1"
EVERYBODY, OWN = f"{ADMIN}/requests/breakdown", f"{ADMIN}/usage/breakdown"
ZONES = ("UTC", "Pacific/Auckland", "America/Los_Angeles", "Asia/Kolkata")
ALL_KEPT = {60: spans.EPOCH, 3600: spans.EPOCH, 86400: spans.EPOCH}

Sql = psycopg.Connection[Any]


@pytest.fixture(autouse=True)
def _nothing_there(sql: Sql, cast: Cast) -> None:
    sql.execute("TRUNCATE usage_deltas, account_rollups, model_rollups, latency_histograms, batch_usage")  # fmt: skip


def ask(client: FlaskClient, path: str = EVERYBODY, who: str = "admin", **query: Any) -> Any:
    return client.get(path, headers=Cast.headers(who), query_string=query)


def fold(sql: Sql) -> None:
    with sql.transaction():
        folding.fold(sql, most=1000)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def test_without_calls_there_are_points_and_no_rows(client: FlaskClient) -> None:
    shown = ask(client, compare="true").json
    assert (shown["rows"], shown["rest"], shown["series"]) == ([], None, [])
    assert (shown["total"]["requests"], shown["total"]["cost"]) == (0, "0")
    assert (shown["before"]["requests"], shown["before"]["cost"]) == (0, "0")
    assert len(shown["timestamps"]) == len(shown["errors"]) > 60


@pytest.mark.parametrize("by", ["model", "user", "key", "status", "group"])
def test_rows_and_rest_and_series_come_to_the_total(client: FlaskClient, sql: Sql, cast: Cast, by: str) -> None:  # fmt: skip
    insert_key(sql, cast["alice"], cast["alice"])
    key = sql.execute("SELECT id FROM api_keys WHERE user_id = %s", (cast["alice"],)).fetchone()[0]  # type: ignore[index]
    sql.execute("DELETE FROM groups WHERE name LIKE 'g %'")
    group = sql.execute("INSERT INTO groups (name, created_by) VALUES (%s, %s) RETURNING id", (f"g {by}", cast["admin"])).fetchone()[0]  # type: ignore[index]  # fmt: skip
    sql.execute("INSERT INTO user_groups (user_id, group_id) VALUES (%s, %s)", (cast["alice"], group))  # fmt: skip
    when = datetime.now(UTC) - timedelta(hours=2)
    for number in range(12):
        who, whose = [(cast["alice"], key), (cast["bob"], NOBODY), (NOBODY, NOBODY)][number % 3]
        add(sql, when, model=f"m{number}" if number else "", user_id=who, api_key_id=whose, status_code=(200, 500)[number % 2], cost=Decimal(number))  # fmt: skip
        if number == 5:
            fold(sql)
    shown = ask(client, by=by, limit=2, lines=1).json
    parts = [*shown["rows"], *filter(None, [shown["rest"]])]
    if by == "group":
        assert shown["rest"] is None
        assert [(row["id"], row["name"], row["requests"]) for row in shown["rows"]] == [(str(group), f"g {by}", 4)]  # fmt: skip
    else:
        assert sum(row["requests"] for row in parts) == 12
        assert sum(Decimal(row["cost"]) for row in parts) == 66
        lines = [Decimal(one) for line in shown["series"] for one in line["values"]]
        assert sum(lines) == 66
        assert [line["is_rest"] for line in shown["series"]] == [False, True]
    assert (shown["total"]["requests"], shown["total"]["errors"], Decimal(shown["total"]["cost"])) == (12, 6, 66)  # fmt: skip
    assert shown["rows"] == sorted(shown["rows"], key=lambda row: -Decimal(row["cost"]))
    if by == "user":
        assert {row["name"] for row in shown["rows"]} <= {"alice@cast.example", "bob@cast.example", None}  # fmt: skip
    if by == "model":
        assert [row["id"] for row in shown["rows"]] == ["m11", "m10"]
        assert shown["rows"][0]["p95_latency_ms"] == pytest.approx(100, rel=0.05)
        assert shown["total"]["p50_ttfb_ms"] == pytest.approx(10, rel=0.05)


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("folded", [False, True])
def test_a_day_is_the_readers_own(client: FlaskClient, sql: Sql, zone: str, folded: bool) -> None:
    """Calls a minute before and after each of the last midnights there: each day has one of its evening and one of its morning."""
    there = ZoneInfo(zone)
    midnights = [
        datetime.combine(day, datetime.min.time(), tzinfo=there).astimezone(UTC)
        for day in ((today() - timedelta(days=back)).date() for back in (3, 2, 1))
    ]
    for number, midnight in enumerate(midnights):
        add(sql, midnight - timedelta(minutes=1), cost=Decimal(1 + number))
        add(sql, midnight + timedelta(minutes=1), cost=Decimal(10 + number))
    if folded:
        fold(sql)
    shown = ask(client, start_date=(midnights[0] - timedelta(hours=5)).isoformat(), end_date=(midnights[-1] + timedelta(hours=5)).isoformat(), duration_minutes=1440, time_zone=zone).json  # fmt: skip
    assert [at(one) for one in shown["timestamps"][1:]] == midnights
    assert [Decimal(one) for one in shown["series"][0]["values"]] == [1, 12, 14, 12]
    assert Decimal(shown["total"]["cost"]) == 39


def test_where_minutes_are_gone_a_day_begins_with_an_hour_of_utc() -> None:
    kept = {60: datetime(2026, 3, 8, tzinfo=UTC), 3600: datetime(2026, 1, 1, tzinfo=UTC), 86400: spans.EPOCH}  # fmt: skip
    since, until = datetime(2026, 3, 5, tzinfo=UTC), datetime(2026, 3, 11, tzinfo=UTC)
    edges = points.edges(since, until, 1440, ZoneInfo("Asia/Kolkata"), kept)
    assert [f"{one:%d %H:%M}" for one in edges] == ["05 00:00", "05 18:00", "06 18:00", "07 18:00", "08 18:30", "09 18:30", "10 18:30", "11 00:00"]  # fmt: skip
    grains = spans.between(edges).spans
    assert all(span.since >= kept[60] for span in grains if span.grain == 60)
    assert all(one.until == other.since for one, other in pairwise(grains))


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("America/Los_Angeles", "2026-03-08", 23),
        ("America/Los_Angeles", "2026-11-01", 25),
        ("Pacific/Auckland", "2026-09-27", 23),
        ("America/Santiago", "2026-09-06", 23),
    ],
)
def test_a_day_has_the_hours_that_clocks_gave_it(zone: str, day: str, hours: int) -> None:
    noon = datetime.fromisoformat(f"{day}T12:00").replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
    edges = points.edges(noon - timedelta(days=3), noon + timedelta(days=3), 1440, ZoneInfo(zone), ALL_KEPT)  # fmt: skip
    lengths = {f"{begin.astimezone(ZoneInfo(zone)):%Y-%m-%d}": (end - begin) / timedelta(hours=1) for begin, end in pairwise(edges[1:-1])}  # fmt: skip
    assert lengths[day] == hours
    assert {length for when, length in lengths.items() if when != day} == {24}


def test_before_is_the_same_length_just_before(client: FlaskClient, sql: Sql) -> None:
    add(sql, today() - timedelta(hours=30), cost=Decimal(7))
    add(sql, today() - timedelta(hours=3), cost=Decimal(2))
    shown = ask(client, start_date=(today() - timedelta(days=1)).isoformat(), end_date=today().isoformat(), compare="true").json  # fmt: skip
    assert (Decimal(shown["total"]["cost"]), Decimal(shown["before"]["cost"])) == (2, 7)
    assert shown["before"]["end_date"] == shown["start_date"]


def test_ones_own_are_all_statuses_and_nobody_elses(client: FlaskClient, sql: Sql, cast: Cast) -> None:  # fmt: skip
    for who, status, cost in (("alice", 200, 1), ("alice", 499, 2), ("bob", 200, 40)):
        add(sql, datetime.now(UTC), user_id=cast[who], status_code=status, cost=Decimal(cost))
    shown = ask(client, OWN, "alice", by="status").json
    assert [(row["id"], Decimal(row["cost"])) for row in shown["rows"]] == [("499", 2), ("200", 1)]
    assert shown["total"]["p95_latency_ms"] is None
    assert ask(client, OWN, "alice", user_id=cast["bob"]).status_code == 403
    assert Decimal(ask(client, OWN, "viewer", user_id=cast["bob"]).json["total"]["cost"]) == 40


@pytest.mark.parametrize("who", ["alice", "biller"])
def test_everybodys_are_for_who_reads_analytics(client: FlaskClient, who: str) -> None:
    assert ask(client, who=who).status_code == 403
    assert ask(client, who="viewer").status_code == 200


@pytest.mark.parametrize(
    "query",
    [
        {"time_zone": "Europe/Nowhere"},
        {"time_zone": "../etc/passwd"},
        {"time_zone": ""},
        {"by": "colour"},
        {"order": "name"},
        {"duration_minutes": 7},
        {"limit": 201},
        {"start_date": "2020-01-01", "end_date": "2026-01-01"},
    ],
)
def test_what_cannot_be_meant_is_refused(client: FlaskClient, query: dict[str, Any]) -> None:
    assert ask(client, **query).status_code in (400, 422)


def test_a_name_cannot_leave_its_place(client: FlaskClient, sql: Sql) -> None:
    odd = "'; DROP TABLE users; -- {of} %(most)s"
    add(sql, datetime.now(UTC), model=odd, user_id=UUID(int=7))
    assert ask(client).json["rows"][0]["id"] == odd
    assert ask(client, model=odd, by="user").json["rows"][0]["name"] is None
