"""One call to its upstream: send, treat, record. Shared by web (now) and worker (from the queue).

`run` gives the outcome of a blocking call and records nothing, `answer` records it before the body leaves, `stream` records before its
last frame. No database connection is held while the upstream works.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import orjson

from dwctl.ai.calls import Answer, Call, Headers
from dwctl.ai.in_progress import CallerLeft, Cancelled, Drained, Flight, Interrupted
from dwctl.ai.outcomes import Outcome, opening_of, record_of
from dwctl.ai.treatments import Complete, StreamTreatment, Treatment, usage_of_stream
from dwctl.analytics.records import Kept
from dwctl.protocols import errors as wire
from dwctl.protocols.errors import BadUpstreamBody
from dwctl.upstream import headers as upstream_headers
from dwctl.upstream.client import UpstreamResponse
from dwctl.upstream.errors import Timeout, UpstreamError
from dwctl.upstream.target import Target
from dwctl.web.errors import openai_error

if TYPE_CHECKING:
    from dwctl.ai.gateway import Gateway

JSON = ("content-type", "application/json")
_EVENT_STREAM = [
    ("content-type", "text/event-stream; charset=utf-8"),
    ("cache-control", "no-cache"),
    ("x-accel-buffering", "no"),
]
_CLIENT_CLOSED = 499
_RETRIABLE = frozenset({404, 408, 429})


def answer(gateway: Gateway, call: Call, treatment: Treatment) -> Answer:
    """Relay a blocking call; its record is committed (or spooled) before this returns."""
    flight = enter(gateway, call)
    try:
        outcome = run(gateway, call, treatment, flight)
        finish(gateway, call, outcome)
    finally:
        gateway.in_progress.leave(flight)
    return Answer(outcome.status, outcome.headers, outcome.body)


def stream(gateway: Gateway, call: Call, treatment: Treatment) -> Answer:
    """Relay a streaming call: an upstream that refuses is answered in one piece, otherwise events flow from here on."""
    flight = enter(gateway, call)
    try:
        response = _send(gateway, call, treatment, flight)
        if isinstance(response, Outcome) or not _is_event_stream(response):
            outcome = (
                response
                if isinstance(response, Outcome)
                else _replayed(gateway, call, treatment, flight, response)
            )
            finish(gateway, call, outcome)
            gateway.in_progress.leave(flight)
            return Answer(outcome.status, outcome.headers, outcome.body)
        open_row(gateway, call)
    except BaseException:
        gateway.in_progress.leave(flight)
        raise
    headers = _EVENT_STREAM + [
        (name, value)
        for name, value in upstream_headers.to_caller(response.status, response.headers)
        if name not in ("content-type", "cache-control")
    ]
    return Answer(200, headers, _events(gateway, call, treatment, flight, response))


def run(gateway: Gateway, call: Call, treatment: Treatment, flight: Flight) -> Outcome:
    """Send and treat, nothing else. Never raises for what an upstream or a caller can do."""
    response = _send(gateway, call, treatment, flight)
    if isinstance(response, Outcome):
        return response
    return _read(gateway, call, treatment, flight, response)


def enter(gateway: Gateway, call: Call) -> Flight:
    """Put the call among those in progress."""
    slow = (lambda: open_row(gateway, call)) if call.track and not call.opened else None
    peer = None if _drains(gateway) else call.incoming.peer
    return gateway.in_progress.enter(call.id, peer, slow)


def _drains(gateway: Gateway) -> bool:
    return gateway.settings.upstream.on_disconnect == "drain"


def open_row(gateway: Gateway, call: Call) -> None:
    """Make the tracking row of a call that lasts, once."""
    if not call.track or call.opened or call.over:
        return
    call.opened = True
    kept = gateway.recorder.open(opening_of(call, "processing"))
    call.opened_in_database = kept is Kept.COMMITTED


def finish(gateway: Gateway, call: Call, outcome: Outcome) -> None:
    """Write the call down. When this returns, what the caller gets is safe to give."""
    call.over = True
    gateway.recorder.finish(record_of(call, outcome))
    gateway.count(outcome)


# --- a complete answer


def _send(
    gateway: Gateway, call: Call, treatment: Treatment, flight: Flight
) -> UpstreamResponse | Outcome:
    """The upstream's 2xx answer with its body still to come, or what else it came to."""
    assert call.serving is not None
    target = call.serving.target
    assert target is not None
    body = treatment.request_body(target)
    try:
        with flight.waiting():
            response = gateway.client.send(
                target, treatment.upstream_path, body, _headers(call, target)
            )
        call.first_byte_at = time.monotonic()
        if 200 <= response.status < 300:
            return response
        with flight.waiting():
            raw = response.read(gateway.settings.upstream.max_answer_size)
    except UpstreamError as error:
        return _failed(error)
    except Interrupted as reason:
        return _interrupted(reason)
    return _refused(gateway, call, response, raw)


