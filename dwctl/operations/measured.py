"""Watches every HTTP request in front of both doors of the application: counted always; a span and a line of the log where that is wanted.

What a request costs here: a dictionary entry and two looks at the clock. Streams are measured until their end without a step for each
event: the server iterates over the application's own iterator.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from flask import Flask, request

from dwctl import logs
from dwctl.ai import calls
from dwctl.figures.spreads import Spreads
from dwctl.operations import spans
from dwctl.web.body import Body
from dwctl.web.connection import Answer, Door
from dwctl.web.head import Head

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from dwctl.tracing.tracer import Tracer

log = logging.getLogger(__name__)

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
UNMATCHED = "unmatched"
"""The route of paths that have none: they are anybody's invention."""
_REQUEST = "dwctl.request"
_REQUEST_ID = "x-request-id"
_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Watch:
    """The requests of this process. `seconds` by method, route and status; `pending` by method and route."""

    def __init__(self, *, logs_each: bool = False, tracer: Tracer | None = None) -> None:
        """`logs_each`: a line of the log for each request. `tracer`: None where traces are not exported."""
        self.tracer = tracer
        self.wants_ids = logs_each or tracer is not None
        self.seconds = Spreads(BUCKETS_S)
        self.pending: Counter[tuple[str, str]] = Counter()
        self._logs_each = logs_each

    def begin(self, method: str, route: str) -> Watched:
        """A request has arrived; its `end` must follow, or `drop`."""
        self.pending[method, route] += 1
        return Watched(self, method, route)

    def ended(self, watched: Watched) -> None:
        """Count it."""
        seconds = time.perf_counter() - watched.began
        self.seconds.add((watched.method, watched.route, watched.status), seconds)
        if self._logs_each:
            _log(watched, seconds)


class Watched(msgspec.Struct, eq=False):
    """One request. What becomes known of it is written here until it ends."""

    _watch: Watch
    method: str
    route: str
    status: str = "500"
    request_id: str | None = None
    span: Span | None = None
    began: float = msgspec.field(default_factory=time.perf_counter)

    def goes_to(self, route: str) -> None:
        """Its route is known now."""
        self._watch.pending[self.method, self.route] -= 1
        self.route = route
        self._watch.pending[self.method, route] += 1

    def answers(self, status: str, headers: Sequence[tuple[str, str]]) -> None:
        """The head of its answer is there."""
        self.status = status
        if not self._watch.wants_ids:
            return
        for name, value in headers:
            if name.lower() == _REQUEST_ID:
                self.request_id = value

    def drop(self) -> None:
        """It comes again through another door. Its span, which has not ended, is never seen."""
        if self._watch.tracer is not None:
            self._watch.tracer.put_away()
        self._watch.pending[self.method, self.route] -= 1

    def end(self) -> None:
        """Its answer has ended."""
        self._watch.pending[self.method, self.route] -= 1
        self._watch.ended(self)
        logs.forget()
        if self._watch.tracer is not None:
            self._watch.tracer.put_away()
            spans.end(self)


def install(app: Flask, watch: Watch, hot_routes: Iterable[str] = ()) -> None:
    """Put the watch in front of the app, and of its direct door where it has one. `hot_routes` are paths that Flask never sees."""

    @app.before_request
    def remember_route() -> None:
        watched: Watched | None = request.environ.get(_REQUEST)
        if watched is not None and request.url_rule is not None:
            watched.goes_to(request.url_rule.rule)

    hot = frozenset(hot_routes)
    app.wsgi_app = _Measured(app.wsgi_app, watch, hot)  # type: ignore[method-assign]
    door = app.extensions.get("dwctl.door")
    if door is not None:
        app.extensions["dwctl.door"] = _measured_door(door, watch, hot)


def _begun(watch: Watch, method: str, path: str, hot_routes: Container[str]) -> Watched:
    """Labels stay for ever, so none is of a caller's making: not even for the moment until a door passes a request on."""
    return watch.begin(
        method if method in _METHODS else "other", path if path in hot_routes else UNMATCHED
    )


def _measured_door(behind: Door, watch: Watch, hot_routes: Container[str]) -> Door:
    def door(head: Head, body: Body, peer: Any) -> Answer | None:
        watched = _begun(watch, head.method, head.path, hot_routes)
        if watch.tracer is not None:
            spans.begin(watch.tracer, watched, head.path, head.first.get("traceparent"))
        try:
            answer = behind(head, body, peer)
        except BaseException:
            watched.end()
            raise
        if answer is None:
            watched.drop()
            return None
        watched.answers(str(answer.status), answer.headers)
        if isinstance(answer.body, bytes):
            watched.end()
            return answer
        return calls.Answer(answer.status, answer.headers, _Body(answer.body, watched.end))

    return door


class _Measured:
    def __init__(self, behind: Wsgi, watch: Watch, hot_routes: frozenset[str]) -> None:
        self._behind = behind
        self._watch = watch
        self._hot_routes = hot_routes

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        watched = environ[_REQUEST] = _begun(self._watch, method, path, self._hot_routes)
        tracer = self._watch.tracer
        if tracer is not None:
            spans.begin(tracer, watched, path, environ.get("HTTP_TRACEPARENT"))

        def started(line: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            watched.answers(line[:3], headers)
            return start_response(line, headers, *more)

        try:
            body = self._behind(environ, started)
        except BaseException:
            watched.end()
            raise
        if not hasattr(body, "close"):
            watched.end()
            return body
        return _Body(body, watched.end)


class _Body:
    """A body that is over when the server closes it; iterating over it is iterating over the application's."""

    __slots__ = ("_body", "_ended")

    def __init__(self, body: Any, ended: Callable[[], None]) -> None:
        self._body = body
        self._ended = ended

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def close(self) -> None:
        try:
            self._body.close()
        finally:
            self._ended()


def _log(watched: Watched, seconds: float) -> None:
    """The route and not the path: what callers write into paths and queries is theirs, and may be a secret."""
    log.info(
        "request",
        extra={
            "method": watched.method,
            "route": watched.route,
            "status": watched.status,
            "duration_ms": round(seconds * 1000, 1),
            "request_id": watched.request_id,
        },
    )
