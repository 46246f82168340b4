"""Calls that a worker runs (tier flex): queued with a one-hour window, then held until they are done, streamed, or in the background.

Routers in front cut silent connections, so a held call on /responses sends the status line and a white space before that, and its final
object carries the outcome. A caller that leaves cancels its request, unless it was in the background.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import psycopg

from dwctl.ai import stored
from dwctl.ai.calls import Answer, Call
from dwctl.ai.held import Waiter
from dwctl.ai.in_progress import CallerLeft, Flight, Interrupted
from dwctl.ai.outcomes import tracking_of
from dwctl.db import DatabaseAway
from dwctl.errors import DwctlError
from dwctl.protocols.rows import StoredRow
from dwctl.protocols.surfaces import KEEP_ALIVE, HeldStream
from dwctl.web.envelope import openai_error

if TYPE_CHECKING:
    from dwctl.ai.gateway import Gateway

log = logging.getLogger(__name__)

JSON = ("content-type", "application/json")
EVENT_STREAM = [
    ("content-type", "text/event-stream; charset=utf-8"),
    ("cache-control", "no-cache"),
    ("x-accel-buffering", "no"),
]


class TimedOut(DwctlError):
    """The request is still waiting."""

    code = "request_timeout"
    status = 504
    retryable = True


def answer(gateway: Gateway, call: Call) -> Answer:
    """Queue the call, and answer it in the way that it asked for."""
    if call.stream:
        return _stream(gateway, call)
    if call.background:
        enqueue(gateway, call)
        return Answer(202, [JSON], call.surface.accepted(call.asked))
    return _hold(gateway, call)


def enqueue(gateway: Gateway, call: Call) -> None:
    """Make the call a pending row. Raises DatabaseAway: then there is none."""
    gateway.recorder.enqueue(tracking_of(call).opening("pending"))
    call.over = True


# --- held


def _hold(gateway: Gateway, call: Call) -> Answer:
    assert call.key is not None
    waiter = gateway.held.enter(call.id, call.key.owner_id)
    flight = gateway.in_progress.enter(call.id, call.incoming.peer)
    goes_on = False
    try:
        enqueue(gateway, call)
        waiter.queued = True
        patience_s = gateway.settings.responses.held_timeout
        if call.surface.keeps_alive_in_json:
            patience_s = min(patience_s, gateway.settings.responses.keepalive)
        if _wait(flight, waiter, patience_s):
            return _finished(gateway, call, waiter)
        if call.surface.keeps_alive_in_json:
            goes_on = True
            return Answer(200, [JSON], _spaces(gateway, call, flight, waiter))
        raise TimedOut(
            f"The request {call.response_id} is still waiting; it goes on. Fetch it by its id."
        )
    except Interrupted as reason:
        return _abandoned(gateway, call, reason)
    finally:
        if not goes_on:
            gateway.held.leave(waiter)
            gateway.in_progress.leave(flight)


def _wait(flight: Flight, waiter: Waiter, seconds: float) -> bool:
    with flight.waiting():
        return bool(waiter.over.wait(seconds))


def _spaces(gateway: Gateway, call: Call, flight: Flight, waiter: Waiter) -> Iterator[bytes]:
    """JSON white space until the object comes. The status line has left, so whatever happens is told in the object."""
    settings = gateway.settings.responses
    until = time.monotonic() + settings.held_timeout
    try:
        while True:
            yield b" "
            if _wait(flight, waiter, settings.keepalive) or time.monotonic() > until:
                break
        yield call.surface.last_object(call.asked, _end(gateway, call, waiter))
    except (GeneratorExit, CallerLeft):
        cancel(gateway, call)
    except Interrupted:
        yield call.surface.last_object(call.asked, _end(gateway, call, waiter))
    finally:
        gateway.held.leave(waiter)
        gateway.in_progress.leave(flight)


def _finished(gateway: Gateway, call: Call, waiter: Waiter) -> Answer:
    """The answer to a call whose request is over (or whose process is about to be)."""
    shown = call.surface.answer(stored.stored_row(_row(gateway, call, waiter)))
    return Answer(shown.status, [JSON], shown.body)


def _abandoned(gateway: Gateway, call: Call, reason: Interrupted) -> Answer:
    if isinstance(reason, CallerLeft):
        cancel(gateway, call)
    body = openai_error("The request was cancelled.", "cancelled", 499)
    return Answer(499, [JSON], body)


# --- streamed


def _stream(gateway: Gateway, call: Call) -> Answer:
    """Events at once where the protocol has some for waiting, comments meanwhile, the answer's events when it is there."""
    assert call.key is not None
    waiter = gateway.held.enter(call.id, call.key.owner_id)
    flight = gateway.in_progress.enter(call.id, call.incoming.peer)
    try:
        enqueue(gateway, call)
        waiter.queued = True
    except BaseException:
        gateway.held.leave(waiter)
        gateway.in_progress.leave(flight)
        raise
    return Answer(200, list(EVENT_STREAM), _events(gateway, call, flight, waiter))


def _events(gateway: Gateway, call: Call, flight: Flight, waiter: Waiter) -> Iterator[bytes]:
    settings = gateway.settings.responses
    until = time.monotonic() + settings.held_timeout
    held = call.surface.held_stream(call.asked)
    try:
        yield held.begin()
        while not _wait(flight, waiter, settings.keepalive) and time.monotonic() < until:
            yield KEEP_ALIVE
        yield _ending(gateway, call, held, waiter)
    except (GeneratorExit, CallerLeft):
        if not call.background:
            cancel(gateway, call)
    except Interrupted:
        yield _ending(gateway, call, held, waiter)
    finally:
        gateway.held.leave(waiter)
        gateway.in_progress.leave(flight)


def _ending(gateway: Gateway, call: Call, held: HeldStream, waiter: Waiter) -> bytes:
    found = _end(gateway, call, waiter)
    return held.end(found) if isinstance(found, StoredRow) else held.fail(found)


# --- rows


def _row(gateway: Gateway, call: Call, waiter: Waiter) -> Any:
    """The request: as the watcher has read it when it was over, else as it stands. Raises NotFound."""
    assert call.key is not None
    if waiter.row is not None:
        return waiter.row
    return stored.row_of(gateway.connections, call.response_id, {call.key.owner_id})


def _end(gateway: Gateway, call: Call, waiter: Waiter) -> StoredRow | DwctlError:
    """The request as it stands, or why it cannot be read. Never raises: the status line has left already."""
    try:
        return stored.stored_row(_row(gateway, call, waiter))
    except DwctlError as error:
        return error


def cancel(gateway: Gateway, call: Call) -> None:
    """Nobody waits any more, so nobody should work on it."""
    assert call.key is not None
    try:
        stored.cancel(gateway.connections, call.response_id, {call.key.owner_id})
    except (DwctlError, DatabaseAway, psycopg.Error) as error:
        log.warning(
            "request of a caller that left not cancelled",
            extra={"request_id": str(call.id), "reason": type(error).__name__},
        )
