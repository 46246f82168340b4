"""What a claim chooses: pauses, escalations, urgency beside fairness, and entries that cannot be run."""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter

import psycopg
import pytest

from dwctl.queue import leases, pauses
from dwctl.queue.pauses import PauseReason
from tests.queue.rows import ALICE, BOB, CAROL, Rows, ids

ME, YOU = uuid.uuid4(), uuid.uuid4()
TO_BIG = {"m": ("big", 600.0)}


def batch_of_lines(rows: Rows, count: int, owner: object = ALICE, *, due_s: float = 7200.0) -> uuid.UUID:  # fmt: skip
    """A batch with ids as the product makes them: together, in the order of its lines."""
    batch, template = rows.batch(owner, due_s=due_s)
    rows.by_hand.execute(
        "INSERT INTO fusillade.requests (id, batch_id, template_id, model, state) "
        "SELECT (left(replace(%(b)s::text, '-', ''), 24) || lpad(to_hex(n), 8, '0'))::uuid, %(b)s, %(t)s, 'm', 'pending' "
        "  FROM generate_series(1, %(n)s) n",
        {"b": batch, "t": template, "n": count},
    )
    return batch


# --- pauses


def test_a_paused_account_waits_and_the_others_go_on(rows: Rows) -> None:
    rows.requests(5, ALICE)
    bobs = rows.requests(2, BOB)
    pauses.pause_for_credit(rows.ours, "m", str(ALICE), 0.4)
    assert set(ids(rows.claim(ME))) == set(bobs)
    assert rows.claim(ME) == []
    ends_in_s = pauses.next_end_s(rows.ours)
    assert ends_in_s is not None
    assert 0 < ends_in_s <= 0.4
    time.sleep(ends_in_s + 0.02)
    assert len(rows.claim(ME)) == 5
    assert pauses.next_end_s(rows.ours) is None


def test_a_paused_model_waits_whoever_asks(rows: Rows) -> None:
    rows.requests(3, model="m")
    (other,) = rows.requests(1, model="other")
    pauses.pause_model(rows.ours, "m", 0.3, "upstream_pressure")
    assert ids(rows.claim(ME)) == [other]
    assert rows.claim(YOU) == []
    time.sleep(0.35)
    assert len(rows.claim(YOU)) == 3


def test_the_later_end_of_a_pause_wins(rows: Rows) -> None:
    rows.requests(1)
    for wait_s in (3600, 0.0):
        pauses.pause_for_credit(rows.ours, "m", str(ALICE), wait_s)
        pauses.pause_model(rows.ours, "m", wait_s, "upstream_pressure")
    for table in ("queues", "model_slots"):
        assert rows.one(f"SELECT paused_until > now() + interval '59 minutes' FROM fusillade.{table}")  # fmt: skip


def test_a_pause_is_there_before_what_it_holds_back(rows: Rows) -> None:
    """The last of a queue is in flight when its account runs dry; the queue is made anew when it comes back."""
    id = rows.request()
    rows.claim(ME)
    assert rows.count("queues") == 0
    pauses.pause_for_credit(rows.ours, "m", str(ALICE), 0.3)
    leases.give_back(rows.ours, ME, [id], why=leases.GivenBack.DRAINED)
    assert rows.claim(YOU) == []
    time.sleep(0.35)
    assert ids(rows.claim(YOU)) == [id]


def test_a_reason_is_one_of_few(rows: Rows) -> None:
    with pytest.raises(ValueError, match="dull"):
        pauses.pause_model(rows.ours, "m", 1.0, "dull")
    assert {reason.value for reason in PauseReason} == {"no_credit", "upstream_pressure"}


def test_whoever_was_paused_does_not_catch_up(rows: Rows) -> None:
    rows.requests(60, ALICE)
    rows.requests(60, BOB)
    pauses.pause_for_credit(rows.ours, "m", str(ALICE), 0.2)
    assert len(rows.claim(ME, most=40)) == 40
    time.sleep(0.25)
    owners = Counter(job.created_by for job in rows.claim(ME, most=20))
    assert owners == {str(ALICE): 10, str(BOB): 10}


def test_a_newcomer_begins_where_those_are_that_are_served(rows: Rows) -> None:
    """And not where somebody stands who has been paused for long."""
    rows.requests(60, ALICE)
    rows.requests(60, BOB)
    pauses.pause_for_credit(rows.ours, "m", str(ALICE), 60)
    rows.claim(ME, most=40)
    rows.requests(30, CAROL)
    owners = Counter(job.created_by for _ in range(10) for job in rows.claim(ME, most=1))
    assert owners == {str(BOB): 5, str(CAROL): 5}


