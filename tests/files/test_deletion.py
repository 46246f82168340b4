"""What is deleted and what has expired: gone at once for everybody, purged some time later, slice by slice."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from dwctl import config
from dwctl.config import Settings
from dwctl.db import connect
from dwctl.files import duties
from tests.files.stage import Stage

PAST = datetime.now(UTC) - timedelta(hours=1)
LONG_PAST = datetime.now(UTC) - timedelta(days=30)
OVER = ("completed_at", "failed_at", "cancelled_at", "expired_at")


@pytest.fixture
def settings(environ: dict[str, str]) -> Settings:
    return config.load(environ | {"DWCTL_BACKGROUND_SERVICES__BATCH_DAEMON__PURGE_BATCH_SIZE": "5"})


def run(duty: Any, settings: Settings) -> float:
    """The duty, as often as it wants to go on at once; its rest after that."""
    with connect(settings) as connection:
        while True:
            rest: float = duty(connection, settings)
            if rest >= 60:
                return rest


def test_a_deleted_file_is_gone_for_everybody(stage: Stage) -> None:
    file = stage.file(stage.cast["alice"], lines=2)
    answer = stage("alice", "DELETE", f"/file-{file}")
    assert answer.status_code == 200
    assert answer.json == {"id": file, "object": "file", "deleted": True}
    for who in ("alice", "admin"):
        for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/cost-estimate")):
            again = stage(who, method, f"/{file}{path}")
            assert again.status_code == 404
            assert again.json["error"]["message"] == f"File with ID {file} not found"  # type: ignore[index]
        assert file not in stage.ids(who)
    assert stage.one("SELECT status FROM fusillade.files WHERE id = %s", file) == "deleted"


def test_deleting_a_file_cancels_what_runs_it_and_nothing_else(
    stage: Stage, database_url: str
) -> None:
    alice = stage.cast["alice"]
    file = stage.file(alice, lines=2)
    running = sorted(stage.batch(file, alice) for _ in range(2))
    over = [stage.batch(file, alice, **{stamp: PAST}) for stamp in OVER]
    elsewhere = stage.batch(stage.file(alice), alice)
    with psycopg.connect(database_url, autocommit=True) as listener:
        listener.execute("LISTEN fusillade_cancel")
        stage("alice", "DELETE", f"/{file}")
        told = [n.payload for n in listener.notifies(timeout=5, stop_after=2)]
    assert sorted(told) == running
    rows = stage.sql.execute(
        "SELECT id::text, file_id::text, cancelling_at IS NOT NULL FROM fusillade.batches WHERE id = ANY (%s)",
        ([*running, *over, elsewhere],),
    ).fetchall()
    assert {row[0] for row in rows if row[2]} == set(running)
    # Each still says what it was made from.
    assert {row[1] for row in rows if row[0] != elsewhere} == {file}


def test_a_deleted_output_file_is_taken_from_its_batch(stage: Stage) -> None:
    alice = stage.cast["alice"]
    output, error = (stage.file(alice, purpose=f"batch_{kind}") for kind in ("output", "error"))
    batch = stage.batch(None, alice, output_file_id=output, error_file_id=error)
    assert stage("alice", "DELETE", f"/{output}").status_code == 200
    assert stage.one(
        "SELECT output_file_id, error_file_id::text, cancelling_at FROM fusillade.batches WHERE id = %s",
        batch,
    ) == (None, error, None)
    assert stage("alice", "DELETE", f"/{error}").status_code == 200
    assert stage.one("SELECT error_file_id FROM fusillade.batches WHERE id = %s", batch) is None


def test_lines_of_deleted_files_are_purged_in_slices(stage: Stage, settings: Settings) -> None:
    run(duties.purge_templates, settings)
    alice = stage.cast["alice"]
    gone, empty, kept = (stage.file(alice, lines=n) for n in (13, 0, 7))
    for file in (gone, empty):
        stage("alice", "DELETE", f"/{file}")
    with connect(settings) as connection:
        assert duties.purge_templates(connection, settings) == 0.1
    assert stage.templates(gone) == 8
    assert run(duties.purge_templates, settings) == 600
    assert (stage.templates(gone), stage.templates(kept)) == (0, 7)
    for file in (gone, empty):
        assert stage.one("SELECT purged_at FROM fusillade.files WHERE id = %s", file) is not None
        assert stage.one("SELECT count(*) FROM fusillade.file_models WHERE file_id = %s", file) == 0


def test_nothing_is_purged_where_that_is_switched_off(
    stage: Stage, environ: dict[str, str]
) -> None:
    off = config.load(environ | {"DWCTL_BACKGROUND_SERVICES__BATCH_DAEMON__PURGE_INTERVAL_MS": "0"})
    file = stage.file(stage.cast["alice"], lines=1)
    stage("alice", "DELETE", f"/{file}")
    run(duties.purge_templates, off)
    run(duties.purge_requests, off)
    assert stage.templates(file) == 1


def test_what_came_of_a_deleted_batch_is_purged_with_its_files(
    stage: Stage, settings: Settings
) -> None:
    alice = stage.cast["alice"]
    long_ago, just_now = datetime.now(UTC) - timedelta(hours=1), datetime.now(UTC)
    cases = {
        "purged": (12, {"deleted_at": long_ago, "completed_at": PAST}),
        "too young": (2, {"deleted_at": just_now, "completed_at": PAST}),
        "not over": (2, {"deleted_at": long_ago}),
        "not deleted": (2, {"completed_at": PAST}),
    }
    batches, files = {}, {}
    for name, (lines, stamps) in cases.items():
        files[name] = [stage.file(alice, purpose=f"batch_{kind}") for kind in ("output", "error")]
        output, error = files[name]
        batches[name] = batch = stage.batch(
            None, alice, output_file_id=output, error_file_id=error, **stamps
        )
        stage.sql.execute(
            "INSERT INTO fusillade.requests (batch_id, model, state, canceled_at) SELECT %s, 'm', 'canceled', now() FROM generate_series(1, %s)",
            (batch, lines),
        )
        stage.sql.execute(
            "INSERT INTO fusillade.finished_lines (batch_id, failed, position, request_id) SELECT %s, true, n, gen_random_uuid()"
            " FROM generate_series(0, %s - 1) n ON CONFLICT DO NOTHING",
            (batch, 3 * lines),
        )
    # What still runs is ended by its owner first.
    (running,) = stage.sql.execute(
        "INSERT INTO fusillade.requests (batch_id, model, state, daemon_id, claimed_at, started_at)"
        " VALUES (%s, 'm', 'processing', gen_random_uuid(), now(), now()) RETURNING id",
        (batches["purged"],),
    ).fetchone()  # type: ignore[misc]
    with connect(settings) as connection:
        for _ in range(20):
            duties.purge_requests(connection, settings)
    left = "SELECT count(*) FROM fusillade.requests WHERE batch_id = %s"
    assert stage.one(left, batches["purged"]) == 1
    assert stage("alice", "GET", f"/{files['purged'][0]}").status_code == 200
    stage.sql.execute("DELETE FROM fusillade.requests WHERE id = %s", (running,))
    assert run(duties.purge_requests, settings) == 600
    for name, batch in batches.items():
        lines = 0 if name == "purged" else 2
        assert stage.one(left, batch) == lines, name
        found = "SELECT count(*) FROM fusillade.finished_lines WHERE batch_id = %s"
        assert (stage.one(found, batch) > 0) is (name != "purged"), name
        for file in files[name]:
            status = stage("alice", "GET", f"/{file}").status_code
            assert status == (404 if name == "purged" else 200), name


def test_a_file_past_its_time_is_shown_as_one_that_cannot_be_used(
    stage: Stage, settings: Settings
) -> None:
    alice = stage.cast["alice"]
    seen, unseen, old = (stage.file(alice, expires_at=at) for at in (PAST, PAST, LONG_PAST))
    shown = stage("alice", "GET", f"/{seen}").json
    assert shown is not None
    assert shown["status"] == "error"
    assert shown["status_details"] == "The file has expired."
    status = "SELECT status FROM fusillade.files WHERE id = %s"
    assert stage.one(status, seen) == "expired"
    assert stage.one(status, unseen) == "processed"
    listed = stage.ids("alice", limit=101)
    assert {seen, unseen} <= set(listed)
    assert old not in listed
    assert run(duties.expire_files, settings) == 60
    assert [stage.one(status, file) for file in (seen, unseen, old)] == ["expired", "expired", "deleted"]  # fmt: skip
    assert stage("alice", "GET", f"/{old}").status_code == 404
    assert stage("alice", "GET", f"/{unseen}").json["status"] == "error"  # type: ignore[index]


def test_an_expired_file_is_kept_while_a_batch_needs_it(stage: Stage, settings: Settings) -> None:
    alice = stage.cast["alice"]
    file = stage.file(alice, expires_at=LONG_PAST, lines=1)
    batch = stage.batch(file, alice)
    run(duties.expire_files, settings)
    run(duties.purge_templates, settings)
    assert stage.templates(file) == 1
    assert stage("alice", "GET", f"/{file}").json["status"] == "error"  # type: ignore[index]
    stage.sql.execute("UPDATE fusillade.batches SET completed_at = now() WHERE id = %s", (batch,))
    run(duties.expire_files, settings)
    run(duties.purge_templates, settings)
    assert stage.templates(file) == 0


def test_two_deletions_at_once_are_one(stage: Stage, database_url: str) -> None:
    file = stage.file(stage.cast["alice"])
    with psycopg.connect(database_url) as other:
        assert other.execute("SELECT fusillade.delete_file(%s)", (file,)).fetchone() == (True,)
        other.commit()
        assert other.execute("SELECT fusillade.delete_file(%s)", (file,)).fetchone() == (False,)
