"""Calls while they run: stopped where they wait, and nowhere else; told of, opened, and let go."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from uuid import uuid4

import gevent
import pytest

from dwctl.ai.holdings import Holdings, Kind
from dwctl.ai.in_progress import Flight, InProgress, Stopped
from dwctl.ai.outcomes import Reason
from dwctl.config import AccountLimits, ProcessLimits

SOON_S = 10.0


@pytest.fixture
def registry() -> Iterator[InProgress]:
    made = InProgress(open_after_s=0.0, speak_every_s=0.0)
    made.start()
    yield made
    made.stop()


def waits(flight: Flight) -> Reason | str:
    try:
        with flight.waiting():
            gevent.sleep(SOON_S)
    except Stopped as stopped:
        return stopped.reason
    return "was not stopped"


@pytest.mark.parametrize("reason", list(Reason))
def test_a_call_is_stopped_where_it_waits(reason: Reason) -> None:
    flight = Flight(uuid4())
    call = gevent.spawn(waits, flight)
    gevent.sleep(0)
    flight.stop(reason)
    assert call.get(timeout=SOON_S) is reason


def test_a_call_that_does_not_wait_is_stopped_at_its_next_wait() -> None:
    flight = Flight(uuid4())
    flight.stop(Reason.CANCELLED)
    gevent.sleep(0)
    with pytest.raises(Stopped), flight.waiting():
        pytest.fail("the wait must not begin")


def test_the_first_reason_counts() -> None:
    flight = Flight(uuid4())
    call = gevent.spawn(waits, flight)
    gevent.sleep(0)
    flight.stop(Reason.CANCELLED)
    flight.stop(Reason.DRAINED)
    assert call.get(timeout=SOON_S) is Reason.CANCELLED


def test_a_call_that_is_over_is_not_stopped() -> None:
    flight = Flight(uuid4())
    flight.over = True
    flight.stop(Reason.CANCELLED)
    with flight.waiting():
        gevent.sleep(0.01)


def test_a_killed_greenlet_is_a_drained_call() -> None:
    flight = Flight(uuid4())
    call = gevent.spawn(waits, flight)
    gevent.sleep(0)
    call.kill()
    assert call.value is Reason.DRAINED


def test_who_goes_on_alone_is_not_stopped_for_its_caller() -> None:
    flight = Flight(uuid4())
    flight.stop(Reason.LEFT)
    flight.go_on_alone()
    with flight.waiting():
        pass


def test_a_caller_that_hangs_up_is_noticed(registry: InProgress) -> None:
    ours, theirs = socket.socketpair()
    flight = registry.enter(Flight(uuid4(), ours))
    call = gevent.spawn(waits, flight)
    gevent.sleep(0)
    theirs.close()
    assert call.get(timeout=SOON_S) is Reason.LEFT
    registry.leave(flight)
    ours.close()


def test_a_call_lingers_for_its_usage_when_its_caller_hangs_up(registry: InProgress) -> None:
    ours, theirs = socket.socketpair()
    flight = registry.enter(Flight(uuid4(), ours))
    flight.linger_s = 0.3
    call = gevent.spawn(waits, flight)
    gevent.sleep(0)
    theirs.close()
    while flight.peer is not None:
        gevent.sleep(0.01)
    assert not call.ready()
    assert call.get(timeout=SOON_S) is Reason.LEFT
    ours.close()


def test_a_call_lingers_for_its_usage_when_it_is_cancelled(registry: InProgress) -> None:
    """Else whoever cancels between a model's end and its usage would pay an estimate."""
    flight = registry.enter(Flight(uuid4()))
    flight.linger_s = 0.3
    call = gevent.spawn(waits, flight)
    gevent.sleep(0)
    registry.cancel(flight.id)
    gevent.sleep(0.05)
    assert not call.ready()
    assert call.get(timeout=SOON_S) is Reason.CANCELLED


def test_a_call_that_lasts_is_opened_once_and_leaves_word(registry: InProgress) -> None:
    heard: list[str] = []
    flight = Flight(uuid4())
    flight.last_words = lambda: heard.append("word")
    registry.enter(flight, lambda: heard.append("opened"))
    while heard.count("word") < 2:
        gevent.sleep(0.01)
    assert heard.count("opened") == 1
    registry.leave(flight)
    said = len(heard)
    gevent.sleep(0.6)
    assert len(heard) == said


def test_a_bug_that_one_call_meets_does_not_end_the_looking(registry: InProgress) -> None:
    def fail() -> None:
        raise ZeroDivisionError("a bug of ours")

    broken = Flight(uuid4())
    broken.last_words = fail
    registry.enter(broken)
    gevent.sleep(0.3)
    ours, theirs = socket.socketpair()
    call = gevent.spawn(waits, registry.enter(Flight(uuid4(), ours)))
    theirs.close()
    assert call.get(timeout=SOON_S) is Reason.LEFT
    ours.close()


def test_leaving_gives_back_what_the_call_held(registry: InProgress) -> None:
    holdings = Holdings(AccountLimits(), ProcessLimits(), lambda _owner: 0)
    hold = holdings.begin(uuid4())
    hold.take(Kind.REALTIME)
    flight = registry.enter(Flight(uuid4(), hold=hold))
    registry.leave(flight)
    registry.leave(flight)
    assert holdings.counts[Kind.REALTIME].total == 0
    assert registry.flights == {}


def test_all_are_stopped_at_the_end(registry: InProgress) -> None:
    flights = [registry.enter(Flight(uuid4())) for _ in range(5)]

    def run(flight: Flight) -> Reason | str:
        try:
            return waits(flight)
        finally:
            registry.leave(flight)

    calls = [gevent.spawn(run, flight) for flight in flights]
    gevent.sleep(0)
    assert not registry.wait_empty(0.05)
    registry.stop_all(Reason.DRAINED)
    assert registry.wait_empty(SOON_S)
    assert {call.get(timeout=SOON_S) for call in calls} == {Reason.DRAINED}
