"""Pages of batches: who sees which, what they say, and what their forms do. In this process, without a worker."""

from __future__ import annotations

import html
import json
import re
from typing import Any
from urllib.parse import unquote
from uuid import UUID, uuid4

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient

from dwctl.queue import identifiers
from tests.batches.desk import CHAT, Desk
from tests.cast import Cast
from tests.dashboard.forms import get, submit
from tests.identity.doors import unique

HOSTILE = '"><script>alert(1)</script>' + "w" * 200 + ".jsonl"


@pytest.fixture
def desk(app: Flask, cast: Cast, sql: psycopg.Connection[Any]) -> Desk:
    return Desk(app, sql, cast)


def _named(desk: Desk, who: str, name: str, **more: Any) -> str:
    """The id of a batch of a file with this name."""
    file = desk.file(desk.cast[who], desk.model(), name=name)
    answer = desk.create(who, file, **more)
    assert answer.status_code == 201, answer.text
    id: str = answer.json["id"]
    return id


def _lines(desk: Desk, batch: str, *states: str) -> None:
    """What a worker would leave of a batch with one line for each state; a failed one says why."""
    id, counts = UUID(batch), {state: states.count(state) for state in states}
    for number, state in enumerate(states):
        kind, _, message = state.partition(":")
        columns: dict[str, Any] = {
            "id": identifiers.line_id(id, number), "batch_id": id, "model": "m", "custom_id": f"line-{number}", "state": kind,
        }  # fmt: skip
        if kind == "completed":
            columns |= {"response_status": 200, "response_body": "{}", "completed_at": "2026-01-01T00:00:02Z", "started_at": "2026-01-01T00:00:00Z"}  # fmt: skip
        if kind == "failed":
            body = json.dumps({"error": {"message": message}})
            error = json.dumps(
                {"type": "NonRetriableHttpStatus", "details": {"status": 400, "body": body}}
            )
            columns |= {"error": error, "failed_at": "2026-01-01T00:00:02Z"}
            desk.sql.execute(
                "INSERT INTO fusillade.finished_lines (batch_id, failed, position, request_id) VALUES (%s, true, %s, %s)",
                (id, number, columns["id"]),
            )
        names = ", ".join(columns)
        marks = ", ".join(["%s"] * len(columns))
        desk.sql.execute(
            f"INSERT INTO fusillade.requests ({names}) VALUES ({marks})", [*columns.values()]
        )
    failed = sum(count for state, count in counts.items() if state.startswith("failed"))
    desk.stamp(
        batch,
        total_requests=len(states),
        populated_lines=len(states),
        completed_requests=counts.get("completed", 0),
        failed_requests=failed,
        requests_started_at="2026-01-01T00:00:00Z",
    )


def test_a_member_sees_their_own_batches_and_a_manager_all(client: FlaskClient, desk: Desk) -> None:
    name = unique("mine")
    id = _named(desk, "alice", name)
    assert id in get(client, "alice", "/batches").text
    assert id in get(client, "admin", "/batches").text
    assert name not in get(client, "bob", "/batches").text
    assert get(client, "bob", f"/batches/{id}").status_code == 404


@pytest.mark.parametrize(
    "path", ["/batches", "/batches/new", "/files", "/batches/0199a8f1-7c5e-7d3a-9b64-5e1f0c2d8a47"]
)
def test_who_may_not_use_batches_is_refused_by_address(
    client: FlaskClient, cast: Cast, path: str
) -> None:
    answer = get(client, "biller", path)
    assert (answer.status_code, answer.mimetype) == (403, "text/html")


