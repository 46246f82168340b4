"""The claim and what becomes of it: each request to one worker, the urgent first, fair, within the caps; nothing is lost or run twice."""

from __future__ import annotations

import hashlib
import threading
import time
import uuid
from collections import Counter
from uuid import UUID

import psycopg
import pytest

from dwctl import sql
from dwctl.queue import leases
from dwctl.queue.leases import GivenBack
from tests.queue.rows import ALICE, BOB, CAROL, Rows, ids

ME, YOU = uuid.uuid4(), uuid.uuid4()
_QUERIES = sql.load("dwctl.queue")


# --- who gets what


def test_a_request_of_few_columns_is_claimed_with_all_that_is_needed(rows: Rows) -> None:
    batch, template = rows.batch(due_s=3600, completion_window="1h")
    id = rows.request(of=(batch, template))
    (job,) = rows.claim(ME)
    assert (job.id, job.batch_id, job.model, job.attempt) == (id, batch, "m", 0)
    assert (job.path, job.body) == ("/v1/chat/completions", "{}")
    assert job.window == "1h"
    assert 3500 < job.deadline.timestamp() - time.time() <= 3600
    assert rows.state(id) == "processing"
    assert rows.one("SELECT daemon_id FROM fusillade.requests") == ME


@pytest.mark.parametrize(("size", "is_brought"), [(262_144, True), (262_145, False)])
def test_a_large_body_is_read_when_its_turn_comes(rows: Rows, size: int, is_brought: bool) -> None:
    """Squeezed as it is stored, which does not count."""
    rows.request()
    rows.ours.execute("UPDATE fusillade.request_templates SET body = repeat('x', %s)", (size,))
    (job,) = rows.claim(ME)
    assert job.body_size == size
    assert (job.body == "x" * size) is is_brought
    assert leases.large_body(rows.ours, job.id) == "x" * size
    rows.ours.execute("DELETE FROM fusillade.request_templates")
    assert leases.large_body(rows.ours, job.id) is None


def test_a_claimed_request_is_invisible_to_a_second_worker(rows: Rows) -> None:
    rows.request()
    assert len(rows.claim(ME)) == 1
    assert rows.claim(YOU) == []


def test_a_claim_that_is_not_committed_is_skipped_not_waited_for(rows: Rows) -> None:
    every = set(rows.requests(4))
    with psycopg.connect(rows.url) as mine:
        mine.execute("SET dwctl.queue = own")
        first = rows.claim(ME, connection=mine, most=1)
        rows.ours.execute("SET statement_timeout = '2s'")
        second = rows.claim(YOU)
        assert not set(ids(first)) & set(ids(second))
        mine.rollback()
    assert set(ids(second)) | set(ids(rows.claim(ME))) == every


def test_no_more_are_claimed_than_asked_for(rows: Rows) -> None:
    rows.requests(10)
    assert len(rows.claim(ME, most=3)) == 3
    assert rows.claim(ME, most=0) == []
    assert len(rows.claim(ME, most=100)) == 7


def test_the_urgent_come_first(rows: Rows) -> None:
    later = rows.request(ALICE, due_s=7200)
    sooner = rows.request(ALICE, due_s=3600)
    soonest = rows.request(BOB, due_s=60)
    assert ids(rows.claim(ME, most=1)) == [soonest]
    assert ids(rows.claim(ME, most=1)) == [sooner]
    assert ids(rows.claim(ME, most=1)) == [later]


def test_what_is_overdue_is_claimed_all_the_same(rows: Rows) -> None:
    overdue = rows.request(due_s=-3600)
    assert ids(rows.claim(ME)) == [overdue]


def test_accounts_share_what_is_free(rows: Rows) -> None:
    rows.requests(200, ALICE)
    rows.requests(5, BOB)
    rows.requests(5, CAROL)
    owners: Counter[UUID | None] = Counter()
    for _ in range(3):
        claimed = rows.claim(ME, most=4)
        owners.update(UUID(batch_owner(rows, job.batch_id)) for job in claimed)
    assert owners[BOB] >= 3
    assert owners[CAROL] >= 3
    assert sum(owners.values()) == 12


def test_who_comes_late_does_not_get_everything(rows: Rows) -> None:
    """A newcomer starts where the others are; it does not catch up on what it never asked for."""
    rows.requests(100, ALICE)
    rows.claim(ME, most=50)
    rows.requests(100, BOB)
    owners = Counter(batch_owner(rows, job.batch_id) for job in rows.claim(ME, most=20))
    assert owners[str(ALICE)] >= 8
    assert owners[str(BOB)] >= 8


