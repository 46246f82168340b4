"""Counts every HTTP request in front of both doors of the application: how many, how long, with which status.

What a request costs here: a dictionary entry and two looks at the clock. Streams are measured until their end without a step for each
event: the server iterates over the application's own iterator.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from flask import Flask, request

from dwctl.ai import calls
from dwctl.web.body import Body
from dwctl.web.connection import Answer, Door
from dwctl.web.head import Head

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_ROUTE = "dwctl.route"
_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})

Key = tuple[str, str, str]
"""Method, route template, status."""
Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Series:
    """Requests of one key: how many in each bucket (the last one is everything slower), and their seconds."""

    __slots__ = ("buckets", "seconds")

    def __init__(self) -> None:
        self.buckets = [0] * (len(BUCKETS_S) + 1)
        self.seconds = 0.0


class Tally:
    """The requests of this process."""

    def __init__(self) -> None:
        self.series: dict[Key, Series] = {}
        self.pending = 0

    def add(self, key: Key, seconds: float) -> None:
        """A request has ended."""
        series = self.series.get(key)
        if series is None:
            series = self.series[key] = Series()
        series.buckets[bisect_left(BUCKETS_S, seconds)] += 1
        series.seconds += seconds


def install(app: Flask, hot_routes: Iterable[str] = ()) -> Tally:
    """Put the counting in front of the app, and of its direct door where it has one. `hot_routes` are paths that Flask never sees."""
    tally = Tally()

    @app.before_request
    def remember_route() -> None:
        if request.url_rule is not None:
            request.environ[_ROUTE] = request.url_rule.rule

    app.wsgi_app = _Measured(app.wsgi_app, tally, frozenset(hot_routes))  # type: ignore[method-assign]
    door = app.extensions.get("dwctl.door")
    if door is not None:
        app.extensions["dwctl.door"] = _measured_door(door, tally)
    return tally


def _measured_door(behind: Door, tally: Tally) -> Door:
    def door(head: Head, body: Body, peer: Any) -> Answer | None:
        began = time.perf_counter()
        status = "500"

        def ended() -> None:
            tally.pending -= 1
            tally.add((head.method, head.path, status), time.perf_counter() - began)

        tally.pending += 1
        try:
            answer = behind(head, body, peer)
        except BaseException:
            ended()
            raise
        if answer is None:
            # It comes again, through WSGI.
            tally.pending -= 1
            return None
        status = str(answer.status)
        if isinstance(answer.body, bytes):
            ended()
            return answer
        return calls.Answer(answer.status, answer.headers, _Body(answer.body, ended))

    return door


class _Measured:
    def __init__(self, behind: Wsgi, tally: Tally, hot_routes: frozenset[str]) -> None:
        self._behind = behind
        self._tally = tally
        self._hot_routes = hot_routes

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        began = time.perf_counter()
        status = "000"
        tally = self._tally

        def started(line: str, *more: Any) -> Any:
            nonlocal status
            status = line[:3]
            return start_response(line, *more)

        def ended() -> None:
            tally.pending -= 1
            tally.add(
                (self._method(environ), self._route(environ), status), time.perf_counter() - began
            )

        tally.pending += 1
        try:
            body = self._behind(environ, started)
        except BaseException:
            status = "500"
            ended()
            raise
        if not hasattr(body, "close"):
            ended()
            return body
        return _Body(body, ended)

    def _method(self, environ: dict[str, Any]) -> str:
        method: str = environ["REQUEST_METHOD"]
        return method if method in _METHODS else "other"

    def _route(self, environ: dict[str, Any]) -> str:
        path = environ["PATH_INFO"]
        # Paths that match no route are anybody's invention: one name for all of them.
        found: str = path if path in self._hot_routes else environ.get(_ROUTE, "unmatched")
        return found


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
