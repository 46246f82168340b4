"""What becomes of a call: refused, relayed now, or queued for a worker. One function of plain values behind both doors.

    credential -> JSON -> model -> shape -> tier x background x stream -> admission -> relay (priority) | queue (flex)

Whatever happens, the answer carries `x-request-id`, and a call that was refused is in the request log too.
"""

from __future__ import annotations

import logging
from typing import Any

import orjson

from dwctl.ai import admission, background, queued, relay
from dwctl.ai.calls import Answer, Call, Incoming, Tier
from dwctl.ai.gateway import Gateway
from dwctl.ai.outcomes import Outcome, record_of
from dwctl.ai.treatments import made_for
from dwctl.catalog.routing import Key
from dwctl.errors import DwctlError
from dwctl.protocols import chat
from dwctl.protocols.chat import Endpoint
from dwctl.protocols.errors import InvalidRequest
from dwctl.protocols.openresponses import request
from dwctl.web.errors import headers_of, openai_error

log = logging.getLogger(__name__)

REQUEST_ID = "x-request-id"
_REALTIME = frozenset({"auto", "default", "priority"})
_QUEUEABLE = frozenset({Endpoint.CHAT, Endpoint.EMBEDDINGS, Endpoint.RESPONSES})


def answer(gateway: Gateway, incoming: Incoming, key: Key | None = None) -> Answer:
    """Answer one call. `key` is given where the caller was identified otherwise (the playground)."""
    call = Call(incoming.endpoint, incoming, daemon_id=gateway.registration.id)
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
    call.content = parse(call.incoming.body)
    call.alias = _alias(call)
    call.track = call.incoming.header("x-fusillade-request-id") is None
    _check_shape(gateway, call)
    _decide_mode(call)
    admitted = admission.admit(gateway.snapshot.routing, call.key, call.alias, call)
    call.model, call.serving = admitted.model, admitted.serving
    treatment = made_for(call, strict=gateway.settings.onwards.strict_mode)
    if call.tier is Tier.FLEX:
        return queued.answer(gateway, call, treatment)
    if call.background:
        return background.answer(gateway, call, treatment)
    if call.stream:
        return relay.stream(gateway, call, treatment)
    return relay.answer(gateway, call, treatment)


def parse(body: bytes) -> dict[str, Any]:
    """The JSON object of a request. Raises InvalidRequest."""
    try:
        content = orjson.loads(body)
    except ValueError:
        text = "The request body is not valid JSON." if body else "The request has no body."
        raise InvalidRequest(text, code="invalid_json") from None
    if not isinstance(content, dict):
        raise InvalidRequest("The request body must be a JSON object.", code="invalid_json")
    return content


def _read_model_for_the_log(call: Call) -> None:
    try:
        call.content = parse(call.incoming.body)
    except InvalidRequest:
        return
    model = call.content.get("model")
    call.alias = model if isinstance(model, str) else None


def _alias(call: Call) -> str:
    override = call.incoming.header("model-override")
    model = call.content.get("model")
    if model is None and not override:
        raise InvalidRequest(
            "You must say which model to use.", param="model", code="missing_required_parameter"
        )
    if not isinstance(model, str) and not (model is None and override):
        raise InvalidRequest("`model` must be a string.", param="model", code="invalid_type")
    alias = override or model or ""
    if "\x00" in alias or not alias.isprintable() or len(alias) > 512:
        raise InvalidRequest("`model` is not a model's name.", param="model", code="invalid_value")
    return alias


def _check_shape(gateway: Gateway, call: Call) -> None:
    """Refuse a request whose members are wrong. Only strict mode looks at what is passed on as it is."""
    strict = gateway.settings.onwards.strict_mode
    if call.endpoint is not Endpoint.RESPONSES:
        if strict:
            chat.validate(call.endpoint, call.content)
        return
    model = gateway.snapshot.routing.models.get(call.alias or "")
    if model is None or model.adapter:
        request.parse({**call.content, "model": call.alias})
    elif strict:
        request.check_relayed(call.content)
    if call.content.get("previous_response_id") is not None:
        raise InvalidRequest(
            "`previous_response_id` is not supported yet: send the whole conversation as `input`.",
            param="previous_response_id",
            code="unsupported_parameter",
        )


def _decide_mode(call: Call) -> None:
    """Tier, background and stream of the call; what is not supported is refused, never ignored."""
    content = call.content
    call.stream = _flag(content, "stream") and call.endpoint is not Endpoint.EMBEDDINGS
    background = _flag(content, "background")
    # What somebody else tracks has no row of its own that a worker could find, or that could be fetched later.
    call.tier = _tier(call) if call.track else Tier.REALTIME
    call.background = background and call.track
    if background and call.endpoint is not Endpoint.RESPONSES:
        raise InvalidRequest(
            "`background` is only supported on /responses.",
            param="background",
            code="unsupported_parameter",
        )
    if (
        call.tier is Tier.FLEX
        and call.endpoint is Endpoint.EMBEDDINGS
        and content.get("stream") is True
    ):
        raise InvalidRequest(
            "`stream` is not supported on /embeddings.",
            param="stream",
            code="unsupported_parameter",
        )
    if call.tier is Tier.FLEX and call.endpoint not in _QUEUEABLE:
        raise InvalidRequest(
            "`service_tier` flex is not supported on this endpoint.",
            param="service_tier",
            code="unsupported_value",
        )


def _flag(content: dict[str, Any], name: str) -> bool:
    value = content.get(name)
    if value is not None and not isinstance(value, bool):
        raise InvalidRequest(f"`{name}` must be true or false.", param=name, code="invalid_type")
    return value is True


def _tier(call: Call) -> Tier:
    value = call.content.get("service_tier")
    if value is None or (isinstance(value, str) and value in _REALTIME):
        return Tier.REALTIME
    if value == "flex":
        return Tier.FLEX
    raise InvalidRequest(
        "`service_tier` must be one of auto, default, priority, flex.",
        param="service_tier",
        code="unsupported_value",
    )
