"""Between WSGI and plain values: reads a call out of the environment, writes an answer into the server. Both doors use it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from http import HTTPStatus
from typing import Any

from dwctl.ai.calls import Answer, Incoming
from dwctl.errors import DwctlError
from dwctl.protocols.surfaces import Surface

Environ = dict[str, Any]
StartResponse = Callable[..., Any]


class TooLarge(DwctlError):
    """The request body is too large."""

    code = "payload_too_large"
    status = 413


def read(environ: Environ, surface: Surface, max_body_size: int) -> Incoming:
    """The call in a WSGI environment. Raises TooLarge when its body has more than `max_body_size` bytes (0: no limit)."""
    return Incoming(
        surface=surface,
        query=environ.get("QUERY_STRING", ""),
        headers=headers_of(environ),
        body=_body(environ, max_body_size),
        peer=environ.get("gunicorn.socket"),
    )


def headers_of(environ: Environ) -> list[tuple[str, str]]:
    """The request's headers, names in lower case."""
    found = [(_name(key), value) for key, value in environ.items() if key.startswith("HTTP_")]
    if environ.get("CONTENT_TYPE"):
        found.append(("content-type", environ["CONTENT_TYPE"]))
    return found


def write(answer: Answer, start_response: StartResponse) -> Iterable[bytes]:
    """Start the response and give its body to the server, which closes it when the caller leaves."""
    body = answer.body
    if isinstance(body, bytes):
        start_response(
            status_line(answer.status), [*answer.headers, ("content-length", str(len(body)))]
        )
        return [body]
    start_response(status_line(answer.status), answer.headers)
    return body


@lru_cache(64)
def status_line(status: int) -> str:
    """`200 OK`; statuses without a name of their own get one."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"{status} Unknown"


@lru_cache(1024)
def _name(key: str) -> str:
    return key[5:].replace("_", "-").lower()


def _body(environ: Environ, max_body_size: int) -> bytes:
    stated = environ.get("CONTENT_LENGTH")
    length = int(stated) if stated and stated.isdecimal() else None
    if max_body_size and length is not None and length > max_body_size:
        raise TooLarge(f"The request body has {length} bytes; the limit is {max_body_size}.")
    stream = environ["wsgi.input"]
    if length is not None:
        return bytes(stream.read(length))
    if not environ.get("wsgi.input_terminated") and "HTTP_TRANSFER_ENCODING" not in environ:
        return b""
    body = bytes(stream.read(max_body_size + 1) if max_body_size else stream.read())
    if max_body_size and len(body) > max_body_size:
        raise TooLarge(f"The request body is larger than the limit of {max_body_size} bytes.")
    return body