def test_credit_ends_the_pauses_that_want_of_it_made(rows: Rows) -> None:
    user = rows.one("INSERT INTO users (username, email, external_user_id) VALUES ('p', 'p@x', 'p') RETURNING id")  # fmt: skip
    try:
        rows.requests(2, user)
        rows.requests(2, BOB)
        for owner in (user, BOB):
            pauses.pause_for_credit(rows.ours, "m", str(owner), 3600)
        assert pauses.end_those_of_the_funded(rows.ours) == 0
        rows.by_hand.execute("INSERT INTO user_balance_checkpoints (user_id, checkpoint_seq, balance) VALUES (%s, 1, 5)", (user,))  # fmt: skip
        assert pauses.end_those_of_the_funded(rows.ours) == 1
        assert {job.created_by for job in rows.claim(ME)} == {str(user)}
    finally:
        rows.by_hand.execute("DELETE FROM user_balance_checkpoints WHERE user_id = %s", (user,))
        rows.by_hand.execute("DELETE FROM users WHERE id = %s", (user,))


def test_a_thousand_paused_accounts_do_not_cost_a_claim_its_turn(rows: Rows) -> None:
    rows.by_hand.execute(
        "INSERT INTO fusillade.queues (model, created_by, head_deadline, paused_until) "
        "SELECT 'm', 'paused-' || n, now(), now() + interval '1 hour' FROM generate_series(1, 1000) n"
    )
    rows.requests(3)
    rows.ours.execute("UPDATE fusillade.queues SET vtime = 1000000 WHERE paused_until IS NULL")
    assert len(rows.claim(ME, caps={"m": 3})) == 3


# --- escalation


def test_what_is_near_its_deadline_escalates(rows: Rows) -> None:
    near = rows.request(due_s=300)
    far = rows.request(BOB, due_s=3600)
    jobs = {job.id: job for job in rows.claim(ME, escalations=TO_BIG)}
    assert (jobs[near].model, jobs[near].escalation) == ("m", "big")
    assert (jobs[far].model, jobs[far].escalation) == ("m", None)
    flying = rows.by_hand.execute("SELECT id, model FROM fusillade.inflight").fetchall()
    assert dict(flying) == {near: "big", far: "m"}


def test_what_escalates_is_limited_by_the_model_that_serves_it(rows: Rows) -> None:
    """And where that is full, by its own."""
    rows.requests(3, model="big", due_s=3600)
    assert len(rows.claim(ME, caps={"big": 3})) == 3
    rows.requests(9, due_s=300)
    jobs = rows.claim(ME, caps={"big": 5, "m": 4}, escalations=TO_BIG)
    assert Counter(job.escalation for job in jobs) == {"big": 2, None: 4}
    assert rows.claim(YOU, caps={"big": 5, "m": 4}, escalations=TO_BIG) == []


def test_a_full_or_paused_model_does_not_keep_what_escalates(rows: Rows) -> None:
    rows.requests(2, due_s=300)
    pauses.pause_model(rows.ours, "m", 60, "upstream_pressure")
    (first,) = rows.claim(ME, caps={"m": 1}, most=1, escalations=TO_BIG)
    (second,) = rows.claim(ME, caps={"m": 0}, escalations=TO_BIG)
    assert first.escalation == second.escalation == "big"


def test_a_paused_escalation_leaves_them_to_their_own_model(rows: Rows) -> None:
    rows.requests(2, due_s=300)
    pauses.pause_model(rows.ours, "big", 60, "upstream_pressure")
    assert [job.escalation for job in rows.claim(ME, escalations=TO_BIG)] == [None, None]


# --- urgency beside fairness


@pytest.mark.parametrize(
    ("weight", "first_due"), [(0.0, 20), (0.5, 40), (1.0, 60)], ids=["fair", "half", "by deadline"]
)
def test_a_share_goes_by_deadline(rows: Rows, weight: float, first_due: int) -> None:
    """To whoever is due first; the rest is shared by all."""
    batch_of_lines(rows, 60, ALICE, due_s=3600)
    batch_of_lines(rows, 60, BOB)
    batch_of_lines(rows, 60, CAROL)
    seen: Counter[str] = Counter()
    for _ in range(10):
        seen.update(job.created_by for job in rows.claim(ME, most=6, urgency_weight=weight))
    assert sum(seen.values()) == 60
    assert first_due - 4 <= seen[str(ALICE)] <= first_due + 4
    assert abs(seen[str(BOB)] - seen[str(CAROL)]) <= 4


