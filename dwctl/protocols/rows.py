"""A stored request as the protocols see it, one row with its template, and how it is answered; as plain values."""

from __future__ import annotations

from dataclasses import dataclass

from dwctl.errors import Unavailable

_OVER = frozenset({"completed", "failed", "canceled"})


class StillRunning(Unavailable):
    """The process that held the call is shutting down; the request goes on."""

    code = "server_shutting_down"


@dataclass(frozen=True, slots=True)
class Shown:
    """A complete answer of the gateway's own: a status and a JSON body."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class StoredRow:
    """One row of `fusillade.requests` with its template. Times are seconds since 1970."""

    response_id: str
    state: str
    model: str
    created_at: int
    completed_at: int | None = None
    service_tier: str | None = None
    request_body: str | None = None
    response_status: int | None = None
    response_body: str | None = None
    error: str | None = None

    @property
    def is_over(self) -> bool:
        """Whether the request has come to its end."""
        return self.state in _OVER
