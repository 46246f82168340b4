"""The values that a call becomes until it is admitted, and the answer that goes back. Plain, frozen, no Flask.

    Incoming -> Request -> Admitted (`admission`) -> Attempt (`attempt`) -> Outcome (`outcomes`) -> Record (`bookkeeping`)

Each is made in one place from the one before, and holds nothing optional that its maker knows. What changes while a call runs is its
`Flight` (`in_progress`), the only mutable one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote
from uuid import UUID

import msgspec

from dwctl.clock import time_s, uuid7
from dwctl.protocols.asked import Asked
from dwctl.protocols.modes import Tier
from dwctl.protocols.surfaces import Surface

Headers = list[tuple[str, str]]

JSON = ("content-type", "application/json")
TEXT = ("content-type", "text/plain; charset=utf-8")
EVENT_STREAM = (
    ("content-type", "text/event-stream; charset=utf-8"),
    ("cache-control", "no-cache"),
    ("x-accel-buffering", "no"),
)

_WINDOWS = {Tier.REALTIME: ("0s", 0.0), Tier.FLEX: ("1h", 3600.0)}


class Incoming(msgspec.Struct, frozen=True):
    """What a caller sent; nothing is parsed, and the body not read yet.

    `first`: the first of the `headers` of each (lower-case) name.
    `read_body` gives it once (raises TooLarge), and tells its argument how many bytes more are in memory; `length` is what was announced, None for a body that comes in chunks. `peer` is the
    caller's socket where the server shows it (to notice that the caller has left).
    """

    surface: Surface
    query: str
    headers: Sequence[tuple[str, str]]
    first: Mapping[str, str]
    length: int | None
    read_body: Callable[[Callable[[int], object]], bytes]
    peer: Any = None


def served_by(endpoint: str, model: str) -> tuple[str, str]:
    """The header that names a target: its endpoint, and what the model is called there."""
    return "x-dwctl-served-by", f"{quote(endpoint)}/{quote(model)}"


def begun(body: Iterator[bytes]) -> Iterator[bytes]:
    """A generator of a body, which yields nothing first, begun: it runs to its end, and cleans up, also when nobody reads it."""
    next(body)
    return body


class Answer(msgspec.Struct, frozen=True):
    """What goes back: a body in one piece, or an iterator that must be closed."""

    status: int
    headers: Headers
    body: bytes | Iterable[bytes]


class Stamp(msgspec.Struct, frozen=True):
    """A call's identity, from its arrival. `id` is the request id of log, charge and `x-request-id`; `at` Unix time, `started` monotonic."""

    id: UUID
    at: float
    started: float

    @classmethod
    def now(cls) -> Stamp:
        """That of a call that arrives now."""
        at = time_s()
        return cls(uuid7(at), at, time.monotonic())


class Line(NamedTuple):
    """A request as a line of a real batch."""

    batch_id: UUID
    custom_id: str | None
    window: str


class Once(msgspec.Struct, frozen=True):
    """An Idempotency-Key in its scope. `fingerprint`: of what is asked, a SHA-256. `instead_of`: the attempt that it is taken over from, and
    `seen` the state in which that was found (None: its row is gone).
    """

    owner_id: UUID
    path: str
    key: str
    fingerprint: bytes
    instead_of: UUID | None = None
    seen: str | None = None


class Request(msgspec.Struct, frozen=True):
    """A call that was understood.

    `asked.created_at` (Unix time) decides the price: when the call arrived, or its batch was made. `tracked`: it has a row of its own.
    `queued`: a worker runs it, from a row that is there; `line` where that is a line of a batch. `once`: it may be sent again.
    `is_kept`: what it says stays when it is over, so that its owner may come back to it (a line of a batch always does: its answer goes into
    a file). `trace`: the `traceparent` of its span, where traces are exported.
    """

    stamp: Stamp
    asked: Asked
    is_kept: bool
    headers: Sequence[tuple[str, str]] = ()
    tracked: bool = True
    queued: bool = False
    line: Line | None = None
    once: Once | None = None
    trace: str | None = None

    @property
    def id(self) -> UUID:
        """The request id."""
        return self.stamp.id

    @property
    def surface(self) -> Surface:
        """The protocol that its caller speaks."""
        return self.asked.surface

    @property
    def tier(self) -> Tier:
        """Where it runs."""
        return self.asked.mode.tier

    @property
    def path(self) -> str:
        """The API route, as templates store it."""
        return f"/v1/{self.surface.path}"

    @property
    def window(self) -> str:
        """The completion window as text."""
        return self.line.window if self.line else _WINDOWS[self.tier][0]

    @property
    def window_s(self) -> float:
        """Seconds until the deadline of a single request."""
        return _WINDOWS[self.tier][1]
