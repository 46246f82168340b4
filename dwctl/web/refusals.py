"""What the connection loop refuses, before any application sees it, and the body of such an answer. Pure; no Flask in here."""

from __future__ import annotations

import orjson

from dwctl.errors import DwctlError
from dwctl.web.envelope import openai_error


class Malformed(DwctlError):
    """The request is not HTTP/1.1 as RFC 9112 has it."""

    code = "malformed_request"
    status = 400


class Incomplete(DwctlError):
    """The request body did not come to its end."""

    code = "incomplete_body"
    status = 400


class TooLarge(DwctlError):
    """The request body is too large."""

    code = "payload_too_large"
    status = 413


class TooSlow(DwctlError):
    """The request came too slowly."""

    code = "request_timeout"
    status = 408


class TooManyConnections(DwctlError):
    """There are too many connections from your address. Close some, or reuse them."""

    code = "too_many_connections"
    status = 429


class TooManyBodies(DwctlError):
    """Too many requests wait for the rest of their body. Send it in one go, or try again shortly."""

    code = "too_many_open_bodies"
    status = 503


def body_of(error: DwctlError, path: str, request_id: str) -> bytes:
    """The error as JSON, in the form of the surface that `path` belongs to."""
    if path.startswith("/ai/"):
        return openai_error(error.message, error.code, error.status, error.param)
    members = {"code": error.code, "message": error.message, "request_id": request_id}
    return orjson.dumps(members)