def test_models_share_what_is_free(rows: Rows) -> None:
    for model in ("a", "b", "c"):
        rows.requests(50, model=model)
    seen = Counter(job.model for _ in range(3) for job in rows.claim(ME, most=10, default_cap=10))
    assert set(seen) == {"a", "b", "c"}


@pytest.mark.parametrize(("cap", "got"), [(1, 1), (7, 7), (0, 0)])
def test_a_model_has_only_so_many_in_flight(rows: Rows, cap: int, got: int) -> None:
    rows.requests(20, ALICE)
    rows.requests(20, BOB)
    assert len(rows.claim(ME, caps={"m": cap})) == got
    assert rows.claim(YOU, caps={"m": cap}) == []


def test_the_cap_holds_over_all_workers_and_a_free_slot_is_used(rows: Rows) -> None:
    rows.requests(20)
    mine = rows.begin(ME, caps={"m": 3}, most=2)
    yours = rows.begin(YOU, caps={"m": 3}, most=2)
    assert (len(mine), len(yours)) == (2, 1)
    rows.complete(ME, mine[0].id)
    assert len(rows.claim(YOU, caps={"m": 3})) == 1
    # One cap is as good as its reader's: a worker with another setting sees the same in flight.
    assert len(rows.claim(ME, caps={"m": 5})) == 2


def test_a_call_that_has_ended_and_the_one_in_its_place_are_one(rows: Rows) -> None:
    """As long as the end is not written down both are in flight; another worker knows of no such pair."""
    rows.requests(20)
    first, second, third = rows.claim(ME, caps={"m": 3})
    pairs = {first.id: second.id}
    assert rows.claim(YOU, caps={"m": 3}, following=pairs) == []
    (fourth,) = rows.claim(ME, caps={"m": 3}, following=pairs)
    assert rows.claim(ME, caps={"m": 3}, following=pairs) == []
    # One after the other in the same place.
    longer = pairs | {second.id: fourth.id}
    assert len(rows.claim(ME, caps={"m": 3}, following=longer)) == 1
    assert rows.claim(ME, caps={"m": 3}, following=longer) == []
    for id in (first.id, second.id):
        rows.complete(ME, id)
    assert rows.claim(ME, caps={"m": 3}, following=longer) == []
    rows.complete(ME, third.id)
    assert len(rows.claim(ME, caps={"m": 3}, following=longer)) == 1


def test_one_that_has_ended_makes_no_room_in_another_model(rows: Rows) -> None:
    rows.requests(4, model="m")
    rows.requests(4, model="n")
    caps = {"m": 1, "n": 1}
    of = {job.model: job.id for job in rows.claim(ME, caps=caps)}
    assert rows.claim(ME, caps=caps, following={of["m"]: of["n"]}) == []
    assert rows.claim(ME, caps=caps, following={uuid.uuid4(): of["n"]}) == []


def test_models_that_are_full_do_not_stand_in_the_way_of_others(rows: Rows) -> None:
    """However many they are, and however long they have not been served."""
    caps = {f"stuck-{n}": 1 for n in range(40)}
    for model in caps:
        rows.requests(2, model=model)
    while rows.claim(ME, caps=caps):
        pass
    assert rows.count("inflight") == len(caps)
    rows.requests(3, model="free")
    rows.ours.execute("UPDATE fusillade.model_slots SET served = 1000 WHERE model = 'free'")
    assert len(rows.claim(ME, caps=caps)) == 3


def test_each_claim_finds_something_as_long_as_there_is_something(rows: Rows) -> None:
    """A line that has just become empty does not cost the next one its turn."""
    for n in range(12):
        rows.request(uuid.uuid4(), due_s=60 if n % 2 else 3600)
    for _ in range(12):
        (job,) = rows.claim(ME, caps={"m": 1})
        rows.complete(ME, job.id)
    assert rows.count("queues") == 0


def test_a_model_without_a_cap_has_the_default(rows: Rows) -> None:
    rows.requests(20)
    assert len(rows.claim(ME, caps={"other": 1}, default_cap=4)) == 4


