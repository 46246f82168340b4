"""The recorder on a real database, where calls through the gateway do not reach: what is written twice, late, or never fits."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import gevent
import psycopg
import pytest
from gevent import monkey

from dwctl import config
from dwctl.analytics.draining import Drainer
from dwctl.analytics.recorder import InDoubt, Overloaded, Recorder
from dwctl.analytics.records import Kept, line
from dwctl.analytics.writing import Kind
from dwctl.db import DatabaseAway
from dwctl.errors import Invalid
from tests.analytics.made import ALICE, BOB, Calls, final, opening
from tests.processes import free_port


@pytest.fixture
def calls(sql: psycopg.Connection[Any]) -> Calls:
    return Calls(sql)


Making = Callable[..., Recorder]


@pytest.fixture
def recorders(database_url: str, tmp_path: Path) -> Iterator[Making]:
    """Makes recorders, with settings of the section `recorder`; `url` is another database's."""
    made: list[Recorder] = []

    def make(*, url: str | None = None, on_empty: Any = None, **more: Any) -> Recorder:
        environ = {"DATABASE_URL": url or database_url, "DWCTL_RECORDER__SPOOL_DIR": str(tmp_path)}
        environ |= {f"DWCTL_RECORDER__{name.upper()}": str(value) for name, value in more.items()}
        settings = config.load(environ)
        recorder = Recorder(settings, on_empty) if on_empty else Recorder(settings)
        made.append(recorder)
        return recorder

    yield make
    for recorder in made:
        recorder.stop(time.monotonic() + 2)


@pytest.fixture
def recorder(recorders: Making) -> Recorder:
    made = recorders()
    made.start()
    return made


def soon(check: Callable[[], Any], within_s: float = 10) -> None:
    """Lets the recorder's greenlets run until `check` holds."""
    until = time.monotonic() + within_s
    while not check():
        assert time.monotonic() < until
        gevent.sleep(0.02)


# --- once


def test_what_is_written_twice_counts_once(recorder: Recorder, calls: Calls) -> None:
    """A commit whose outcome was not heard of is repeated."""
    call = calls.make()
    before = calls.balance(ALICE)
    record = final(call)
    assert [recorder.finish(record) for _ in range(3)] == [Kept.COMMITTED] * 3
    assert calls.state(call) == "completed"
    assert calls.counts(call) == (1, 1)
    assert calls.balance(ALICE) == before - Decimal("0.001")


def test_a_call_without_a_row_is_charged_once_too(recorder: Recorder, calls: Calls) -> None:
    call = calls.make()
    call.track = False
    record = final(call)
    for _ in range(2):
        recorder.finish(record)
    assert (calls.state(call), calls.counts(call)) == (None, (1, 1))


def test_what_costs_nothing_has_no_entry_in_the_ledger(recorder: Recorder, calls: Calls) -> None:
    call = calls.make(price="0")
    recorder.finish(final(call))
    assert calls.counts(call) == (1, 0)


def test_what_arrives_together_is_written_together(recorder: Recorder, calls: Calls) -> None:
    several = [calls.make(owner) for owner in (ALICE, BOB) * 20]
    before = calls.balance(ALICE), calls.balance(BOB)
    writing = [gevent.spawn(recorder.finish, final(call)) for call in several]
    gevent.joinall(writing, timeout=20, raise_error=True)
    assert [greenlet.value for greenlet in writing] == [Kept.COMMITTED] * 40
    assert recorder.counts["groups"] < 40
    assert {calls.counts(call) for call in several} == {(1, 1)}
    assert calls.balance(ALICE) == before[0] - Decimal("0.02")
    assert calls.balance(BOB) == before[1] - Decimal("0.02")


