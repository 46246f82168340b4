"""A call with an Idempotency-Key: run now, or answered with what an earlier one came to, after waiting for it where that still runs.

    find -> nothing, or an attempt that makes way -> claim -> run
         -> another request's -> 409
         -> this one's -> (wait, in whatever process it runs) -> the same answer

Whoever waits holds no connection; it is woken by the record's notification, or by the sweep (`held`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING
from uuid import UUID

import gevent
import msgspec

from dwctl.ai import idempotency, retrieval
from dwctl.ai.calls import EVENT_STREAM, JSON, Answer, Once, Request, begun
from dwctl.ai.idempotency import NEVER_AGAIN, Earlier, KeyReused, Taken
from dwctl.ai.in_progress import Flight, Stopped
from dwctl.ai.queued import TimedOut
from dwctl.billing.reservations import CapReached, NoCredit
from dwctl.errors import DwctlError, NotFound
from dwctl.protocols.asked import Asked
from dwctl.protocols.held_streams import KEEP_ALIVE
from dwctl.protocols.rows import StoredRow

if TYPE_CHECKING:
    from dwctl.ai.gateway import Gateway

REPLAYED = ("idempotent-replayed", "true")
_UNTIL_CLAIMED_S = (0.0, 0.05, 0.1, 0.2, 0.4)
_AT_ONCE = (0.0,)


class Gone(NotFound):
    """The call that this Idempotency-Key stands for was deleted, and its answer with it. Use another key to run it anew."""

    code = "response_not_found"
    headers = (NEVER_AGAIN,)


def answer(
    gateway: Gateway,
    request: Request,
    once: Once,
    fly: Callable[[], Flight],
    run: Callable[[Flight, Request], Answer],
) -> tuple[Answer, UUID]:
    """The answer, and the id of the request whose answer it is.

    `fly` makes a flight, for each time that this call waits for another one or is tried itself; `run` admits it and runs it.
    Raises KeyReused, Gone, TimedOut, TooManyHeld, DatabaseAway, and what `run` raises.
    """
    until = time.monotonic() + gateway.settings.responses.held_timeout
    has_waited = False
    while True:
        earlier = idempotency.find(gateway, once)
        if earlier is None or (earlier.was_unanswered if has_waited else earlier.makes_way):
            mine = _instead_of(earlier, once) if earlier else once
            flight = fly()
            try:
                return run(flight, msgspec.structs.replace(request, once=mine)), request.id
            except Taken:
                gateway.in_progress.leave(flight)
                continue
            except DwctlError as refusal:
                if not _came_second(gateway, once, refusal, earlier, request.id):
                    raise
                gateway.in_progress.leave(flight)
                continue
        if earlier.fingerprint != once.fingerprint:
            raise KeyReused
        if earlier.in_doubt and time.monotonic() < until:
            gevent.sleep(gateway.settings.responses.sweep_interval)
            continue
        found = _Repeat(gateway, request.asked, once, fly(), earlier, until).answer()
        if found is not None:
            return found, earlier.request_id
        has_waited = True


def _instead_of(earlier: Earlier, once: Once) -> Once:
    return msgspec.structs.replace(once, instead_of=earlier.request_id, seen=earlier.state)


def _came_second(
    gateway: Gateway, once: Once, refusal: DwctlError, earlier: Earlier | None, mine: UUID
) -> bool:
    """Whether this call was refused for the room, or the credit, that its twin has taken at the same moment.

    Between that and the claim a twin is seen by nobody, so the claim is looked for more than once. A twin that was charged is there at once.
    """
    if isinstance(refusal, NoCredit | CapReached):
        waits = _UNTIL_CLAIMED_S if refusal.others_are_in_the_way else _AT_ONCE
    elif refusal.status == 429:
        waits = _UNTIL_CLAIMED_S
    else:
        return False
    for wait_s in waits:
        gevent.sleep(wait_s)
        now = idempotency.find(gateway, once)
        if now is not None and now.request_id not in (mine, earlier and earlier.request_id):
            return True
    return False


class _Repeat:
    """A call that is answered as an earlier one was, or will be."""

    def __init__(
        self,
        gateway: Gateway,
        asked: Asked,
        once: Once,
        flight: Flight,
        earlier: Earlier,
        until: float,
    ) -> None:
        if earlier.asked_at is None:
            raise Gone
        self._gateway = gateway
        self._surface = asked.surface
        # As it was the first time: whatever shows an id or a time shows that one's.
        self._asked = msgspec.structs.replace(
            asked, id=earlier.request_id, created_at=earlier.asked_at.timestamp()
        )
        self._once = once
        self._flight = flight
        self._is_over = earlier.is_over
        self._until = until

    def answer(self) -> Answer | None:
        """None: it was waited for, and is over now."""
        mode = self._asked.mode
        if mode.background and not mode.stream:
            self._leave()
            return Answer(202, [JSON, REPLAYED], self._surface.accepted(self._asked))
        if self._is_over:
            return self._replayed()
        return self._waited()

    def _replayed(self) -> Answer:
        """What the first was answered, from its row. Raises Gone, StillRunning."""
        row = self._row()
        self._leave()
        if self._asked.mode.stream and _was_streamed(row):
            events = self._surface.whole_stream(self._asked, row)
            return Answer(200, [*EVENT_STREAM, REPLAYED], events)
        shown = self._surface.answer(row)
        final = () if shown.status < 400 else (NEVER_AGAIN,)
        return Answer(shown.status, [JSON, REPLAYED, *final], shown.body)

    def _waited(self) -> Answer | None:
        self._waiter = self._gateway.held.enter(self._asked.id, self._once.owner_id)
        self._gateway.in_progress.enter(self._flight)
        try:
            return self._answered_in_time()
        except Stopped as stopped:
            self._end()
            reason = stopped.reason
            raise DwctlError(reason.text, code=reason.code, status=reason.status) from None
        except BaseException:
            self._end()
            raise

    def _answered_in_time(self) -> Answer | None:
        """Silent at first, so that a status can still be said; then, where the protocol has signs of life, with them."""
        streams = self._asked.mode.stream
        alive = streams or self._surface.keeps_alive_in_json
        settings = self._gateway.settings.responses
        self._gateway.held.look(self._waiter)
        if self._wait(settings.keepalive if alive else settings.held_timeout):
            self._end()
            return self._replayed() if self._gateway.draining else None
        if streams:
            return self._begun([*EVENT_STREAM, REPLAYED], KEEP_ALIVE, self._surface.whole_stream)
        if alive:
            return self._begun([JSON, REPLAYED], b" ", self._surface.last_object)
        raise TimedOut(
            f"The request {self._asked.response_id}, which this one repeats, is still running."
        )

    def _begun(
        self,
        headers: list[tuple[str, str]],
        meanwhile: bytes,
        end: Callable[[Asked, StoredRow | DwctlError], bytes],
    ) -> Answer:
        return Answer(200, headers, begun(self._pieces(meanwhile, end)))

    def _pieces(
        self, meanwhile: bytes, end: Callable[[Asked, StoredRow | DwctlError], bytes]
    ) -> Iterator[bytes]:
        keepalive = self._gateway.settings.responses.keepalive
        try:
            yield b""
            yield meanwhile
            while not self._wait(keepalive) and time.monotonic() < self._until:
                yield meanwhile
            yield end(self._asked, self._row_or_error())
        except Stopped:
            # Nobody reads any more. The first call goes on without it.
            return
        finally:
            self._end()

    def _wait(self, seconds: float) -> bool:
        with self._flight.waiting():
            return bool(self._waiter.wait(seconds))

    def _row(self) -> StoredRow:
        rows = retrieval.rows_of(self._gateway.connections, [self._asked.id])
        if not rows:
            raise Gone
        return retrieval.stored_row(rows[0])

    def _row_or_error(self) -> StoredRow | DwctlError:
        try:
            return self._row()
        except DwctlError as error:
            return error

    def _end(self) -> None:
        self._gateway.held.leave(self._waiter)
        self._leave()

    def _leave(self) -> None:
        self._gateway.in_progress.leave(self._flight)


def _was_streamed(row: StoredRow) -> bool:
    """Whether events were sent: an upstream that refused was answered in one piece."""
    return row.state == "completed" or row.response_status == 200
