"""Time-outs that do not count the time in which this process stood still itself."""

from __future__ import annotations

import time

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
