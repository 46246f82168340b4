"""The limiter on a real database, several of them as if they were processes: what each call gets, what comes back, by whose clock."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from importlib.resources import files
from typing import Any
from uuid import uuid4

import gevent
import psycopg
import pytest

from dwctl import config
from dwctl.db import DatabaseAway
from dwctl.limits import duties
from dwctl.limits.demands import Demand, Whose, demand
from dwctl.limits.limiter import Limiter, Permit
from dwctl.limits.standing import LimitReached
from tests.processes import free_port

Making = Callable[..., Limiter]


@pytest.fixture(autouse=True)
def empty(sql: psycopg.Connection[Any]) -> None:
    sql.execute("TRUNCATE limit_states, limit_holds, fusillade.daemons CASCADE")


@pytest.fixture
def limiters(database_url: str, sql: psycopg.Connection[Any]) -> Iterator[Making]:
    """Makes limiters, each that of a process which beats."""
    made: list[Limiter] = []

    def make(
        url: str = database_url, dead_after_s: float | None = None, database_wait: str = "1s"
    ) -> Limiter:
        me = uuid4()
        sql.execute(
            "INSERT INTO fusillade.daemons (id, status, hostname, pid, version, config_snapshot, started_at, last_heartbeat)"
            " VALUES (%s, 'running', 'h', 1, 'v', '{}', now(), now())",
            (me,),
        )
        settings = config.load(
            {"DATABASE_URL": url, "DWCTL_RECORDER__DATABASE_WAIT": database_wait}
        )
        limiter = Limiter(settings, me, lambda: dead_after_s)
        made.append(limiter)
        return limiter

    yield make
    for limiter in made:
        limiter.stop(time.monotonic())


@pytest.fixture
def limiter(limiters: Making) -> Limiter:
    return limiters()


def a(whose: Whose = Whose.MODEL, id: str = "1", **limits: Any) -> Demand:
    found = demand(whose, id, **limits)
    assert found
    return found


def refusal(limiter: Limiter, *demands: Demand, tokens: int = 0) -> LimitReached:
    with pytest.raises(LimitReached) as refused:
        limiter.take(demands, tokens)
    return refused.value


def state(sql: psycopg.Connection[Any], subject: str = "model:1") -> Any:
    return sql.execute(
        "SELECT calls, tokens, held FROM limit_states WHERE subject = %s", (subject,)
    ).fetchone()


def holds(sql: psycopg.Connection[Any]) -> list[Any]:
    return sql.execute("SELECT subject, slots, tokens FROM limit_holds ORDER BY subject").fetchall()


def ago(sql: psycopg.Connection[Any], seconds: float, column: str = "at") -> None:
    """As if that much time had passed."""
    sql.execute(
        f"UPDATE limit_states SET {column} = {column} - %s * interval '1 second'", (seconds,)
    )  # type: ignore[arg-type]


def back(permit: Permit, used: int = 0) -> None:
    permit.give_back(used)
    permit.wait_given_back(5)


def test_the_functions_are_those_of_the_file(sql: psycopg.Connection[Any]) -> None:
    query = "SELECT oid::regprocedure::text, pg_get_functiondef(oid) FROM pg_proc WHERE proname IN ('exchange_limits', 'free_limits_of_the_dead')"
    migrated = dict(sql.execute(query).fetchall())
    assert len(migrated) == 2
    with sql.transaction(force_rollback=True):
        for name in migrated:
            sql.execute(f"DROP FUNCTION {name}")  # type: ignore[arg-type]
        sql.execute(files("dwctl.limits").joinpath("functions.sql").read_text("utf-8"))  # type: ignore[arg-type]
        assert dict(sql.execute(query).fetchall()) == migrated


# --- rates


@pytest.mark.parametrize(
    ("rate", "burst", "pass_at_once"),
    [(0.01, 5, 5), (0.001, None, 1), (0.5, 3, 3), (0.009, 2, 2), (1e-9, 1, 1)],
)
def test_a_rested_bucket_gives_its_burst_and_no_more(
    limiters: Making, rate: float, burst: int | None, pass_at_once: int
) -> None:
    one, other = limiters(), limiters()
    limit = a(requests_per_second=rate, burst_size=burst)
    for n in range(pass_at_once):
        assert (one, other)[n % 2].take([limit])
    assert refusal(one, limit).code == "rate_limit"
    assert refusal(other, limit).code == "rate_limit"


@pytest.mark.parametrize(
    ("rested_s", "passes", "wait_s"),
    [(0, 0, 4), (1, 0, 3), (3.9, 0, 0.1), (4, 1, 4), (8.5, 2, 3.5), (1e6, 3, 4)],
)
def test_it_fills_by_time_up_to_the_burst(
    limiter: Limiter, sql: psycopg.Connection[Any], rested_s: float, passes: int, wait_s: float
) -> None:
    limit = a(requests_per_second=0.25, burst_size=3)
    for _ in range(3):
        limiter.take([limit])
    ago(sql, rested_s)
    for _ in range(passes):
        limiter.take([limit])
    assert refusal(limiter, limit).wait_s == pytest.approx(wait_s, abs=0.9)


def test_a_clock_that_is_put_back_gives_nothing_and_takes_nothing(
    limiter: Limiter, sql: psycopg.Connection[Any]
) -> None:
    limit = a(requests_per_second=0.01, burst_size=3)
    limiter.take([limit])
    ago(sql, -86400)
    limiter.take([limit])
    limiter.take([limit])
    refusal(limiter, limit)
    ago(sql, 100)
    limiter.take([limit])


@pytest.mark.parametrize(
    ("after", "passes"),
    [
        ({"requests_per_second": 0.01, "burst_size": 2}, 2),
        ({"requests_per_second": 0.01, "burst_size": 5}, 3),
        ({"requests_per_second": 0.001, "burst_size": 50}, 3),
    ],
    ids=str,
)
def test_a_limit_that_is_changed_keeps_what_is_left_within_its_new_burst(
    limiter: Limiter, after: dict[str, Any], passes: int
) -> None:
    for _ in range(2):
        limiter.take([a(requests_per_second=0.01, burst_size=5)])
    limit = a(**after)
    for _ in range(passes):
        limiter.take([limit])
    refusal(limiter, limit)


def test_calls_that_want_at_the_same_time_are_one_group_and_counted_one_by_one(
    limiters: Making,
) -> None:
    limit = a(requests_per_second=0.01, burst_size=20)
    crowd = [limiters(), limiters()]
    passed: list[Permit] = []

    def want(n: int) -> None:
        with contextlib.suppress(LimitReached):
            passed.append(crowd[n % 2].take([limit]))

    gevent.joinall([gevent.spawn(want, n) for n in range(700)], timeout=20)
    assert len(passed) == 20
    assert sum(one.refused["model", "rate_limit"] for one in crowd) == 680


# --- places


def test_places_are_counted_over_all_processes_and_come_back(
    limiters: Making, sql: psycopg.Connection[Any]
) -> None:
    one, other = limiters(), limiters()
    limit = a(capacity=2)
    first, second = one.take([limit]), other.take([limit])
    found = refusal(one, limit)
    assert (found.code, found.retry_after_s) == ("concurrency_limit_exceeded", 1)
    refusal(other, limit)
    back(second)
    third = one.take([limit])
    refusal(other, limit)
    for permit in (first, second, third, first):
        back(permit)
    assert state(sql) == (None, None, 0)
    assert holds(sql) == []


@pytest.mark.parametrize("how", ["goodbye", "buried", "forgotten", "silent"])
def test_places_of_a_dead_process_are_free_as_soon_as_somebody_wants_one(
    limiters: Making, sql: psycopg.Connection[Any], how: str
) -> None:
    dead, alive = limiters(), limiters(dead_after_s=30.0)
    limit = a(capacity=3)
    for _ in range(2):
        dead.take([limit])
    alive.take([limit])
    refusal(alive, limit)
    die(sql, dead, how)
    ago(sql, 2, "looked_at")
    for _ in range(2):
        alive.take([limit])
    refusal(alive, limit)
    assert state(sql)[2] == 3


def die(sql: psycopg.Connection[Any], limiter: Limiter, how: str) -> None:
    change = {
        "goodbye": "UPDATE fusillade.daemons SET status = 'dead', stopped_at = now() WHERE id = %s",
        "buried": "UPDATE fusillade.daemons SET status = 'dead', stopped_at = now() WHERE id = %s",
        "forgotten": "DELETE FROM fusillade.daemons WHERE id = %s",
        "silent": "UPDATE fusillade.daemons SET last_heartbeat = now() - interval '31 seconds' WHERE id = %s",
    }[how]
    sql.execute(change, (limiter._me,))  # type: ignore[arg-type]


def test_after_an_outage_nobody_is_taken_for_dead_before_everybody_could_beat(
    limiters: Making, sql: psycopg.Connection[Any]
) -> None:
    """A process that has not beaten for a whole threshold itself (`dead_after_s` is None) believes no silence."""
    silent, new = limiters(), limiters(dead_after_s=None)
    limit = a(capacity=1)
    silent.take([limit])
    die(sql, silent, "silent")
    ago(sql, 2, "looked_at")
    refusal(new, limit)


def test_the_duty_frees_what_the_dead_held_and_nothing_else(
    limiters: Making, sql: psycopg.Connection[Any]
) -> None:
    dead, alive = limiters(), limiters()
    settings = config.load({"DATABASE_URL": "postgresql://unused"})
    for n in range(3):
        dead.take([a(id=str(n), capacity=5, tokens_per_minute=100)], 10)
        alive.take([a(id=str(n), capacity=5)])
    die(sql, dead, "buried")
    assert duties.free_limits(sql, settings) <= 5
    assert [state(sql, f"model:{n}")[2] for n in range(3)] == [1, 1, 1]
    assert len(holds(sql)) == 3


def test_a_process_that_stands_still_does_not_take_the_database_for_away(
    limiters: Making, sql: psycopg.Connection[Any]
) -> None:
    """Connecting, preparing and asking take some turns of the loop, and each of them takes long here, as in a process that has too much to do."""

    def stall() -> None:
        while True:
            time.sleep(0.1)
            gevent.sleep(0.001)

    impatient = limiters(database_wait="0.1s")
    stalls = gevent.spawn(stall)
    try:
        permit = impatient.take([a(capacity=1)])
        assert impatient._connection
        # Whoever sits between may hang up on a connection that is not used, and the process may be late to see it.
        pid = impatient._connection.info.backend_pid
        sql.execute("SELECT pg_terminate_backend(%s)", (pid,))
        impatient.take([a(id="2", capacity=1)])
    finally:
        stalls.kill()
    back(permit)


# --- LLM tokens


def test_tokens_are_taken_by_estimate_and_settled_by_use(
    limiter: Limiter, sql: psycopg.Connection[Any]
) -> None:
    limit = a(tokens_per_minute=1000)
    first = limiter.take([limit], 600)
    assert state(sql)[1] == pytest.approx(400, abs=1)
    found = refusal(limiter, limit, tokens=500)
    assert found.code == "tokens_per_minute"
    assert found.wait_s == pytest.approx(6, abs=1)
    second = limiter.take([limit], 300)
    back(first, used=200)
    assert state(sql)[1] == pytest.approx(500, abs=60)
    back(second, used=2000)
    # More than there was: the bucket is in debt, and the next call waits for it.
    assert state(sql)[1] == pytest.approx(-1200, abs=100)
    assert refusal(limiter, limit, tokens=1).wait_s == pytest.approx(72, abs=6)
    ago(sql, 80)
    limiter.take([limit], 1)


def test_what_is_above_the_whole_bucket_passes_when_that_is_full_and_empties_it(
    limiter: Limiter, sql: psycopg.Connection[Any]
) -> None:
    limit = a(tokens_per_minute=100)
    back(limiter.take([limit], 2**40), used=30)
    assert state(sql)[1] == pytest.approx(70, abs=5)
    found = refusal(limiter, limit, tokens=500)
    assert found.wait_s == pytest.approx(18, abs=4)
    ago(sql, 60)
    limiter.take([limit], 500)
    assert state(sql)[1] == pytest.approx(0, abs=3)


def test_a_call_that_used_nothing_gives_all_of_it_back(
    limiter: Limiter, sql: psycopg.Connection[Any]
) -> None:
    limit = a(tokens_per_minute=100)
    back(limiter.take([limit], 100))
    assert state(sql)[1] == 100
    assert holds(sql) == []


# --- several limits of one call

MODEL, KEY = Whose.MODEL, Whose.KEY
IN_ORDER: list[tuple[dict[str, Any], dict[str, Any], Whose, str]] = [
    ({"requests_per_second": 0.01}, {"requests_per_second": 0.01}, MODEL, "rate_limit"),
    ({"capacity": 1}, {"requests_per_second": 0.01}, KEY, "rate_limit"),
    ({"capacity": 1}, {"capacity": 1}, MODEL, "concurrency_limit_exceeded"),
    ({"tokens_per_minute": 10}, {"capacity": 1}, KEY, "concurrency_limit_exceeded"),
    ({"tokens_per_minute": 10}, {"tokens_per_minute": 10}, MODEL, "tokens_per_minute"),
    ({"capacity": 9}, {"tokens_per_minute": 10}, KEY, "tokens_per_minute"),
]


@pytest.mark.parametrize(("of_model", "of_key", "whose", "code"), IN_ORDER)
def test_the_limit_that_is_named_is_the_first_in_order(
    limiter: Limiter, of_model: dict[str, Any], of_key: dict[str, Any], whose: Whose, code: str
) -> None:
    demands = a(MODEL, **of_model), a(KEY, **of_key)
    limiter.take(demands, 10)
    found = refusal(limiter, *demands, tokens=10)
    assert (found.whose, found.code) == (whose, code)


@pytest.mark.parametrize("full", ["rate", "places", "tokens"])
def test_a_call_that_one_limit_refuses_takes_nothing_of_the_others(
    limiter: Limiter, sql: psycopg.Connection[Any], full: str
) -> None:
    limits = {
        "rate": {"requests_per_second": 0.001, "burst_size": 1},
        "places": {"capacity": 1},
        "tokens": {"tokens_per_minute": 5},
    }[full]
    generous = {
        "requests_per_second": 0.001,
        "burst_size": 9,
        "capacity": 9,
        "tokens_per_minute": 9,
    }
    limiter.take([a(KEY, **limits)], 5)
    for _ in range(3):
        refusal(limiter, a(MODEL, **generous), a(KEY, **limits), tokens=5)
    assert state(sql) == (9, 9, 0)
    assert [hold[0] for hold in holds(sql)] in ([], ["key:1"])


# --- what goes wrong


def test_a_call_that_is_killed_while_it_waits_holds_nothing(
    limiter: Limiter, sql: psycopg.Connection[Any]
) -> None:
    limit = a(capacity=5)
    limiter.take([limit])
    calls = [gevent.spawn(limiter.take, [limit]) for _ in range(3)]
    gevent.sleep(0)
    gevent.killall(calls)
    soon(lambda: len(holds(sql)) == 1)
    assert state(sql)[2] == 1


def soon(check: Callable[[], Any], within_s: float = 10) -> None:
    until = time.monotonic() + within_s
    while not check():
        assert time.monotonic() < until
        gevent.sleep(0.02)


def cut(sql: psycopg.Connection[Any]) -> None:
    """All other connections to this database."""
    sql.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    )


def test_a_connection_that_was_cut_while_idle_is_made_anew_and_nobody_notices(
    limiter: Limiter, sql: psycopg.Connection[Any]
) -> None:
    limit = a(capacity=5)
    first = limiter.take([limit])
    cut(sql)
    second = limiter.take([limit])
    cut(sql)
    back(first)
    back(second)
    soon(lambda: not holds(sql))
    assert state(sql) == (None, None, 0)


def test_without_a_database_calls_are_refused_and_what_is_given_back_is_kept(
    limiters: Making, sql: psycopg.Connection[Any], database_url: str
) -> None:
    nowhere = limiters(f"postgresql://u:p@127.0.0.1:{free_port()}/d")
    limit = a(requests_per_second=1.0)
    for _ in range(3):
        with pytest.raises(DatabaseAway) as refused:
            nowhere.take([limit])
        assert refused.value.retry_after_s
    limiter = limiters()
    permit = limiter.take([a(capacity=1)])
    limiter._settings, real = nowhere._settings, limiter._settings
    cut(sql)
    permit.give_back()
    permit.wait_given_back(5)
    assert len(holds(sql)) == 1
    with pytest.raises(DatabaseAway):
        limiter.take([limit])
    limiter._settings = real
    soon(lambda: not holds(sql))
    soon(lambda: not limiter._is_away)
    limiter.take([limit])


def test_what_may_have_been_taken_by_a_statement_of_unknown_end_is_given_back(
    limiter: Limiter, sql: psycopg.Connection[Any]
) -> None:
    """The answer is lost after the commit: its caller is refused, or served under another number, and the first place is free again."""
    limit = a(capacity=5)
    limiter.take([limit])
    execute, lost = limiter._execute, []

    def commits_and_breaks(name: str, values: dict[str, Any]) -> Any:
        found = execute(name, values)
        if name == "exchange" and not lost:
            lost.append(found)
            raise psycopg.OperationalError("server closed the connection unexpectedly")
        return found

    limiter._execute = commits_and_breaks  # type: ignore[method-assign]
    try:
        limiter.take([limit])
        taken = 2
    except DatabaseAway:
        taken = 1
    soon(lambda: len(holds(sql)) == taken)
    assert state(sql)[2] == taken


def test_a_state_that_vanished_is_made_again(
    limiter: Limiter, sql: psycopg.Connection[Any]
) -> None:
    """A crash of the database empties unlogged tables."""
    limit = a(capacity=2, tokens_per_minute=50)
    permit = limiter.take([limit], 10)
    sql.execute("TRUNCATE limit_states, limit_holds")
    back(permit, 10)
    assert holds(sql) == []
    for _ in range(2):
        limiter.take([limit], 1)
    refusal(limiter, limit, tokens=1)


def test_idle_states_are_purged_when_they_are_full_and_nothing_is_held(
    limiter: Limiter, sql: psycopg.Connection[Any]
) -> None:
    limiter.take([a(id="slow", requests_per_second=1e-5)])
    limiter.take([a(id="quick", requests_per_second=100.0)])
    limiter.take([a(id="held", capacity=3)])
    back(limiter.take([a(id="free", capacity=3)]))
    limiter.take([a(id="recent", requests_per_second=100.0)])
    sql.execute(
        "UPDATE limit_states SET at = at - interval '11 minutes', full_at = full_at - interval '11 minutes' WHERE subject <> 'model:recent'"
    )
    settings = config.load({"DATABASE_URL": "postgresql://unused"})
    assert duties.purge_limits(sql, settings) == 600
    left = {subject for (subject,) in sql.execute("SELECT subject FROM limit_states").fetchall()}
    assert left == {"model:slow", "model:held", "model:recent"}
    # Who knew it makes it again.
    limiter.take([a(id="quick", requests_per_second=100.0)])


def test_many_processes_that_share_many_limits_never_wait_in_a_circle(
    limiters: Making, sql: psycopg.Connection[Any]
) -> None:
    crowd = [limiters() for _ in range(3)]
    demands = [a(whose, str(n), capacity=50) for whose in (MODEL, KEY) for n in range(4)]

    def call(limiter: Limiter, n: int) -> None:
        for i in range(10):
            pair = [demands[(n + i) % 4], demands[4 + (n * i) % 4]]
            back(limiter.take(pair))

    calls = [gevent.spawn(call, limiter, n) for limiter in crowd for n in range(10)]
    gevent.joinall(calls, timeout=30, raise_error=True)
    assert all(call.successful() for call in calls)
    assert holds(sql) == []
    found = sql.execute("SELECT sum(held) FROM limit_states").fetchone()
    assert found == (0,)


def test_stopping_waits_for_what_is_to_be_given_back(
    limiter: Limiter, sql: psycopg.Connection[Any]
) -> None:
    permits = [limiter.take([a(id=str(n), capacity=1)]) for n in range(10)]
    for permit in permits:
        permit.give_back()
    limiter.stop(time.monotonic() + 5)
    assert holds(sql) == []
