"""`GET /responses/{id}?stream=true&starting_after=N`: a stream again, or still, from any process.

The events behind N as they were, as far as they are kept; then live, while the response runs; then its end. A response whose events were
not kept (it was not a background or flex stream, or it has been over for `retention.events`) is waited for, and told by the object.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any
from uuid import UUID

from dwctl.ai import retrieval
from dwctl.ai.calls import EVENT_STREAM, Answer, begun
from dwctl.ai.followed import Followed
from dwctl.ai.held import Waiter
from dwctl.ai.in_progress import Flight, Stopped
from dwctl.clock import uuid7
from dwctl.protocols.errors import InvalidRequest
from dwctl.protocols.held_streams import resumed
from dwctl.protocols.surfaces import SURFACES

if TYPE_CHECKING:
    from dwctl.ai.gateway import Gateway

_HIGHEST = 2**31 - 2


def starting_after(given: str | None) -> int:
    """The number in the query, -1 where there is none. Raises InvalidRequest."""
    if given is None or given == "":
        return -1
    if not (given.isascii() and given.isdecimal() and len(given) <= 20):
        raise InvalidRequest(
            "`starting_after` must be the sequence number of an event: 0 or a positive integer.",
            param="starting_after",
            code="invalid_value",
        )
    return min(int(given), _HIGHEST)


def answer(
    gateway: Gateway, response_id: str, owners: Collection[UUID], *, after: int, peer: Any
) -> Answer:
    """The stream. `peer` is the caller's socket where it is known. Raises NotFound, DatabaseAway, TooManyHeld."""
    row = retrieval.stored_row_of(gateway.connections, response_id, owners)
    stored = retrieval.stored_row(row)
    waiter = gateway.held.enter(row.id, UUID(row.created_by))
    waiter.queued = True
    if stored.is_over:
        waiter.end(row)
    flight = gateway.in_progress.enter(Flight(uuid7(), peer))
    surface = SURFACES.get((row.path or "").removeprefix("/v1/"))
    followed = Followed(
        gateway,
        waiter,
        flight,
        resumed(stored),
        response_id=stored.response_id,
        owners=owners,
        until=time.monotonic() + gateway.settings.responses.held_timeout,
        after=after,
        has_events=surface is not None and surface.stored_as_response,
    )
    pieces = begun(_pieces(gateway, waiter, flight, followed))
    return Answer(200, list(EVENT_STREAM), pieces)


def _pieces(
    gateway: Gateway, waiter: Waiter, flight: Flight, followed: Followed
) -> Iterator[bytes]:
    try:
        yield b""
        yield from followed.pieces(begun=False)
    except Stopped:
        return  # the caller has left
    finally:
        gateway.held.leave(waiter)
        gateway.in_progress.leave(flight)
