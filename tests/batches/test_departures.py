"""What becomes of the work of an account that is deleted."""

from __future__ import annotations

from uuid import UUID

import pytest

from dwctl import config
from dwctl.batches import departures
from dwctl.clock import uuid7
from tests.batches.desk import Desk
from tests.identity.doors import ADMIN, insert_organization, insert_user


@pytest.fixture
def leaver(desk: Desk) -> UUID:
    return insert_user(desk.sql, "STANDARDUSER", "BATCHAPIUSER")


def leave(desk: Desk, account: UUID) -> None:
    answer = desk.app.test_client().delete(f"{ADMIN}/users/{account}", headers=desk.cast.headers("admin"))  # fmt: skip
    assert answer.status_code == 204, answer.text


def waiting(desk: Desk, owner: UUID, *, flies: bool = False) -> UUID:
    """A single request of the account that waits for a worker, or that one has."""
    id = uuid7()
    desk.sql.execute(
        "INSERT INTO fusillade.batches (id, single, created_by, completion_window, expires_at, total_requests)"
        " VALUES (%s, true, %s, '1h', now() + interval '1 hour', 1)",
        (id, str(owner)),
    )
    desk.sql.execute(
        "INSERT INTO fusillade.request_templates (id, endpoint, method, path, model) VALUES (%s, '', 'POST', '/v1/responses', 'm')",
        (id,),
    )
    desk.sql.execute(
        "INSERT INTO fusillade.requests (id, batch_id, template_id, model, state) VALUES (%s, %s, %s, 'm', 'pending')",
        (id, id, id),
    )
    if flies:
        daemon = uuid7()
        with desk.sql.transaction():
            desk.sql.execute("SET LOCAL dwctl.queue = own")
            desk.sql.execute("DELETE FROM fusillade.ready WHERE id = %s", (id,))
            desk.sql.execute(
                "INSERT INTO fusillade.inflight (id, model, created_by, daemon_id) VALUES (%s, 'm', %s, %s)",
                (id, str(owner), daemon),
            )
            desk.sql.execute(
                "UPDATE fusillade.requests SET state = 'processing', daemon_id = %s, claimed_at = now(), started_at = now() WHERE id = %s",
                (daemon, id),
            )
    return id


def state(desk: Desk, id: UUID) -> str:
    found: str = desk.one("SELECT state FROM fusillade.requests WHERE id = %s", id)
    return found


def work(desk: Desk) -> None:
    """A worker, until nothing is due."""
    while departures.end_work(desk.sql, config.load({})) == 0.0:
        pass


def test_unfinished_batches_are_cancelled_with_their_owner(desk: Desk, leaver: UUID) -> None:
    model = desk.model()
    file = desk.file(leaver, model)
    rows = {
        name: desk.one(
            "INSERT INTO fusillade.batches (file_id, created_by, completion_window, expires_at, total_requests, completed_at)"
            f" VALUES (%s, %s, '24h', now() + interval '1 day', 1, {over}) RETURNING id",
            file,
            str(owner),
        )
        for name, owner, over in (
            ("open", leaver, "NULL"),
            ("over", leaver, "now()"),
            ("other", desk.cast["bob"], "NULL"),
        )
    }
    leave(desk, leaver)
    cancelled = {
        name: desk.one("SELECT cancelling_at IS NOT NULL FROM fusillade.batches WHERE id = %s", id)
        for name, id in rows.items()
    }
    assert cancelled == {"open": True, "over": False, "other": False}


def test_requests_that_wait_or_run_are_cancelled_soon(desk: Desk, leaver: UUID) -> None:
    its = [waiting(desk, leaver), waiting(desk, leaver, flies=True)]
    others = [waiting(desk, desk.cast["bob"]), waiting(desk, desk.cast["bob"], flies=True)]
    leave(desk, leaver)
    work(desk)
    assert [state(desk, id) for id in its] == ["canceled"] * 2
    assert [state(desk, id) for id in others] == ["pending", "processing"]
    assert desk.one("SELECT count(*) FROM fusillade.ready WHERE created_by = %s", str(leaver)) == 0


def test_what_was_on_its_way_in_is_found_too_and_then_nobody_looks_any_more(
    desk: Desk, leaver: UUID
) -> None:
    leave(desk, leaver)
    work(desk)
    late = waiting(desk, leaver)
    work(desk)
    assert state(desk, late) == "pending"
    later = "UPDATE leavers SET looked_at = looked_at - interval '6 seconds' WHERE account_id = %s"
    desk.sql.execute(later, (leaver,))
    work(desk)
    assert state(desk, late) == "canceled"
    desk.sql.execute(later, (leaver,))
    desk.sql.execute("UPDATE leavers SET left_at = now() - interval '6 minutes' WHERE account_id = %s", (leaver,))  # fmt: skip
    work(desk)
    assert desk.one("SELECT count(*) FROM leavers WHERE account_id = %s", leaver) == 0


def test_more_than_a_slice_is_ended(
    desk: Desk, leaver: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(departures, "_AT_ONCE", 2)
    its = [waiting(desk, leaver) for _ in range(5)]
    leave(desk, leaver)
    work(desk)
    assert {state(desk, id) for id in its} == {"canceled"}


def test_an_organisation_leaves_as_a_person_does(desk: Desk) -> None:
    organization = insert_organization(desk.sql, owner=desk.cast["alice"])
    id = waiting(desk, organization)
    leave(desk, organization)
    work(desk)
    assert state(desk, id) == "canceled"


def test_connections_lose_their_credential(desk: Desk, leaver: UUID) -> None:
    id = desk.one(
        "INSERT INTO connections (owner_id, created_by, provider, name, config_sealed) VALUES (%s, %s, 's3', 'c', 'v1:x:y') RETURNING id",
        leaver,
        leaver,
    )
    leave(desk, leaver)
    assert desk.one("SELECT config_sealed IS NULL AND deleted_at IS NOT NULL FROM connections WHERE id = %s", id)  # fmt: skip