def test_a_claim_serves_some_accounts_and_the_next_one_the_others(rows: Rows) -> None:
    """Five requests of each of twenty are cheaper than two of each of fifty; after some claims nobody can tell."""
    for n in range(40):
        batch_of_lines(rows, 12, uuid.UUID(int=n, version=4))
    seen: Counter[str] = Counter()
    for served in (20, 40, 40, 40):
        claimed = Counter(job.created_by for job in rows.claim(ME))
        assert set(claimed.values()) == {5}
        seen.update(claimed)
        assert len(seen) == served
    assert set(seen.values()) == {10}


def test_many_accounts_with_one_request_each_are_served_at_once(rows: Rows) -> None:
    for n in range(60):
        rows.request(uuid.UUID(int=n, version=4))
    assert len({job.created_by for job in rows.claim(ME)}) == 60


def test_what_others_hold_keeps_nobody_waiting(rows: Rows) -> None:
    """The heads of more queues than a claim looks at first are being taken away, and stay after all."""
    held = [rows.request(uuid.UUID(int=n, version=4)) for n in range(10, 40)]
    free = rows.requests(3, CAROL)
    rows.ours.execute("UPDATE fusillade.queues SET vtime = 9 WHERE created_by = %s", (str(CAROL),))
    with psycopg.connect(rows.url) as other:
        other.execute("SELECT FROM fusillade.ready WHERE id = ANY (%s) FOR UPDATE", (held,))
        assert set(ids(rows.claim(ME))) == set(free)
    assert set(ids(rows.claim(ME))) == set(held)


def test_only_what_is_urgent_goes_first(rows: Rows) -> None:
    """One urgent request does not take the others of its account along."""
    rows.request(ALICE, due_s=60)
    rows.requests(30, ALICE)
    rows.requests(30, BOB)
    seen = Counter(job.created_by for job in rows.claim(ME, most=21))
    assert seen[str(ALICE)] <= 12
    assert seen[str(BOB)] >= 9


def test_an_urgent_model_goes_before_others(rows: Rows) -> None:
    rows.requests(5, model="a")
    urgent = rows.request(model="z", due_s=60)
    assert ids(rows.claim(ME, most=1)) == [urgent]


def test_lines_of_a_batch_go_in_their_order(rows: Rows) -> None:
    batch_of_lines(rows, 30)
    seen = [job.id for _ in range(3) for job in rows.claim(ME, most=10)]
    assert seen == sorted(seen)
    assert len(seen) == 30


# --- what cannot be run


@pytest.mark.parametrize("column", ["cancelling_at", "deleted_at"])
def test_a_stopped_batch_at_the_head_stands_in_nobodys_way(rows: Rows, column: str) -> None:
    stopped = batch_of_lines(rows, 1500)
    alive = batch_of_lines(rows, 3, due_s=9000)
    rows.by_hand.execute(
        f"UPDATE fusillade.batches SET {column} = now() WHERE id = %s",  # type: ignore[arg-type]
        (stopped,),
    )
    jobs = rows.claim(ME, caps={"m": 5})
    assert [job.batch_id for job in jobs] == [alive] * 3
    assert rows.count("ready") == 0
    assert rows.one("SELECT count(*) FROM fusillade.requests WHERE state = 'pending'") == 1500


def test_what_was_swept_wakes_whoever_waits(rows: Rows) -> None:
    """There may be more behind than one claim sweeps."""
    stopped = batch_of_lines(rows, 4000)
    rows.by_hand.execute("UPDATE fusillade.batches SET deleted_at = now() WHERE id = %s", (stopped,))  # fmt: skip
    with psycopg.connect(rows.url, autocommit=True) as listener:
        listener.execute("LISTEN fusillade_ready")
        rounds = 0
        while rows.count("ready"):
            assert rows.claim(ME) == []
            rounds += 1
            assert len(list(listener.notifies(timeout=1, stop_after=1))) == 1
        assert rounds > 1


