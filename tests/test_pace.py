"""Long work in turns: others run in between, those that wait for a socket too."""

from __future__ import annotations

import gevent
from gevent import socket

from dwctl.pace import Pace


def test_whoever_waits_for_a_socket_gets_a_turn():
    """Which `sleep(0)` would not give it: its loop looks at no descriptor."""
    ours, theirs = socket.socketpair()
    reader = gevent.spawn(ours.recv, 5)
    gevent.sleep(0)
    theirs.sendall(b"hello")
    pace = Pace(turn_s=0)
    for _ in range(20):
        pace()
    assert reader.ready()
    assert reader.value == b"hello"
    ours.close()
    theirs.close()


def test_nobody_is_asked_before_the_turn_is_over():
    others = gevent.spawn(lambda: None)
    pace = Pace(turn_s=1000)
    for _ in range(20):
        pace()
    assert not others.ready()
    pace.rest()
    assert others.ready()