@pytest.mark.parametrize("column", ["cancelling_at", "deleted_at"])
def test_a_batch_that_is_cancelled_or_deleted_is_left_alone(rows: Rows, column: str) -> None:
    batch, template = rows.batch()
    id = rows.request(of=(batch, template))
    rows.by_hand.execute(
        f"UPDATE fusillade.batches SET {column} = now() WHERE id = %s",  # type: ignore[arg-type]
        (batch,),
    )
    assert rows.claim(ME) == []
    assert rows.state(id) == "pending"
    assert rows.count("inflight") == 0


def test_a_request_that_was_ended_by_hand_is_left_alone(rows: Rows) -> None:
    id = rows.request()
    rows.by_hand.execute(
        "UPDATE fusillade.requests SET state = 'canceled', canceled_at = now() WHERE id = %s", (id,)
    )
    assert rows.claim(ME) == []
    assert rows.state(id) == "canceled"


def test_a_request_that_was_deleted_by_hand_is_forgotten(rows: Rows) -> None:
    rows.request()
    rows.by_hand.execute("DELETE FROM fusillade.requests")
    assert rows.claim(ME) == []
    assert rows.claim(ME) == []
    assert (rows.count("ready"), rows.count("queues"), rows.count("inflight")) == (0, 0, 0)


def test_a_request_whose_template_is_gone_is_claimed_so_that_it_can_fail(rows: Rows) -> None:
    rows.request()
    rows.by_hand.execute("DELETE FROM fusillade.request_templates")
    (job,) = rows.claim(ME)
    assert (job.path, job.body) == (None, None)


# --- in whose name


def test_the_owner_is_that_of_the_key_then_of_the_batch(rows: Rows) -> None:
    alice, bob = (new_user(rows, name) for name in ("alice", "bob"))
    key = rows.one(
        "INSERT INTO api_keys (name, secret_hash, user_id, created_by) VALUES ('k', %s, %s, %s) RETURNING id",
        hashlib.sha256(uuid.uuid4().bytes).digest(),
        bob,
        bob,
    )
    by_key = rows.request(of=rows.batch(alice, api_key_id=key))
    by_batch = rows.request(of=rows.batch(alice))
    nobody = rows.request(of=rows.batch("an operator"))
    unknown = rows.request(of=rows.batch(uuid.uuid4()))
    owners = {job.id: job.owner_id for job in rows.claim(ME)}
    assert owners == {by_key: bob, by_batch: alice, nobody: None, unknown: None}


def test_a_deleted_owner_is_told(rows: Rows) -> None:
    user = new_user(rows, "gone")
    rows.request(of=rows.batch(user))
    rows.by_hand.execute("UPDATE users SET is_deleted = true WHERE id = %s", (user,))
    (job,) = rows.claim(ME)
    assert job.owner_deleted


# --- what becomes of a claim


def test_what_is_put_off_waits_for_its_time(rows: Rows) -> None:
    id = rows.request()
    rows.begin(ME)
    leases.retry_later(rows.ours, ME, id, 0.4)
    assert rows.state(id) == "pending"
    assert rows.one("SELECT retry_attempt FROM fusillade.requests") == 1
    assert rows.count("inflight") == 0
    leases.wake_delayed(rows.ours)
    assert rows.claim(YOU) == []
    time.sleep(0.45)
    leases.wake_delayed(rows.ours)
    (job,) = rows.claim(YOU)
    assert (job.id, job.attempt) == (id, 1)
    assert rows.count("delayed") == 0


def test_what_is_given_back_is_anybodys_with_the_attempts_it_had(rows: Rows) -> None:
    id = rows.request(retry_attempt=3)
    rows.begin(ME)
    leases.give_back(rows.ours, ME, [id], why=GivenBack.DRAINED)
    assert rows.state(id) == "pending"
    (job,) = rows.claim(YOU)
    assert (job.id, job.attempt) == (id, 3)


@pytest.mark.parametrize("change", ["retry", "give back"])
def test_only_its_owner_changes_a_claim(rows: Rows, change: str) -> None:
    id = rows.request()
    rows.begin(ME)
    if change == "retry":
        leases.retry_later(rows.ours, YOU, id, 0.0)
    else:
        leases.give_back(rows.ours, YOU, [id], why=GivenBack.DRAINED)
    assert rows.state(id) == "processing"
    assert rows.one("SELECT daemon_id FROM fusillade.inflight") == ME
    assert rows.claim(YOU) == []


