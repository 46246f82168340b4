"""The doors to the hot POST routes: from the connection loop as plain values, and through WSGI.

The loop hands over what it read (`direct`); everything that is not exactly one of these routes goes through WSGI to Flask. The same routes
are there, too (`__call__`, for browsers of other origins and prefixes of proxies; `routes`, for whatever serves Flask alone), and are answered
by the same function. A test runs all doors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from typing import Any

from dwctl.ai import lifecycle
from dwctl.ai.calls import Answer, Incoming
from dwctl.ai.gateway import Gateway
from dwctl.catalog.routing import Key
from dwctl.protocols.surfaces import SURFACES, Surface
from dwctl.web import hosts
from dwctl.web.body import Body
from dwctl.web.head import Head
from dwctl.web.refusals import Incomplete, TooLarge
from dwctl.web.responses import status_line

Environ = dict[str, Any]
StartResponse = Callable[..., Any]

PREFIX = "/ai/v1/"


class Front:
    """Answers the hot routes itself and hands everything else on."""

    def __init__(self, gateway: Gateway, behind: StartResponse) -> None:
        self._gateway = gateway
        self._behind = behind
        self._surfaces = {PREFIX + surface.path: surface for surface in SURFACES.values()}
        security = gateway.settings.auth.security
        self._cors = bool(security.cors.allowed_origins)
        self._allowed_hosts = security.allowed_hosts

    def direct(self, head: Head, body: Body, peer: Any) -> Answer | None:
        """The answer to a call as the connection loop read it; None for what is not one of these routes.

        A browser's call goes the long way where other origins are let in, and so does one for a host that is not served.
        """
        surface = self._surfaces.get(head.path)
        if surface is None or head.method != "POST" or self._is_special(head):
            return None
        gateway = self._gateway
        limit = gateway.settings.limits.requests.max_body_size
        read = partial(body.read_all, limit)
        return _respond(
            gateway,
            Incoming(surface, head.query, head.headers, head.first, body.length, read, peer),
        )

    def _is_special(self, head: Head) -> bool:
        if self._cors and head.first.get("origin") is not None:
            return True
        allowed = self._allowed_hosts
        return bool(allowed) and not hosts.is_allowed(head.first.get("host") or "", allowed)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        surface = self._surfaces.get(environ["PATH_INFO"])
        if surface is None or environ["REQUEST_METHOD"] != "POST":
            found: Iterable[bytes] = self._behind(environ, start_response)
            return found
        return _write(respond(self._gateway, environ, surface), start_response)


def respond(gateway: Gateway, environ: Environ, surface: Surface, key: Key | None = None) -> Answer:
    """The answer to a call in a WSGI environment. `key` is given where the caller was identified otherwise (the playground)."""
    return _respond(gateway, incoming_of(gateway, environ, surface), key)


def incoming_of(gateway: Gateway, environ: Environ, surface: Surface) -> Incoming:
    """A call in a WSGI environment, of which nothing is read yet."""
    stated = environ.get("CONTENT_LENGTH")
    length = int(stated) if stated and stated.isdecimal() else None
    limits = gateway.settings.limits.requests
    most = limits.max_file_body_size if surface.takes_files else limits.max_body_size
    headers = _headers_of(environ)
    return Incoming(
        surface,
        environ.get("QUERY_STRING", ""),
        headers,
        dict(headers),
        length,
        partial(_read_body, environ, length, most),
        environ.get("gunicorn.socket"),
    )


def _respond(gateway: Gateway, incoming: Incoming, key: Key | None = None) -> Answer:
    if not gateway.started:
        gateway.start()
    return lifecycle.answer(gateway, incoming, key)


def _write(answer: Answer, start_response: StartResponse) -> Iterable[bytes]:
    """Start the response and give its body to the server, which closes it when the caller leaves."""
    body = answer.body
    if isinstance(body, bytes):
        start_response(
            status_line(answer.status), [*answer.headers, ("content-length", str(len(body)))]
        )
        return [body]
    start_response(status_line(answer.status), answer.headers)
    return body


def _headers_of(environ: Environ) -> list[tuple[str, str]]:
    """The request's headers, names in lower case, each once."""
    found = [(_name(key), value) for key, value in environ.items() if key.startswith("HTTP_")]
    if environ.get("CONTENT_TYPE"):
        found.append(("content-type", environ["CONTENT_TYPE"]))
    return found


@lru_cache(1024)
def _name(key: str) -> str:
    return key[5:].replace("_", "-").lower()


def _read_body(
    environ: Environ, length: int | None, limit: int, took: Callable[[int], object]
) -> bytes:
    """The body. Raises TooLarge when it has more than `limit` bytes (0: no limit), Incomplete when it does not come to its end."""
    stream = environ["wsgi.input"]
    if isinstance(stream, Body):
        return stream.read_all(limit, took)
    if limit and length is not None and length > limit:
        raise TooLarge(f"The request body has {length} bytes; the limit is {limit}.")
    took(length or 0)
    body = bytes(stream.read(length if length is not None else 0))
    if length is not None and len(body) < length:
        raise Incomplete(f"The request body has {len(body)} of {length} bytes.")
    return body
