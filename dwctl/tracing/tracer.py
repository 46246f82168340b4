"""Makes spans. Which one is at hand is known by greenlet: a request's server span, a worker's run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextvars import ContextVar

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    TraceFlags,
)

from dwctl import __version__
from dwctl.tracing import traceparent
from dwctl.tracing.exporting import Exporting
from dwctl.tracing.traceparent import TraceParent

Attribute = str | int | float | bool | list[str]
Attributes = Mapping[str, Attribute]

_AT_HAND: ContextVar[Span | None] = ContextVar("dwctl.tracing.at_hand", default=None)
_NOBODY = trace.set_span_in_context(NonRecordingSpan(trace.INVALID_SPAN_CONTEXT))


class Tracer:
    """The one of this process."""

    def __init__(
        self, provider: TracerProvider, exporting: Exporting, *, forwards: bool = False
    ) -> None:
        """`forwards`: trusted servers are told the trace of what they are asked."""
        self.exporting = exporting
        self.forwards = forwards
        self._tracer = provider.get_tracer("dwctl", __version__)

    # --- life cycle

    def start(self) -> None:
        """Begin to export. After forking."""
        self.exporting.start()

    def stop(self, deadline: float) -> None:
        """Export what waits until `deadline` (monotonic)."""
        self.exporting.stop(deadline)

    # --- spans

    def server(self, name: str, parent: str | None, attributes: Attributes) -> Span:
        """The span of a request, whose `traceparent` is `parent`; it is at hand until `put_away`."""
        known = traceparent.parse(parent)
        context = _NOBODY
        if known is not None:
            context = trace.set_span_in_context(NonRecordingSpan(_context_of(known)))
        span = self._tracer.start_span(
            name, context=context, kind=SpanKind.SERVER, attributes=attributes
        )
        _AT_HAND.set(span)
        return span

    def run(self, name: str, queued_by: str | None, attributes: Attributes) -> Span:
        """The span of a queued request's run, linked to the call that queued it (its `traceparent`); it is at hand until `put_away`."""
        known = traceparent.parse(queued_by)
        links = [] if known is None else [Link(_context_of(known))]
        span = self._tracer.start_span(
            name, context=_NOBODY, kind=SpanKind.CONSUMER, links=links, attributes=attributes
        )
        _AT_HAND.set(span)
        return span

    def within(
        self, parent: Span, name: str, attributes: Attributes, *, is_client: bool = False
    ) -> Span:
        """A part of `parent`."""
        return self._tracer.start_span(
            name,
            context=trace.set_span_in_context(parent),
            kind=SpanKind.CLIENT if is_client else SpanKind.INTERNAL,
            attributes=attributes,
        )

    def for_many(self, name: str, of: Iterable[Span], attributes: Attributes) -> Span:
        """What is done at once for several: a trace of its own, linked to each of theirs."""
        links = [Link(span.get_span_context()) for span in of]
        return self._tracer.start_span(name, context=_NOBODY, links=links, attributes=attributes)

    def at_hand(self) -> Span | None:
        """The span of what this greenlet works on."""
        return _AT_HAND.get()

    def put_away(self) -> None:
        """Nothing is at hand any more."""
        _AT_HAND.set(None)


def _context_of(parent: TraceParent) -> SpanContext:
    flags = TraceFlags(TraceFlags.SAMPLED if parent.sampled else TraceFlags.DEFAULT)
    return SpanContext(parent.trace_id, parent.span_id, is_remote=True, trace_flags=flags)
