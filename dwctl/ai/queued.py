"""Calls that a worker runs (tier flex): queued with a one-hour window, then held until they are done, streamed, or in the background.

Routers in front cut silent connections, so a held call on /responses sends the status line and a white space before that, and its final
object carries the outcome. A caller that leaves cancels its request, unless it was in the background.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import orjson
import psycopg

from dwctl.ai import stored
from dwctl.ai.calls import Answer, Call
from dwctl.ai.held import Waiter
from dwctl.ai.in_progress import CallerLeft, Flight, Interrupted
from dwctl.ai.outcomes import opening_of
from dwctl.ai.treatments import Treatment, skeleton_of
from dwctl.db import DatabaseAway
from dwctl.errors import DwctlError, Unavailable
from dwctl.protocols import errors as wire
from dwctl.protocols.chat import Endpoint
from dwctl.protocols.errors import BadUpstreamBody
from dwctl.protocols.failures import read_failure
from dwctl.protocols.openresponses.events import Events
from dwctl.protocols.openresponses.replay import replay
from dwctl.web.errors import openai_error

if TYPE_CHECKING:
    from dwctl.ai.gateway import Gateway

log = logging.getLogger(__name__)

JSON = ("content-type", "application/json")
EVENT_STREAM = [
    ("content-type", "text/event-stream; charset=utf-8"),
    ("cache-control", "no-cache"),
    ("x-accel-buffering", "no"),
]
_KEEP_ALIVE = b": waiting\n\n"


class StillRunning(Unavailable):
    """This process is shutting down."""

    code = "server_shutting_down"


class TimedOut(DwctlError):
    """The request is still waiting."""

    code = "request_timeout"
    status = 504
    retryable = True


def answer(gateway: Gateway, call: Call, treatment: Treatment) -> Answer:
    """Queue the call, and answer it in the way that it asked for."""
    if call.stream:
        return _stream(gateway, call, treatment)
    if call.background:
        enqueue(gateway, call)
        return Answer(202, [JSON], orjson.dumps(skeleton_of(call)))
    return _hold(gateway, call)


def enqueue(gateway: Gateway, call: Call) -> None:
    """Make the call a pending row. Raises DatabaseAway: then there is none."""
    gateway.recorder.enqueue(opening_of(call, "pending"))
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
        if call.endpoint is Endpoint.RESPONSES:
            patience_s = min(patience_s, gateway.settings.responses.keepalive)
        if _wait(flight, waiter, patience_s):
            return _finished(gateway, call, waiter)
        if call.endpoint is Endpoint.RESPONSES:
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
        yield orjson.dumps(_object(gateway, call, waiter))
    except (GeneratorExit, CallerLeft):
        cancel(gateway, call)
    except Interrupted:
        yield orjson.dumps(_object(gateway, call, waiter))
    finally:
        gateway.held.leave(waiter)
        gateway.in_progress.leave(flight)


def _finished(gateway: Gateway, call: Call, waiter: Waiter) -> Answer:
    """The answer to a call whose request is over (or whose process is about to be)."""
    row = _row(gateway, call, waiter)
    if row.state in ("pending", "claimed", "processing"):
        raise StillRunning(
            f"This process is shutting down; the request goes on as {call.response_id}. Fetch it by its id."
        )
    if row.state == "canceled":
        body = openai_error("The request was cancelled.", "cancelled", 499)
        return Answer(499, [JSON], body)
    if row.state == "failed":
        return _failure(call, row)
    if call.endpoint is Endpoint.RESPONSES:
        return Answer(200, [JSON], orjson.dumps(stored.shown(row)))
    return Answer(row.response_status or 200, [JSON], (row.response_body or "").encode())


def _failure(call: Call, row: Any) -> Answer:
    failure = read_failure(row.error)
    status = row.response_status or failure.status or 502
    if status < 400:
        status = 502
    kept = row.response_body if _is_error(row.response_body) else None
    body = kept.encode() if kept else openai_error(failure.message, failure.code, status)
    return Answer(status, [JSON], body)


def _is_error(text: str | None) -> bool:
    try:
        content = orjson.loads(text or "")
    except ValueError:
        return False
    return (
        isinstance(content, dict)
        and isinstance(content.get("error"), dict)
        and "object" not in content
    )


def _abandoned(gateway: Gateway, call: Call, reason: Interrupted) -> Answer:
    if isinstance(reason, CallerLeft):
        cancel(gateway, call)
    body = openai_error("The request was cancelled.", "cancelled", 499)
    return Answer(499, [JSON], body)


# --- streamed


def _stream(gateway: Gateway, call: Call, treatment: Treatment) -> Answer:
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
    return Answer(200, list(EVENT_STREAM), _events(gateway, call, treatment, flight, waiter))


def _events(
    gateway: Gateway, call: Call, treatment: Treatment, flight: Flight, waiter: Waiter
) -> Iterator[bytes]:
    settings = gateway.settings.responses
    until = time.monotonic() + settings.held_timeout
    events = Events()
    responses = call.endpoint is Endpoint.RESPONSES
    try:
        if responses:
            waiting = skeleton_of(call)
            yield events.created(waiting, "queued") + events.queued(waiting)
        else:
            yield _KEEP_ALIVE
        while not _wait(flight, waiter, settings.keepalive) and time.monotonic() < until:
            yield _KEEP_ALIVE
        yield _ending(gateway, call, treatment, events, waiter)
    except (GeneratorExit, CallerLeft):
        if not call.background:
            cancel(gateway, call)
    except Interrupted:
        yield _ending(gateway, call, treatment, events, waiter)
    finally:
        gateway.held.leave(waiter)
        gateway.in_progress.leave(flight)


def _ending(
    gateway: Gateway, call: Call, treatment: Treatment, events: Events, waiter: Waiter
) -> bytes:
    if call.endpoint is Endpoint.RESPONSES:
        whole = _object(gateway, call, waiter)
        return replay(whole, sequence_number=events.sequence_number, created=False)
    try:
        found = _finished(gateway, call, waiter)
    except DwctlError as error:
        found = Answer(error.status, [], openai_error(error.message, error.code, error.status))
    assert isinstance(found.body, bytes)
    body = found.body
    if found.status < 300:
        try:
            return treatment.replay(body)
        except BadUpstreamBody:
            body = wire.wrap(wire.sanitised_strict(502))
    return b"data: " + body.replace(b"\n", b"\ndata: ") + b"\n\ndata: [DONE]\n\n"


# --- rows


def _row(gateway: Gateway, call: Call, waiter: Waiter) -> Any:
    """The request: as the watcher has read it when it was over, else as it stands. Raises NotFound."""
    assert call.key is not None
    if waiter.row is not None:
        return waiter.row
    return stored.row_of(gateway.connections, call.response_id, {call.key.owner_id})


def _object(gateway: Gateway, call: Call, waiter: Waiter) -> dict[str, Any]:
    """The Response object as it stands. Never raises: the status line has left already."""
    try:
        return stored.shown(_row(gateway, call, waiter))
    except DwctlError as error:
        problem = {"code": error.code, "message": error.message, "type": "server_error"}
        return {**skeleton_of(call), "status": "failed", "error": problem}


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