def test_an_account_that_a_charge_has_emptied_is_told_at_once(
    recorders: Making, calls: Calls, sql: psycopg.Connection[Any]
) -> None:
    told: list[UUID] = []
    recorder = recorders(on_empty=told.extend)
    recorder.start()
    owner = uuid4()
    sql.execute(
        "INSERT INTO user_balance_checkpoints (user_id, balance) VALUES (%s, 0.0015)", (owner,)
    )
    recorder.finish(final(calls.make(owner)))
    assert told == []
    recorder.finish(final(calls.make(owner)))
    assert told == [owner]


# --- who may finish what


def test_only_its_owner_may_finish_a_call(recorder: Recorder, calls: Calls) -> None:
    call = calls.make()
    recorder.open(opening(call))
    assert calls.state(call) == "processing"
    call.daemon_id = uuid4()
    recorder.finish(final(call))
    assert (calls.state(call), calls.counts(call)) == ("processing", (0, 0))
    call.daemon_id = calls.daemon
    recorder.finish(final(call))
    assert (calls.state(call), calls.counts(call)) == ("completed", (1, 1))


def test_a_call_that_was_cancelled_is_charged_and_its_result_dropped(
    recorder: Recorder, calls: Calls, sql: psycopg.Connection[Any]
) -> None:
    call = calls.make()
    recorder.open(opening(call))
    sql.execute(
        "UPDATE fusillade.requests SET state = 'canceled', canceled_at = now() WHERE id = %s",
        (call.id,),
    )
    recorder.finish(final(call))
    assert (calls.state(call), calls.counts(call)) == ("canceled", (1, 1))
    body = sql.execute(
        "SELECT response_body FROM fusillade.requests WHERE id = %s", (call.id,)
    ).fetchone()
    assert body == (None,)


def test_an_owner_that_was_taken_for_dead_takes_its_call_back(
    recorder: Recorder, calls: Calls, sql: psycopg.Connection[Any]
) -> None:
    call = calls.make()
    recorder.open(opening(call))
    sql.execute(
        """UPDATE fusillade.requests SET state = 'failed', failed_at = now(),
           error = '{"type":"Interrupted","details":{"error":"ended"}}' WHERE id = %s""",
        (call.id,),
    )
    recorder.finish(final(call))
    assert (calls.state(call), calls.counts(call)) == ("completed", (1, 1))


def test_what_has_failed_otherwise_stays_failed(
    recorder: Recorder, calls: Calls, sql: psycopg.Connection[Any]
) -> None:
    call = calls.make()
    recorder.open(opening(call))
    sql.execute(
        "UPDATE fusillade.requests SET state = 'failed', failed_at = now(), error = 'by hand' WHERE id = %s",
        (call.id,),
    )
    recorder.finish(final(call))
    assert (calls.state(call), calls.counts(call)) == ("failed", (0, 0))


# --- what the database does not take


def test_a_record_that_cannot_be_written_does_not_take_its_group_along(
    recorder: Recorder, calls: Calls, tmp_path: Path
) -> None:
    good = [calls.make() for _ in range(12)]
    # More than the ledger can hold.
    bad = calls.make(price="999999999")
    records = [final(call) for call in good]
    records.insert(6, final(bad, tokens=2**31 - 1))
    writing = [gevent.spawn(recorder.finish, record) for record in records]
    gevent.joinall(writing, timeout=20, raise_error=True)
    assert {calls.counts(call) for call in good} == {(1, 1)}
    assert calls.counts(bad) == (0, 0)
    assert recorder.counts["rejected"] == 1
    (aside,) = tmp_path.glob("*rejected.jsonl")
    assert str(bad.id) in aside.read_text()
    # The recorder goes on.
    later = calls.make()
    assert recorder.finish(final(later)) is Kept.COMMITTED
    assert calls.counts(later) == (1, 1)


@pytest.mark.parametrize("days", [-45, 1, 12, 200, 3000])
def test_a_record_of_any_day_finds_a_partition(
    recorder: Recorder, calls: Calls, days: float
) -> None:
    call = calls.make(ago_s=days * 86400)
    assert recorder.finish(final(call)) is Kept.COMMITTED
    assert (calls.state(call), calls.counts(call)) == ("completed", (1, 1))


