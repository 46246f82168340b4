"""What the queue itself has ended is recorded: the last words of calls whose process died, and requests that no worker could end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from dwctl import config
from dwctl.analytics import duties, writing
from dwctl.analytics.records import Kept, Opening, Record
from dwctl.analytics.writing import Kind, Writer, entry_of
from dwctl.queue import duties as queue_duties
from dwctl.queue import leases
from dwctl.queue.leases import GivenBack, Policy
from tests.analytics.made import Calls, Made, final, opening

WORKER = UUID(int=77, version=4)
INTERRUPTED = '{"type":"Interrupted","details":{"error":"ended"}}'


@pytest.fixture
def calls(sql: psycopg.Connection[Any]) -> Calls:
    sql.execute("TRUNCATE fusillade.open_calls, fusillade.unrecorded, fusillade.ready, fusillade.delayed, fusillade.queues, fusillade.inflight")  # fmt: skip
    return Calls(sql)


@pytest.fixture
def settings(environ: dict[str, str]) -> config.Settings:
    return config.load(environ)


@pytest.fixture
def write(settings: config.Settings) -> Iterator[Callable[..., None]]:
    """Write one record as a recorder does."""

    def refuse(_entry: object, reason: str) -> None:
        raise AssertionError(reason)

    writer = Writer(settings, set_aside=refuse, on_empty=lambda _ids: None)

    def one(record: Record | Opening, kind: Kind = Kind.FINAL) -> None:
        kept: list[Kept] = []
        writer.write([entry_of(kind, record)], lambda _entries, found: kept.append(found))
        assert kept == [Kept.COMMITTED]

    yield one
    writer.close()


def words(call: Made, tokens: int) -> Record:
    """What a call leaves behind if its process dies."""
    return final(call, b"half", tokens, state="failed", error=INTERRUPTED, usage_source="estimated")


def bury(sql: psycopg.Connection[Any], settings: config.Settings) -> None:
    """The duties, in the order in which they follow one another."""
    sql.execute("INSERT INTO fusillade.duties (name) VALUES ('bury_the_dead') ON CONFLICT DO NOTHING")  # fmt: skip
    for duty in (queue_duties.bury_the_dead, queue_duties.wake_delayed, queue_duties.expire, duties.record_ended):  # fmt: skip
        with sql.transaction():
            duty(sql, settings)


def log_row(calls: Calls, call: Made) -> tuple[str, int, str, Decimal | None]:
    row = calls.one(
        "SELECT error_code, prompt_tokens, usage_source, total_cost FROM http_analytics WHERE request_id = %s", call.id
    )  # fmt: skip
    assert row
    return tuple(row)  # type: ignore[return-value]


def test_the_last_words_of_a_dead_process_are_recorded_and_charged_once(
    calls: Calls, settings: config.Settings, write: Callable[..., None]
) -> None:
    call = calls.make()
    write(opening(call, last_words=words(call, 0)), Kind.OPEN)
    calls.sql.execute("UPDATE fusillade.open_calls SET last_words = NULL WHERE id = %s", (call.id,))
    before = calls.balance(call.owner)
    calls.sql.execute("SELECT fusillade.keep_last_words(%s::json)", (f"[{writing.line(words(call, 7)).decode()}]",))  # fmt: skip
    for _ in range(2):
        bury(calls.sql, settings)
    assert (calls.state(call), calls.counts(call)) == ("failed", (1, 1))
    assert log_row(calls, call) == ("interrupted", 7, "estimated", Decimal("0.007"))
    assert calls.balance(call.owner) == before - Decimal("0.007")
    assert calls.one("SELECT count(*) FROM fusillade.open_calls WHERE id = %s", call.id) == (0,)


def test_a_call_without_last_words_is_recorded_without_usage(
    calls: Calls, settings: config.Settings, write: Callable[..., None]
) -> None:
    call = calls.make()
    write(opening(call), Kind.OPEN)
    bury(calls.sql, settings)
    assert (calls.state(call), calls.counts(call)) == ("failed", (1, 0))
    assert log_row(calls, call) == ("interrupted", 0, "none", None)


@pytest.mark.parametrize("recorded", [False, True])
def test_an_owner_that_lives_takes_its_interrupted_back_and_is_charged_once(
    calls: Calls, settings: config.Settings, write: Callable[..., None], recorded: bool
) -> None:
    call = calls.make()
    write(opening(call, last_words=words(call, 7)), Kind.OPEN)
    with calls.sql.transaction():
        queue_duties.bury_the_dead(calls.sql, settings)
        if recorded:
            duties.record_ended(calls.sql, settings)
    write(final(call, tokens=9, request_body=None))
    bury(calls.sql, settings)
    assert (calls.state(call), calls.counts(call)) == ("completed", (1, 1))
    assert log_row(calls, call)[1] == (7 if recorded else 9)


def test_a_cancelled_call_of_a_dead_process_is_charged_and_stays_cancelled(
    calls: Calls, settings: config.Settings, write: Callable[..., None]
) -> None:
    call = calls.make()
    write(opening(call, last_words=words(call, 3)), Kind.OPEN)
    calls.sql.execute("SELECT fusillade.cancel(%s, %s)", (call.id, [str(call.owner)]))
    bury(calls.sql, settings)
    assert (calls.state(call), calls.counts(call)) == ("canceled", (1, 1))


def test_last_words_that_the_database_refuses_do_not_hold_up_others(
    calls: Calls, settings: config.Settings, write: Callable[..., None]
) -> None:
    bad, good, odd = calls.make(price="999999999"), calls.make(), calls.make()
    write(opening(bad, last_words=words(bad, 2**31 - 1)), Kind.OPEN)
    write(opening(good, last_words=words(good, 2)), Kind.OPEN)
    write(opening(odd), Kind.OPEN)
    calls.sql.execute("UPDATE fusillade.open_calls SET last_words = '{\"no\":' WHERE id = %s", (odd.id,))  # fmt: skip
    bury(calls.sql, settings)
    assert [calls.state(call) for call in (bad, good, odd)] == ["failed"] * 3
    assert [calls.counts(call) for call in (bad, good, odd)] == [(0, 0), (1, 1), (1, 0)]
    assert calls.one("SELECT count(*) FROM fusillade.unrecorded WHERE %s", True) == (0,)


def queued(calls: Calls, write: Callable[..., None], **more: Any) -> Made:
    call = calls.make(tier="flex", queued=True)
    write(opening(call, "pending", **more), Kind.ENQUEUE)
    return call


def test_a_request_that_kills_its_workers_is_recorded_when_it_ends(
    calls: Calls, settings: config.Settings, write: Callable[..., None]
) -> None:
    call = queued(calls, write)
    for _ in range(len(leases.WAITS_AFTER_LOSS_S) + 1):
        calls.sql.execute("UPDATE fusillade.delayed SET not_before = now()")
        leases.wake_delayed(calls.sql)
        (job,) = leases.claim(calls.sql, me=WORKER, most=10, policy=Policy({}, 10))
        leases.give_back(calls.sql, WORKER, [job.id], why=GivenBack.LOST)
    bury(calls.sql, settings)
    assert (calls.state(call), calls.counts(call)) == ("failed", (1, 0))
    assert log_row(calls, call)[0] == "worker_lost"


def test_a_request_whose_deadline_passed_is_recorded(
    calls: Calls, settings: config.Settings, write: Callable[..., None]
) -> None:
    call = calls.make(tier="flex", queued=True, ago_s=7200)
    write(opening(call, "pending"), Kind.ENQUEUE)
    bury(calls.sql, settings)
    assert (calls.state(call), calls.counts(call)) == ("failed", (1, 0))
    assert log_row(calls, call)[0] == "deadline_passed"


def test_a_background_call_of_the_dead_runs_once_more_and_never_again(
    calls: Calls, settings: config.Settings, write: Callable[..., None]
) -> None:
    call = calls.make()
    write(opening(call, repeatable=True, last_words=words(call, 5)), Kind.OPEN)
    bury(calls.sql, settings)
    assert (calls.state(call), calls.counts(call)) == ("pending", (0, 0))
    calls.sql.execute("UPDATE fusillade.delayed SET not_before = now()")
    leases.wake_delayed(calls.sql)
    (job,) = leases.claim(calls.sql, me=uuid4(), most=10, policy=Policy({}, 10))
    assert (job.id, job.times_lost) == (call.id, 1)
    bury(calls.sql, settings)
    assert (calls.state(call), calls.counts(call)) == ("failed", (1, 0))
    assert log_row(calls, call)[0] == "worker_lost"
