"""What can be wrong with a request, and with an upstream's answer.

DwctlError
  InvalidRequest    the caller's request breaks the protocol: 400, with the name of the field
Exception
  BadUpstreamBody   the upstream said 2xx, but its body is not what the protocol promises
"""

from __future__ import annotations

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
    """The upstream's answer cannot be read as what the protocol promises."""