def test_a_partition_that_cannot_be_made_now_is_made_later(
    recorder: Recorder, calls: Calls, database_url: str
) -> None:
    call = calls.make(ago_s=500 * 86400)
    with psycopg.connect(database_url) as reader:
        reader.execute("SELECT count(*) FROM http_analytics")
        assert recorder.finish(final(call)) is Kept.SPOOLED
        assert (recorder.counts["rejected"], recorder.is_behind) == (0, True)
    soon(lambda: calls.counts(call) == (1, 1))


def test_texts_of_every_kind_are_kept(
    recorder: Recorder, calls: Calls, sql: psycopg.Connection[Any]
) -> None:
    table = [
        (b'{"a":"\xf0\x9f\x9a\x80 $1 %s \\u0000"}', '{"a":"🚀 $1 %s \\u0000"}'),
        (b"NUL \x00 and \xff\xfe", "NUL \ufffd and \ufffd\ufffd"),
        (b"x" * 3_000_000, "x" * 3_000_000),
        (b"", ""),
    ]
    for body, text in table:
        call = calls.make()
        assert recorder.finish(final(call, body)) is Kept.COMMITTED
        found = sql.execute(
            "SELECT response_body, response_size FROM fusillade.requests WHERE id = %s", (call.id,)
        ).fetchone()
        assert found
        assert found[0] == text
        assert recorder.counts["rejected"] == 0


# --- pressure


def test_a_full_queue_refuses_openings_spools_ends_and_sheds_notes(
    recorders: Making, calls: Calls
) -> None:
    recorder = recorders(queue_size=4)  # it does not run: nothing leaves the queue
    refused = calls.make()
    refused.track = False
    for _ in range(3):
        recorder.note(final(refused))
    assert (recorder.depth, recorder.counts["shed"]) == (2, 1)
    waiting = [gevent.spawn(recorder.finish, final(calls.make())) for _ in range(2)]
    gevent.sleep(0)
    with pytest.raises(Overloaded) as error:
        recorder.open(opening(calls.make()))
    assert (error.value.status, error.value.retryable) == (503, True)
    # A call that is over has been made, and must be charged.
    over = calls.make()
    assert recorder.finish(final(over)) is Kept.SPOOLED
    recorder.start()
    gevent.joinall(waiting, timeout=10, raise_error=True)
    soon(lambda: recorder.depth == 0)
    soon(lambda: calls.counts(over) == (1, 1))


# --- the database is away


def away(recorders: Making, **more: Any) -> Recorder:
    """A recorder whose database cannot be reached."""
    url = f"postgresql://nobody@127.0.0.1:{free_port()}/nowhere"
    recorder = recorders(url=url, database_wait="0.2s", **more)
    recorder.start()
    return recorder


def test_while_the_database_is_away_calls_are_spooled_and_work_is_refused(
    recorders: Making, calls: Calls
) -> None:
    recorder = away(recorders)
    call = calls.make()
    assert recorder.open(opening(call)) is Kept.SPOOLED
    assert recorder.finish(final(call)) is Kept.SPOOLED
    assert recorder.is_behind
    assert recorder.spool.pending_bytes > 0
    with pytest.raises(DatabaseAway):
        recorder.enqueue(opening(calls.make()))
    own = recorder.spool.take_own()
    assert own
    assert [found.kind for found in own.lines()] == ["open", "final"]
    own.release()


def test_what_waits_at_the_end_is_spooled(recorders: Making, calls: Calls) -> None:
    recorder = recorders()  # it does not run
    call = calls.make()
    gevent.spawn(recorder.finish, final(call))
    gevent.sleep(0)
    recorder.stop(time.monotonic())
    own = recorder.spool.take_own()
    assert own
    assert [str(call.id).encode() in found.record for found in own.lines()] == [True]
    own.release()


