"""Callers that wait for a queued request: greenlets on an event, without a thread, a connection or a poll of their own.

One watcher in each process waits for all of them. A notification names the requests that are over; lost ones, and rows changed by hand
in SQL, are found by a sweep (one query for all waiting ids, once a second).
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any
from uuid import UUID

import gevent
import psycopg
from gevent.event import Event

from dwctl import sql
from dwctl.db import Connections, DatabaseAway
from dwctl.errors import DwctlError
from dwctl.queue.leases import DONE_CHANNEL
from dwctl.wakeups import Wakeups

log = logging.getLogger(__name__)

_QUERIES = sql.load("dwctl.queue")
_SWEEP_AT_ONCE = 10_000
_RETRY_AFTER_S = 10


class TooManyHeld(DwctlError):
    """Too many of your requests are waiting for an answer. Use background=true, or try again when some have ended."""

    code = "too_many_held_requests"
    status = 429
    retryable = True


class Waiter:
    """One caller. `over` is set when its request is over, or when it must stop waiting (`Held.draining`)."""

    __slots__ = ("id", "over", "owner")

    def __init__(self, id: UUID, owner: UUID) -> None:
        self.id = id
        self.owner = owner
        self.over = Event()


class Held:
    """The waiting callers of this process."""

    def __init__(self, connections: Connections, *, sweep_s: float, most_per_owner: int) -> None:
        self.draining = False
        self._connections = connections
        self._sweep_s = sweep_s
        self._most_per_owner = most_per_owner
        self._waiters: dict[UUID, Waiter] = {}
        self._owners: Counter[UUID] = Counter()
        self._greenlet: gevent.Greenlet | None = None
        self._look = Event()

    def __len__(self) -> int:
        return len(self._waiters)

    def start(self, wakeups: Wakeups) -> None:
        """Begin to listen and to sweep."""
        wakeups.subscribe(DONE_CHANNEL, self._note, self._look.set)
        self._greenlet = gevent.spawn(self._run)

    def stop(self) -> None:
        """Stop sweeping."""
        if self._greenlet is not None:
            self._greenlet.kill()

    def drain(self) -> None:
        """Wake everybody: the process ends, their requests run on."""
        self.draining = True
        for waiter in list(self._waiters.values()):
            waiter.over.set()

    def enter(self, id: UUID, owner: UUID) -> Waiter:
        """A place to wait for a request; `leave` must follow. Take it before the request is queued. Raises TooManyHeld."""
        if self._owners[owner] >= self._most_per_owner:
            raise TooManyHeld(retry_after_s=_RETRY_AFTER_S)
        waiter = self._waiters[id] = Waiter(id, owner)
        self._owners[owner] += 1
        return waiter

    def leave(self, waiter: Waiter) -> None:
        """Give the place back; a second time does nothing."""
        if self._waiters.pop(waiter.id, None) is not None:
            self._owners[waiter.owner] -= 1
            if not self._owners[waiter.owner]:
                del self._owners[waiter.owner]

    def _note(self, payload: str) -> None:
        for text in payload.split(","):
            try:
                waiter = self._waiters.get(UUID(text))
            except ValueError:
                continue
            if waiter is not None:
                waiter.over.set()

    def _run(self) -> None:
        while True:
            self._look.wait(self._sweep_s)
            self._look.clear()
            if not self._waiters:
                continue
            try:
                self._sweep()
            except (DatabaseAway, psycopg.Error) as error:
                log.warning("held calls not swept", extra={"reason": type(error).__name__})

    def _sweep(self) -> None:
        ids = [id for id, waiter in self._waiters.items() if not waiter.over.is_set()]
        for start in range(0, len(ids), _SWEEP_AT_ONCE):
            for id in self._over(ids[start : start + _SWEEP_AT_ONCE]):
                if waiter := self._waiters.get(id):
                    waiter.over.set()

    def _over(self, ids: list[UUID]) -> list[Any]:
        values = {"ids": ids}
        with self._connections.transaction() as connection:
            done = connection.execute(_QUERIES["outcomes"], values).fetchall()
            gone = connection.execute(_QUERIES["missing"], values).fetchall()
        return [row[0] for row in (*done, *gone)]
