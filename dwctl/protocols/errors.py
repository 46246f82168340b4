"""What is wrong with a request, and how errors look on the wire.

DwctlError
  InvalidRequest    the caller's request breaks the protocol: 400, with the name of the field
Exception
  BadUpstreamBody   the upstream said 2xx, but its body is not what the endpoint promises
"""

from __future__ import annotations

from typing import Any

import orjson

from dwctl.errors import DwctlError


class InvalidRequest(DwctlError):
    """The request is invalid."""

    code = "invalid_request"
    status = 400

    def __init__(
        self, message: str, *, param: str | None = None, code: str = "invalid_request"
    ) -> None:
        super().__init__(message, param=param, code=code)


class BadUpstreamBody(Exception):
    """The upstream's answer cannot be read as what the endpoint promises."""


_STRICT = {
    400: ("invalid_request_error", "Invalid request"),
    401: ("authentication_error", "Authentication failed"),
    403: ("permission_error", "Permission denied"),
    404: ("not_found_error", "Not found"),
    429: ("rate_limit_error", "Rate limit exceeded"),
    500: ("api_error", "Internal server error"),
    502: ("api_error", "Bad gateway"),
    503: ("api_error", "Service unavailable"),
}
_OTHER = ("api_error", "An error occurred")


def error_object(message: str, type: str, code: str, param: str | None = None) -> dict[str, Any]:
    """OpenAI's error object: always these four members."""
    return {"message": message, "type": type, "param": param, "code": code}


def envelope(message: str, type: str, code: str, param: str | None = None) -> bytes:
    """OpenAI's error body."""
    return wrap(error_object(message, type, code, param))


def wrap(error: dict[str, Any]) -> bytes:
    """An error object as a body of its own."""
    return orjson.dumps({"error": error})


def client_status(upstream_status: int) -> int:
    """The status that the caller of an untrusted upstream gets: 401 and 403 refused *our* credential, so they are 502."""
    return 502 if upstream_status in (401, 403) else upstream_status


def sanitised_strict(status: int) -> dict[str, Any]:
    """The error object that replaces an untrusted upstream's body in strict mode."""
    type_, message = _STRICT.get(status, _OTHER)
    return error_object(message, type_, f"http_{status}")


def sanitised_plain(status: int) -> dict[str, Any]:
    """The error object that replaces an upstream's body where the model says `sanitize_responses`."""
    if 400 <= status < 500:
        return error_object(
            "The upstream provider rejected the request.", "invalid_request_error", "upstream_error"
        )
    return error_object(
        "An internal error occurred. Please try again later.", "internal_error", "internal_error"
    )
