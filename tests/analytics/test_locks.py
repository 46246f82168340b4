"""Rows that several processes touch are locked in one order, so that none of them waits in a circle."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import msgspec
import psycopg
import pytest

from dwctl import config
from dwctl.analytics import duties, writing
from dwctl.analytics.records import Record, line
from tests.analytics.made import ALICE, BOB, Calls, Made, final, opening

Connection = psycopg.Connection[Any]
Act = Callable[[Connection, list[Made]], object]


@pytest.fixture
def calls(sql: Connection) -> Calls:
    sql.execute("TRUNCATE fusillade.open_calls, fusillade.unrecorded, fusillade.ready, fusillade.delayed, fusillade.queues, fusillade.inflight")  # fmt: skip
    return Calls(sql)


@pytest.fixture
def one(database_url: str) -> Iterator[Connection]:
    """In a transaction until it is committed."""
    with psycopg.connect(database_url, options="-c lock_timeout=10s") as made:
        yield made


def run(calls: Calls, call: Made, *, leased: bool = False) -> Made:
    """A call that runs in a process that nobody knows: as one of its own, or leased from the queue."""
    _function(calls.sql, "open_calls", line(opening(call)))
    if leased:
        calls.sql.execute("DELETE FROM fusillade.open_calls WHERE id = %s", (call.id,))
        calls.sql.execute(
            "INSERT INTO fusillade.inflight (id, model, created_by, daemon_id) VALUES (%s, 'm', %s, %s)",
            (call.id, str(call.owner), call.daemon_id),
        )
        call.queued = True
    return call


def ended(call: Made) -> Record:
    return final(call, request_body=None)


def give_back(connection: Connection, them: list[Made]) -> None:
    values = (them[0].daemon_id, [call.id for call in them])
    connection.execute("SELECT fusillade.give_back(%s, %s, NULL)", values)


def interrupt(connection: Connection, _them: list[Made]) -> None:
    connection.execute("SELECT fusillade.interrupt_calls(200, 0)")


def end(connection: Connection, them: list[Made]) -> None:
    writing.record(connection, [ended(call) for call in them])


def withdraw(connection: Connection, them: list[Made]) -> None:
    connection.execute("SELECT fusillade.withdraw(%s)", ([call.id for call in them],))


def keep_last_words(connection: Connection, them: list[Made]) -> None:
    _function(connection, "keep_last_words", *(line(ended(call)) for call in them))


def ensure_files(connection: Connection, them: list[Made]) -> None:
    rows = [msgspec.json.encode({"id": UUID(int=call.id.int ^ 1), "owner": "a"}) for call in them]
    _function(connection, "ensure_files", *rows)


@pytest.mark.parametrize("act", [give_back, interrupt])
def test_a_lost_call_is_taken_away_and_ended_by_its_owner_at_once(
    calls: Calls, one: Connection, database_url: str, act: Act
) -> None:
    """Its process is thought dead while it writes the end: it has the request, and wants what says that it runs."""
    call = run(calls, calls.make(), leased=act is give_back)
    one.execute("SELECT FROM fusillade.requests WHERE id = %s FOR UPDATE", (call.id,))
    with ThreadPoolExecutor(1) as threads:
        other = threads.submit(_act, database_url, act, [call])
        _wait_until_blocked(database_url, unless=other.done)
        end(one, [call])
        one.commit()
        other.result(timeout=30)
    assert calls.state(call) == "completed"
    assert calls.counts(call) == (1, 1)


@pytest.mark.parametrize(
    "act", [ensure_files, keep_last_words, end, give_back, withdraw], ids=lambda act: act.__name__
)
def test_several_rows_of_a_kind_are_locked_in_the_order_of_their_keys(
    calls: Calls, one: Connection, database_url: str, act: Act
) -> None:
    """Whatever the order in which they are named: at midnight, say, all recorders want the new day's files of the same accounts."""
    # The later one is written first, so that the order in the table is none to rely on.
    low, high = sorted((calls.make(), calls.make()), key=lambda call: call.id)
    for call in (high, low):
        run(calls, call, leased=act is give_back)
    act(one, [low])
    with ThreadPoolExecutor(1) as threads:
        other = threads.submit(_act, database_url, act, [high, low])
        _wait_until_blocked(database_url, unless=other.done)
        # The other one waits for the low one, and has not touched the high one yet.
        act(one, [high])
        one.commit()
        other.result(timeout=30)


def test_what_is_deleted_while_its_end_is_written_stays_deleted(
    calls: Calls, one: Connection, database_url: str
) -> None:
    call = run(calls, calls.make(), leased=True)
    deleted = one.execute(
        "SELECT fusillade.delete_response(%s, %s)", (call.id, [str(call.owner)])
    ).rowcount
    assert deleted == 1
    with ThreadPoolExecutor(1) as threads:
        other = threads.submit(_act, database_url, end, [call])
        _wait_until_blocked(database_url, unless=other.done)
        one.commit()
        other.result(timeout=30)
    for table in ("requests", "batches", "request_templates"):
        assert calls.one(f"SELECT count(*) FROM fusillade.{table} WHERE id = %s", call.id) == (0,)
    assert calls.counts(call) == (1, 1)


def test_what_the_queue_has_ended_is_charged_in_the_order_in_which_recorders_charge(
    calls: Calls, one: Connection, database_url: str
) -> None:
    for owner in (BOB, ALICE):
        words = final(calls.make(owner))
        calls.sql.execute(
            "INSERT INTO fusillade.unrecorded (id, error_code, last_words) VALUES (%s, 'interrupted', %s)",
            (words.id, line(words).decode()),
        )
    assert ALICE < BOB
    charge(one, calls.make(ALICE))
    with ThreadPoolExecutor(1) as threads:
        other = threads.submit(_act, database_url, record_ended, [])
        _wait_until_blocked(database_url, unless=other.done)
        charge(one, calls.make(BOB))
        one.commit()
        other.result(timeout=30)
    assert calls.one("SELECT count(*) FROM fusillade.unrecorded WHERE %s", True) == (0,)


def charge(connection: Connection, call: Made) -> None:
    writing.record(connection, [final(call)])


def record_ended(connection: Connection, _them: list[Made]) -> None:
    with connection.transaction():
        duties.record_ended(connection, config.load({}))


def _function(connection: Connection, name: str, *lines: bytes) -> None:
    given = b"[" + b",".join(lines) + b"]"
    connection.execute(f"SELECT fusillade.{name}(%s::json)", (given.decode(),))  # type: ignore[arg-type]


def _act(url: str, act: Act, them: list[Made]) -> None:
    with psycopg.connect(url, autocommit=True, application_name="other") as connection:
        act(connection, them)


def _wait_until_blocked(database_url: str, *, unless: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    with psycopg.connect(database_url, autocommit=True) as watcher:
        while not (_is_blocked(watcher) or unless()):
            assert time.monotonic() < until
            time.sleep(0.02)


def _is_blocked(watcher: Connection) -> bool:
    row = watcher.execute(
        "SELECT FROM pg_stat_activity WHERE application_name = 'other' AND datname = current_database() AND wait_event_type = 'Lock'"
    ).fetchone()
    return row is not None
