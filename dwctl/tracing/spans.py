"""What is said of spans everywhere. Needs nothing of OpenTelemetry's until there is a span."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dwctl.tracing import traceparent
from dwctl.tracing.traceparent import TraceParent

if TYPE_CHECKING:
    from opentelemetry.trace import Span


def trace_id_of(span: Span) -> str:
    """As it stands in logs."""
    return f"{span.get_span_context().trace_id:032x}"


def header_of(span: Span) -> str:
    """`traceparent` for what is asked of others within that span."""
    context = span.get_span_context()
    return traceparent.written(
        TraceParent(context.trace_id, context.span_id, context.trace_flags.sampled)
    )


def fail(span: Span, error_type: str, *, ours: bool = True) -> None:
    """Say that it failed; `ours` where that is an error of the span itself, and not of whoever asked."""
    from opentelemetry.trace import StatusCode

    span.set_attribute("error.type", error_type)
    if ours:
        span.set_status(StatusCode.ERROR)