def test_a_spool_that_was_left_behind_is_drained_without_its_bad_lines(
    recorders: Making, calls: Calls, tmp_path: Path
) -> None:
    dead = recorders()
    good = [calls.make() for _ in range(3)]
    lasting = calls.make()
    poison = calls.make(price="999999999")
    dead.spool.append([(Kind.OPEN, line(opening(lasting)))])
    dead.spool.append((Kind.FINAL, line(final(call))) for call in good)
    dead.spool.append([(Kind.FINAL, line(final(poison, tokens=2**31 - 1)))])
    dead.spool.append([(Kind.FINAL, line(final(lasting)))])
    left = dead.spool.take_own()
    assert left
    with left.path.open("ab") as file:
        file.write(b'{"kind":"final","record":{"id":"cut in the mid')
    left.release()

    recorder = recorders()
    recorder.start()
    assert recorder.is_behind
    soon(lambda: not left.path.exists())
    assert {calls.counts(call) for call in [*good, lasting]} == {(1, 1)}
    assert calls.state(lasting) == "completed"
    assert calls.counts(poison) == (0, 0)
    (aside,) = tmp_path.glob("*rejected.jsonl")
    assert "cut in the mid" in aside.read_text()
    assert not recorder.is_behind


def test_a_round_that_ends_early_keeps_no_file_from_the_next(
    recorders: Making, calls: Calls
) -> None:
    left = []
    for call in [calls.make(), calls.make()]:
        dead = recorders()
        dead.spool.append([(Kind.FINAL, line(final(call)))])
        file = dead.spool.take_own()
        assert file
        file.release()
        left.append(file.path)
    elsewhere = f"postgresql://nobody@127.0.0.1:{free_port()}/nowhere"
    settings = config.load({"DATABASE_URL": elsewhere, "DWCTL_RECORDER__DATABASE_WAIT": "0.2s"})
    here = recorders()
    Drainer(settings, here.spool, lambda _ids: None).drain()
    here.start()
    soon(lambda: not any(path.exists() for path in left))