def test_filters_find_by_state_window_and_text_and_stand_in_the_address(
    client: FlaskClient, desk: Desk
) -> None:
    name = unique("night")
    done = _named(desk, "alice", f"{name}-done", metadata={"team": name})
    waits = _named(desk, "alice", f"{name}-waits", completion_window="1h")
    desk.stamp(done, completed_at="2026-01-01T00:00:00Z")

    def shown(query: str) -> set[str]:
        page = get(client, "alice", f"/batches?q={name}{query}").text
        return {id for id in (done, waits) if f"row-{id}" in page}

    assert shown("") == {done, waits}
    assert shown("&status=completed") == {done}
    assert shown("&status=in_progress") == {waits}
    assert shown("&window=1h") == {waits}
    assert "No batch matches" in get(client, "alice", f"/batches?q={name}&status=failed").text
    assert get(client, "alice", "/batches?status=nonsense").status_code == 400


def test_hostile_names_and_metadata_are_text(client: FlaskClient, desk: Desk) -> None:
    id = _named(desk, "alice", HOSTILE, metadata={"<b>x</b>": "<script>alert(2)</script>"})
    for path in ("/batches", f"/batches/{id}"):
        page = get(client, "alice", path)
        assert page.status_code == 200
        assert "alert(1)</script>" not in page.text
        assert "<script>alert(" not in page.text
        assert "<b>x" not in page.text


def test_counts_of_a_batch_add_up_and_its_failures_are_grouped(
    client: FlaskClient, desk: Desk
) -> None:
    id = _named(desk, "alice", "counted")
    _lines(desk, id, "completed", "failed:Too long", "failed:Too long", "failed:Not <b>me</b>", "pending")  # fmt: skip
    page = get(client, "alice", f"/batches/{id}").text
    for said in ("1 completed", "3 failed", "0 cancelled", "1 left", "= 5 lines"):
        assert said in page
    groups = re.findall(
        r'<tr><td class="num" data-label="Requests">(\d+)</td>.*?</code> ([^<]*)', page
    )
    assert groups[:2] == [("2", "Too long"), ("1", "Not &lt;b&gt;me&lt;/b&gt;")]


def test_lines_are_found_by_state_and_go_on_by_cursor(client: FlaskClient, desk: Desk) -> None:
    id = _named(desk, "alice", "paged")
    _lines(desk, id, *["failed:No"] * 2, *["completed"] * 60)
    first = get(client, "alice", f"/batches/{id}?status=completed").text
    further = re.search(r'rel="next" href="([^"]+)"', first)
    assert further
    second = get(client, "alice", f"/batches/{id}{further[1].replace('&amp;', '&')}").text
    shown = [
        re.findall(r">(line-\d+)</a></td>", page.partition('id="lines"')[2])
        for page in (first, second)
    ]
    assert [len(lines) for lines in shown] == [50, 10]
    assert [*shown[0], *shown[1]] == [f"line-{number}" for number in range(2, 62)]
    assert get(client, "alice", f"/batches/{id}?status=nonsense").status_code == 200
    assert client.get(f"/ai/v1/batches/{id}/requests?status=nonsense", headers=Cast.headers("alice")).status_code == 400  # fmt: skip


def test_others_lines_and_failures_are_not_there(client: FlaskClient, desk: Desk) -> None:
    id = _named(desk, "alice", "private")
    for part in ("requests", "failures"):
        path = f"/ai/v1/batches/{id}/{part}"
        assert client.get(path, headers=Cast.headers("bob")).status_code == 404
        assert client.get(path, headers=Cast.headers("admin")).status_code == 200


def test_a_form_sent_twice_makes_one_batch(client: FlaskClient, desk: Desk) -> None:
    file = desk.file(desk.cast["alice"], desk.model())
    page = f"/batches/new?file={file}"
    fields = {"input_file_id": str(file), "endpoint": CHAT, "completion_window": "24h", "once": str(uuid4()), "metadata": "team: research"}  # fmt: skip
    answers = [submit(client, "alice", page, "/batches/new", fields) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [303, 303]
    assert answers[0].location == answers[1].location
    made = desk.one("SELECT count(*) FROM fusillade.batches WHERE file_id = %s", file)
    assert made == 1
    assert "research" in get(client, "alice", answers[0].location).text


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"completion_window": "3y"}, "Unsupported completion_window"),
        ({"endpoint": "/v1/embeddings"}, "The file has lines for"),
        ({"metadata": "no colon"}, "Line 1: write a name, a colon and a text."),
    ],
    ids=["window", "endpoint", "metadata"],
)
def test_what_is_wrong_with_the_form_stands_beside_its_field(
    client: FlaskClient, desk: Desk, wrong: dict[str, str], said: str
) -> None:
    file = desk.file(desk.cast["alice"], desk.model())
    fields = {"input_file_id": str(file), "endpoint": CHAT, "completion_window": "24h"} | wrong
    answer = submit(client, "alice", f"/batches/new?file={file}", "/batches/new", fields)
    assert answer.status_code == 422
    (field,) = wrong
    problem = re.search(rf'id="field-{field}-problem">([^<]*)', answer.text)
    assert problem
    assert problem[1].startswith(said)


