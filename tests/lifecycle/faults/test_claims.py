"""Faults of the database between the steps of a request: claimed and not begun, ended and not written. Nothing stays in progress.

A trigger makes a change of state fail as often as a test says, the way a database does that is restarted in this very moment.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from tests.cast import Cast
from tests.lifecycle.stage import FLEX, Stage, cost, marker
from tests.processes import Service, eventually

# A sequence is not rolled back: it counts the failures.
TRIGGER = """
CREATE SEQUENCE faults;
CREATE TABLE fault (state text, times int, errcode text);
CREATE FUNCTION fail_on_purpose() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    wanted record;
BEGIN
    SELECT * INTO wanted FROM fault WHERE state = NEW.state;
    IF FOUND AND nextval('faults') <= wanted.times THEN
        RAISE EXCEPTION 'on purpose' USING ERRCODE = wanted.errcode;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER fail_on_purpose BEFORE UPDATE ON fusillade.requests FOR EACH ROW
    WHEN (OLD.state IS DISTINCT FROM NEW.state) EXECUTE FUNCTION fail_on_purpose();
"""
RESTARTING = "57P01"  # admin_shutdown
DEADLOCK = "40P01"


@pytest.fixture(scope="module")
def service(environ: dict[str, str], cast: Cast) -> Iterator[Service]:
    """Their heartbeats go on all the time: no lease is given back because somebody seems dead."""
    lively = environ | {"DWCTL_DAEMONS__DEAD_AFTER": "600s"}
    with Service(lively) as running:
        running.start_web()
        running.start_worker()
        yield running


@pytest.fixture(scope="module", autouse=True)
def trigger(stage: Stage) -> None:
    stage.execute(TRIGGER)


def fail(stage: Stage, state: str, *, times: int, errcode: str) -> None:
    """Let the next changes to that state fail."""
    stage.execute("ALTER SEQUENCE faults RESTART")
    stage.execute("TRUNCATE fault")
    stage.execute("INSERT INTO fault VALUES (%s, %s, %s)", state, times, errcode)


def failures(stage: Stage) -> int:
    return int(stage.one("SELECT last_value FROM faults").last_value)


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("state", ["claimed", "processing", "completed"])
def test_a_request_survives_a_database_that_breaks_off(
    stage: Stage, state: str, times: int
) -> None:
    model = stage.flexible("plain")
    said = marker()
    fail(stage, state, times=times, errcode=RESTARTING)
    id = stage.respond(model, said, background=True, service_tier="flex").json()["id"]
    assert stage.over(id, 30)["status"] == "completed"
    assert failures(stage) >= times
    assert stage.charges(id) == [cost(FLEX)]
    assert len(stage.sent(said)) == 1
    eventually(lambda: not stage.leases())


def test_several_claimed_requests_survive_together(stage: Stage) -> None:
    model = stage.flexible("slow-50", batch_capacity=5)
    said = marker()
    fail(stage, "processing", times=4, errcode=RESTARTING)
    ids = [
        stage.respond(model, said, background=True, service_tier="flex").json()["id"]
        for _ in range(20)
    ]
    for id in ids:
        assert stage.over(id, 30)["status"] == "completed"
        assert stage.charges(id) == [cost(FLEX)]
    assert len(stage.sent(said)) == 20
    eventually(lambda: not stage.leases())


def test_a_retry_that_cannot_be_written_is_made_later(stage: Stage) -> None:
    model = stage.flexible("flaky-2+plain")
    fail(stage, "pending", times=2, errcode=RESTARTING)
    id = stage.respond(model, marker(), background=True, service_tier="flex").json()["id"]
    assert stage.over(id, 30)["status"] == "completed"
    assert failures(stage) >= 2
    assert stage.charges(id) == [cost(FLEX)]
    eventually(lambda: not stage.leases())


@pytest.mark.parametrize("state", ["claimed", "processing", "completed"])
def test_deadlocks_are_got_over(stage: Stage, state: str) -> None:
    fail(stage, state, times=2, errcode=DEADLOCK)
    id = stage.respond(stage.flexible("plain"), marker(), background=True, service_tier="flex").json()["id"]  # fmt: skip
    assert stage.over(id, 30)["status"] == "completed"
    assert stage.charges(id) == [cost(FLEX)]
    eventually(lambda: not stage.leases())


def test_a_claim_whose_commit_was_not_heard_of_is_given_back(stage: Stage) -> None:
    """The database says that this worker has it; the worker has never heard of it."""
    (worker,) = stage.all(
        "SELECT id FROM fusillade.daemons WHERE config_snapshot->>'type' = 'worker' AND status = 'running'"
    )
    stage.execute("TRUNCATE fault")
    done = stage.respond(stage.flexible("plain"), service_tier="flex").json()["id"]
    row = stage.of(done).request
    template, batch, lost = uuid.uuid4(), uuid.uuid4(), uuid.uuid4()
    stage.execute(
        "INSERT INTO fusillade.request_templates (id, endpoint, method, path, body, model) "
        "SELECT %s, endpoint, method, path, body, model FROM fusillade.request_templates WHERE id = %s",
        template,
        row.template_id,
    )
    stage.execute(
        "INSERT INTO fusillade.batches (id, created_by, expires_at, completion_window) VALUES (%s, %s, now() + interval '1 h', '1h')",
        batch,
        str(stage.alice.id),
    )
    stage.execute("SET dwctl.queue = own")
    stage.execute(
        "INSERT INTO fusillade.requests (id, batch_id, template_id, model, state, daemon_id, claimed_at) "
        "VALUES (%s, %s, %s, 'plain', 'claimed', %s, now())",
        lost,
        batch,
        template,
        worker.id,
    )
    stage.execute(
        "INSERT INTO fusillade.inflight (id, model, created_by, daemon_id) VALUES (%s, 'plain', %s, %s)",
        lost,
        str(stage.alice.id),
        worker.id,
    )
    stage.execute("RESET dwctl.queue")
    assert stage.over(f"resp_{lost}", 15)["status"] == "completed"
