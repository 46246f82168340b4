"""GET /batches: filters, order, pages, and what is shown of people."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import event

from dwctl.db import db
from tests.batches.desk import Desk, message_of
from tests.batches.schema import check_list
from tests.identity.doors import NOBODY, insert_key, insert_organization, insert_user, unique

NOW = datetime.now(UTC)


class Shelf:
    """A person of their own with batches, newest last."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.name = desk, unique("reader")
        self.id = insert_user(
            desk.sql, "STANDARDUSER", "BATCHAPIUSER",
            email=f"{self.name}@cast.example", external_user_id=f"{self.name}@cast.example", username=self.name,
        )  # fmt: skip
        self.model = desk.model()

    def batch(self, minutes_ago: int, *, name: str = "input.jsonl", **more: Any) -> str:
        """One made that long ago; columns of its row beside members of the body."""
        body = {key: more.pop(key) for key in ("metadata", "completion_window") if key in more}
        answer = self.desk.create(self.name, self.desk.file(self.id, self.model, name=name), **body)
        assert answer.status_code == 201, answer.text
        id: str = answer.json["id"]
        self.desk.stamp(id, created_at=NOW - timedelta(minutes=minutes_ago), **more)
        return id

    def list(self, query: str = "") -> list[str]:
        answer = self.desk.call(self.name, "GET", f"/batches?{query}")
        assert answer.status_code == 200, answer.text
        check_list(answer.json)
        return [batch["id"] for batch in answer.json["data"]]


@pytest.fixture(scope="module")
def shelf(desk: Desk) -> Shelf:
    return Shelf(desk)


def test_pages_follow_each_other_until_nothing_is_left(desk: Desk) -> None:
    shelf = Shelf(desk)
    same = shelf.batch(9), shelf.batch(9)
    made = [*sorted(same), *(shelf.batch(minutes) for minutes in (7, 5, 3))]
    newest_first = made[::-1]
    assert shelf.list() == newest_first
    page = desk.call(shelf.name, "GET", "/batches?limit=2").json
    assert (page["object"], page["first_id"], page["last_id"], page["has_more"]) == (
        "list", newest_first[0], newest_first[1], True,
    )  # fmt: skip
    for cursor in (newest_first[1], f"batch_{newest_first[1]}"):
        assert shelf.list(f"limit=2&after={cursor}") == newest_first[2:4]
    last = desk.call(shelf.name, "GET", f"/batches?limit=2&after={newest_first[3]}").json
    assert ([b["id"] for b in last["data"]], last["has_more"]) == ([newest_first[4]], False)
    assert desk.call(shelf.name, "GET", f"/batches?after={newest_first[4]}").json == {
        "object": "list", "data": [], "has_more": False,
    }  # fmt: skip
    # What is deleted is gone, but its place is still known to who reads on from it.
    desk.stamp(newest_first[1], deleted_at=NOW)
    assert shelf.list(f"after={newest_first[1]}") == newest_first[2:]
    assert newest_first[1] not in shelf.list()
    for limit, shown in (("0", 1), ("-5", 1), ("101", 4), ("100000", 4)):
        assert len(shelf.list(f"limit={limit}")) == shown


def test_single_requests_are_in_no_list_and_are_no_batch(desk: Desk) -> None:
    shelf = Shelf(desk)
    id = desk.one(
        "INSERT INTO fusillade.batches (created_by, expires_at, single) VALUES (%s, now(), true) RETURNING id",
        str(shelf.id),
    )
    assert shelf.list() == []
    for path in (f"/batches/{id}", f"/batches/{id}/analytics"):
        assert desk.call(shelf.name, "GET", path).status_code == 404
    assert desk.call(shelf.name, "GET", f"/batches?after={id}").status_code == 400


def test_statuses_are_filtered_coarsely(desk: Desk) -> None:
    shelf = Shelf(desk)
    made = {
        "validating": shelf.batch(30),
        "running": shelf.batch(29, requests_started_at=NOW),
        "completed": shelf.batch(28, requests_started_at=NOW, completed_at=NOW),
        "failed": shelf.batch(27, failed_at=NOW),
        "cancelling": shelf.batch(26, cancelling_at=NOW),
        "cancelled": shelf.batch(25, cancelling_at=NOW, cancelled_at=NOW),
        "expired": shelf.batch(24, expired_at=NOW),
        "late": shelf.batch(23, expires_at=NOW - timedelta(minutes=1)),
        "ended late": shelf.batch(22, expires_at=NOW - timedelta(minutes=1), completed_at=NOW),
    }
    names = {id: name for name, id in made.items()}

    def found(query: str) -> list[str]:
        return [names[id] for id in shelf.list(query)]

    assert found("status=in_progress") == ["late", "running", "validating"]
    assert found("status=completed") == ["ended late", "completed"]
    assert found("status=failed") == ["failed"]
    assert found("status=cancelled") == ["cancelled", "cancelling"]
    assert found("status=expired") == ["ended late", "late", "expired"]
    assert found("status=") == list(made)[::-1]
    # Active ones first, each group newest first, over pages of any size.
    ordered = ["late", "running", "validating", "ended late", "expired", "cancelled", "cancelling", "failed", "completed"]  # fmt: skip
    assert found("active_first=true") == ordered
    for size in (1, 2, 3, 5):
        seen: list[str] = []
        while len(seen) < len(ordered):
            after = f"&after={made[seen[-1]]}" if seen else ""
            seen += found(f"active_first=true&limit={size}{after}")
        assert seen == ordered


