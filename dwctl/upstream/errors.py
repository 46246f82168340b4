"""What can go wrong between us and one inference server.

    DwctlError
      UpstreamError           status and code are what a caller is told; retryable: another try may help
        ConnectionFailed      502  not reached, or closed before it said anything
          AddressNotAllowed   502  nowhere that `outbound.endpoints` lets us call; the same again will not help
        Timeout               504  `phase` says in which wait: connect, first_byte, idle, total; so does its code
        BadResponse           502  not HTTP, cut before its announced end, an unreadable coding
          ResponseTooLarge    502  above the limit of the one who reads it; the same again will not help

Messages may be shown to callers, so they never name a host. The operating system's own words are the `__cause__`.
An upstream's error *status* is no exception: it is an answer.
"""

from __future__ import annotations

from enum import StrEnum

from dwctl.errors import DwctlError


class Phase(StrEnum):
    """What one was waiting for."""

    CONNECT = "connect"
    FIRST_BYTE = "first_byte"
    IDLE = "idle"
    TOTAL = "total"


class UpstreamError(DwctlError):
    """The upstream server could not answer."""

    code = "upstream_error"
    status = 502
    retryable = True


class ConnectionFailed(UpstreamError):
    """The upstream server could not be reached."""

    code = "upstream_connection_failed"


class AddressNotAllowed(ConnectionFailed):
    """The upstream server's address is not one that this gateway may call."""

    code = "upstream_address_not_allowed"
    retryable = False


class Timeout(UpstreamError):
    """The upstream server took too long."""

    code = "upstream_timeout"
    status = 504

    def __init__(self, phase: Phase) -> None:
        super().__init__(_TIMEOUT_MESSAGES[phase], code=f"upstream_{phase}_timeout")
        self.phase = phase


class BadResponse(UpstreamError):
    """The upstream server's answer could not be read."""

    code = "upstream_bad_response"


class ResponseTooLarge(BadResponse):
    """The upstream server's answer is too large."""

    code = "upstream_response_too_large"
    retryable = False


_TIMEOUT_MESSAGES = {
    Phase.CONNECT: "The upstream server could not be reached in time.",
    Phase.FIRST_BYTE: "The upstream server did not begin to answer in time.",
    Phase.IDLE: "The upstream server stopped in the middle of its answer.",
    Phase.TOTAL: "The upstream server did not finish its answer in time.",
}
