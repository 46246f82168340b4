"""The one base class of everything that dwctl refuses or fails at on purpose.

    DwctlError
      NotFound, Conflict, Invalid, Forbidden, Unauthenticated, Unavailable    here: what any room may raise
      upstream.errors.UpstreamError, billing.ledger..., ai.admission.Refused  in the room where the fact is known

The edge (`web/errors.py`) turns any of them into the JSON of the surface on which it happened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class DwctlError(Exception):
    """Something went wrong that has a name."""

    code = "internal_error"
    status = 500
    retryable = False
    headers: Sequence[tuple[str, str]] = ()
    """What the answer says beside its body."""

    def __init__(
        self,
        message: str | None = None,
        *,
        code: str | None = None,
        status: int | None = None,
        retryable: bool | None = None,
        param: str | None = None,
        retry_after_s: int | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        """`members` are extra top-level members of the JSON body (such as a conflict's `resource`)."""
        self.message = message or (type(self).__doc__ or "").strip()
        self.code = code or self.code
        self.status = status or self.status
        self.retryable = self.retryable if retryable is None else retryable
        self.param = param
        self.retry_after_s = retry_after_s
        self.members = dict(members or {})
        super().__init__(self.message)


class Invalid(DwctlError):
    """The request breaks a rule."""

    code = "invalid_request"
    status = 400


class Unauthenticated(DwctlError):
    """Authentication required"""

    code = "unauthenticated"
    status = 401


class Forbidden(DwctlError):
    """Insufficient permissions"""

    code = "forbidden"
    status = 403


class NotFound(DwctlError):
    """Resource not found"""

    code = "not_found"
    status = 404


class Conflict(DwctlError):
    """Resource already exists"""

    code = "conflict"
    status = 409


class Unavailable(DwctlError):
    """The service is temporarily unavailable. Try again shortly."""

    code = "service_unavailable"
    status = 503
    retryable = True

    def __init__(self, message: str | None = None, *, retry_after_s: int = 5, **more: Any) -> None:
        super().__init__(message, retry_after_s=retry_after_s, **more)
