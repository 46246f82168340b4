"""What becomes of a call: refused, relayed now, or queued for a worker. One function of plain values behind both doors.

    credential -> body -> JSON -> model and mode -> admission -> relay (realtime) | background | queue (flex)

Whatever happens, the answer carries `x-request-id`, and a caller's call that was refused is in the request log too; strangers are only counted.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import msgspec
from gevent import GreenletExit

from dwctl import logs
from dwctl.ai import (
    admission,
    background,
    bodies,
    history,
    idempotency,
    queued,
    relay,
    repeats,
    traced,
)
from dwctl.ai.bookkeeping import opening_of, record_of_refusal
from dwctl.ai.calls import JSON, Answer, Incoming, Request, Stamp
from dwctl.ai.gateway import Gateway
from dwctl.ai.holdings import Hold, Kind
from dwctl.ai.in_progress import Flight
from dwctl.ai.request_log import unstored
from dwctl.billing.reservations import NO_CREDIT
from dwctl.catalog.routing import Key
from dwctl.clock import id_text
from dwctl.errors import DwctlError, Unavailable
from dwctl.protocols import asked as reading
from dwctl.protocols.asked import Asked
from dwctl.protocols.members import OURS
from dwctl.protocols.modes import Tier
from dwctl.protocols.surfaces import CHAT, COMPLETIONS, RESPONSES
from dwctl.queue.tables import State
from dwctl.tracing.spans import trace_id_of
from dwctl.web.envelope import openai_error
from dwctl.web.errors import headers_of
from dwctl.web.ignored import IGNORED_FIELDS_HEADER, named

log = logging.getLogger(__name__)

_STREAMING = (CHAT, COMPLETIONS, RESPONSES)
"""Of which the Rust product's workers want a stream by a header."""

REQUEST_ID = "x-request-id"


def answer(gateway: Gateway, incoming: Incoming, key: Key | None = None) -> Answer:
    """Answer one call. `key` is given where the caller was identified otherwise (the playground)."""
    stamp = Stamp.now()
    span = None if gateway.tracer is None else gateway.tracer.at_hand()
    trace_id = None if span is None else trace_id_of(span)
    logs.about(stamp.id, trace_id)
    answered_as = stamp.id
    hold = alias = None
    body, content = b"", {}
    flight: Flight | None = None
    ignored: list[str] = []
    try:
        # Nothing of a body is read for a caller who is nobody.
        key = key or admission.authenticate(gateway.snapshot, incoming.first.get("authorization"))
        hold = gateway.holdings.begin(key.owner_id)
        body = bodies.read(gateway, incoming, hold)
        content = bodies.content_of(incoming.surface, body)
        ignored = OURS.misspelt(content)
        alias = reading.read_alias(content, incoming.first.get("model-override"))
        request = _request(gateway, stamp, incoming, key, body, content, alias)
        if span is not None:
            request = traced.with_trace(request, span)
        once = idempotency.asked_once(incoming, request, key.owner_id)
        if once is None:
            flight = Flight(stamp.id, incoming.peer, hold)
            found = _run(gateway, key, hold, ignored, flight, request)
        else:

            def fly() -> Flight:
                nonlocal flight
                flight = Flight(stamp.id, incoming.peer, hold)
                return flight

            run = partial(_run, gateway, key, hold, ignored)
            found, answered_as = repeats.answer(gateway, request, once, fly, run)
    except GreenletExit:
        # The server's grace is over while this call waited for something else than its upstream; what it had is being written down.
        _let_go(gateway, hold, flight)
        found = _answer_of(Unavailable("This process is shutting down. Try again."))
    except Exception as error:
        _let_go(gateway, hold, flight)
        refusal = _refusal(error, stamp)
        if key is not None and refusal.code == NO_CREDIT and not refusal.members:
            # What routing knows of an account refuses it without a look at its balance.
            balance = gateway.balances.text_of(key.owner_id)
            refusal.members |= {} if balance is None else {"balance": balance}
        found = _answer_of(refusal)
        if key is None:
            gateway.strangers.refuse(incoming, refusal)
        elif flight is None or not (flight.opened or flight.recorded):
            shown = gateway.request_log.of_untracked(stamp.id, incoming, key, body, content, found)
            record = record_of_refusal(stamp, incoming, key, alias, refusal, shown, trace_id)
            gateway.recorder.note(record)
            known = gateway.snapshot.routing.models
            gateway.genai.refused(incoming.surface.path, record, known)
        # Otherwise the call has a record of its own, and only its caller is told.
    found.headers.append((REQUEST_ID, id_text(answered_as)))
    if flight is not None and flight.permits:
        found.headers.extend(flight.permits[0].headers)
    if ignored:
        found.headers.append((IGNORED_FIELDS_HEADER, named(ignored)))
    return found


