"""Realtime calls in the background: answered 202 at once, run in a greenlet that outlives the request.

With `stream` the events go to the caller as they come, and into the log, from where anybody can resume; when the caller leaves, or reads too
slowly, the call goes on. If this process dies, a
worker starts the call once more, as long as nothing of its output was ever shown.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from gevent.event import Event

from dwctl import logs
from dwctl.ai import idempotency, relay
from dwctl.ai.admission import Admitted
from dwctl.ai.bookkeeping import opening_of
from dwctl.ai.calls import JSON, Answer
from dwctl.ai.event_log import Kept
from dwctl.ai.in_progress import Flight
from dwctl.ai.outcomes import Interrupted, Outcome, Reason
from dwctl.queue.tables import State

if TYPE_CHECKING:
    from dwctl.ai.gateway import Gateway

log = logging.getLogger(__name__)

_FLUSH_S = 2.0
_AHEAD_BYTES = 1024 * 1024
"""How far a stream may be ahead of its reader; one that is slower than that is let go."""


def answer(gateway: Gateway, admitted: Admitted, flight: Flight) -> Answer:
    """Commit the tracking row, then go on without the caller. Raises DatabaseAway: an id that nobody could fetch is no answer."""
    asked = admitted.request.asked
    opening = opening_of(
        admitted,
        State.PROCESSING,
        gateway.registration.id,
        repeatable=not asked.mode.stream or admitted.request.is_kept,
    )
    idempotency.open_row(gateway, admitted, flight, opening)
    if asked.mode.stream:
        return _stream(gateway, admitted, flight)
    gateway.spawn(_run, gateway, admitted, flight)
    return Answer(202, [JSON], asked.surface.accepted(asked))


def _run(gateway: Gateway, admitted: Admitted, flight: Flight) -> None:
    logs.about(flight.id, flight.trace_id)
    run = relay.Run(gateway, admitted, flight)
    run.enter()
    try:
        outcome = run.outcome()
        if isinstance(outcome.end, Interrupted) and outcome.end.reason is Reason.DRAINED:
            # The row stays as it is: when this process has said goodbye, a worker runs it once more.
            return
        run.finish_surely(outcome)
    except Exception:
        log.exception("background call not recorded", extra={"request_id": str(flight.id)})
    finally:
        run.leave()


def _stream(gateway: Gateway, admitted: Admitted, flight: Flight) -> Answer:
    """The relay fills the log and a queue in a greenlet of its own; the answer's body empties the queue for as long as the caller is there."""
    run = relay.Run(gateway, admitted, flight)
    kept = gateway.event_log.begin(flight.id)
    if not admitted.request.is_kept:
        kept.give_up()

    def finish(outcome: Outcome) -> None:
        kept.flush(_FLUSH_S)
        run.finish_or_promise(outcome)

    relayed = relay.begin_stream(run, finish)
    if isinstance(relayed.body, bytes):
        return relayed
    pieces = _Pieces()
    gateway.spawn(_pump, relayed.body, kept, pieces)
    return Answer(relayed.status, relayed.headers, pieces.read())


def _pump(body: Iterable[bytes], kept: Kept, pieces: _Pieces) -> None:
    try:
        for piece in body:
            begins = not kept.anything
            kept.add(piece)
            if begins:
                # What was shown is not run again if this process dies, and that is told by what is kept.
                kept.flush(_FLUSH_S)
            pieces.add(piece)
    except Exception:
        log.exception("background stream lost")
    finally:
        kept.hurry()
        pieces.end()


class _Pieces:
    """What a stream has said and its reader has not taken yet, up to `_AHEAD_BYTES`."""

    def __init__(self) -> None:
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._given_up = self._ended = False
        self._changed = Event()

    def add(self, piece: bytes) -> None:
        """Never waits: the call must go on whether somebody reads or not."""
        if self._given_up:
            return
        self._waiting.append(piece)
        self._bytes += len(piece)
        if self._bytes > _AHEAD_BYTES and len(self._waiting) > 1:
            self._give_up()
        self._changed.set()

    def end(self) -> None:
        """Nothing more will come."""
        self._ended = True
        self._changed.set()

    def read(self) -> Iterator[bytes]:
        """The pieces as they come. Ends in the middle where the reader was too slow."""
        try:
            while True:
                while self._waiting:
                    piece = self._waiting.popleft()
                    self._bytes -= len(piece)
                    yield piece
                if self._ended or self._given_up:
                    return
                self._changed.wait()
                self._changed.clear()
        finally:
            self._give_up()

    def _give_up(self) -> None:
        self._given_up = True
        self._waiting.clear()
        self._bytes = 0
