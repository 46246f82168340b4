"""What becomes of a batch's lines when it is cancelled, deleted, past its deadline, retried, or changed by hand."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from dwctl import config
from dwctl.analytics import duties as analytics_duties
from dwctl.batches import changes, duties
from dwctl.queue import identifiers, leases
from dwctl.queue.leases import GivenBack
from tests.batches import lines as helpers
from tests.batches import made
from tests.batches.lines import OWNER, Lines

SLICE = 7
"""So many lines share a transaction here, so that a few of them need several."""


@pytest.fixture
def lines(
    database_url: str, sql: psycopg.Connection, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Lines]:  # fmt: skip
    for module in (changes, duties):
        monkeypatch.setattr(module, "AT_ONCE", SLICE)
    made = helpers.connect(database_url, config.load(environ), sql)
    yield made
    made.ours.close()


def sound(lines: Lines, id: UUID) -> bool:
    """Nothing that it says is wrong, and nothing of it is left to run."""
    assert lines.wrong(id) == []
    assert lines.waiting() == 0
    return True


# --- populated


def test_lines_become_requests_in_order(lines: Lines) -> None:
    id = lines.batch(3 * SLICE + 1)
    row = lines.row(id)
    assert row.populated_lines == 3 * SLICE + 1
    assert row.requests_started_at is not None
    found = lines.ours.execute("SELECT id, custom_id FROM fusillade.requests ORDER BY id").fetchall()  # fmt: skip
    assert found == [(identifiers.line_id(id, n), f"c{n}") for n in range(3 * SLICE + 1)]
    assert [job.custom_id for job in lines.claim()] == [f"c{n}" for n in range(3 * SLICE + 1)]


def test_lines_that_share_a_number_are_all_there(lines: Lines) -> None:
    """As files have them that were written by hand."""
    file = made.same_file(lines.ours, OWNER, 3 * SLICE, "m")
    lines.ours.execute("UPDATE fusillade.request_templates SET line_number = line_number / 2")
    id = made.batch(lines.ours, OWNER, file)
    lines.work()
    assert lines.states(id) == {"pending": 3 * SLICE}
    lines.run()
    assert lines.counts(id) == (3 * SLICE, 0, 0)
    assert sound(lines, id)


@pytest.mark.parametrize(("window", "tier"), [("24h", None), ("1h", "flex"), ("0s", "priority"), ("7d", None)])  # fmt: skip
def test_the_window_is_the_tier(lines: Lines, window: str, tier: str | None) -> None:
    lines.batch(1, window=window)
    assert lines.ours.execute("SELECT service_tier FROM fusillade.requests").fetchone() == (tier,)


def test_a_small_batch_does_not_wait_for_a_huge_one(lines: Lines) -> None:
    huge = lines.batch(60 * SLICE, populated=False)
    small = lines.batch(SLICE, populated=False)
    while lines.row(small).populated_lines == 0:
        lines._works(duties.populate)
    assert lines.row(huge).populated_lines < 40 * SLICE


def test_a_batch_whose_file_has_no_lines_fails(lines: Lines) -> None:
    file = made.same_file(lines.ours, OWNER, 2, "m")
    id = made.batch(lines.ours, OWNER, file)
    lines.ours.execute("DELETE FROM fusillade.request_templates")
    lines.work()
    row = lines.row(id)
    assert row.requests_started_at is None
    assert row.errors["object"] == "list"
    (error,) = row.errors["data"]
    assert (error["code"], error["line"], error["param"]) == ("empty_file", None, None)
    assert lines.ends(id) == {"failed"}


def test_a_batch_whose_file_lost_lines_goes_on_with_the_others(lines: Lines) -> None:
    id = lines.batch(3 * SLICE, populated=False)
    lines._works(duties.populate)
    lines.ours.execute("DELETE FROM fusillade.request_templates WHERE line_number >= %s", (2 * SLICE - 1,))  # fmt: skip
    lines.work()
    lines.run()
    lines.work()
    assert lines.row(id).total_requests == 2 * SLICE - 1
    assert lines.ends(id) == {"completed"}
    assert sound(lines, id)


@pytest.mark.parametrize("change", [changes.cancel, changes.delete])
def test_a_batch_that_is_stopped_while_it_is_populated(
    lines: Lines, change: Callable[[Any, UUID], Any]
) -> None:
    id = lines.batch(4 * SLICE, populated=False)
    lines._works(duties.populate)
    running = lines.claim(3)
    lines.end(running[:1])
    change(lines.ours, id)
    lines.work()
    lines.end(running[1:])
    lines.work()
    assert lines.ends(id) == {"cancelled"}
    assert sound(lines, id)
    if change is changes.cancel:
        # Whoever looks for a line finds it in one of the files.
        assert lines.counts(id) == (1, 0, 4 * SLICE - 1)


def test_what_cannot_be_populated_fails_its_batch_only(lines: Lines) -> None:
    # Each fits into an index, but not both into one.
    owner, model = ("".join(f"{n:032x}" for n in _odd(count)) for count in (75, 19))
    file = made.same_file(lines.ours, OWNER, 2, model)
    bad = made.batch(lines.ours, owner, file)
    good = lines.batch(2)
    assert lines.ends(bad) == {"failed"}
    assert lines.row(bad).errors["data"][0]["code"] == "populating_failed"
    assert lines.row(good).populated_lines == 2


def _odd(count: int) -> list[int]:
    """Numbers that cannot be compressed, each time the same."""
    chance = random.Random(1)
    return [chance.getrandbits(128) for _ in range(count)]


# --- counted


def test_the_last_line_ends_its_batch(lines: Lines) -> None:
    id = lines.batch(5)
    jobs = lines.claim()
    lines.end(jobs[:2])
    lines.end(jobs[2:4], status=400, cost=None)
    assert lines.counts(id) == (2, 2, 0)
    assert lines.ends(id) == set()
    lines.end(jobs[4:])
    assert lines.ends(id) == {"completed"}
    assert lines.row(id).counts_frozen_at is None
    lines.work()
    assert lines.row(id).counts_frozen_at is not None
    assert sound(lines, id)
    found = lines.ours.execute("SELECT failed, position, request_id FROM fusillade.finished_lines ORDER BY 1, 2").fetchall()  # fmt: skip
    ids = [job.id for job in jobs]
    assert found == [(False, 0, ids[0]), (False, 1, ids[1]), (False, 2, ids[4]), (True, 0, ids[2]), (True, 1, ids[3])]  # fmt: skip


def test_a_batch_of_failures_has_failed(lines: Lines) -> None:
    id = lines.batch(3)
    lines.run(status=400)
    assert lines.ends(id) == {"failed"}
    lines.work()
    assert sound(lines, id)


def test_a_record_that_is_repeated_counts_once(lines: Lines) -> None:
    id = lines.batch(2)
    jobs = lines.claim()
    for _ in range(3):
        lines.end(jobs[:1])
    lines.end(jobs)
    assert lines.counts(id) == (2, 0, 0)
    assert lines.wrong(id) == []


def test_lines_lost_too_often_are_in_the_error_file(lines: Lines) -> None:
    id = lines.batch(2)
    for _ in range(3):
        lines.ours.execute("UPDATE fusillade.delayed SET not_before = now()")
        leases.wake_delayed(lines.ours)
        leases.give_back(lines.ours, lines.me, [job.id for job in lines.claim(1)], why=GivenBack.LOST)  # fmt: skip
        lines.ours.execute("DELETE FROM fusillade.ready WHERE id IN (SELECT id FROM fusillade.requests WHERE times_lost = 0)")  # fmt: skip
    assert lines.counts(id) == (0, 1, 0)
    assert lines.wrong(id) == []


def test_a_record_that_the_database_refuses_ends_its_line(lines: Lines) -> None:
    id = lines.batch(1)
    (job,) = lines.claim()
    lines.ours.execute("SELECT fusillade.give_up(%s, %s)", (job.id, lines.me))
    assert lines.ends(id) == {"failed"}
    assert sound(lines, id)


# --- cancelled, deleted


def test_cancelling_takes_one_row_and_the_lines_follow(lines: Lines) -> None:
    id = lines.batch(5 * SLICE)
    running = lines.claim(4)
    lines.put_off(running[:1])
    changes.cancel(lines.ours, id)
    assert lines.counts(id) == (0, 0, 0)
    lines.work()
    assert lines.counts(id) == (0, 0, 5 * SLICE - 3)
    assert lines.ends(id) == set()
    assert lines.claim() == []
    # Its result is dropped, what it used is paid.
    lines.end(running[1:2])
    lines.end(running[2:3], status=400, cost=None)
    lines.put_off(running[3:])
    assert lines.counts(id) == (0, 0, 5 * SLICE)
    assert lines.ends(id) == {"cancelled"}
    kept = lines.ours.execute("SELECT count(*) FROM fusillade.requests WHERE response_body IS NOT NULL OR error IS NOT NULL").fetchone()  # fmt: skip
    assert kept == (0,)
    assert lines.ours.execute("SELECT sum(amount) FROM credits_transactions").fetchone() == (0.5,)
    lines.work()
    assert sound(lines, id)


@pytest.mark.parametrize("why", GivenBack)
def test_a_line_that_is_given_back_to_a_cancelled_batch_ends(lines: Lines, why: GivenBack) -> None:
    id = lines.batch(1)
    jobs = lines.claim()
    changes.cancel(lines.ours, id)
    leases.give_back(lines.ours, lines.me, [job.id for job in jobs], why=why)
    assert lines.states(id) == {"canceled": 1}
    assert lines.ends(id) == {"cancelled"}
    assert sound(lines, id)


def test_a_finished_batch_is_not_cancelled(lines: Lines) -> None:
    id = lines.batch(1)
    lines.run()
    lines.work()
    before = lines.row(id)
    changes.cancel(lines.ours, id)
    lines.work()
    assert lines.row(id) == before


def test_cancelling_twice_changes_nothing(lines: Lines) -> None:
    id = lines.batch(2)
    changes.cancel(lines.ours, id)
    lines.work()
    before = lines.row(id)
    changes.cancel(lines.ours, id)
    assert lines.row(id) == before


def test_a_batch_that_has_not_begun_is_cancelled_at_once(lines: Lines) -> None:
    id = lines.batch(3, populated=False)
    changes.cancel(lines.ours, id)
    lines._works(duties.sweep)
    assert lines.ends(id) == {"cancelled"}


def test_a_deleted_batch_stops(lines: Lines) -> None:
    id = lines.batch(3 * SLICE)
    running = lines.claim(1)
    assert changes.delete(lines.ours, id)
    assert not changes.delete(lines.ours, id)
    lines.work()
    assert lines.claim() == []
    lines.end(running)
    lines.work()
    assert lines.ends(id) == {"cancelled"}
    assert sound(lines, id)


def test_one_line_may_be_cancelled(lines: Lines) -> None:
    id = lines.batch(2)
    target = identifiers.line_id(id, 0)
    lines.ours.execute("SELECT fusillade.cancel(%s, %s)", (target, [str(OWNER)]))
    lines.run()
    assert lines.counts(id) == (1, 0, 1)
    assert lines.ends(id) == {"completed"}
    assert sound(lines, id)


# --- deadlines


def test_the_deadline_ends_what_waits(lines: Lines) -> None:
    id = lines.batch(3 * SLICE)
    lines.run(2)
    running = lines.claim(2)
    lines.time_passes(id)
    lines.work()
    assert lines.counts(id) == (2, 3 * SLICE - 4, 0)
    assert lines.ends(id) == set()
    lines.end(running[:1])
    lines.put_off(running[1:])
    assert lines.ends(id) == {"expired"}
    assert lines.counts(id) == (3, 3 * SLICE - 3, 0)
    error = lines.ours.execute("SELECT DISTINCT error::jsonb->>'code' FROM fusillade.requests WHERE state = 'failed'").fetchall()  # fmt: skip
    assert error == [("batch_expired",)]
    lines.work()
    assert sound(lines, id)


def test_lines_in_flight_at_the_deadline_may_end(lines: Lines) -> None:
    id = lines.batch(2)
    running = lines.claim()
    lines.time_passes(id)
    lines.work()
    lines.end(running)
    assert lines.ends(id) == {"completed"}


def test_a_deadline_has_a_grace(lines: Lines) -> None:
    lines = lines.graceful(2 * 3600.0)
    id = lines.batch(2)
    lines.time_passes(id, hours=25)
    lines.work()
    assert lines.states(id) == {"pending": 2}
    lines.time_passes(id, hours=2)
    lines.work()
    assert lines.ends(id) == {"expired"}


def test_lines_that_come_after_the_deadline_are_born_expired(lines: Lines) -> None:
    id = lines.batch(2 * SLICE, due_s=-1)
    assert lines.states(id) == {"failed": 2 * SLICE}
    assert lines.ends(id) == {"expired"}
    assert sound(lines, id)


# --- retried


def test_failed_lines_run_again(lines: Lines) -> None:
    id = lines.batch(3 * SLICE)
    lines.run(SLICE)
    lines.run(status=400, cost="0.25")
    lines.work()
    assert lines.ends(id) == {"completed"}
    assert changes.retry(lines.ours, id) == 2 * SLICE
    assert lines.ends(id) == set()
    row = lines.row(id)
    assert (row.finalizing_at, row.counts_frozen_at, row.notification_sent_at) == (None, None, None)
    lines.work()
    assert lines.counts(id) == (SLICE, 0, 0)
    assert lines.row(id).error_bytes == 0
    assert lines.wrong(id) == []
    again = lines.claim()
    assert len(again) == 2 * SLICE
    assert {(job.attempt, job.times_lost) for job in again} == {(0, 0)}
    lines.end(again[1:])
    lines.end(again[:1], status=400, cost=None)
    assert lines.ends(id) == {"completed"}
    assert lines.counts(id) == (3 * SLICE - 1, 1, 0)
    lines.work()
    assert sound(lines, id)
    # Both runs were calls, and both were paid.
    assert lines.ours.execute("SELECT sum(amount) FROM credits_transactions").fetchone() == (
        SLICE * 0.5 + 2 * SLICE * 0.25 + (2 * SLICE - 1) * 0.5,
    )


def test_a_line_may_be_retried_as_often_as_it_fails(lines: Lines) -> None:
    id = lines.batch(1)
    for _ in range(3):
        lines.run(status=500, cost="0.25")
        assert changes.retry(lines.ours, id) == 1
        lines.work()
    lines.run()
    lines.work()
    assert lines.ends(id) == {"completed"}
    assert sound(lines, id)
    assert lines.ours.execute("SELECT count(*), sum(amount) FROM credits_transactions").fetchone() == (4, 1.25)  # fmt: skip


def test_nothing_failed_nothing_is_retried(lines: Lines) -> None:
    id = lines.batch(1)
    lines.run()
    lines.work()
    before = lines.row(id)
    assert changes.retry(lines.ours, id) == 0
    assert lines.row(id) == before


def test_a_retried_batch_is_not_over_before_all_are_back(lines: Lines) -> None:
    id = lines.batch(2 * SLICE)
    lines.run(status=400)
    changes.retry(lines.ours, id)
    lines.run()
    assert lines.ends(id) == set()
    lines.work()
    lines.run()
    assert lines.ends(id) == {"completed"}


def test_a_retry_after_the_deadline_has_a_window_of_its_own(lines: Lines) -> None:
    id = lines.batch(2, window="1h 30m", due_s=5400)
    lines.run(1, status=400)
    lines.time_passes(id)
    lines.work()
    assert lines.ends(id) == {"expired"}
    assert changes.retry(lines.ours, id) == 2
    left = lines.row(id).expires_at - datetime.now(UTC)
    assert timedelta(minutes=89) < left <= timedelta(minutes=90)
    lines.work()
    lines.run()
    assert lines.ends(id) == {"completed"}


@pytest.mark.parametrize("due", [duties.sweep, duties.populate])
def test_a_retry_while_the_deadline_ends_lines_is_not_undone(
    lines: Lines, database_url: str, due: Callable[[Any, Any], float]
) -> None:
    id = lines.batch(5 * SLICE, populated=False)
    lines._works(duties.populate)
    if due is duties.sweep:
        lines.work()
    lines.run(SLICE, status=400)
    lines.time_passes(id)
    with psycopg.connect(database_url, options="-c dwctl.queue=own") as other, ThreadPoolExecutor(1) as thread:  # fmt: skip
        changes.retry(other, id)
        doing = thread.submit(lines._works, due)
        made.somebody_waits(other)
        other.commit()
        doing.result()
    lines.work()
    lines.put_off(lines.claim(1))
    leases.wake_delayed(lines.ours)
    lines.run()
    assert lines.counts(id) == (5 * SLICE, 0, 0)
    assert lines.ends(id) == {"completed"}
    lines.work()
    assert sound(lines, id)


def test_a_line_that_is_retried_before_its_loss_is_recorded_is_paid(lines: Lines) -> None:
    id = lines.batch(1)
    jobs = lines.claim()
    lines.ours.execute("UPDATE fusillade.requests SET times_lost = 2")
    leases.give_back(lines.ours, lines.me, [jobs[0].id], why=GivenBack.LOST)
    assert changes.retry(lines.ours, id) == 1
    with lines.ours.transaction():
        analytics_duties.record_ended(lines.ours, lines.settings)
    lines.run()
    logged = lines.ours.execute("SELECT error_code, status_code FROM http_analytics ORDER BY status_code").fetchall()  # fmt: skip
    assert logged == [(None, 200), ("worker_lost", 502)]
    assert lines.ours.execute("SELECT sum(amount) FROM credits_transactions").fetchone() == (0.5,)
    lines.work()
    assert sound(lines, id)


@pytest.mark.parametrize("change", [changes.cancel, changes.delete])
def test_what_was_stopped_is_not_retried(lines: Lines, change: Callable[[Any, UUID], Any]) -> None:
    id = lines.batch(2)
    lines.run(1, status=400)
    change(lines.ours, id)
    lines.work()
    before = lines.row(id)
    for retry in (changes.retry, lambda *given: changes.retry_requests(*given, [identifiers.line_id(id, 0)])):  # fmt: skip
        with pytest.raises(changes.NotRetriable):
            retry(lines.ours, id)
    assert lines.row(id) == before


def test_a_batch_may_be_cancelled_while_it_is_retried(lines: Lines) -> None:
    id = lines.batch(3 * SLICE)
    lines.run(status=400)
    changes.retry(lines.ours, id)
    changes.cancel(lines.ours, id)
    lines.work()
    assert lines.counts(id) == (0, 2 * SLICE, SLICE)
    assert lines.ends(id) == {"cancelled"}
    assert sound(lines, id)


def test_some_lines_are_retried_those_that_are_its_own_and_failed(lines: Lines) -> None:
    other = lines.batch(1)
    lines.run(status=400)
    id = lines.batch(3)
    jobs = lines.claim()
    lines.end(jobs[:1])
    lines.end(jobs[1:], status=400)
    foreign, unknown = identifiers.line_id(other, 0), uuid.UUID(int=99)
    retried, refused = changes.retry_requests(lines.ours, id, [jobs[0].id, jobs[1].id, foreign, unknown])  # fmt: skip
    assert retried == {jobs[1].id}
    assert refused == {jobs[0].id, foreign, unknown}
    assert lines.counts(id) == (1, 1, 0)
    assert lines.ends(other) == {"failed"}
    lines.run()
    lines.work()
    assert lines.counts(id) == (2, 1, 0)
    assert lines.ends(id) == {"completed"}
    assert sound(lines, id)


# --- by hand


def hand_made(lines: Lines, count: int, **more: Any) -> tuple[UUID, list[UUID]]:
    """A batch with few columns, and requests with ids, model and state only."""
    batch, template = uuid.uuid4(), uuid.uuid4()
    lines.by_hand.execute("INSERT INTO fusillade.request_templates (id, endpoint, method, path, body, model) VALUES (%s, '', 'POST', '/v1/chat/completions', '{}', 'm')", (template,))  # fmt: skip
    lines.by_hand.execute("INSERT INTO fusillade.batches (id, created_by, expires_at) VALUES (%s, %s, now() + interval '1 day')", (batch, str(OWNER)))  # fmt: skip
    ids = [uuid.uuid4() for _ in range(count)]
    for id in ids:
        lines.by_hand.execute("INSERT INTO fusillade.requests (id, batch_id, template_id, model, state) VALUES (%s, %s, %s, 'm', 'pending')", (id, batch, template))  # fmt: skip
    return batch, ids


def test_a_batch_written_by_hand_is_run_and_ends(lines: Lines) -> None:
    id, _ = hand_made(lines, 3)
    lines.run(2)
    assert lines.ends(id) == set()
    lines.run()
    lines.work()
    assert lines.ends(id) == {"completed"}
    assert lines.row(id).total_requests == 3
    assert sound(lines, id)


def test_a_batch_written_by_hand_is_cancelled(lines: Lines) -> None:
    id, _ = hand_made(lines, 5)
    changes.cancel(lines.ours, id)
    lines.work()
    assert lines.states(id) == {"canceled": 5}
    assert lines.ends(id) == {"cancelled"}
    assert sound(lines, id)


FINISHED = "state = 'completed', response_status = 200, response_body = '{}', completed_at = now()"
FAILED = "state = 'failed', error = '{}', failed_at = now()"


def test_lines_that_are_ended_by_hand_are_counted(lines: Lines) -> None:
    id = lines.batch(4)
    lines.by_hand.execute(
        f"UPDATE fusillade.requests SET {FINISHED} WHERE custom_id IN ('c0', 'c1')"
    )  # type: ignore[arg-type]
    lines.by_hand.execute(f"UPDATE fusillade.requests SET {FAILED} WHERE custom_id = 'c2'")  # type: ignore[arg-type]
    changes.finalise(lines.ours, id)
    assert lines.counts(id) == (2, 1, 0)
    assert lines.wrong(id) == []
    lines.run()
    lines.work()
    assert lines.ends(id) == {"completed"}
    assert lines.counts(id) == (3, 1, 0)
    assert sound(lines, id)


def test_a_line_that_is_put_back_by_hand_runs_again(lines: Lines) -> None:
    id = lines.batch(2)
    lines.run(status=400, cost=None)
    lines.work()
    lines.by_hand.execute("UPDATE fusillade.requests SET state = 'pending', error = NULL, failed_at = NULL, daemon_id = NULL, claimed_at = NULL, started_at = NULL WHERE custom_id = 'c0'")  # fmt: skip
    lines.work()
    assert lines.counts(id) == (0, 1, 0)
    assert lines.ends(id) == set()
    lines.run()
    lines.work()
    assert lines.counts(id) == (1, 1, 0)
    assert lines.ends(id) == {"completed"}
    assert lines.wrong(id) in ([], ["usage: (1, 7)"])


def test_rows_that_are_over_when_they_are_written(lines: Lines) -> None:
    id, _ = hand_made(lines, 0)
    lines.by_hand.execute(
        "INSERT INTO fusillade.requests (batch_id, model, state, response_status, response_body, completed_at) "
        "SELECT %s, 'm', 'completed', 200, '{}', now() FROM generate_series(1, 3)",
        (id,),
    )
    lines.work()
    assert lines.counts(id) == (3, 0, 0)
    assert lines.ends(id) == {"completed"}
    assert sound(lines, id)


def test_what_is_changed_by_hand_while_it_is_counted_is_counted(
    lines: Lines, database_url: str
) -> None:
    id = lines.batch(2)
    lines.run(status=400)
    with psycopg.connect(database_url) as counting, ThreadPoolExecutor(1) as thread:
        duties.count(counting, lines.settings)
        change = (
            "UPDATE fusillade.requests SET state = 'pending', daemon_id = NULL, claimed_at = NULL, started_at = NULL, "
            "failed_at = NULL WHERE custom_id = 'c1'"
        )
        doing = thread.submit(lines.by_hand.execute, change)
        made.somebody_waits(counting)
        counting.commit()
        doing.result()
    lines.work()
    assert lines.counts(id) == (0, 1, 0)
    lines.run()
    lines.work()
    assert sound(lines, id)


def test_a_retry_does_not_wait_for_who_is_about_to_count(lines: Lines, database_url: str) -> None:
    """He waits for it: each would have what the other wants."""
    id = lines.batch(1)
    lines.run(status=400)
    with psycopg.connect(database_url) as counting:
        counting.execute("SELECT FROM fusillade.recounts FOR UPDATE")
        assert changes.retry(lines.ours, id) == 1
        duties.count(counting, lines.settings)
    lines.run()
    lines.work()
    assert lines.ends(id) == {"completed"}
    assert sound(lines, id)


# --- at once


def test_everybody_at_once(lines: Lines, database_url: str, environ: dict[str, str]) -> None:
    """Workers that end lines of the same batches, put some back and lose some, duties, and owners: nobody waits for each other in a circle."""
    batches = [lines.batch(150, populated=False, model=f"m{n % 2}") for n in range(4)]
    cancelled, deleted, retried, plain = batches

    def work(number: int) -> None:
        chance = random.Random(number)
        with psycopg.connect(
            database_url, autocommit=True, options="-c dwctl.queue=own"
        ) as connection:
            mine = replace(lines, ours=connection, me=uuid.uuid4())
            idle = 0
            while idle < 20:
                jobs = mine.claim(chance.randrange(1, 30))
                chance.shuffle(jobs)
                back, failed, done = jobs[4:6], jobs[1:4], jobs[:1] + jobs[6:]
                mine.end(done)
                mine.end(failed, status=400, cost=None)
                mine.put_off(back[:1])
                leases.give_back(connection, mine.me, [job.id for job in back[1:]], why=GivenBack.DRAINED)  # fmt: skip
                leases.wake_delayed(connection)
                idle = 0 if jobs else idle + 1
                time.sleep(0.01)

    def do_duties(number: int) -> None:
        with psycopg.connect(
            database_url, autocommit=True, options="-c dwctl.queue=own"
        ) as connection:
            mine = replace(lines, ours=connection)
            for _ in range(120):
                mine._works(duties.DUTIES[number].run)
                time.sleep(0.01)

    with ThreadPoolExecutor(8) as threads:
        done = [threads.submit(work, number) for number in range(4)]
        done += [threads.submit(do_duties, number) for number in range(4)]
        while not lines.counts(cancelled)[0]:
            time.sleep(0.01)
        changes.cancel(lines.ours, cancelled)
        changes.delete(lines.ours, deleted)
        for _ in range(5):
            changes.retry(lines.ours, retried)
            time.sleep(0.1)
        for one in done:
            one.result()
    lines.work()
    while lines.run():
        lines.work()
    assert [lines.ends(id) for id in batches] == [{"cancelled"}, {"cancelled"}, {"completed"}, {"completed"}]  # fmt: skip
    assert [sum(lines.counts(id)) for id in (cancelled, retried, plain)] == [150] * 3
    for id in batches:
        assert lines.wrong(id) == []
    assert lines.waiting() == 0