@pytest.mark.parametrize("change", ["retry", "give back"])
def test_a_request_that_was_cancelled_stays_so(rows: Rows, change: str) -> None:
    id = rows.request()
    rows.begin(ME)
    rows.ours.execute(
        "UPDATE fusillade.requests SET state = 'canceled', canceled_at = now() WHERE id = %s", (id,)
    )
    if change == "retry":
        leases.retry_later(rows.ours, ME, id, 0.0)
    else:
        leases.give_back(rows.ours, ME, [id], why=GivenBack.DRAINED)
    leases.wake_delayed(rows.ours)
    assert rows.state(id) == "canceled"
    assert rows.claim(YOU) == []
    assert rows.count("inflight") == 0


def test_giving_back_twice_is_as_good_as_once(rows: Rows) -> None:
    id = rows.request()
    rows.begin(ME)
    leases.give_back(rows.ours, ME, [id], why=GivenBack.DRAINED)
    leases.give_back(rows.ours, ME, [id], why=GivenBack.DRAINED)
    assert len(rows.claim(YOU)) == 1
    leases.give_back(rows.ours, ME, [id], why=GivenBack.DRAINED)
    assert rows.claim(ME) == []


# --- rows changed by hand


def test_a_failed_request_that_is_set_back_by_hand_runs_again(rows: Rows) -> None:
    id = rows.request(state="failed", error="no", failed_at="now")
    assert rows.claim(ME) == []
    rows.by_hand.execute("UPDATE fusillade.requests SET state = 'pending' WHERE id = %s", (id,))
    assert ids(rows.claim(ME)) == [id]


def test_a_running_request_that_is_set_back_by_hand_is_its_workers_no_more(rows: Rows) -> None:
    id = rows.request()
    rows.begin(ME)
    rows.by_hand.execute(
        "UPDATE fusillade.requests SET state = 'pending', daemon_id = NULL, claimed_at = NULL, started_at = NULL WHERE id = %s",
        (id,),
    )
    assert ids(rows.claim(YOU)) == [id]
    leases.give_back(rows.ours, ME, [id], why=GivenBack.DRAINED)
    assert rows.state(id) == "processing"


def test_a_request_for_later_waits_when_inserted_by_hand(rows: Rows) -> None:
    id = rows.request(not_before=rows.one("SELECT now() + interval '0.4 seconds'"))
    assert rows.claim(ME) == []
    time.sleep(0.45)
    leases.wake_delayed(rows.ours)
    assert ids(rows.claim(ME)) == [id]


def test_a_batch_of_many_inserted_by_one_statement_is_claimed_whole(rows: Rows) -> None:
    batch, template = rows.batch()
    rows.by_hand.execute(
        "INSERT INTO fusillade.requests (batch_id, template_id, model, state) "
        "SELECT %s, %s, 'm' || n %% 3, 'pending' FROM generate_series(1, 300) n",
        (batch, template),
    )
    seen: set[UUID] = set()
    while jobs := rows.claim(ME):
        seen |= set(ids(jobs))
    assert len(seen) == 300


@pytest.mark.parametrize(
    "columns",
    [
        "state = 'processing'",
        "state = 'claimed'",
        "state = 'completed'",
        "state = 'completed', response_status = 200, completed_at = now()",
        "state = 'failed'",
        "state = 'failed', error = 'no'",
        "state = 'canceled'",
        "state = 'resting'",
        "state = 'pending', daemon_id = gen_random_uuid()",
    ],
)
def test_no_impossible_state_can_be_written(rows: Rows, columns: str) -> None:
    rows.request()
    with pytest.raises(psycopg.errors.CheckViolation):
        rows.by_hand.execute(f"UPDATE fusillade.requests SET {columns}")  # type: ignore[arg-type]


def test_many_that_are_ended_by_hand_stand_in_nobodys_way(rows: Rows) -> None:
    of = rows.batch()
    for _ in range(300):
        rows.request(of=of)
    last = rows.request(of=rows.batch(due_s=2 * 86400))
    rows.by_hand.execute(
        "UPDATE fusillade.requests SET state = 'canceled', canceled_at = now() WHERE batch_id = %s",
        (of[0],),
    )
    assert ids(rows.claim(ME, caps={"m": 2})) == [last]
    assert rows.count("ready") == 0


def test_one_that_a_claim_has_can_be_ended_by_hand(rows: Rows) -> None:
    """Neither waits for the other for long, whoever is first."""
    id = rows.request()
    with psycopg.connect(rows.url) as mine:
        mine.execute("SET dwctl.queue = own")
        assert ids(rows.claim(ME, connection=mine)) == [id]
        ender = threading.Thread(
            target=rows.by_hand.execute,
            args=("UPDATE fusillade.requests SET state = 'canceled', canceled_at = now()",),
        )
        ender.start()
        time.sleep(0.1)
        mine.commit()
        ender.join()
    assert rows.state(id) == "canceled"
    assert (rows.count("inflight"), rows.count("ready")) == (0, 0)


