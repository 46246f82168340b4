"""Time-outs that do not count the time in which this process stood still itself."""

from __future__ import annotations

import time
from collections.abc import Iterator

import gevent
import pytest
from gevent import socket

from dwctl.patience import Patience


@pytest.mark.parametrize(("patience", "is_heard"), [(gevent.Timeout, False), (Patience, True)])
def test_answers_that_came_during_stalls_are_heard(
    patience: type[gevent.Timeout], is_heard: bool
) -> None:
    """Which an ordinary time-out does not let happen, as soon as there are two."""
    ours, theirs = socket.socketpair()
    heard = b""

    def stall() -> None:
        for _ in range(2):
            theirs.sendall(b"hello")
            time.sleep(0.2)
            gevent.sleep(0.001)

    gevent.spawn(stall)
    try:
        with patience(0.1):
            ours.recv(5)
            gevent.sleep(0.01)
            heard = ours.recv(5)
    except patience:
        pass
    ours.close()
    theirs.close()
    assert bool(heard) is is_heard


@pytest.fixture
def stalling() -> Iterator[None]:
    """The loop does next to nothing but stall."""

    def stall() -> None:
        while True:
            time.sleep(0.05)
            gevent.sleep(0.001)

    stalls = gevent.spawn(stall)
    yield
    stalls.kill()


@pytest.mark.usefixtures("stalling")
def test_who_needs_many_turns_has_them_in_a_loop_that_is_slow_at_each() -> None:
    """The first exchange of a process connects, asks who it is, prepares: ten turns and more, each of which takes a quarter of its time here."""
    with Patience(0.2):
        for _ in range(12):
            gevent.sleep(0.001)


@pytest.mark.usefixtures("stalling")
def test_a_loop_that_does_nothing_but_stall_comes_to_an_end() -> None:
    with pytest.raises(Patience), Patience(0.02):
        gevent.sleep(60)


def test_it_ends_a_wait_in_its_own_block() -> None:
    patience = Patience(0.01)
    with pytest.raises(Patience) as raised, patience:
        gevent.sleep(60)
    assert raised.value is patience


def test_what_is_over_is_not_interrupted_later() -> None:
    with Patience(0.01):
        pass
    gevent.sleep(0.05)


def test_one_within_another_runs_out_by_itself() -> None:
    outer = Patience(30)
    with outer, pytest.raises(Patience) as raised, Patience(0.01):
        gevent.sleep(60)
    assert raised.value is not outer