def test_a_file_is_not_taken_while_it_is_written_to(
    recorders: Making, calls: Calls, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database comes back while a slow disk has the last record."""
    spool, call = recorders().spool, calls.make()
    sync, sleep = os.fsync, monkey.get_original("time", "sleep")

    def slowly(descriptor: int) -> None:
        sleep(0.5)
        sync(descriptor)

    spool.append([(Kind.FINAL, line(final(calls.make())))])
    monkeypatch.setattr(os, "fsync", slowly)
    writing = gevent.spawn(spool.append, [(Kind.FINAL, line(final(call)))])
    gevent.sleep(0.1)
    Drainer(config.load({"DATABASE_URL": database_url}), spool, lambda _ids: None).drain()
    assert calls.counts(call) == (1, 1)
    writing.get(timeout=5)
    assert spool.pending_bytes == 0


def test_a_record_spooled_over_midnight_keeps_its_day(
    recorder: Recorder, calls: Calls, sql: psycopg.Connection[Any]
) -> None:
    call = calls.make(ago_s=86400)
    recorder.finish(final(call))
    row = sql.execute(
        "SELECT timestamp FROM http_analytics WHERE request_id = %s", (call.id,)
    ).fetchone()
    assert row
    assert abs(row[0] - (datetime.now(UTC) - timedelta(days=1))) < timedelta(minutes=1)


# --- what is wrong with a record, and what is not


def test_a_record_that_is_set_aside_ends_its_call(
    recorder: Recorder, calls: Calls, sql: psycopg.Connection[Any]
) -> None:
    call = calls.make(price="999999999")
    assert recorder.open(opening(call)) is Kept.COMMITTED
    assert recorder.finish(final(call, tokens=2**31 - 1, request_body=None)) is Kept.SET_ASIDE
    row = sql.execute("SELECT state, error FROM fusillade.requests WHERE id = %s", (call.id,)).fetchone()  # fmt: skip
    assert row
    assert row[0] == "failed"
    assert row[1].startswith('{"type":"NotRecorded"')
    assert sql.execute("SELECT FROM fusillade.open_calls WHERE id = %s", (call.id,)).fetchone() is None  # fmt: skip
    assert recorder.away_since is None


def test_a_request_that_the_database_refuses_is_the_callers_fault(recorder: Recorder, calls: Calls) -> None:  # fmt: skip
    call = calls.make()
    with pytest.raises(Invalid):
        recorder.enqueue(opening(call, "pending", metadata="no json"))
    assert (calls.state(call), recorder.is_behind) == (None, False)


def test_an_index_that_refuses_a_text_stops_nobody_else(
    recorders: Making, calls: Calls, tmp_path: Path
) -> None:
    """As a spool of an older version may have it, which did not bound what it was told."""
    dead = recorders()
    before, bad, after = calls.make(), calls.make(), calls.make()
    long = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=6000))
    uncut = line(final(bad)).replace(b'"model":"m"', f'"model":"{long}"'.encode())
    dead.spool.append([(Kind.FINAL, line(final(before))), (Kind.FINAL, uncut), (Kind.FINAL, line(final(after)))])  # fmt: skip
    left = dead.spool.take_own()
    assert left
    left.release()
    recorder = recorders()
    recorder.start()
    soon(lambda: not left.path.exists())
    assert [calls.counts(call) for call in (before, bad, after)] == [(1, 1), (0, 0), (1, 1)]
    (aside,) = tmp_path.glob("*rejected.jsonl")
    assert long in aside.read_text()
    assert not recorder.is_behind
    # From now on such a name is cut.
    named = calls.make(model="x" * 6000)
    assert recorder.finish(final(named)) is Kept.COMMITTED


def test_a_spool_with_a_record_twice_is_drained(recorders: Making, calls: Calls) -> None:
    dead = recorders()
    some = [calls.make() for _ in range(3)]
    texts = [(Kind.FINAL, line(final(call))) for call in some]
    dead.spool.append([*texts, texts[1], texts[1], texts[0]])
    left = dead.spool.take_own()
    assert left
    left.release()
    recorder = recorders()
    recorder.start()
    soon(lambda: not left.path.exists())
    assert {calls.counts(call) for call in some} == {(1, 1)}


def test_one_call_twice_in_a_group_is_written_once(recorder: Recorder, calls: Calls) -> None:
    call = calls.make()
    writing = [gevent.spawn(recorder.finish, final(call)) for _ in range(3)]
    gevent.joinall(writing, timeout=20, raise_error=True)
    assert [greenlet.value for greenlet in writing] == [Kept.COMMITTED] * 3
    assert calls.counts(call) == (1, 1)


def test_a_request_whose_caller_is_killed_while_it_waits_is_not_accepted(
    recorders: Making, calls: Calls
) -> None:
    recorder = recorders()  # it does not run: nothing leaves the queue
    call, other = calls.make(), calls.make()
    waiting = gevent.spawn(recorder.enqueue, opening(call))
    gevent.sleep(0)
    assert recorder.depth == 1
    waiting.kill()
    assert recorder.depth == 0
    recorder.start()
    recorder.finish(final(other))
    assert not calls.sql.execute(
        "SELECT FROM fusillade.requests WHERE id = %s", (call.id,)
    ).rowcount


def test_a_lock_that_is_held_puts_records_off_and_says_nothing_of_the_database(
    recorders: Making, calls: Calls, database_url: str
) -> None:
    recorder = recorders(database_wait="0.3s")
    recorder.start()
    owner = uuid4()
    recorder.finish(final(calls.make(owner)))
    call = calls.make(owner)
    with psycopg.connect(database_url) as holder:
        holder.execute("SELECT FROM user_balance_checkpoints WHERE user_id = %s FOR UPDATE", (owner,))  # fmt: skip
        assert recorder.finish(final(call)) is Kept.SPOOLED
        assert recorder.away_since is None
        assert recorder.finish(final(calls.make(uuid4()))) is Kept.COMMITTED
        holder.execute("LOCK fusillade.batches IN EXCLUSIVE MODE")
        with pytest.raises(InDoubt):
            recorder.enqueue(opening(calls.make()))
    soon(lambda: calls.counts(call) == (1, 1))


def died(recorder: Recorder) -> list[str]:
    """Leaves its spool to the others; gives the kinds in it."""
    own = recorder.spool.take_own()
    assert own
    kinds = [found.kind for found in own.lines()]
    own.release()
    return kinds


def test_who_was_told_no_while_the_database_is_away_is_withdrawn_whoever_dies(
    recorders: Making, calls: Calls
) -> None:
    """The commit was not heard of, but done; then the process is killed before the database is back."""
    other, dead = recorders(), recorders()
    call = calls.make()
    other.start()
    other.enqueue(opening(call, "pending"))
    dead.away_since = time.monotonic()
    dead.withdraw(call.id)
    assert died(dead) == ["withdraw"]
    soon(lambda: calls.state(call) == "canceled")


def test_a_request_in_doubt_is_in_the_spool_before_its_caller_is_told(
    recorders: Making, calls: Calls, database_url: str
) -> None:
    recorder = recorders(database_wait="0.3s")
    recorder.start()
    with psycopg.connect(database_url) as holder:
        holder.execute("LOCK fusillade.batches IN EXCLUSIVE MODE")
        with pytest.raises(InDoubt):
            recorder.enqueue(opening(calls.make()))
        assert died(recorder) == ["withdraw"]


def test_what_is_withdrawn_does_not_depend_on_what_the_planner_takes_the_table_for(
    recorder: Recorder, calls: Calls, sql: psycopg.Connection[Any]
) -> None:
    """Plans are kept, and many a one is made while the queue has a row or two."""
    size = "UPDATE pg_class SET (reltuples, relpages) = (%s, %s) WHERE oid = 'fusillade.requests'::regclass"
    sql.execute(size, (1, 1000))
    call = calls.make()
    recorder.enqueue(opening(call, "pending"))
    recorder.withdraw(call.id)
    soon(lambda: calls.state(call) == "canceled")
    sql.execute(size, (-1, 0))


def test_a_request_that_somebody_has_locked_holds_up_nobody_and_is_withdrawn_later(
    recorders: Making, calls: Calls, database_url: str
) -> None:
    recorder, dead = recorders(database_wait="0.3s"), recorders()
    recorder.start()
    locked, free, behind = calls.make(), calls.make(), calls.make()
    for call in (locked, free):
        recorder.enqueue(opening(call, "pending"))
    dead.away_since = time.monotonic()
    dead.withdraw(locked.id)
    dead.spool.append([(Kind.FINAL, line(final(behind)))])
    with psycopg.connect(database_url) as holder:
        holder.execute("SELECT FROM fusillade.requests WHERE id = %s FOR UPDATE", (locked.id,))
        recorder.withdraw(locked.id)
        recorder.withdraw(free.id)
        for _ in range(3):
            assert recorder.finish(final(calls.make())) is Kept.COMMITTED
        soon(lambda: calls.state(free) == "canceled")
        assert died(dead) == ["withdraw", "final"]
        soon(lambda: calls.counts(behind) == (1, 1))
        assert recorder.spool.pending_bytes > 0
        assert calls.state(locked) == "pending"
    soon(lambda: calls.state(locked) == "canceled")
    soon(lambda: recorder.spool.pending_bytes == 0)


def test_a_request_that_stays_locked_is_withdrawn_whoever_dies(
    recorders: Making, calls: Calls, database_url: str
) -> None:
    recorder, other = recorders(), recorders()
    recorder.start()
    call = calls.make()
    recorder.enqueue(opening(call, "pending"))
    with psycopg.connect(database_url) as holder:
        holder.execute("SELECT FROM fusillade.requests WHERE id = %s FOR UPDATE", (call.id,))
        recorder.withdraw(call.id)
        soon(lambda: recorder.spool.pending_bytes > 0)
        for greenlet in recorder._greenlets:
            greenlet.kill()
        assert died(recorder) == ["withdraw"]
    other.start()
    soon(lambda: calls.state(call) == "canceled")


def test_a_large_answer_is_committed(recorder: Recorder, calls: Calls) -> None:
    call = calls.make()
    assert recorder.finish(final(call, b"x" * 15_000_000)) is Kept.COMMITTED
    assert recorder.away_since is None


def test_records_wait_for_room_before_they_take_memory(recorders: Making, calls: Calls) -> None:
    recorder = recorders(queue_bytes=1 << 20)  # it does not run yet
    some = [calls.make() for _ in range(4)]
    writing = [gevent.spawn(recorder.finish, final(call, b"x" * 600_000)) for call in some]
    gevent.sleep(0.01)
    assert recorder.depth == 1
    recorder.start()
    gevent.joinall(writing, timeout=20, raise_error=True)
    assert {calls.counts(call) for call in some} == {(1, 1)}


def test_where_no_room_is_to_be_had_ends_go_to_the_spool(recorders: Making, calls: Calls) -> None:
    recorder = recorders(queue_bytes=1 << 20, database_wait="0.1s")  # it does not run
    first, second = (final(calls.make(), b"x" * 900_000) for _ in range(2))
    waiting = gevent.spawn(recorder.finish, first)
    gevent.sleep(0.01)
    assert recorder.finish(second) is Kept.SPOOLED
    recorder.start()
    assert waiting.get(timeout=10) is Kept.COMMITTED


# --- last words


def test_the_latest_words_of_an_open_call_are_kept(
    recorder: Recorder, calls: Calls, sql: psycopg.Connection[Any]
) -> None:
    call, over = calls.make(), calls.make()
    recorder.open(opening(call))
    recorder.open(opening(over))
    for tokens in (1, 2, 3):
        recorder.keep_progress(final(call, tokens=tokens))
        recorder.keep_progress(final(over, tokens=tokens))
    recorder.finish(final(over, request_body=None))
    later = calls.make()
    recorder.open(opening(later))
    recorder.keep_progress(final(later, tokens=4))

    def kept() -> dict[UUID, int]:
        rows = sql.execute("SELECT id, (last_words::json->>'prompt_tokens')::int FROM fusillade.open_calls WHERE daemon_id = %s", (calls.daemon,))  # fmt: skip
        return dict(rows.fetchall())

    soon(lambda: kept() == {call.id: 3, later.id: 4})


def test_last_words_are_kept_by_the_owner_only(
    recorder: Recorder, calls: Calls, sql: psycopg.Connection[Any]
) -> None:
    call, probe = calls.make(), calls.make()
    recorder.open(opening(call))
    recorder.open(opening(probe))
    recorder.keep_progress(final(call, daemon_id=uuid4()))
    recorder.keep_progress(final(probe))
    found = "SELECT last_words IS NOT NULL FROM fusillade.open_calls WHERE id = %s"
    soon(lambda: sql.execute(found, (probe.id,)).fetchone() == (True,))
    assert sql.execute(found, (call.id,)).fetchone() == (False,)


def test_a_file_that_cannot_be_drained_now_leaves_those_behind_it_free(
    recorders: Making, calls: Calls, tmp_path: Path
) -> None:
    for _ in range(3):
        dead = recorders()
        dead.spool.append([(Kind.FINAL, line(final(calls.make())))])
        left = dead.spool.take_own()
        assert left
        left.release()
    url = f"postgresql://nobody@127.0.0.1:{free_port()}/nowhere"
    elsewhere = config.load({"DATABASE_URL": url, "DWCTL_RECORDER__DATABASE_WAIT": "0.1s"})
    Drainer(elsewhere, dead.spool, lambda _ids: None).drain()
    free = list(dead.spool.adopt())
    assert len(free) == 3
    for file in free:
        file.remove()
