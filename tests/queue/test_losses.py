"""Whoever gives a request back counts it: what kills its worker each time ends, what a drain returns does not."""

from __future__ import annotations

from uuid import UUID

import pytest

from dwctl.queue import leases
from dwctl.queue.leases import GivenBack
from tests.queue.rows import ALICE, BOB, Rows, ids

ME, YOU = UUID(int=11, version=4), UUID(int=12, version=4)


def lose(rows: Rows, id: UUID, why: GivenBack) -> int:
    assert [job.id for job in rows.begin(ME)] == [id]
    ended = leases.give_back(rows.ours, ME, [id], why=why)
    rows.time_passes()
    return ended


@pytest.mark.parametrize("why", [GivenBack.LOST, GivenBack.UNSETTLED])
def test_the_third_loss_ends_a_request(rows: Rows, why: GivenBack) -> None:
    (id,) = rows.singles(1)
    assert [lose(rows, id, why) for _ in range(3)] == [0, 0, 1]
    state, error, lost = rows.one("SELECT state, error, times_lost FROM fusillade.requests WHERE id = %s", id)  # fmt: skip
    assert (state, lost) == ("failed", 3)
    assert error.startswith('{"type":"WorkerLost"')
    assert rows.one("SELECT failed_at IS NOT NULL FROM fusillade.batches WHERE id = %s", id)
    assert rows.one("SELECT error_code FROM fusillade.unrecorded WHERE id = %s", id) == "worker_lost"  # fmt: skip
    assert [rows.count(table) for table in ("ready", "delayed", "inflight")] == [0, 0, 0]


def test_a_realtime_request_is_lost_but_once_more(rows: Rows) -> None:
    (id,) = rows.singles(1)
    rows.ours.execute("UPDATE fusillade.requests SET service_tier = 'priority', times_lost = 1")
    assert lose(rows, id, GivenBack.LOST) == 1
    assert rows.state(id) == "failed"


def test_drains_count_nothing(rows: Rows) -> None:
    (id,) = rows.singles(1)
    for _ in range(5):
        assert lose(rows, id, GivenBack.DRAINED) == 0
    (job,) = rows.claim(YOU)
    assert (job.id, job.attempt, job.times_lost) == (id, 0, 0)


def test_a_lost_request_waits_the_first_time_too(rows: Rows) -> None:
    (id,) = rows.singles(1)
    rows.begin(ME)
    leases.give_back(rows.ours, ME, [id], why=GivenBack.LOST)
    assert rows.claim(YOU) == []
    waits = rows.one("SELECT extract(epoch FROM not_before - now()) FROM fusillade.delayed")
    assert 0 < waits <= leases.WAITS_AFTER_LOSS_S[0]


def test_a_failed_attempt_is_no_loss(rows: Rows) -> None:
    (id,) = rows.singles(1)
    rows.begin(ME)
    leases.retry_later(rows.ours, ME, id, 0.0)
    rows.time_passes()
    (job,) = rows.claim(ME)
    assert (job.attempt, job.times_lost) == (1, 0)


def test_only_their_owner_gives_leases_back(rows: Rows) -> None:
    (id,) = rows.singles(1)
    rows.begin(ME)
    leases.give_back(rows.ours, YOU, [id], why=GivenBack.LOST)
    assert rows.state(id) == "processing"
    assert rows.one("SELECT times_lost FROM fusillade.requests WHERE id = %s", id) == 0


def test_what_was_cancelled_meanwhile_stays_so(rows: Rows) -> None:
    (id,) = rows.singles(1)
    rows.begin(ME)
    rows.ours.execute("SELECT fusillade.cancel(%s, %s)", (id, [str(ALICE)]))
    assert leases.give_back(rows.ours, ME, [id], why=GivenBack.LOST) == 0
    assert rows.state(id) == "canceled"
    assert [rows.count(table) for table in ("ready", "delayed", "inflight")] == [0, 0, 0]


# --- deadlines


def expire(rows: Rows) -> int:
    return int(rows.ours.execute("SELECT fusillade.expire(1000)").fetchone()[0])  # type: ignore[index]


def single(rows: Rows, due_s: float, owner: UUID = ALICE) -> UUID:
    (id,) = rows.singles(1, owner)
    rows.ours.execute("UPDATE fusillade.batches SET expires_at = now() + %s * interval '1 second' WHERE id = %s", (due_s, id))  # fmt: skip
    rows.ours.execute("DELETE FROM fusillade.ready WHERE id = %s", (id,))
    rows.ours.execute("SELECT fusillade.make_ready(%s)", ([id],))
    return id


def test_what_waits_past_its_deadline_ends(rows: Rows) -> None:
    late, other, young = single(rows, -1), single(rows, -60, BOB), single(rows, 60)
    assert expire(rows) == 2
    assert [rows.state(id) for id in (late, other, young)] == ["failed", "failed", "pending"]
    error = rows.one("SELECT error FROM fusillade.requests WHERE id = %s", late)
    assert error.startswith('{"type":"DeadlinePassed"')
    assert rows.count("unrecorded") == 2
    assert expire(rows) == 0
    assert ids(rows.claim(ME)) == [young]


def test_lines_of_batches_and_what_runs_are_left_alone(rows: Rows) -> None:
    running = single(rows, -1)
    rows.begin(ME)
    line = rows.request(due_s=-1)
    assert expire(rows) == 0
    assert (rows.state(running), rows.state(line)) == ("processing", "pending")


def test_nothing_is_put_off_past_its_deadline(rows: Rows) -> None:
    id = single(rows, 5)
    rows.begin(ME)
    leases.retry_later(rows.ours, ME, id, 3600.0)
    late_s = rows.one("SELECT extract(epoch FROM d.not_before - b.expires_at) FROM fusillade.delayed d JOIN fusillade.batches b USING (id)")  # fmt: skip
    assert late_s == 0


def test_a_line_that_is_emptied_leaves_no_entry_behind(rows: Rows) -> None:
    single(rows, -1)
    expire(rows)
    assert rows.count("queues") == 0


# --- how many wait


def test_the_single_requests_of_an_account_are_counted(rows: Rows) -> None:
    rows.singles(3, ALICE)
    rows.singles(2, BOB)
    rows.requests(4, ALICE)
    assert [leases.queued_of(rows.ours, owner) for owner in (ALICE, BOB, ME)] == [3, 2, 0]
    rows.claim(ME, most=100)
    assert leases.queued_of(rows.ours, ALICE) == 0