# --- many at once


def test_cancels_and_claims_at_once_do_not_wait_for_each_other(rows: Rows) -> None:
    """They take a request and its place in line in different order: a deadlock would be an error to the caller."""
    waiting = rows.singles(1000)
    errors: list[psycopg.Error] = []

    def claim() -> None:
        with psycopg.connect(rows.url, autocommit=True) as connection:
            connection.execute("SET dwctl.queue = own")
            try:
                while rows.claim(ME, default_cap=10_000, most=5, connection=connection):
                    pass
            except psycopg.Error as error:
                errors.append(error)

    def cancel(part: list[UUID]) -> None:
        with psycopg.connect(rows.url, autocommit=True) as connection:
            connection.execute("SET dwctl.queue = own")
            for id in part:
                values = {"id": id, "owners": [str(ALICE)]}
                try:
                    connection.execute(_QUERIES["cancel"], values)
                except psycopg.Error as error:
                    errors.append(error)

    threads = [threading.Thread(target=claim) for _ in range(2)]
    threads += [threading.Thread(target=cancel, args=(waiting[n::3],)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    states = rows.by_hand.execute("SELECT state, count(*) FROM fusillade.requests GROUP BY state")
    assert states.fetchall() == [("canceled", 1000)]


def test_many_workers_and_many_writers_lose_nothing_and_share_nothing(rows: Rows) -> None:
    """Writers insert while workers claim, put off and complete, until all is done."""
    total, cap = 400, 12
    caps = {"a": cap, "b": cap}
    done: Counter[UUID] = Counter()
    over: list[int] = []
    stop = threading.Event()
    lock = threading.Lock()

    def write(owner: UUID) -> None:
        with psycopg.connect(rows.url, autocommit=True) as connection:
            own = Rows(connection, connection, rows.url)
            batches = [own.batch(owner), own.batch(owner, due_s=60)]
            for n in range(total // 4):
                own.request(owner, of=batches[n % 2], model="ab"[n % 2])

    def work(me: UUID) -> None:
        with psycopg.connect(rows.url, autocommit=True) as connection:
            connection.execute("SET dwctl.queue = own")
            own = Rows(connection, connection, rows.url)
            while not stop.is_set():
                begun = own.begin(me, caps=caps, most=7)
                with lock:
                    over.extend(
                        count
                        for (count,) in connection.execute(
                            "SELECT count(*) FROM fusillade.inflight GROUP BY model"
                        )
                        if count > cap
                    )
                for number, job in enumerate(begun):
                    if number % 5 == 4 and job.attempt == 0:
                        leases.retry_later(connection, me, job.id, 0.0)
                    elif number % 5 == 3 and job.attempt == 0:
                        leases.give_back(connection, me, [job.id], why=GivenBack.DRAINED)
                    else:
                        own.complete(me, job.id)
                        with lock:
                            done[job.id] += 1
                leases.wake_delayed(connection)

    writers = [threading.Thread(target=write, args=(o,)) for o in (ALICE, BOB, CAROL, ME)]
    workers = [threading.Thread(target=work, args=(uuid.uuid4(),)) for _ in range(4)]
    for thread in (*writers, *workers):
        thread.start()
    until = time.monotonic() + 30
    while len(done) < total and time.monotonic() < until:
        time.sleep(0.02)
    stop.set()
    for thread in (*writers, *workers):
        thread.join()
    assert over == []
    assert len(done) == total
    assert set(done.values()) == {1}
    assert rows.claim(YOU) == []
    rows.claim(YOU)
    assert [rows.count(t) for t in ("ready", "delayed", "inflight", "queues")] == [0, 0, 0, 0]


def batch_owner(rows: Rows, batch_id: UUID | None) -> str:
    return str(rows.one("SELECT created_by FROM fusillade.batches WHERE id = %s", batch_id))


def new_user(rows: Rows, name: str) -> UUID:
    id = rows.one(
        "INSERT INTO users (username, email) VALUES (%s, %s) RETURNING id",
        f"{name}-{uuid.uuid4().hex[:6]}",
        f"{uuid.uuid4().hex}@people.example",
    )
    assert isinstance(id, UUID)
    return id
