"""Realtime calls in the background: answered 202 at once, run in a greenlet that outlives the request.

With `stream` the events go to the caller as they come; when it leaves, the call goes on. If this process dies, a worker starts the call
once more, as long as nothing of its output was ever shown.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

import orjson
from gevent.queue import Queue

from dwctl.ai import relay
from dwctl.ai.calls import Answer, Call
from dwctl.ai.outcomes import opening_of
from dwctl.ai.treatments import Treatment, skeleton_of

if TYPE_CHECKING:
    from dwctl.ai.gateway import Gateway

log = logging.getLogger(__name__)


def answer(gateway: Gateway, call: Call, treatment: Treatment) -> Answer:
    """Commit the tracking row, then go on without the caller."""
    _open(gateway, call)
    if call.stream:
        return _stream(gateway, call, treatment)
    gateway.spawn(_run, gateway, call, treatment)
    return Answer(202, [relay.JSON], orjson.dumps(skeleton_of(call)))


def _open(gateway: Gateway, call: Call) -> None:
    """Raises DatabaseAway: an id that nobody could fetch, from a process that may die, is no answer."""
    gateway.recorder.enqueue(opening_of(call, "processing", repeatable=not call.stream))
    call.opened = call.opened_in_database = True


def _run(gateway: Gateway, call: Call, treatment: Treatment) -> None:
    flight = gateway.in_progress.enter(call.id)
    try:
        relay.finish(gateway, call, relay.run(gateway, call, treatment, flight))
    except Exception:
        log.exception("background call lost", extra={"request_id": str(call.id)})
    finally:
        gateway.in_progress.leave(flight)


def _stream(gateway: Gateway, call: Call, treatment: Treatment) -> Answer:
    """The relay feeds a queue in its own greenlet; this generator empties it for as long as the caller is there."""
    relayed = relay.stream(gateway, _without_peer(call), treatment)
    body = relayed.body
    if isinstance(body, bytes):
        return relayed
    pieces: Queue[bytes | None] = Queue()
    gateway.spawn(_pump, body, pieces)
    return Answer(relayed.status, relayed.headers, _drain(pieces))


def _pump(body: Iterator[bytes], pieces: Queue[bytes | None]) -> None:
    try:
        for piece in body:
            pieces.put(piece)
    except Exception:
        log.exception("background stream lost")
    finally:
        pieces.put(None)


def _drain(pieces: Queue[bytes | None]) -> Iterator[bytes]:
    while (piece := pieces.get()) is not None:
        yield piece


def _without_peer(call: Call) -> Call:
    incoming = call.incoming
    call.incoming = type(incoming)(
        incoming.endpoint, incoming.query, incoming.headers, incoming.body
    )
    return call
