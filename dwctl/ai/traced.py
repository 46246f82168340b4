"""Calls as spans: what of a call and of its attempts stands on them, by OpenTelemetry's conventions for generative AI.

Nothing here runs where traces are not exported: whoever calls has looked at `tracer`. No prompt, no answer and no credential is ever on a span.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from dwctl.ai.genai import OPERATIONS
from dwctl.printable import printable
from dwctl.protocols.failures import word
from dwctl.protocols.usage import TokenUsage
from dwctl.tracing import traceparent
from dwctl.tracing.spans import fail, header_of, trace_id_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.trace import Span

    from dwctl.ai.admission import Admitted
    from dwctl.ai.calls import Request
    from dwctl.ai.in_progress import Flight
    from dwctl.ai.outcomes import Outcome
    from dwctl.queue.leases import Job
    from dwctl.tracing.tracer import Attribute, Attributes, Tracer
    from dwctl.upstream.target import Target

_MOST_OF_NAME = 256
_MOST_CHOICES = 16


class _Choice(msgspec.Struct):
    finish_reason: str | None = None


class _Told(msgspec.Struct):
    """What is looked for in an answer; everything else is skipped unread."""

    model: str | None = None
    status: str | None = None
    choices: list[_Choice] = []


_read = msgspec.json.Decoder(_Told).decode


def begin_call(tracer: Tracer, flight: Flight) -> None:
    """A call of a request that is at hand; nothing where nobody watches the request (tests without a server)."""
    span = tracer.at_hand()
    if span is not None:
        flight.span = span
        flight.trace_id = trace_id_of(span)
        span.set_attribute("dwctl.request_id", str(flight.id))


def with_trace(request: Request, span: Span) -> Request:
    """The request with its span, for whoever runs it from its row."""
    return msgspec.structs.replace(request, trace=header_of(span))


def begin_run(tracer: Tracer, flight: Flight, job: Job) -> None:
    """A queued request begins to run; `end_run` must follow. Its log row has the trace of the call that queued it."""
    attributes: dict[str, Attribute] = {
        "dwctl.request_id": str(job.id),
        "dwctl.attempt": job.attempt,
        "gen_ai.request.model": _short(job.model),
        "messaging.operation.type": "process",
    }
    if job.batch_id not in (None, job.id):
        attributes["dwctl.batch_id"] = str(job.batch_id)
    flight.span = tracer.run(f"run {_short(job.model)}", job.trace, attributes)
    queued_by = traceparent.parse(job.trace)
    own = trace_id_of(flight.span)
    flight.trace_id = own if queued_by is None else f"{queued_by.trace_id:032x}"


def end_run(tracer: Tracer, flight: Flight) -> None:
    """It has ended here, however that was."""
    tracer.put_away()
    if flight.span is not None:
        flight.span.end()


def begin_attempt(tracer: Tracer, admitted: Admitted, flight: Flight, target: Target) -> None:
    """A target is asked; `end_attempt` must follow."""
    if flight.span is None:
        return
    surface = admitted.request.surface
    operation = OPERATIONS.get(surface.path, "")
    attributes: Attributes = {
        "gen_ai.operation.name": operation or surface.name,
        "gen_ai.provider.name": _short(target.endpoint_name),
        "gen_ai.request.model": _short(target.model_name),
        "dwctl.model": _short(admitted.served_by.alias),
        "server.address": target.origin.host,
        "server.port": target.origin.port,
    }
    name = f"{operation or surface.name} {_short(target.model_name)}"
    flight.attempt = tracer.within(flight.span, name, attributes, is_client=True)


def end_attempt(flight: Flight, outcome: Outcome | None) -> None:
    """What the target's answer came to; None where it was given up. A second time does nothing."""
    span, flight.attempt = flight.attempt, None
    if span is None:
        return
    if outcome is None:
        fail(span, "stopped")
    else:
        if outcome.upstream_status is not None:
            span.set_attribute("http.response.status_code", outcome.upstream_status)
        if outcome.usage is not None:
            _say_usage(span, outcome.usage)
        _say_answer(span, outcome.stored)
        if outcome.error_code is not None:
            fail(span, _short(outcome.error_code))
    span.end()


def headers_of(span: Span) -> list[tuple[str, str]]:
    """What a server is told of the span within which it is asked."""
    return [("traceparent", header_of(span))]


@contextmanager
def recording(tracer: Tracer, flight: Flight) -> Iterator[None]:
    """Around the wait for a call's record: for its group, and its place in the database or the spool."""
    if flight.span is None:
        yield
        return
    span = tracer.within(flight.span, "record", {})
    try:
        yield
    except Exception as error:
        fail(span, type(error).__name__)
        raise
    finally:
        span.end()


def _say_usage(span: Span, usage: TokenUsage) -> None:
    span.set_attribute("gen_ai.usage.input_tokens", usage.prompt_tokens)
    span.set_attribute("gen_ai.usage.output_tokens", usage.completion_tokens)
    span.set_attribute("dwctl.usage_source", str(usage.source))


def _say_answer(span: Span, stored: bytes) -> None:
    try:
        told = _read(stored)
    except (ValueError, RecursionError):
        return  # Not what the protocol promises, and handed on all the same.
    if (model := word(told.model)) is not None:
        span.set_attribute("gen_ai.response.model", model)
    choices = told.choices[:_MOST_CHOICES]
    reasons = [reason for choice in choices if (reason := word(choice.finish_reason))]
    if not reasons and (status := word(told.status)):
        reasons = [status]
    if reasons:
        span.set_attribute("gen_ai.response.finish_reasons", reasons)


def _short(text: str) -> str:
    return printable(text, _MOST_OF_NAME)
