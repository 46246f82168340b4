"""Calls told apart, over HTTP: every call counts once, whoever reads it and in whatever zone."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from random import Random
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
    sql.execute("TRUNCATE usage_deltas, account_rollups, caller_rollups, model_rollups, latency_histograms, batch_usage")  # fmt: skip


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


@dataclass(frozen=True)
class _Made:
    """A call, as it was added to the sums."""

    at: datetime
    model: str
    user: UUID
    key: UUID
    status: int
    cost: Decimal
    tokens: int

    def told(self, by: str) -> str:
        found = {"user": self.user, "key": self.key, "model": self.model, "status": self.status}
        return str(self.status // 100 * 100 if by == "outcome" else found[by])


@pytest.fixture
def made(sql: Sql) -> list[_Made]:
    """Calls of twelve days: four accounts of up to three keys on five models. Half of them are in the sums, some have changed sums that were there."""
    sql.execute("INSERT INTO users (id, username, email) VALUES (%s, 'one', 'one@example.com') ON CONFLICT DO NOTHING", (UUID(int=1),))  # fmt: skip
    sql.execute("INSERT INTO api_keys (id, name, user_id, created_by, purpose, secret_hash) VALUES (%s, 'k', %s, %s, 'realtime', 'x') ON CONFLICT DO NOTHING", (UUID(int=16), UUID(int=1), UUID(int=1)))  # fmt: skip
    chance = Random(12)
    accounts = [UUID(int=n) for n in range(4)]
    calls = [
        _Made(
            today() + timedelta(hours=12) - timedelta(seconds=chance.randrange(12 * 86400)),
            f"m{chance.randrange(5)}",
            user := chance.choice(accounts),
            UUID(int=16 * user.int + chance.randrange(3)),
            chance.choice((200, 200, 200, 299, 429, 500, 502)),
            Decimal(chance.randrange(1000)) / 64,
            chance.randrange(100),
        )
        for _ in range(400)
    ]
    for number, call in enumerate(calls):
        add(sql, call.at, model=call.model, user_id=call.user, api_key_id=call.key, status_code=call.status, cost=call.cost, total_tokens=call.tokens)  # fmt: skip
        if number % 70 == 69:
            fold(sql)
    return calls


_NARROWED: Mapping[str, Callable[[_Made], bool]] = {
    "all": lambda call: True,
    "model": lambda call: call.model == "m1",
    "key": lambda call: call.key == UUID(int=16),
    "model and key": lambda call: call.model == "m1" and call.key == UUID(int=16),
    "account": lambda call: call.user == UUID(int=1),
    "account and model": lambda call: call.user == UUID(int=1) and call.model == "m1",
}


@pytest.mark.parametrize(
    ("narrowed", "by"),
    [
        (narrowed, by)
        for narrowed in _NARROWED
        for by in ("model", "user", "key", "status", "outcome")
        # An account's own usage is not told apart by accounts.
        if not (narrowed.startswith("account") and by == "user")
    ],
)
def test_it_is_what_counting_the_calls_says(client: FlaskClient, made: list[_Made], by: str, narrowed: str) -> None:  # fmt: skip
    """Rows, rest and each point of each line, however they are narrowed and ordered, in zones whose days are no days of UTC."""
    query = {
        "model": "m1" if "model" in narrowed else None,
        "api_key_id": UUID(int=16) if "key" in narrowed else None,
        "user_id": UUID(int=1) if "account" in narrowed else None,
    }
    path = OWN if "account" in narrowed else EVERYBODY
    for order, zone, minutes in (("cost", "Asia/Kathmandu", 1440), ("requests", "UTC", 360), ("tokens", "America/St_Johns", None)):  # fmt: skip
        since, until = today() - timedelta(days=9, hours=5), today() + timedelta(hours=7, minutes=13)  # fmt: skip
        shown = ask(client, path, by=by, order=order, time_zone=zone, duration_minutes=minutes, limit=3, lines=2,
                    start_date=since.isoformat(), end_date=until.isoformat(), **{k: v for k, v in query.items() if v}).json  # fmt: skip
        calls = [call for call in made if since <= call.at < until and _NARROWED[narrowed](call)]
        _is_counted(shown, calls, by, order)


def test_of_groups_each_has_the_calls_of_its_members(client: FlaskClient, sql: Sql, cast: Cast) -> None:  # fmt: skip
    """Alice is in two groups, bob in three: the third is behind the two that have lines. Failures count once."""
    sql.execute("DELETE FROM groups WHERE name LIKE 'g %'")
    members = {"g 1": ("alice", "bob"), "g 2": ("alice", "bob"), "g 3": ("bob",)}
    for name, people in members.items():
        (group,) = sql.execute("INSERT INTO groups (name, created_by) VALUES (%s, %s) RETURNING id", (name, cast["admin"])).fetchone()  # type: ignore[misc]  # fmt: skip
        for person in people:
            sql.execute("INSERT INTO user_groups (user_id, group_id) VALUES (%s, %s)", (cast[person], group))  # fmt: skip
    for hours, who, cost in (
        (3, "alice", 1),
        (3, "bob", 10),
        (27, "bob", 100),
        (27, "viewer", 1000),
    ):
        add(sql, today() - timedelta(hours=hours), user_id=cast[who], status_code=500, cost=Decimal(cost))  # fmt: skip
        if who == "alice":
            fold(sql)
    shown = ask(client, by="group", lines=2, duration_minutes=1440, start_date=(today() - timedelta(days=2)).isoformat(), end_date=today().isoformat()).json  # fmt: skip
    assert [(row["name"], Decimal(row["cost"])) for row in shown["rows"]] == [(shown["rows"][0]["name"], 111), (shown["rows"][1]["name"], 111), ("g 3", 110)]  # fmt: skip
    values = [[Decimal(one) for one in line["values"]] for line in shown["series"]]
    assert values == [[100, 11], [100, 11], [100, 10]]
    assert [line["is_rest"] for line in shown["series"]] == [False, False, True]
    assert (shown["errors"], shown["total"]["requests"]) == ([2, 2], 4)


def test_of_groups_there_are_fewer_points(client: FlaskClient) -> None:
    month = {"start_date": (today() - timedelta(days=30)).isoformat(), "end_date": today().isoformat()}  # fmt: skip
    widths = [ask(client, by=by, **month).json["duration_minutes"] for by in ("user", "group")]
    assert widths == [360, 1440]


@pytest.mark.parametrize(
    ("by", "days", "zone", "wanted", "minutes"),
    [
        ("user", 3, "UTC", 15, 15), ("user", 4, "UTC", 15, 60), ("user", 1, "UTC", 5, 5), ("user", 2, "UTC", 5, 15), ("user", 20, "UTC", 60, 60), ("user", 21, "UTC", 60, 360),
        # Points are made of 5,000 minutes, hours or days at most; those of groups, whose sums are their members', of 240.
        ("group", 7, "UTC", 60, 60), ("group", 10, "UTC", 60, 60), ("group", 11, "UTC", 60, 1440), ("group", 1, "UTC", 15, 60), ("group", 30, "UTC", 60, 1440),
        ("group", 30, "Asia/Kathmandu", 1440, 1440),
    ],
)  # fmt: skip
def test_points_are_longer_where_there_would_be_too_many(
    client: FlaskClient, by: str, days: int, zone: str, wanted: int, minutes: int
) -> None:
    time = {"start_date": (today() - timedelta(days=days)).isoformat(), "end_date": today().isoformat()}  # fmt: skip
    shown = ask(client, by=by, duration_minutes=wanted, time_zone=zone, **time).json
    assert shown["duration_minutes"] == minutes


def _is_counted(shown: Any, calls: list[_Made], by: str, order: str) -> None:
    worth = {"cost": lambda call: call.cost, "requests": lambda _: 1, "tokens": lambda call: call.tokens}[order]  # fmt: skip
    kinds = defaultdict(list)
    for call in calls:
        kinds[call.told(by)].append(call)
    ranked = sorted(kinds, key=lambda one: (-sum(map(worth, kinds[one])), -len(kinds[one]), one))
    rows = [(row["id"], row["requests"], row["errors"], Decimal(row["cost"]), row["total_tokens"]) for row in shown["rows"]]  # fmt: skip
    assert rows == [(one, *_sums(kinds[one])) for one in ranked[:3]]
    rest = [call for one in ranked[3:] for call in kinds[one]]
    found = shown["rest"]
    assert (found and (found["requests"], found["errors"], Decimal(found["cost"]), found["total_tokens"])) == (_sums(rest) if rest else None)  # fmt: skip
    points = [at(one) for one in shown["timestamps"]]

    def series(some: list[_Made], of: Callable[[_Made], Any]) -> list[Any]:
        values: list[Any] = [0] * len(points)
        for call in some:
            values[bisect_right(points, call.at) - 1] += of(call)
        return values

    assert shown["errors"] == series(calls, lambda call: not 200 <= call.status <= 299)
    lines = [(line["id"], [Decimal(one) for one in line["values"]]) for line in shown["series"]]
    behind = [(None, series([call for one in ranked[2:] for call in kinds[one]], worth))]
    assert lines == [(one, series(kinds[one], worth)) for one in ranked[:2]] + (behind if ranked[2:] else [])  # fmt: skip


def _sums(calls: list[_Made]) -> tuple[int, int, Decimal, int]:
    errors = sum(not 200 <= call.status <= 299 for call in calls)
    return len(calls), errors, sum((call.cost for call in calls), Decimal(0)), sum(call.tokens for call in calls)  # fmt: skip


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
    pieces = spans.between(edges).pieces
    assert all(span.since >= kept[60] for span, _ in pieces if span.grain == 60)
    whole = [span for span, moves in pieces if not moves]
    assert all(one.until == other.since for one, other in pairwise(whole))


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
        {"time_zone": "localtime"},
        {"time_zone": "right/UTC"},
        {"by": "colour"},
        {"order": "name"},
        {"duration_minutes": 7},
        {"limit": 201},
        {"start_date": "2020-01-01", "end_date": "2026-01-01"},
    ],
)
def test_what_cannot_be_meant_is_refused(client: FlaskClient, query: dict[str, Any]) -> None:
    answer = ask(client, **query)
    assert answer.status_code in (400, 422)
    assert next(iter(query)) in answer.json["message"]


def test_a_name_cannot_leave_its_place(client: FlaskClient, sql: Sql) -> None:
    odd = "'; DROP TABLE users; -- {of} %(most)s"
    add(sql, datetime.now(UTC), model=odd, user_id=UUID(int=7))
    assert ask(client).json["rows"][0]["id"] == odd
    assert ask(client, model=odd, by="user").json["rows"][0]["name"] is None


def test_keys_of_everybody_say_whose_they_are(client: FlaskClient, sql: Sql, cast: Cast) -> None:
    when = datetime.now(UTC) - timedelta(hours=2)
    for number, owner in enumerate(("alice", "bob")):
        found = sql.execute(
            "INSERT INTO api_keys (name, secret_hash, user_id, created_by) VALUES ('laptop', sha256(uuid_send(gen_random_uuid())), %s, %s) RETURNING id",
            (cast[owner], cast[owner]),
        ).fetchone()
        assert found is not None
        add(sql, when, model="m", user_id=cast[owner], api_key_id=found[0], cost=Decimal(number))
    rows = ask(client, by="key").json["rows"]
    assert [row["name"] for row in rows] == ["laptop · bob@cast.example", "laptop · alice@cast.example"]  # fmt: skip
    (own,) = ask(client, OWN, "alice", by="key").json["rows"]
    assert own["name"] == "laptop"