def _read(
    gateway: Gateway, call: Call, treatment: Treatment, flight: Flight, response: UpstreamResponse
) -> Outcome:
    try:
        with flight.waiting():
            raw = response.read(gateway.settings.upstream.max_answer_size)
        complete = (
            treatment.from_stream(raw) if _is_event_stream(response) else treatment.complete(raw)
        )
    except UpstreamError as error:
        return _failed(error)
    except BadUpstreamBody:
        return _bad_gateway(response.status, "the answer is not what the endpoint promises")
    except Interrupted as reason:
        return _interrupted(reason)
    return _completed(treatment, response, complete)


def _completed(treatment: Treatment, response: UpstreamResponse, complete: Complete) -> Outcome:
    headers = upstream_headers.to_caller(response.status, response.headers)
    if complete.failure is not None or _is_event_stream(response):
        headers = [JSON]
    outcome = Outcome(
        status=response.status if complete.failure is None else 502,
        body=complete.body,
        headers=headers,
        upstream_status=response.status,
        usage=complete.usage,
        usage_source="none" if complete.usage is None else complete.usage_source,
        response_type=treatment.response_type,
    )
    if complete.failure is not None:
        outcome.failure = _tagged("RetriableHttpStatus", status=502, body=complete.failure)
        outcome.error_code = "upstream_error"
    return outcome


def _replayed(
    gateway: Gateway, call: Call, treatment: Treatment, flight: Flight, response: UpstreamResponse
) -> Outcome:
    """A complete answer to a call that wanted a stream becomes that stream."""
    outcome = _read(gateway, call, treatment, flight, response)
    if not outcome.succeeded:
        return outcome
    try:
        events = treatment.replay(outcome.body)
    except BadUpstreamBody as error:
        return _bad_gateway(response.status, str(error))
    outcome.stored, outcome.body = outcome.body, events
    outcome.headers = list(_EVENT_STREAM)
    outcome.response_type += "_stream"
    return outcome


# --- a stream


def _events(
    gateway: Gateway, call: Call, treatment: Treatment, flight: Flight, response: UpstreamResponse
) -> Iterator[bytes]:
    transformer = treatment.stream()
    pieces = response.chunks()
    try:
        try:
            while piece := _next(flight, pieces):
                if data := transformer.feed(piece):
                    yield data
                if transformer.done:
                    break
            last = transformer.finish()
        except UpstreamError as error:
            last = transformer.fail(error.code, error.message)
        response.close()
        finish(gateway, call, _streamed(call, treatment, transformer))
    except (Cancelled, Drained) as reason:
        response.close()
        last = _farewell(transformer, reason)
        finish(gateway, call, _left(treatment, transformer, reason))
    except (GeneratorExit, CallerLeft) as gone:
        if _drains(gateway) and not gateway.draining:
            _read_on(flight, pieces, transformer)
            outcome = _streamed(call, treatment, transformer)
        else:
            outcome = _left(treatment, transformer, gone)
        response.close()
        finish(gateway, call, outcome)
        return
    finally:
        gateway.in_progress.leave(flight)
    yield last


def _farewell(transformer: StreamTreatment, reason: Interrupted) -> bytes:
    if isinstance(reason, Cancelled):
        return transformer.cancel()
    return transformer.fail("interrupted", _INTERRUPTIONS[Drained][3])


def _read_on(flight: Flight, pieces: Iterator[bytes], transformer: StreamTreatment) -> None:
    """The rest of a stream that nobody reads any more: for the record, and for its usage."""
    try:
        while not transformer.done and (piece := _next(flight, pieces)):
            transformer.feed(piece)
        transformer.finish()
    except UpstreamError as error:
        transformer.fail(error.code, error.message)
    except Interrupted as reason:
        _farewell(transformer, reason)


def _next(flight: Flight, pieces: Iterator[bytes]) -> bytes | None:
    with flight.waiting():
        return next(pieces, None)


def _streamed(call: Call, treatment: Treatment, transformer: StreamTreatment) -> Outcome:
    usage, source = usage_of_stream(transformer)
    outcome = Outcome(
        status=200,
        stored=orjson.dumps(transformer.assembled()),
        upstream_status=200,
        usage=usage,
        usage_source=source,
        response_type=f"{treatment.response_type}_stream",
    )
    if transformer.error is not None:
        outcome.failure = _tagged("StreamBroken", error=transformer.error.get("message"))
        outcome.error_code = str(transformer.error.get("code"))
    return outcome