def test_searches_find_what_is_shown_and_nothing_else(shelf: Shelf) -> None:
    plain = shelf.batch(30, name="Orders-2026.jsonl", metadata={"team": "Blue_Team", "50%": "x"})
    other = shelf.batch(29, name="other.jsonl")
    for search, found in (
        ("orders", [plain]),
        ("BLUE_t", [plain]),
        ("TEAM", [plain]),
        ("50%25", [plain]),
        (plain[-12:], [plain]),
        ("%25", [plain]),
        ("__", []),
        ("jsonl", [other, plain]),
        ("created_by", []),
        (str(shelf.id)[:8], []),
        ("dw_user", []),
        ("werkzeug", []),
        ("%5C", []),
        ("frontend", [other, plain]),
        ("", [other, plain]),
    ):
        assert shelf.list(f"search={search}") == found, search


def test_times_and_windows_are_exact(desk: Desk) -> None:
    shelf = Shelf(desk)
    old, young = shelf.batch(60, completion_window="1h"), shelf.batch(30)
    border = (NOW - timedelta(minutes=30)).isoformat().replace("+00:00", "Z")
    assert shelf.list(f"created_after={border}") == [young]
    assert shelf.list(f"created_before={border}") == [young, old]
    assert shelf.list("created_before=2026-01-01T00:00:00%2B01:00") == []
    assert shelf.list("completion_window=1h") == [old]
    assert shelf.list("completion_window=1h, 24h") == [young, old]
    assert shelf.list("completion_window=0s") == []
    assert shelf.list("completion_window=") == [young, old]


REFUSED = {
    "status=nonsense": "Invalid status 'nonsense'. Valid values: in_progress, completed, failed, cancelled, expired",
    f"after={NOBODY}": f"Invalid after: there is no batch with ID {NOBODY}",
    "after=x": "Invalid after format",
    "created_after=yesterday": "created_after: Not a valid datetime.",
    "limit=many": "limit: Not a valid integer.",
    "active_first=maybe": "active_first: Not a valid boolean.",
    "member_id=x": "member_id: Not a valid UUID.",
    f"member_id={NOBODY}": "member_id filter is only available in organization context or for platform managers",
    "search=%00": "search: Must not contain a NUL character.",
}


@pytest.mark.parametrize("query", REFUSED)
def test_what_cannot_be_asked(desk: Desk, query: str) -> None:
    answer = desk.call("alice", "GET", f"/batches?{query}")
    assert (answer.status_code, message_of(answer)) == (400, REFUSED[query])


def test_another_owners_batch_is_no_cursor(desk: Desk, shelf: Shelf) -> None:
    assert desk.call("alice", "GET", f"/batches?after={shelf.batch(1)}").status_code == 400


def test_people_are_named_and_members_told_apart(desk: Desk) -> None:
    """Whatever is shown, as many statements."""
    alice, bob = desk.cast["alice"], desk.cast["bob"]
    organization = insert_organization(desk.sql, member=alice, owner=bob)
    desk.sql.execute("UPDATE users SET display_name = 'Acme' WHERE id = %s", (organization,))
    model = desk.model()
    made = {}
    for name, person in (("alice", alice), ("bob", bob)):
        key = insert_key(desk.sql, person, organization, "realtime")
        headers = {"Authorization": f"Bearer {key}"}
        answer = desk.create(None, desk.file(organization, model), headers=headers)
        made[name] = answer.json["id"]
    context = {"X-Organization-Id": str(organization)}
    page = desk.call("alice", "GET", "/batches", headers=context).json["data"]
    assert [(b["metadata"]["created_by_email"], b["metadata"]["context_name"], b["metadata"]["context_type"]) for b in page] == [
        ("bob@cast.example", "Acme", "organization"), ("alice@cast.example", "Acme", "organization"),
    ]  # fmt: skip
    query = f"/batches?member_id={bob}"
    assert [b["id"] for b in desk.call("alice", "GET", query, headers=context).json["data"]] == [made["bob"]]  # fmt: skip
    assert desk.call("alice", "GET", f"/batches?member_id={NOBODY}", headers=context).json["data"] == []  # fmt: skip
    assert made["alice"] not in [b["id"] for b in desk.call("alice", "GET", "/batches").json["data"]]  # fmt: skip
    everybodys = desk.call("admin", "GET", "/batches?limit=100").json["data"]
    assert {made["alice"], made["bob"]} <= {b["id"] for b in everybodys}
    assert [b["id"] for b in desk.call("admin", "GET", query).json["data"]][0] == made["bob"]
    assert statements(desk, "/batches?limit=1") == statements(desk, "/batches?limit=100&include=analytics") - 1  # fmt: skip


