"""The span of each request, by OpenTelemetry's conventions for HTTP servers. Nothing here runs where traces are not exported.

Queries are left out, and so are paths with parts that vary: they are written by callers, and may hold a secret or a name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dwctl.tracing.spans import fail

if TYPE_CHECKING:
    from dwctl.operations.measured import Watched
    from dwctl.tracing.tracer import Tracer

_AI, _ADMIN = "/ai/", "/admin/"


def begin(tracer: Tracer, watched: Watched, path: str, traceparent: str | None) -> None:
    """A request has arrived."""
    attributes = {
        "http.request.method": watched.method,
        "api.type": _kind_of(path),
    }
    watched.span = tracer.server(watched.method, traceparent, attributes)


def end(watched: Watched) -> None:
    """Its answer has ended; its route and status are known now."""
    span = watched.span
    if span is None:
        return
    if watched.route.startswith("/"):
        span.update_name(f"{watched.method} {watched.route}")
        span.set_attribute("http.route", watched.route)
        if "<" not in watched.route:
            span.set_attribute("url.path", watched.route)
    status = int(watched.status)
    span.set_attribute("http.response.status_code", status)
    if watched.request_id is not None:
        span.set_attribute("dwctl.request_id", watched.request_id)
    if status >= 400:
        fail(span, watched.status, ours=status >= 500)
    span.end()


def _kind_of(path: str) -> str:
    if path.startswith(_AI):
        return "ai_proxy"
    return "admin" if path.startswith(_ADMIN) else "other"
