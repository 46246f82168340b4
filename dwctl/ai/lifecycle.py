"""What becomes of a call: refused, relayed now, or queued for a worker. One function of plain values behind both doors.

    credential -> JSON -> model -> shape -> tier x background x stream -> admission -> relay (priority) | queue (flex)

Whatever happens, the answer carries `x-request-id`, and a call that was refused is in the request log too.
"""

from __future__ import annotations

import logging

from dwctl.ai import admission, background, queued, relay
from dwctl.ai.calls import Answer, Call, Incoming
from dwctl.ai.disclosures import treatment_of
from dwctl.ai.gateway import Gateway
from dwctl.ai.outcomes import Outcome, record_of
from dwctl.catalog.routing import Key
from dwctl.errors import DwctlError
from dwctl.protocols.asked import read, read_alias
from dwctl.protocols.errors import InvalidRequest
from dwctl.protocols.modes import Tier
from dwctl.web.envelope import openai_error
from dwctl.web.errors import headers_of

log = logging.getLogger(__name__)

REQUEST_ID = "x-request-id"


def answer(gateway: Gateway, incoming: Incoming, key: Key | None = None) -> Answer:
    """Answer one call. `key` is given where the caller was identified otherwise (the playground)."""
    call = Call(incoming.surface, incoming, daemon_id=gateway.registration.id)
    try:
        found = _handle(gateway, call, key)
    except DwctlError as error:
        found = refuse(gateway, call, error)
    except Exception:
        log.exception("unexpected error", extra={"request_id": str(call.id)})
        found = refuse(gateway, call, DwctlError("Internal error. Please try again later."))
    found.headers.append((REQUEST_ID, str(call.id)))
    return found


def refuse(gateway: Gateway, call: Call, error: DwctlError) -> Answer:
    """The error as an answer; logged where the call got as far as being JSON."""
    body = openai_error(error.message, error.code, error.status, error.param)
    headers = [relay.JSON, *headers_of(error).items()]
    if call.content and not call.over:
        call.track = False
        call.model = None
        outcome = Outcome(status=error.status, body=body, error_code=error.code)
        gateway.recorder.note(record_of(call, outcome))
    return Answer(error.status, headers, body)


def _handle(gateway: Gateway, call: Call, key: Key | None) -> Answer:
    authorization = call.incoming.header("authorization")
    call.key_presented = admission.bearer(authorization) is not None
    try:
        call.key = key or admission.authenticate(gateway.snapshot, authorization)
    except DwctlError:
        _read_model_for_the_log(call)
        raise
    call.content = read(call.incoming.body)
    call.alias = read_alias(call.content, call.incoming.header("model-override"))
    call.track = call.incoming.header("x-fusillade-request-id") is None
    asked_for = gateway.snapshot.routing.models.get(call.alias)
    strict = gateway.settings.onwards.strict_mode
    adapted = asked_for is None or asked_for.adapter
    call.surface.check(call.content, alias=call.alias, strict=strict, adapted=adapted)
    mode = call.surface.mode(call.content, tracked=call.track)
    call.tier, call.stream, call.background = mode.tier, mode.stream, mode.background
    admitted = admission.admit(gateway.snapshot.routing, call.key, call.alias, call)
    call.model, call.serving = admitted.model, admitted.serving
    treatment = treatment_of(call, strict=strict)
    if call.tier is Tier.FLEX:
        return queued.answer(gateway, call)
    if call.background:
        return background.answer(gateway, call, treatment)
    if call.stream:
        return relay.stream(gateway, call, treatment)
    return relay.answer(gateway, call, treatment)


def _read_model_for_the_log(call: Call) -> None:
    try:
        call.content = read(call.incoming.body)
    except InvalidRequest:
        return
    model = call.content.get("model")
    call.alias = model if isinstance(model, str) else None