def statements(desk: Desk, path: str) -> int:
    """How many the database is asked for an answer."""
    asked = []
    with desk.app.app_context():
        engine = db.engine
    event.listen(engine, "before_cursor_execute", lambda *told: asked.append(told[2]))
    assert desk.call("admin", "GET", path).status_code == 200
    return len(asked)


@pytest.mark.parametrize(
    "change",
    ["metadata = '[1]'", "metadata = 'null'", "metadata = '\"x\"'", "metadata = NULL", "errors = '[1]'",
     "created_by = 'nobody'", "api_key_id = gen_random_uuid()", "total_requests = -5"],
)  # fmt: skip
def test_odd_rows_do_not_stand_in_the_way_of_others(desk: Desk, change: str) -> None:
    odd = desk.batch("bob", desk.model())["id"]
    desk.sql.execute(f"UPDATE fusillade.batches SET {change} WHERE id = %s", (odd,))
    try:
        assert desk.call("admin", "GET", f"/batches/{odd}").json["id"] == odd
        for query in ("limit=1", f"search={odd[:13]}", "active_first=true&limit=1"):
            assert desk.call("admin", "GET", f"/batches?{query}").json["first_id"] == odd
    finally:
        desk.sql.execute("DELETE FROM fusillade.batches WHERE id = %s", (odd,))


def test_usage_is_summed(desk: Desk) -> None:
    used, unused = (desk.batch("bob", desk.model())["id"] for _ in range(2))
    desk.sql.execute("INSERT INTO batch_usage VALUES (%s, 4, 40, 20, 3, 60, 10, 5, 2, 0.000120)", (used,))  # fmt: skip
    sums = {
        "total_requests": 4,
        "total_prompt_tokens": 40,
        "total_completion_tokens": 20,
        "total_reasoning_tokens": 3,
        "total_tokens": 60,
        "avg_duration_ms": 2.5,
        "avg_ttfb_ms": 2.5,
        "total_cost": "0.00012",
    }
    nothing = {
        "total_requests": 0,
        "total_prompt_tokens": 0,
        "total_completion_tokens": 0,
        "total_tokens": 0,
        "avg_duration_ms": 0.0,
        "avg_ttfb_ms": 0.0,
        "total_cost": "0",
    }
    assert desk.call("bob", "GET", f"/batches/batch_{used}/analytics").json == sums
    assert desk.call("bob", "GET", f"/batches/{unused}/analytics").json == nothing
    desk.sql.execute("UPDATE batch_usage SET cached_tokens = 7 WHERE batch_id = %s", (used,))
    page = desk.call("bob", "GET", "/batches?include=analytics,what&limit=2").json["data"]
    assert [batch["analytics"] for batch in page] == [nothing, sums]
    assert "usage" not in page[0]
    assert page[1]["usage"] == {
        "input_tokens": 40,
        "input_tokens_details": {"cached_tokens": 7},
        "output_tokens": 20,
        "output_tokens_details": {"reasoning_tokens": 3},
        "total_tokens": 60,
    }
    assert "analytics" not in desk.call("bob", "GET", "/batches?limit=1").json["data"][0]


def test_one_batch_is_read_by_its_id_in_any_form(desk: Desk) -> None:
    made = desk.batch("bob", desk.model())
    for id in (made["id"], f"batch_{made['id']}", f"batch-{made['id']}", made["id"].upper()):
        shown = desk.call("bob", "GET", f"/batches/{id}").json
        assert shown["metadata"] == {
            **made["metadata"], "context_name": "Personal", "context_type": "personal",
        }  # fmt: skip
        assert {**shown, "metadata": made["metadata"]} == made
    answer = desk.call("bob", "GET", "/batches/nonsense")
    assert (answer.status_code, message_of(answer)) == (400, "Invalid batch ID format")
    answer = desk.call("bob", "GET", f"/batches/{NOBODY}")
    assert (answer.status_code, message_of(answer)) == (404, f"Batch with ID {NOBODY} not found")


def test_a_database_that_is_away_is_not_an_unknown_batch(
    desk: Desk, environ: dict[str, str], cluster: str, database_url: str
) -> None:
    made = desk.batch("bob", desk.model())["id"]
    name = psycopg.conninfo.conninfo_to_dict(database_url)["dbname"]
    with psycopg.connect(cluster, autocommit=True) as server:
        server.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        try:
            with desk.app.app_context():
                db.engine.dispose()
            answer = desk.call("bob", "GET", f"/batches/{made}")
        finally:
            server.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
    assert answer.status_code == 503
