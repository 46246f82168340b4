"""Faults of the database between the steps of a request: chosen and not claimed, ended and not written. Nothing stays in progress.

A trigger makes a change of state fail as often as a test says, the way a database does that is restarted in this very moment.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.deaf import DeafProxy
from tests.faults.test_lines import batch, chat, ended
from tests.gateway import FLEX, Gateway, cost, marker
from tests.processes import QUICK, Process, eventually

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
REFUSED = "23514"  # check_violation


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    return environ | QUICK


@pytest.fixture(scope="module")
def way(database_url: str) -> Iterator[DeafProxy]:
    with DeafProxy(database_url) as proxy:
        yield proxy


@pytest.fixture(scope="module", autouse=True)
def worker(stage: Gateway, way: DeafProxy) -> Iterator[Process]:
    """On a way of its own to the database; it lives all the time, so no lease is given back because of its death."""
    process = stage.service.start_worker(
        DATABASE_URL=way.url, DWCTL_DATABASE__PREPARED_STATEMENTS="false"
    )
    yield process
    process.stop()


@pytest.fixture(scope="module", autouse=True)
def trigger(stage: Gateway) -> None:
    stage.execute(TRIGGER)


def fail(stage: Gateway, state: str, *, times: int, errcode: str) -> None:
    """Let the next changes to that state fail."""
    stage.execute("ALTER SEQUENCE faults RESTART")
    stage.execute("TRUNCATE fault")
    stage.execute("INSERT INTO fault VALUES (%s, %s, %s)", state, times, errcode)


def failures(stage: Gateway) -> int:
    return int(stage.one("SELECT last_value FROM faults").last_value)


@pytest.mark.parametrize(("state", "times"), [("processing", 2), ("completed", 3)])
def test_a_request_survives_a_database_that_breaks_off(
    stage: Gateway, state: str, times: int
) -> None:
    model = stage.flexible("plain")
    said = marker()
    fail(stage, state, times=times, errcode=RESTARTING)
    id = stage.respond(model, said, background=True, service_tier="flex").json()["id"]
    assert stage.over(id)["status"] == "completed"
    assert failures(stage) >= times
    assert stage.charges(id) == [cost(FLEX)]
    assert len(stage.sent(said)) == 1
    eventually(lambda: not stage.leases())


def test_several_claimed_requests_survive_together(stage: Gateway) -> None:
    model = stage.flexible("slow-50", batch_capacity=5)
    said = marker()
    fail(stage, "processing", times=2, errcode=RESTARTING)
    ids = [
        stage.respond(model, said, background=True, service_tier="flex").json()["id"]
        for _ in range(20)
    ]
    for id in ids:
        assert stage.over(id)["status"] == "completed"
        assert stage.charges(id) == [cost(FLEX)]
    assert len(stage.sent(said)) == 20
    eventually(lambda: not stage.leases())


def test_a_retry_that_cannot_be_written_is_made_later(stage: Gateway) -> None:
    model = stage.flexible("flaky-2+plain")
    fail(stage, "pending", times=2, errcode=RESTARTING)
    id = stage.respond(model, marker(), background=True, service_tier="flex").json()["id"]
    assert stage.over(id)["status"] == "completed"
    assert failures(stage) >= 2
    assert stage.charges(id) == [cost(FLEX)]
    eventually(lambda: not stage.leases())


@pytest.mark.parametrize("state", ["processing", "completed"])
def test_deadlocks_are_got_over(stage: Gateway, state: str) -> None:
    fail(stage, state, times=1, errcode=DEADLOCK)
    id = stage.respond(stage.flexible("plain"), marker(), background=True, service_tier="flex").json()["id"]  # fmt: skip
    assert stage.over(id)["status"] == "completed"
    assert stage.charges(id) == [cost(FLEX)]
    eventually(lambda: not stage.leases())


@pytest.mark.parametrize("tier", ["flex", "priority"])
def test_a_result_that_the_database_does_not_take_ends_its_request(
    stage: Gateway, tier: str
) -> None:
    """Whatever the reason: nobody waits for ever, and the record is kept aside."""
    fail(stage, "completed", times=1, errcode=REFUSED)
    id = stage.respond(stage.flexible("plain"), background=True, service_tier=tier).json()["id"]
    shown = stage.over(id)
    assert shown["status"] == "failed"
    assert shown["error"]["code"] == "not_recorded"
    eventually(lambda: not stage.leases())
    stage.execute("TRUNCATE fault")
    assert stage.respond(stage.flexible("plain"), service_tier=tier).status_code == 200


def test_a_claim_whose_commit_was_not_heard_of_is_given_back(
    stage: Gateway, way: DeafProxy
) -> None:
    """The database says that this worker runs it; the worker does not know that it was ever given it."""
    stage.execute("TRUNCATE fault")
    here, lost = marker(), marker()
    running = stage.respond(stage.flexible("slow-2500"), here, background=True, service_tier="flex")
    stage.begun(running.json()["id"])
    way.deaf_after = b"fusillade.claim("
    id = stage.respond(stage.flexible("plain"), lost, background=True, service_tier="flex").json()["id"]  # fmt: skip
    stage.begun(id)
    way.deaf_after = None
    assert way.lost
    assert stage.sent(lost) == []
    assert stage.over(id)["status"] == "completed"
    # What runs is not given back by that.
    assert stage.over(running.json()["id"])["status"] == "completed"
    assert len(stage.sent(here)) == len(stage.sent(lost)) == 1
    assert stage.charges(id) == [cost(FLEX)]


def test_nor_is_what_was_to_be_held_ahead_forgotten(stage: Gateway, way: DeafProxy) -> None:
    """Calls that end meanwhile ask for more at once, and that must not put what is in doubt out of mind."""
    stage.execute("TRUNCATE fault")
    model, said = stage.flexible("slow-50+ahead", batch_capacity=16), marker()
    _, lines = batch(stage, [chat(model, user=said)] * 300)
    # Some are held by then.
    eventually(lambda: len(stage.sent(said)) > 60)
    way.lost, way.deaf_after = 0, b"fusillade.claim_ahead("
    eventually(lambda: way.lost)
    way.deaf_after = None
    ended(stage, lines, 30)
    assert len(stage.sent(said)) == 300