def _left(treatment: Treatment, transformer: StreamTreatment, reason: BaseException) -> Outcome:
    """What was delivered until the caller left is billed, as an estimate where the upstream had not reported it yet."""
    outcome = _interrupted(reason if isinstance(reason, Interrupted) else CallerLeft())
    outcome.usage, outcome.usage_source = usage_of_stream(transformer)
    outcome.stored = orjson.dumps(transformer.assembled())
    outcome.response_type = f"{treatment.response_type}_stream"
    return outcome


# --- what else it can come to


def _failed(error: UpstreamError) -> Outcome:
    timed_out = isinstance(error, Timeout)
    status, code = (504, "gateway_timeout") if timed_out else (502, "upstream_unreachable")
    text = (
        "The upstream provider took too long to answer."
        if timed_out
        else "The upstream provider could not be reached or broke off its answer."
    )
    return Outcome(
        status=status,
        body=openai_error(text, code, status),
        headers=[JSON],
        failure=_tagged("Timeout" if timed_out else "NetworkError", error=error.message),
        error_code=code,
    )


def _bad_gateway(upstream_status: int, reason: str) -> Outcome:
    return Outcome(
        status=502,
        body=wire.wrap(wire.sanitised_strict(502)),
        headers=[JSON],
        upstream_status=upstream_status,
        failure=_tagged("RetriableHttpStatus", status=502, body=reason),
        error_code="http_502",
    )


def _refused(gateway: Gateway, call: Call, response: UpstreamResponse, raw: bytes) -> Outcome:
    """An upstream's own error status. Untrusted upstreams are not quoted; their 401 and 403 refused our credential, not the caller's."""
    assert call.serving is not None
    strict, serving = gateway.settings.onwards.strict_mode, call.serving
    status = response.status if serving.trusted else wire.client_status(response.status)
    headers = upstream_headers.to_caller(response.status, response.headers)
    if serving.sanitise:
        raw, headers = wire.wrap(wire.sanitised_plain(status)), _only_retry_after(headers)
    elif (strict and not serving.trusted) or status != response.status:
        raw, headers = wire.wrap(wire.sanitised_strict(status)), _only_retry_after(headers)
    elif not _is_json(raw):
        raw, headers = (
            openai_error(_text(raw), f"http_{status}", status),
            _only_retry_after(headers),
        )
    retriable = response.status >= 500 or response.status in _RETRIABLE
    kind = "RetriableHttpStatus" if retriable else "NonRetriableHttpStatus"
    return Outcome(
        status=status,
        body=raw,
        headers=headers,
        upstream_status=response.status,
        failure=_tagged(kind, status=response.status, body=_text(raw)),
        error_code=f"http_{response.status}",
        retry_after_s=_seconds(response.header("retry-after")),
    )


_INTERRUPTIONS: Mapping[type[BaseException], tuple[int, str, str, str]] = {
    Cancelled: (_CLIENT_CLOSED, "cancelled", "Cancelled", "The response was cancelled."),
    Drained: (
        503,
        "drained",
        "TaskTerminated",
        "The process that ran the request is shutting down.",
    ),
}
_LEFT = (
    _CLIENT_CLOSED,
    "client_disconnected",
    "ClientDisconnected",
    "client cancelled request before upstream response",
)


def _interrupted(reason: BaseException) -> Outcome:
    status, code, kind, text = _INTERRUPTIONS.get(type(reason), _LEFT)
    return Outcome(
        status=status,
        body=openai_error(text, code, status),
        headers=[JSON],
        failure=_tagged(kind),
        error_code=code,
    )


def _headers(call: Call, target: Target) -> Headers:
    credential = target.auth_header[0] if target.auth_header else ""
    kept = upstream_headers.to_upstream(call.incoming.headers, credential=credential)
    return [(name, value) for name, value in kept if name != "content-type"] + [JSON]


def _tagged(kind: str, **details: object) -> dict[str, object]:
    return {"type": kind, "details": details} if details else {"type": kind}


def _only_retry_after(headers: Headers) -> Headers:
    return [JSON, *((name, value) for name, value in headers if name == "retry-after")]


def _is_event_stream(response: UpstreamResponse) -> bool:
    return (response.header("content-type") or "").startswith("text/event-stream")


def _is_json(raw: bytes) -> bool:
    try:
        orjson.loads(raw)
    except ValueError:
        return False
    return True


def _text(raw: bytes) -> str:
    return raw[:4096].decode("utf-8", "replace")


def _seconds(value: str | None) -> float | None:
    return float(value) if value and value.isdecimal() else None
