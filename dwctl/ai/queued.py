"""Calls that a worker runs (tier flex): queued with a one-hour window, then held until they are done, streamed, or in the background.

Routers in front cut silent connections, so a held call sends something before that, where its protocol allows it: JSON white space, or
a comment between events. A caller that leaves cancels its request, unless it was in the background. A request that is not to be kept
(`store: false`) is deleted when its caller has got its answer, or is gone; a duty deletes what was left behind.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import psycopg

from dwctl.ai import costs, idempotency, logged, retrieval
from dwctl.ai.admission import Admitted
from dwctl.ai.bookkeeping import opening_of
from dwctl.ai.calls import EVENT_STREAM, JSON, Answer, Headers, begun, served_by
from dwctl.ai.followed import Followed
from dwctl.ai.held import Waiter
from dwctl.ai.in_progress import Flight, Stopped
from dwctl.ai.outcomes import Reason
from dwctl.db import DatabaseAway
from dwctl.errors import DwctlError, Unavailable
from dwctl.protocols.rows import Shown, StoredRow
from dwctl.queue.tables import State

if TYPE_CHECKING:
    from dwctl.ai.gateway import Gateway

log = logging.getLogger(__name__)


class TimedOut(DwctlError):
    """No worker could run the request in time. Try again later."""

    code = "request_timeout"
    status = 504
    retryable = True


class NotKept(Unavailable):
    """This process is shutting down, and what is not stored cannot be fetched later. Try again."""

    code = "server_shutting_down"


def answer(gateway: Gateway, admitted: Admitted, flight: Flight) -> Answer:
    """Queue the call, and answer it in the way that it asked for. Raises DatabaseAway, TooMany, TooManyHeld: then it is not queued."""
    gateway.holdings.check_queued(admitted.key.owner_id)
    mode = admitted.request.asked.mode
    if mode.background and not mode.stream:
        _enqueue(gateway, admitted, flight)
        gateway.in_progress.leave(flight)
        return Answer(202, [JSON], admitted.request.surface.accepted(admitted.request.asked))
    held = _Held(gateway, admitted, flight)
    held.begin()
    try:
        return held.streamed() if mode.stream else held.answered()
    except BaseException:
        held.end()
        raise


def _enqueue(gateway: Gateway, admitted: Admitted, flight: Flight) -> None:
    opening = opening_of(admitted, State.PENDING, gateway.registration.id)
    idempotency.open_row(gateway, admitted, flight, opening)


class _Held:
    """A call whose connection waits for what a worker makes of it."""

    def __init__(self, gateway: Gateway, admitted: Admitted, flight: Flight) -> None:
        self._gateway = gateway
        self._settings = gateway.settings.responses
        self._admitted = admitted
        self._asked = admitted.request.asked
        self._surface = admitted.request.surface
        self._flight = flight
        self._waiter: Waiter = gateway.held.enter(flight.id, admitted.key.owner_id)
        self._until = time.monotonic() + self._settings.held_timeout

    def begin(self) -> None:
        """Queue it; `end` must follow, also when this raises."""
        self._gateway.in_progress.enter(self._flight)
        try:
            _enqueue(self._gateway, self._admitted, self._flight)
        except BaseException:
            self.end()
            raise
        self._waiter.queued = True

    def end(self) -> None:
        """Nobody waits any more; a second time does nothing."""
        self._gateway.held.leave(self._waiter)
        self._gateway.in_progress.leave(self._flight)
        if self._waiter.queued and not self._admitted.request.is_kept:
            self._waiter.queued = False
            self._try(retrieval.forget, "request that is not kept not deleted")

    # --- in one piece

    def answered(self) -> Answer:
        """The answer to a caller that waits for one object. Raises TimedOut, StillRunning, NotFound."""
        alive = self._surface.keeps_alive_in_json
        try:
            over = self._wait(self._settings.keepalive if alive else self._settings.held_timeout)
        except Stopped as stopped:
            if stopped.reason is Reason.LEFT:
                self._cancel()
            over = True
        if over:
            shown = self._shown(self._row())
            told = self._told()
            self.end()
            return Answer(shown.status, [JSON, *told], shown.body)
        if not alive:
            goes_on = f"The request {self._asked.response_id} is still waiting; it goes on. Fetch it by its id."
            raise TimedOut(goes_on if self._admitted.request.is_kept else None)
        # The status line leaves with the first space, so whatever happens after that is told in the object.
        return Answer(200, [JSON], begun(self._body(self._spaces())))

    def _told(self) -> Headers:
        """What the log says, for those who may know."""
        gateway, admitted = self._gateway, self._admitted
        shows_target = gateway.shows_served_by(admitted.key)
        if not shows_target and not gateway.settings.costs.header:
            return []
        found = logged.read(gateway, admitted)
        told = costs.headers_of_queued(gateway, found)
        if not shows_target or found is None or found.endpoint is None:
            return told
        target = admitted.served_by.target
        is_same = target is not None and target.endpoint_name == found.endpoint
        model = target.model_name if target is not None and is_same else found.model
        return told if model is None else [*told, served_by(found.endpoint, model)]

    def _shown(self, row: StoredRow) -> Shown:
        if not row.is_over and not self._admitted.request.is_kept:
            raise NotKept
        return self._surface.answer(row)

    def _spaces(self) -> Iterator[bytes]:
        yield b" "
        try:
            while not self._wait(self._settings.keepalive) and time.monotonic() < self._until:
                yield b" "
        except Stopped as stopped:
            if stopped.reason is Reason.LEFT:
                raise
        yield self._surface.last_object(self._asked, self._row_or_error())

    # --- as a stream

    def streamed(self) -> Answer:
        """Events at once where the protocol has some for waiting, then those of the worker as it writes them, comments meanwhile."""
        stream = self._surface.held_stream(self._asked)
        followed = Followed(
            self._gateway,
            self._waiter,
            self._flight,
            stream,
            response_id=self._asked.response_id,
            owners={self._admitted.key.owner_id},
            until=self._until,
            unfinished=None if self._admitted.request.is_kept else NotKept(),
        )

        def pieces() -> Iterator[bytes]:
            yield stream.begin()
            yield from followed.pieces(begun=True)

        told = costs.told_of_queued(self._gateway, self._admitted, pieces())
        return Answer(200, list(EVENT_STREAM), begun(self._body(told)))

    # --- both

    def _body(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        try:
            yield b""
            yield from pieces
        except (Stopped, GeneratorExit):
            # Its caller has left.
            self._cancel()
        finally:
            self.end()

    def _wait(self, seconds: float) -> bool:
        with self._flight.waiting():
            return self._waiter.wait(seconds)

    def _row(self) -> StoredRow:
        """The request: as the watcher has read it when it was over, else as it stands. Raises NotFound, DatabaseAway."""
        owners = {self._admitted.key.owner_id}
        row = self._waiter.row
        if row is None:
            row = retrieval.row_of(self._gateway.connections, self._asked.response_id, owners)
        return retrieval.stored_row(row)

    def _row_or_error(self) -> StoredRow | DwctlError:
        try:
            return self._row()
        except DwctlError as error:
            return error

    def _cancel(self) -> None:
        """Nobody waits any more, so nobody should work on it; a call in the background goes on, and one that may be sent again."""
        if self._asked.mode.background or self._admitted.request.once is not None:
            return
        self._try(retrieval.cancel, "request of a caller that left not cancelled")

    def _try(self, change: Callable[..., object], failure: str) -> None:
        """Change the request's row; where that cannot be done now, a duty will."""
        owners = {self._admitted.key.owner_id}
        try:
            change(self._gateway.connections, self._asked.response_id, owners)
        except (DwctlError, DatabaseAway, psycopg.Error) as error:
            log.warning(
                failure,
                extra={"request_id": str(self._flight.id), "reason": type(error).__name__},
            )