@pytest.mark.parametrize("due", ["infinity", "-infinity", "20000-01-01"])
def test_a_deadline_beyond_every_calendar_stops_nobody(rows: Rows, due: str) -> None:
    """Written by hand."""
    of = rows.batch()
    rows.by_hand.execute("UPDATE fusillade.batches SET expires_at = %s", (due,))
    id = rows.request(of=of)
    other = rows.request(BOB)
    assert set(ids(rows.claim(ME))) == {id, other}


def test_what_somebody_paused_for_ever_stops_nobody_else(rows: Rows) -> None:
    rows.request(ALICE)
    bobs = rows.request(BOB)
    rows.by_hand.execute("UPDATE fusillade.queues SET paused_until = 'infinity' WHERE created_by = %s", (str(ALICE),))  # fmt: skip
    rows.by_hand.execute("INSERT INTO fusillade.model_slots (model, paused_until) VALUES ('x', 'infinity')")  # fmt: skip
    assert ids(rows.claim(ME)) == [bobs]
    assert pauses.next_end_s(rows.ours) is None


# --- several claims at once


def test_a_claim_waits_shortly_for_the_only_model_with_work(rows: Rows) -> None:
    every = set(rows.requests(4))
    got: list[uuid.UUID] = []

    def claim() -> None:
        with psycopg.connect(rows.url, autocommit=True) as yours:
            yours.execute("SET dwctl.queue = own")
            got.extend(ids(rows.claim(YOU, connection=yours)))

    with psycopg.connect(rows.url) as mine:
        mine.execute("SET dwctl.queue = own")
        first = rows.claim(ME, connection=mine, most=1)
        waits = threading.Thread(target=claim)
        waits.start()
        time.sleep(0.03)
        mine.commit()
        waits.join()
    assert set(got) | set(ids(first)) == every


def test_caps_hold_with_escalations_and_many_claims_at_once(rows: Rows) -> None:
    for owner in (ALICE, BOB, CAROL):
        batch_of_lines(rows, 150, owner, due_s=300)
        rows.requests(30, owner, model="big")
    caps, over, faults = {"m": 7, "big": 5}, [], []
    left = threading.Event()

    def work(me: uuid.UUID) -> None:
        with psycopg.connect(rows.url, autocommit=True) as own:
            own.execute("SET dwctl.queue = own")
            try:
                for _ in range(40):
                    jobs = rows.claim(me, caps=caps, most=6, escalations=TO_BIG, connection=own)
                    counts = own.execute("SELECT model, count(*) FROM fusillade.inflight GROUP BY model")  # fmt: skip
                    over.extend((m, n) for m, n in counts if n > caps[m])
                    if jobs:
                        own.execute("DELETE FROM fusillade.inflight WHERE id = ANY (%s)", (ids(jobs),))  # fmt: skip
            except psycopg.Error as error:
                faults.append(error)
            left.set()

    workers = [threading.Thread(target=work, args=(uuid.uuid4(),)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert (over, faults) == ([], [])


def test_batches_that_are_cancelled_while_they_are_claimed_deadlock_with_nobody(rows: Rows) -> None:
    """Sweeps take requests before their places in line, claims the other way round."""
    batches = [batch_of_lines(rows, 200, owner) for owner in (ALICE, BOB, CAROL)]
    claimed: list[uuid.UUID] = []
    faults: list[psycopg.Error] = []

    def claim() -> None:
        with psycopg.connect(rows.url, autocommit=True) as own:
            own.execute("SET dwctl.queue = own")
            try:
                while jobs := rows.claim(ME, most=5, connection=own):
                    claimed.extend(ids(jobs))
            except psycopg.Error as error:
                faults.append(error)

    def cancel(batch: uuid.UUID) -> None:
        with psycopg.connect(rows.url, autocommit=True) as own:
            own.execute("SET dwctl.queue = own")
            try:
                own.execute("SELECT fusillade.cancel_batch(%s)", (batch,))
                for _ in range(10):
                    own.execute("SELECT fusillade.sweep(%s, 40)", (batch,))
            except psycopg.Error as error:
                faults.append(error)

    threads = [threading.Thread(target=claim) for _ in range(2)]
    threads += [threading.Thread(target=cancel, args=(batch,)) for batch in batches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    while left := rows.claim(ME):
        claimed.extend(ids(left))
    states = dict(rows.by_hand.execute("SELECT state, count(*) FROM fusillade.requests GROUP BY state").fetchall())  # fmt: skip
    assert states == {state: n for state, n in (("processing", len(claimed)), ("canceled", 600 - len(claimed))) if n}  # fmt: skip
    assert rows.count("ready") == 0
