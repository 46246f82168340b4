"""The calls that this process is working on: who has left, what lasts, what was cancelled.

One greenlet looks at all of them a few times a second, so that a call costs a dictionary entry and not a timer of its own:
- a caller that has left (its socket says so; behind a proxy, when the proxy closes) gets its upstream call cancelled;
- a blocking call that lasts gets its tracking row (`recorder.open_after`);
- a cancel from anywhere reaches the process that holds the call by its id.
An interruption is thrown into a call's greenlet only while it waits for the upstream, never while it writes something down.
"""

from __future__ import annotations

import select
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import gevent
from gevent import GreenletExit, get_hub, getcurrent, monkey

_LOOK_EVERY_S = 0.25
_GONE = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)
# gevent's own poll makes a watcher for each descriptor; this one asks the kernel once, without waiting.
_poll = monkey.get_original("select", "poll")


class Interrupted(BaseException):
    """Nobody waits for this call any more. Not an Exception: no handler of faults may swallow it."""


class CallerLeft(Interrupted):
    """The caller closed its connection."""


class Cancelled(Interrupted):
    """The owner cancelled the response."""


class Drained(Interrupted):
    """This process ends: a queued request is given back, a caller that still waits is told."""


class Flight:
    """One call that runs here."""

    __slots__ = ("_greenlet", "_pending", "_waiting", "id", "on_slow", "over", "peer", "started")

    def __init__(self, id: UUID, peer: Any, on_slow: Callable[[], None] | None) -> None:
        self.id = id
        self.peer = peer
        self.on_slow = on_slow
        self.started = time.monotonic()
        self.over = False
        self._greenlet: Any = None
        self._pending: Interrupted | None = None
        self._waiting = False

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around each wait for the upstream: here, and only here, the call may be interrupted."""
        if self._pending is not None:
            raise self._pending
        self._greenlet = getcurrent()
        self._waiting = True
        try:
            yield
        except GreenletExit:
            # The server's grace for its connections is over.
            raise Drained from None
        finally:
            self._waiting = False

    def interrupt(self, reason: Interrupted) -> None:
        """Raise `reason` where the call waits, or at its next wait."""
        if not self.over and self._pending is None:
            self._pending = reason
            get_hub().loop.run_callback(self._throw)

    def _throw(self) -> None:
        if self._waiting and not self.over:
            self._greenlet.throw(self._pending)


class InProgress:
    """The registry of this process."""

    def __init__(self, open_after_s: float) -> None:
        self.flights: dict[UUID, Flight] = {}
        self._open_after_s = open_after_s
        self._young: deque[Flight] = deque()
        self._greenlet: gevent.Greenlet | None = None

    def start(self) -> None:
        """Begin to look."""
        self._greenlet = gevent.spawn(self._run)

    def stop(self) -> None:
        """Stop looking; calls go on."""
        if self._greenlet is not None:
            self._greenlet.kill()

    def enter(
        self, id: UUID, peer: Any = None, on_slow: Callable[[], None] | None = None
    ) -> Flight:
        """A call begins. `on_slow` is called once, in a greenlet of its own, if it lasts. `leave` must follow."""
        flight = Flight(id, peer, on_slow)
        self.flights[id] = flight
        if on_slow is not None:
            self._young.append(flight)
        return flight

    def leave(self, flight: Flight) -> None:
        """The call is over."""
        flight.over = True
        self.flights.pop(flight.id, None)

    def cancel(self, id: UUID) -> None:
        """Cancel a call, if it runs here."""
        if flight := self.flights.get(id):
            flight.interrupt(Cancelled())

    def _run(self) -> None:
        while True:
            gevent.sleep(_LOOK_EVERY_S)
            self._open_slow(time.monotonic() - self._open_after_s)
            self._find_leavers()

    def _open_slow(self, before: float) -> None:
        young = self._young
        while young and (young[0].over or young[0].started <= before):
            flight = young.popleft()
            if not flight.over and flight.on_slow is not None:
                gevent.spawn(flight.on_slow)

    def _find_leavers(self) -> None:
        by_descriptor: dict[int, Flight] = {}
        poll = _poll()
        for flight in self.flights.values():
            descriptor = _descriptor(flight.peer)
            if descriptor >= 0:
                by_descriptor[descriptor] = flight
                poll.register(descriptor, _GONE)
        for descriptor, _event in poll.poll(0) if by_descriptor else ():
            by_descriptor[descriptor].interrupt(CallerLeft())


def _descriptor(peer: Any) -> int:
    if not isinstance(peer, socket.socket):
        return -1
    return peer.fileno()
