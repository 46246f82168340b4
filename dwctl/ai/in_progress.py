"""The calls that this process is working on: who has left, what lasts, what was cancelled.

One greenlet looks at all of them a few times a second, so that a call costs a dictionary entry and not a timer of its own:
- a caller that has left (its socket says so; behind a proxy, when the proxy closes) gets its upstream call cancelled;
- a blocking call that lasts gets its tracking row (`recorder.open_after`);
- a cancel from anywhere reaches the process that holds the call by its id;
- a stream that lasts leaves word of what it has delivered (`recorder.progress_interval`), for the case that this process dies.
A stop is thrown into a call's greenlet only while it waits for the upstream, never while it writes something down.
"""

from __future__ import annotations

import logging
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any
from uuid import UUID

import gevent
import msgspec
from gevent import GreenletExit, get_hub, getcurrent, monkey

from dwctl.ai.funds import Held
from dwctl.ai.holdings import Hold
from dwctl.ai.outcomes import Reason
from dwctl.analytics.records import Tried
from dwctl.catalog.routing import Model
from dwctl.limits.limiter import Permit
from dwctl.pace import Pace
from dwctl.upstream.target import Target

if TYPE_CHECKING:
    from opentelemetry.trace import Span

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.25
_GONE = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)
# gevent's own poll makes a watcher for each descriptor; this one asks the kernel once, without waiting.
_poll = monkey.get_original("select", "poll")


