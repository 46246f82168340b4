"""What is deleted and what has expired: gone at once for everybody, purged some time later, slice by slice."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from threading import Thread
from typing import Any

import psycopg
import pytest

from dwctl import config
from dwctl.config import Settings
from dwctl.db import connect
from dwctl.files import duties
from tests.files.shelf import Shelf
from tests.processes import eventually

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


def test_a_deleted_file_is_gone_for_everybody(shelf: Shelf) -> None:
    file = shelf.file(shelf.cast["alice"], lines=2)
    answer = shelf("alice", "DELETE", f"/file-{file}")
    assert answer.status_code == 200
    assert answer.json == {"id": file, "object": "file", "deleted": True}
    for who in ("alice", "admin"):
        for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/cost-estimate")):
            again = shelf(who, method, f"/{file}{path}")
            assert again.status_code == 404
            assert again.json["error"]["message"] == f"File with ID {file} not found"  # type: ignore[index]
        assert file not in shelf.ids(who)
    assert shelf.one("SELECT status FROM fusillade.files WHERE id = %s", file) == "deleted"


def test_deleting_a_file_cancels_what_runs_it_and_nothing_else(
    shelf: Shelf, database_url: str
) -> None:
    alice = shelf.cast["alice"]
    file = shelf.file(alice, lines=2)
    running = sorted(shelf.batch(file, alice) for _ in range(2))
    over = [shelf.batch(file, alice, **{stamp: PAST}) for stamp in OVER]
    elsewhere = shelf.batch(shelf.file(alice), alice)
    with psycopg.connect(database_url, autocommit=True) as listener:
        listener.execute("LISTEN fusillade_cancel")
        shelf("alice", "DELETE", f"/{file}")
        told = [n.payload for n in listener.notifies(timeout=5, stop_after=2)]
    assert sorted(told) == running
    rows = shelf.sql.execute(
        "SELECT id::text, file_id::text, cancelling_at IS NOT NULL FROM fusillade.batches WHERE id = ANY (%s)",
        ([*running, *over, elsewhere],),
    ).fetchall()
    assert {row[0] for row in rows if row[2]} == set(running)
    # Each still says what it was made from.
    assert {row[1] for row in rows if row[0] != elsewhere} == {file}


def test_a_deleted_output_file_is_taken_from_its_batch(shelf: Shelf) -> None:
    alice = shelf.cast["alice"]
    output, error = (shelf.file(alice, purpose=f"batch_{kind}") for kind in ("output", "error"))
    batch = shelf.batch(None, alice, output_file_id=output, error_file_id=error)
    assert shelf("alice", "DELETE", f"/{output}").status_code == 200
    assert shelf.one(
        "SELECT output_file_id, error_file_id::text, cancelling_at FROM fusillade.batches WHERE id = %s",
        batch,
    ) == (None, error, None)
    assert shelf("alice", "DELETE", f"/{error}").status_code == 200
    assert shelf.one("SELECT error_file_id FROM fusillade.batches WHERE id = %s", batch) is None


def test_lines_of_deleted_files_are_purged_in_slices(shelf: Shelf, settings: Settings) -> None:
    run(duties.purge_templates, settings)
    alice = shelf.cast["alice"]
    gone, empty, kept = (shelf.file(alice, lines=n) for n in (13, 0, 7))
    for file in (gone, empty):
        shelf("alice", "DELETE", f"/{file}")
    with connect(settings) as connection:
        assert duties.purge_templates(connection, settings) == 0.1
    assert shelf.templates(gone) == 8
    assert run(duties.purge_templates, settings) == 600
    assert (shelf.templates(gone), shelf.templates(kept)) == (0, 7)
    for file in (gone, empty):
        assert shelf.one("SELECT purged_at FROM fusillade.files WHERE id = %s", file) is not None
        assert shelf.one("SELECT count(*) FROM fusillade.file_models WHERE file_id = %s", file) == 0


def test_nothing_is_purged_where_that_is_switched_off(
    shelf: Shelf, environ: dict[str, str]
) -> None:
    off = config.load(environ | {"DWCTL_BACKGROUND_SERVICES__BATCH_DAEMON__PURGE_INTERVAL_MS": "0"})
    file = shelf.file(shelf.cast["alice"], lines=1)
    shelf("alice", "DELETE", f"/{file}")
    run(duties.purge_templates, off)
    run(duties.purge_requests, off)
    assert shelf.templates(file) == 1


def test_what_came_of_a_deleted_batch_is_purged_with_its_files(
    shelf: Shelf, settings: Settings
) -> None:
    alice = shelf.cast["alice"]
    long_ago, just_now = datetime.now(UTC) - timedelta(hours=1), datetime.now(UTC)
    cases = {
        "purged": (12, {"deleted_at": long_ago, "completed_at": PAST}),
        "too young": (2, {"deleted_at": just_now, "completed_at": PAST}),
        "not over": (2, {"deleted_at": long_ago}),
        "not deleted": (2, {"completed_at": PAST}),
    }
    batches, files = {}, {}
    for name, (lines, stamps) in cases.items():
        files[name] = [shelf.file(alice, purpose=f"batch_{kind}") for kind in ("output", "error")]
        output, error = files[name]
        batches[name] = batch = shelf.batch(
            None, alice, output_file_id=output, error_file_id=error, **stamps
        )
        shelf.sql.execute(
            "INSERT INTO fusillade.requests (batch_id, model, state, canceled_at) SELECT %s, 'm', 'canceled', now() FROM generate_series(1, %s)",
            (batch, lines),
        )
        shelf.sql.execute(
            "INSERT INTO fusillade.finished_lines (batch_id, failed, position, request_id) SELECT %s, true, n, gen_random_uuid()"
            " FROM generate_series(0, %s - 1) n ON CONFLICT DO NOTHING",
            (batch, 3 * lines),
        )
    # What still runs is ended by its owner first.
    (running,) = shelf.sql.execute(
        "INSERT INTO fusillade.requests (batch_id, model, state, daemon_id, claimed_at, started_at)"
        " VALUES (%s, 'm', 'processing', gen_random_uuid(), now(), now()) RETURNING id",
        (batches["purged"],),
    ).fetchone()  # type: ignore[misc]
    with connect(settings) as connection:
        for _ in range(20):
            duties.purge_requests(connection, settings)
    left = "SELECT count(*) FROM fusillade.requests WHERE batch_id = %s"
    assert shelf.one(left, batches["purged"]) == 1
    assert shelf("alice", "GET", f"/{files['purged'][0]}").status_code == 200
    shelf.sql.execute("DELETE FROM fusillade.requests WHERE id = %s", (running,))
    assert run(duties.purge_requests, settings) == 600
    for name, batch in batches.items():
        lines = 0 if name == "purged" else 2
        assert shelf.one(left, batch) == lines, name
        found = "SELECT count(*) FROM fusillade.finished_lines WHERE batch_id = %s"
        assert (shelf.one(found, batch) > 0) is (name != "purged"), name
        for file in files[name]:
            status = shelf("alice", "GET", f"/{file}").status_code
            assert status == (404 if name == "purged" else 200), name


def test_a_file_past_its_time_is_shown_as_one_that_cannot_be_used(
    shelf: Shelf, settings: Settings
) -> None:
    alice = shelf.cast["alice"]
    seen, unseen, old = (shelf.file(alice, expires_at=at) for at in (PAST, PAST, LONG_PAST))
    shown = shelf("alice", "GET", f"/{seen}").json
    assert shown is not None
    assert shown["status"] == "error"
    assert shown["status_details"] == "The file has expired."
    status = "SELECT status FROM fusillade.files WHERE id = %s"
    assert shelf.one(status, seen) == "expired"
    assert shelf.one(status, unseen) == "processed"
    listed = shelf.ids("alice", limit=101)
    assert {seen, unseen} <= set(listed)
    assert old not in listed
    assert run(duties.expire_files, settings) == 60
    assert [shelf.one(status, file) for file in (seen, unseen, old)] == ["expired", "expired", "deleted"]  # fmt: skip
    assert shelf("alice", "GET", f"/{old}").status_code == 404
    assert shelf("alice", "GET", f"/{unseen}").json["status"] == "error"  # type: ignore[index]


def test_an_expired_file_is_kept_while_a_batch_needs_it(shelf: Shelf, settings: Settings) -> None:
    alice = shelf.cast["alice"]
    file = shelf.file(alice, expires_at=LONG_PAST, lines=1)
    batch = shelf.batch(file, alice)
    run(duties.expire_files, settings)
    run(duties.purge_templates, settings)
    assert shelf.templates(file) == 1
    assert shelf("alice", "GET", f"/{file}").json["status"] == "error"  # type: ignore[index]
    shelf.sql.execute("UPDATE fusillade.batches SET completed_at = now() WHERE id = %s", (batch,))
    run(duties.expire_files, settings)
    run(duties.purge_templates, settings)
    assert shelf.templates(file) == 0


def test_two_deletions_at_once_are_one(shelf: Shelf, database_url: str) -> None:
    file = shelf.file(shelf.cast["alice"])
    with psycopg.connect(database_url) as other:
        assert other.execute("SELECT fusillade.delete_file(%s)", (file,)).fetchone() == (True,)
        other.commit()
        assert other.execute("SELECT fusillade.delete_file(%s)", (file,)).fetchone() == (False,)


def test_a_batch_that_is_made_while_its_file_is_deleted_is_cancelled(
    shelf: Shelf, settings: Settings
) -> None:
    file = shelf.file(shelf.cast["alice"], lines=1)
    answers: list[int] = []
    with connect(settings) as maker, maker.transaction():
        # As `POST /batches` does.
        maker.execute("SELECT FROM fusillade.files WHERE id = %s FOR SHARE", (file,))
        deleting = Thread(
            target=lambda: answers.append(shelf("alice", "DELETE", f"/{file}").status_code)
        )
        deleting.start()
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%%delete_file%%'"
        eventually(lambda: shelf.one(waits) == 1)
        maker.execute(
            "INSERT INTO fusillade.batches (file_id, created_by, expires_at) VALUES (%s, 'x', now())",
            (file,),
        )
    deleting.join()
    assert answers == [200]
    cancelling = "SELECT cancelling_at IS NOT NULL FROM fusillade.batches WHERE file_id = %s"
    assert shelf.one(cancelling, file) is True


def test_many_deletions_of_the_same_things_end_once_each(shelf: Shelf, settings: Settings) -> None:
    alice = shelf.cast["alice"]
    output, error = (shelf.file(alice, purpose=f"batch_{kind}") for kind in ("output", "error"))
    file = shelf.file(alice, lines=20)
    shelf.batch(
        file,
        alice,
        output_file_id=output,
        error_file_id=error,
        completed_at=PAST,
        deleted_at=PAST,
    )
    answers: list[int] = []

    def delete(id: str) -> None:
        answers.append(shelf("alice", "DELETE", f"/{id}").status_code)

    def purge() -> None:
        with connect(settings) as connection:
            for _ in range(20):
                duties.purge_requests(connection, settings)
                duties.purge_templates(connection, settings)

    threads = [Thread(target=delete, args=(id,)) for id in (file, output, error) for _ in range(4)]
    threads += [Thread(target=purge) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(answers) <= {200, 404}
    assert answers.count(200) <= 3
    for id in (file, output, error):
        assert shelf("alice", "GET", f"/{id}").status_code == 404
    run(duties.purge_templates, settings)
    assert shelf.templates(file) == 0
