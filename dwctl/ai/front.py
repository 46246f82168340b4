"""A thin WSGI dispatch in front of Flask for the hot POST routes: they cost half of what they cost inside Flask.

The same routes are declared in Flask (`routes`) and answered by the same function, `respond`: WSGI in, plain values on, WSGI out. A test
runs both doors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from http import HTTPStatus
from typing import Any

import gevent

from dwctl.ai import lifecycle
from dwctl.ai.calls import Answer, Incoming
from dwctl.ai.gateway import Gateway
from dwctl.catalog.routing import Key
from dwctl.errors import DwctlError
from dwctl.protocols.surfaces import SURFACES, Surface

Environ = dict[str, Any]
StartResponse = Callable[..., Any]

PREFIX = "/ai/v1/"

# A connection that is closed with its body unread is reset, and the caller may never see why.
_DISCARDED_BYTES = 16 * 1024 * 1024
_DISCARDED_S = 2.0


class TooLarge(DwctlError):
    """The request body is too large."""

    code = "payload_too_large"
    status = 413


class Incomplete(DwctlError):
    """The request body did not come to its end."""

    code = "incomplete_body"
    status = 400


class Front:
    """Answers the hot routes itself and hands everything else on."""

    def __init__(self, gateway: Gateway, behind: StartResponse) -> None:
        self._gateway = gateway
        self._behind = behind
        self._surfaces = {PREFIX + surface.path: surface for surface in SURFACES.values()}

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        surface = self._surfaces.get(environ["PATH_INFO"])
        if surface is None or environ["REQUEST_METHOD"] != "POST":
            found: Iterable[bytes] = self._behind(environ, start_response)
            return found
        return _write(respond(self._gateway, environ, surface), start_response)


def respond(gateway: Gateway, environ: Environ, surface: Surface, key: Key | None = None) -> Answer:
    """The answer to a call in a WSGI environment. `key` is given where the caller was identified otherwise (the playground)."""
    if not gateway.started:
        gateway.start()
    limit = gateway.settings.limits.requests.max_body_size
    stated = environ.get("CONTENT_LENGTH")
    length = int(stated) if stated and stated.isdecimal() else None
    incoming = Incoming(
        surface=surface,
        query=environ.get("QUERY_STRING", ""),
        headers=_headers_of(environ),
        length=length,
        read_body=partial(_read_body, environ, length, limit),
        peer=environ.get("gunicorn.socket"),
    )
    return lifecycle.answer(gateway, incoming, key)


def _write(answer: Answer, start_response: StartResponse) -> Iterable[bytes]:
    """Start the response and give its body to the server, which closes it when the caller leaves."""
    body = answer.body
    if isinstance(body, bytes):
        start_response(
            _status_line(answer.status), [*answer.headers, ("content-length", str(len(body)))]
        )
        return [body]
    start_response(_status_line(answer.status), answer.headers)
    return body


def _headers_of(environ: Environ) -> list[tuple[str, str]]:
    """The request's headers, names in lower case."""
    found = [(_name(key), value) for key, value in environ.items() if key.startswith("HTTP_")]
    if environ.get("CONTENT_TYPE"):
        found.append(("content-type", environ["CONTENT_TYPE"]))
    return found


@lru_cache(64)
def _status_line(status: int) -> str:
    """`200 OK`; statuses without a name of their own get one."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"{status} Unknown"


@lru_cache(1024)
def _name(key: str) -> str:
    return key[5:].replace("_", "-").lower()


def _read_body(environ: Environ, length: int | None, limit: int) -> bytes:
    """The body. Raises TooLarge when it has more than `limit` bytes (0: no limit), Incomplete when it does not come to its end."""
    stream = environ["wsgi.input"]
    if limit and length is not None and length > limit:
        _discard(stream, min(length, _DISCARDED_BYTES))
        raise TooLarge(f"The request body has {length} bytes; the limit is {limit}.")
    if length is not None:
        body = _taken(stream, length)
        if len(body) < length:
            raise Incomplete(f"The request body has {len(body)} of {length} bytes.")
        return body
    if not environ.get("wsgi.input_terminated") and "HTTP_TRANSFER_ENCODING" not in environ:
        return b""
    body = _taken(stream, limit + 1 if limit else None)
    if limit and len(body) > limit:
        _discard(stream, _DISCARDED_BYTES)
        raise TooLarge(f"The request body is larger than the limit of {limit} bytes.")
    return body


def _discard(stream: Any, most: int) -> None:
    with gevent.Timeout(_DISCARDED_S, False):
        while most > 0 and (piece := _taken(stream, min(most, 65_536))):
            most -= len(piece)


def _taken(stream: Any, most: int | None) -> bytes:
    try:
        return bytes(stream.read() if most is None else stream.read(most))
    except Exception as error:
        # The server's own words for a caller that left, or for chunks that are none.
        raise Incomplete("The request body is cut short, or its chunks are malformed.") from error