def _let_go(gateway: Gateway, hold: Hold | None, flight: Flight | None) -> None:
    """The call ends here, whatever it had by then."""
    if flight is not None:
        gateway.in_progress.leave(flight)
    elif hold is not None:
        hold.release()


def _request(
    gateway: Gateway,
    stamp: Stamp,
    incoming: Incoming,
    key: Key,
    body: bytes,
    content: dict[str, Any],
    alias: str,
) -> Request:
    surface = incoming.surface
    may_be_kept = gateway.request_log.keeps(surface, key)
    if not may_be_kept:
        body, content = unstored(surface, body, content)
    # What somebody else tracks has no row of its own that a worker could find, or that could be fetched later.
    tracked = surface.is_tracked and incoming.first.get("x-fusillade-request-id") is None
    mode = surface.mode(content, tracked=tracked)
    if incoming.first.get("x-fusillade-stream") == "true" and surface in _STREAMING:
        mode = msgspec.structs.replace(mode, stream=True)
    asked = Asked(
        surface=surface,
        body=body,
        content=content,
        alias=alias,
        id=stamp.id,
        shows_id=tracked,
        created_at=stamp.at,
        mode=mode,
        query=incoming.query,
    )
    is_kept = may_be_kept and asked.is_stored
    return Request(stamp, asked, is_kept, incoming.headers, tracked)


def _run(
    gateway: Gateway,
    key: Key,
    hold: Hold,
    ignored: list[str],
    flight: Flight,
    request: Request,
) -> Answer:
    """Admit it, and run it in the mode that was asked for. `ignored` is told what of it is left out. The flight gives back what the call
    holds when it ends.
    """
    if gateway.tracer is not None:
        traced.begin_call(gateway.tracer, flight)
    strict = gateway.settings.onwards.strict_mode
    admitted = admission.admit(gateway.snapshot.routing, key, request, strict=strict)
    admitted = history.resolve(gateway, admitted, hold)
    ignored += request.surface.left_out(
        request.asked.content,
        adapted=admitted.adapted,
        strict=strict,
        context_length=admitted.context_length,
    )
    mode = request.asked.mode
    if mode.tier is Tier.FLEX:
        # Queued work meets its model's limits where it runs.
        return queued.answer(gateway, admitted, flight)
    hold.take(Kind.BACKGROUND if mode.background else Kind.REALTIME)
    if demands := admission.demands_of(admitted):
        flight.permits = [gateway.limiter.take(demands, admission.tokens_of(admitted, demands))]
    flight.held = gateway.funds.hold(admitted, gateway.snapshot.routing)
    if mode.background or gateway.drains or request.once is not None:
        # Who sends an Idempotency-Key comes back for the answer.
        flight.go_on_alone()
    if mode.background:
        return background.answer(gateway, admitted, flight)
    if request.once is not None:
        opening = opening_of(admitted, State.PROCESSING, gateway.registration.id)
        idempotency.open_row(gateway, admitted, flight, opening)
    if mode.stream:
        return relay.stream(gateway, admitted, flight)
    return relay.answer(gateway, admitted, flight)


def _refusal(error: Exception, stamp: Stamp) -> DwctlError:
    if isinstance(error, DwctlError):
        return error
    log.error("unexpected error", extra={"request_id": str(stamp.id)}, exc_info=error)
    return DwctlError("Internal error. Please try again later.")


def _answer_of(error: DwctlError) -> Answer:
    headers = [JSON, *headers_of(error).items()]
    body = openai_error(error.message, error.code, error.status, error.param, error.members)
    return Answer(error.status, headers, body)
