"""One call on its way through: what came in, what was decided, what came out. Plain values, no Flask."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from dwctl.catalog.routing import Key, Model
from dwctl.clock import uuid7
from dwctl.protocols.asked import Asked
from dwctl.protocols.modes import Mode, Tier
from dwctl.protocols.surfaces import Surface

Headers = list[tuple[str, str]]


WINDOWS = {Tier.REALTIME: ("0s", 0.0), Tier.FLEX: ("1h", 3600.0)}
"""Completion window of a single request, as text and in seconds."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """What a caller sent. `peer` is the caller's socket where the server shows it (to notice that the caller has left)."""

    surface: Surface
    query: str
    headers: Sequence[tuple[str, str]]
    body: bytes
    peer: Any = None

    def header(self, name: str) -> str | None:
        """The first header of that (lower-case) name."""
        for key, value in self.headers:
            if key == name:
                return value
        return None


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back: a body in one piece, or an iterator that must be closed."""

    status: int
    headers: Headers
    body: bytes | Iterator[bytes]


@dataclass(slots=True)
class Call:
    """The state of one call; it lives in one greenlet. `id` is the request id of log, charge and `x-request-id`."""

    surface: Surface
    incoming: Incoming
    id: UUID = field(default_factory=uuid7)
    arrived_at: float = field(default_factory=time.time)
    started: float = field(default_factory=time.monotonic)
    content: dict[str, Any] = field(default_factory=dict)
    alias: str | None = None
    key: Key | None = None
    key_presented: bool = False
    model: Model | None = None
    serving: Model | None = None
    tier: Tier = Tier.REALTIME
    background: bool = False
    stream: bool = False
    track: bool = True
    opened: bool = False
    opened_in_database: bool = False
    over: bool = False
    first_byte_at: float | None = None
    daemon_id: UUID | None = None
    queued: bool = False
    created_at: float = 0.0
    batch_id: UUID | None = None
    custom_id: str | None = None
    batch_window: str | None = None

    def __post_init__(self) -> None:
        self.created_at = self.arrived_at

    @property
    def response_id(self) -> str:
        """The public id."""
        return f"resp_{self.id}"

    @property
    def path(self) -> str:
        """The API route, as templates store it."""
        return f"/v1/{self.surface.path}"

    @property
    def window(self) -> tuple[str, float]:
        """Completion window as text and in seconds (the seconds matter to single requests only)."""
        text, seconds = WINDOWS[self.tier]
        return self.batch_window or text, seconds

    @property
    def asked(self) -> Asked:
        """The request as the protocols see it."""
        return Asked(
            surface=self.surface,
            body=self.incoming.body,
            content=self.content,
            alias=self.alias or "",
            id=self.id,
            created_at=self.created_at,
            mode=Mode(self.tier, self.stream, self.background),
            shows_id=self.track,
            query=self.incoming.query,
        )