def test_anothers_file_makes_no_batch(client: FlaskClient, desk: Desk) -> None:
    file = desk.file(desk.cast["alice"], desk.model())
    assert get(client, "bob", f"/batches/new?file={file}").status_code == 404
    assert get(client, "bob", "/batches/new?file=nonsense").status_code == 400


def test_changes_need_the_token_and_deletion_its_word(client: FlaskClient, desk: Desk) -> None:
    id = _named(desk, "alice", "kept")
    without = client.post(f"/batches/{id}/cancel", headers=Cast.headers("alice"))
    assert without.status_code == 403
    page = f"/batches/{id}"
    assert submit(client, "alice", page, f"{page}/delete", {"confirm": "yes"}).location == page
    assert get(client, "alice", page).status_code == 200
    assert submit(client, "alice", page, f"{page}/cancel", {}).location == page
    assert desk.one("SELECT cancelling_at IS NOT NULL FROM fusillade.batches WHERE id = %s", id)
    assert submit(client, "alice", page, f"{page}/delete", {"confirm": "delete"}).location == "/batches"  # fmt: skip
    assert get(client, "alice", page).status_code == 404


def test_chosen_failures_are_run_again(client: FlaskClient, desk: Desk) -> None:
    id = _named(desk, "alice", "again")
    _lines(desk, id, "failed:No", "failed:No", "completed")
    page = f"/batches/{id}"
    first = str(identifiers.line_id(UUID(id), 0))
    none = submit(client, "alice", page, f"{page}/retry", {"which": "chosen"})
    assert "choose" in none.headers["Set-Cookie"]
    one = submit(client, "alice", page, f"{page}/retry", {"which": "chosen", "request_ids": first})
    assert (one.status_code, one.location) == (303, page)
    states = desk.sql.execute(
        "SELECT state FROM fusillade.requests WHERE batch_id = %s ORDER BY id", (id,)
    ).fetchall()
    assert states == [("pending",), ("failed",), ("completed",)]


def test_a_part_that_has_ended_says_so(client: FlaskClient, desk: Desk) -> None:
    id = _named(desk, "alice", "ended")
    path = f"/batches/{id}/progress"
    assert "data-over" not in get(client, "alice", path).text
    desk.stamp(id, cancelling_at="2026-01-01T00:00:00Z", cancelled_at="2026-01-01T00:00:00Z")
    assert "data-over" in get(client, "alice", path).text


@pytest.mark.parametrize("stamps", [{}, {"expires_at": "2026-01-04T00:00:00Z"}])
def test_its_calls_are_looked_for_since_it_was_made(client: FlaskClient, desk: Desk, stamps: dict[str, str]) -> None:  # fmt: skip
    """A batch that runs for days, or whose window is over, began before any usual range; the log is not everybody's to read."""
    id = _named(desk, "alice", unique("old"))
    desk.stamp(id, created_at="2026-01-03T00:00:00Z", **stamps)
    page = html.unescape(get(client, "alice", f"/batches/{id}").text)
    (begin,) = {
        unquote(one) for one in re.findall(rf"/requests\?range=([^&]*?)\.\.[^\"]*batch={id}", page)
    }
    assert begin == "2026-01-03T00:00:00Z"
    assert "/requests?range" not in get(client, "admin", f"/batches/{id}").text
