"""The stream of a call that another process runs, or has run, as its caller gets it: kept events, comments meanwhile, and a proper end.

Where the log of its events breaks off (it became too large, its process died), or there never was one, the end is made of the row.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING
from uuid import UUID

import psycopg

from dwctl.ai import retrieval
from dwctl.ai.following import Follower
from dwctl.ai.held import Waiter
from dwctl.ai.in_progress import Flight, Stopped
from dwctl.ai.outcomes import Reason
from dwctl.db import DatabaseAway
from dwctl.errors import DwctlError, NotFound
from dwctl.protocols.held_streams import KEEP_ALIVE, HeldStream
from dwctl.protocols.numbered import later

if TYPE_CHECKING:
    from dwctl.ai.gateway import Gateway

log = logging.getLogger(__name__)

_LAST_CHUNK_S = 2.0
"""The last events are kept after the record is committed: who hears of that first waits for them so long."""
_LOOK_AGAIN_S = 1.0


class Followed:
    """One caller's."""

    def __init__(
        self,
        gateway: Gateway,
        waiter: Waiter,
        flight: Flight,
        stream: HeldStream,
        *,
        response_id: str,
        owners: Collection[UUID],
        until: float,
        after: int = -1,
        has_events: bool = True,
        unfinished: DwctlError | None = None,
    ) -> None:
        """until: how long to wait (monotonic). after: the number behind which it is to begin. has_events: its log is this stream's.

        unfinished: what is said where it must stop waiting, in place of how the request stands.
        """
        self._gateway = gateway
        self._waiter = waiter
        self._flight = flight
        self._stream = stream
        self._response_id = response_id
        self._owners = owners
        self._until = until
        self._keepalive = gateway.settings.responses.keepalive
        self._has_events = has_events
        self._unfinished = unfinished
        self._after = after
        self._follower: Follower
        self._looks_again = False

    def pieces(self, *, begun: bool) -> Iterator[bytes]:
        """The stream; `begun`: what says that it waits was sent already. Raises Stopped (LEFT) where the caller has left."""
        # Not before: a generator whose caller leaves first never gets to its `finally`.
        waiter = self._waiter
        follower = self._gateway.following.follow(waiter.id, waiter.changed, self._after)
        self._follower = follower
        if begun:
            follower.number = max(follower.number, self._stream.begun)
        try:
            while not follower.complete:
                data = self._take()
                if data:
                    yield data
                    begun = True
                    continue
                if not self._goes_on():
                    yield from self._ending()
                    return
                if not begun:
                    begun = True
                    yield (
                        later(self._stream.begin(), before=-1, after=follower.number) or KEEP_ALIVE
                    )
                    follower.number = max(follower.number, self._stream.begun)
                elif not self._wait():
                    yield KEEP_ALIVE
        finally:
            follower.leave()

    def _goes_on(self) -> bool:
        return not self._waiter.over and time.monotonic() < self._until

    def _take(self) -> bytes:
        if not self._has_events:
            return b""
        try:
            self._looks_again = False
            return self._follower.take()
        except (DatabaseAway, psycopg.Error) as error:
            self._note(error)
            self._looks_again = True
            return b""

    def _wait(self) -> bool:
        """Until something has changed; whether a sign of life would be early. Raises Stopped (LEFT)."""
        try:
            with self._flight.waiting():
                changed = self._waiter.wait(_LOOK_AGAIN_S if self._looks_again else self._keepalive)
        except Stopped as stopped:
            if stopped.reason is Reason.LEFT:
                raise
            # Cancelled, or this process ends: the row says which.
            self._waiter.over = True
            return True
        return changed or self._looks_again

    def _ending(self) -> Iterator[bytes]:
        stream, follower = self._stream, self._follower
        try:
            row = retrieval.stored_row(
                self._waiter.row
                or retrieval.row_of(self._gateway.connections, self._response_id, self._owners)
            )
            logged = self._has_events and follower.has_log()
        except NotFound:
            yield stream.gone(follower.number)
            return
        except (DwctlError, psycopg.Error) as error:
            self._note(error)
            yield stream.fail(
                error if isinstance(error, DwctlError) else DatabaseAway(), follower.number
            )
            return
        if not row.is_over:
            yield (
                stream.fail(self._unfinished, follower.number)
                if self._unfinished
                else stream.pause(row, follower.number)
            )
            return
        if not logged:
            yield stream.end(row, follower.number)
            return
        yield from self._last_chunks()
        if not follower.complete:
            yield stream.break_off(row, follower.number)

    def _last_chunks(self) -> Iterator[bytes]:
        until = time.monotonic() + _LAST_CHUNK_S
        while not self._follower.complete:
            data = self._take()
            if data:
                yield data
                continue
            left_s = until - time.monotonic()
            if left_s <= 0:
                return
            self._waiter.changed.clear()
            self._waiter.changed.wait(min(left_s, _LOOK_AGAIN_S / 2))

    def _note(self, error: Exception) -> None:
        log.warning(
            "stream not read",
            extra={"request_id": str(self._waiter.id), "reason": type(error).__name__},
        )