class Stopped(BaseException):
    """The run must end, for this reason. Not an Exception: no handler of faults may swallow it."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.name)
        self.reason = reason


class Flight(msgspec.Struct, eq=False):
    """One call while it runs here: all of it that changes.

    opened: its tracking row was asked for; row_is_there: and is committed. first_byte_at: monotonic. over: its record is made
    (recorded), or it has left. alone: it goes on when its caller leaves. linger_s: how long it goes on for its usage when nobody wants it
    any more. permits: what it has been allowed by limits; they end with it. answered_with: the headers of an answer that has begun. target:
    where it was sent last, and provider the model that has this target; tried: the story of a call that had a choice of targets, an entry for
    each attempt. held: what stands behind it of the money that it may cost. trace_id, span, attempt: where traces are exported, the call's
    trace, the span that it is a part of, and that of the attempt that runs.
    """

    id: UUID
    peer: Any = None
    hold: Hold | None = None
    started: float = msgspec.field(default_factory=time.monotonic)
    spoke_at: float = msgspec.field(default_factory=time.monotonic)
    first_byte_at: float | None = None
    opened: bool = False
    row_is_there: bool = False
    over: bool = False
    recorded: bool = False
    alone: bool = False
    linger_s: float = 0.0
    target: Target | None = None
    provider: Model | None = None
    answered_with: Sequence[tuple[str, str]] = ()
    tried: list[Tried] = []
    permits: Sequence[Permit] = ()
    held: Held | None = None
    trace_id: str | None = None
    span: Span | None = None
    attempt: Span | None = None
    on_slow: Callable[[], None] | None = None
    last_words: Callable[[], None] | None = None
    _greenlet: Any = None
    _pending: Reason | None = None
    _waiting: bool = False

    def waiting(self) -> AbstractContextManager[None]:
        """Around each wait for the upstream: here, and only here, the call may be stopped. Raises Stopped."""
        return _Waiting(self)

    @property
    def is_stopping(self) -> bool:
        """Whether it has been told to stop, or is over."""
        return self.over or self._pending is not None

    def stop(self, reason: Reason) -> None:
        """Raise Stopped where the call waits, or at its next wait."""
        if not self.over and self._pending is None:
            self._pending = reason
            get_hub().loop.run_callback(self._throw)

    def give_up(self, reason: Reason) -> None:
        """Nobody wants it any more: stop, after `linger_s`."""
        if self.linger_s:
            self.peer = None
            gevent.spawn_later(self.linger_s, self.stop, reason)
        else:
            self.stop(reason)

    def go_on_alone(self) -> None:
        """The caller may leave, or has left, and that is no reason to stop."""
        self.alone = True
        self.peer = None
        if self._pending is Reason.LEFT:
            self._pending = None

    def _throw(self) -> None:
        if self._waiting and not self.over and self._pending is not None:
            self._greenlet.throw(Stopped(self._pending))


class _Waiting:
    """(A class, as each call comes by two or three times: a generator costs three times as much.)"""

    __slots__ = ("_flight",)

    def __init__(self, flight: Flight) -> None:
        self._flight = flight

    def __enter__(self) -> None:
        flight = self._flight
        if flight._pending is not None:
            raise Stopped(flight._pending)
        flight._greenlet = getcurrent()
        flight._waiting = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: object
    ) -> None:
        self._flight._waiting = False
        if isinstance(error, GreenletExit):
            # The server's grace for its connections is over.
            raise Stopped(Reason.DRAINED) from None


class InProgress:
    """The registry of this process."""

    def __init__(self, open_after_s: float, speak_every_s: float) -> None:
        self.flights: dict[UUID, Flight] = {}
        self._open_after_s = open_after_s
        self._speak_every_s = speak_every_s
        self._young: deque[Flight] = deque()
        self._greenlet: gevent.Greenlet | None = None

    def start(self) -> None:
        """Begin to look."""
        self._greenlet = gevent.spawn(self._run)

    def stop(self) -> None:
        """Stop looking; calls go on."""
        if self._greenlet is not None:
            self._greenlet.kill()

    def enter(self, flight: Flight, on_slow: Callable[[], None] | None = None) -> Flight:
        """A call begins. `on_slow` is called once, in a greenlet of its own, if it lasts. `leave` must follow."""
        self.flights[flight.id] = flight
        if on_slow is not None:
            flight.on_slow = on_slow
            self._young.append(flight)
        return flight

    def leave(self, flight: Flight) -> None:
        """The call is over, and what it held is free. A second time does nothing."""
        flight.over = True
        flight.on_slow = flight.last_words = None
        # A call that was thought lost, and was begun again here, has that place.
        if self.flights.get(flight.id) is flight:
            del self.flights[flight.id]
        if flight.hold is not None:
            flight.hold.release()
        for permit in flight.permits:
            permit.give_back()
        if flight.held is not None:
            flight.held.end()

    def cancel(self, id: UUID) -> None:
        """Cancel a call, if it runs here."""
        if flight := self.flights.get(id):
            flight.give_up(Reason.CANCELLED)

    def stop_all(self, reason: Reason) -> None:
        """Stop every call that runs here; each ends as soon as it has been written down."""
        for flight in list(self.flights.values()):
            flight.stop(reason)

    def wait_empty(self, within_s: float) -> bool:
        """Wait until no call runs here."""
        until = time.monotonic() + within_s
        while self.flights and time.monotonic() < until:
            gevent.sleep(_LOOK_EVERY_S / 10)
        return not self.flights

    def _run(self) -> None:
        while True:
            gevent.sleep(_LOOK_EVERY_S)
            try:
                self._open_slow(time.monotonic() - self._open_after_s)
                self._find_leavers()
                self._speak()
            except Exception:
                # A bug that one call meets must not leave all the others without this greenlet.
                log.exception("calls not looked at")

    def _open_slow(self, before: float) -> None:
        young = self._young
        while young and (young[0].over or young[0].started <= before):
            flight = young.popleft()
            if not flight.over and flight.on_slow is not None:
                gevent.spawn(flight.on_slow)

    def _speak(self) -> None:
        now, pace = time.monotonic(), Pace()
        for flight in list(self.flights.values()):
            pace()
            if flight.last_words is not None and now - flight.spoke_at >= self._speak_every_s:
                flight.spoke_at = now
                flight.last_words()

    def _find_leavers(self) -> None:
        by_descriptor: dict[int, Flight] = {}
        poll = _poll()
        for flight in self.flights.values():
            descriptor = _descriptor(flight.peer)
            if descriptor >= 0:
                by_descriptor[descriptor] = flight
                poll.register(descriptor, _GONE)
        for descriptor, _event in poll.poll(0) if by_descriptor else ():
            by_descriptor[descriptor].give_up(Reason.LEFT)


def _descriptor(peer: Any) -> int:
    if not isinstance(peer, socket.socket):
        return -1
    return peer.fileno()
