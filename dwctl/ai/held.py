"""Callers that wait for a queued request: greenlets on an event, without a thread, a connection or a poll of their own.

One watcher in each process waits for all of them, and reads what became of their requests, many in one query: a thousand that end at
once must not queue up for a handful of connections. A notification names the requests that are over; lost ones, and rows changed by
hand in SQL, are found by a sweep (one query for all waiting ids, once a second).
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import gevent
import psycopg
from gevent.event import Event

from dwctl import sql
from dwctl.ai import retrieval
from dwctl.db import Connections, DatabaseAway
from dwctl.errors import DwctlError
from dwctl.queue.leases import DONE_CHANNEL
from dwctl.queue.tables import State
from dwctl.wakeups import Wakeups

log = logging.getLogger(__name__)

_QUERIES = sql.load("dwctl.queue")
_SWEEP_AT_ONCE = 10_000
# Their bodies are in memory together.
_READ_AT_ONCE = 100
_OVER = frozenset({State.COMPLETED, State.FAILED, State.CANCELED})
_RETRY_AFTER_S = 10


class TooManyHeld(DwctlError):
    """Too many of your requests are waiting for an answer. Use background=true, or try again when some have ended."""

    code = "too_many_held_requests"
    status = 429
    retryable = True


class Waiter:
    """One caller. `over`: its request is over, or it must stop waiting (`Held.draining`).

    `changed` is set with that, and also when its stream has something new (`following`).
    `queued`: its request's row is there; until then the sweep must not take it for one that is gone.
    `row`: once it is over, the request as `retrieval.rows_of` gives it; None where it is gone or could not be read.
    """

    __slots__ = ("changed", "id", "over", "owner", "queued", "row")

    def __init__(self, id: UUID, owner: UUID) -> None:
        self.id = id
        self.owner = owner
        self.over = False
        self.changed = Event()
        self.queued = False
        self.row: Any = None

    def wait(self, seconds: float) -> bool:
        """Until something has changed, or that long; whether it has."""
        changed = bool(self.changed.wait(seconds))
        self.changed.clear()
        return changed or self.over

    def end(self, row: Any) -> None:
        """Nothing more is to be waited for."""
        self.row = row
        self.over = True
        self.changed.set()


class Held:
    """The waiting callers of this process."""

    def __init__(self, connections: Connections, *, sweep_s: float, most_per_owner: int) -> None:
        self.draining = False
        self._connections = connections
        self._sweep_s = sweep_s
        self._most_per_owner = most_per_owner
        self._waiters: dict[UUID, set[Waiter]] = {}
        """By request: a call that is sent again waits for the same one."""
        self._owners: Counter[UUID] = Counter()
        self._greenlet: gevent.Greenlet | None = None
        self._look = Event()
        self._told: set[UUID] = set()
        self._sweep_at = 0.0

    def __len__(self) -> int:
        return self._owners.total()

    def start(self, wakeups: Wakeups) -> None:
        """Begin to listen and to sweep."""
        wakeups.subscribe(DONE_CHANNEL, self._note, self._sweep_now)
        self._greenlet = gevent.spawn(self._run)

    def stop(self) -> None:
        """Stop sweeping."""
        if self._greenlet is not None:
            self._greenlet.kill()

    def drain(self) -> None:
        """Wake everybody: the process ends, their requests run on."""
        self.draining = True
        self._sweep_now()

    def enter(self, id: UUID, owner: UUID) -> Waiter:
        """A place to wait for a request; `leave` must follow. Take it before the request is queued. Raises TooManyHeld."""
        if self._owners[owner] >= self._most_per_owner:
            raise TooManyHeld(retry_after_s=_RETRY_AFTER_S)
        waiter = Waiter(id, owner)
        self._waiters.setdefault(id, set()).add(waiter)
        self._owners[owner] += 1
        return waiter

    def look(self, waiter: Waiter) -> None:
        """Its request has its row, and may be over already: what was notified before it waited is made up for at once."""
        waiter.queued = True
        self._told.add(waiter.id)
        self._look.set()

    def leave(self, waiter: Waiter) -> None:
        """Give the place back; a second time does nothing."""
        waiters = self._waiters.get(waiter.id, set())
        if waiter not in waiters:
            return
        waiters.remove(waiter)
        if not waiters:
            del self._waiters[waiter.id]
        self._owners[waiter.owner] -= 1
        if not self._owners[waiter.owner]:
            del self._owners[waiter.owner]

    def _note(self, payload: str) -> None:
        for text in payload.split(","):
            try:
                id = UUID(text)
            except ValueError:
                continue
            if id in self._waiters:
                self._told.add(id)
                self._look.set()

    def _sweep_now(self) -> None:
        self._sweep_at = 0.0
        self._look.set()

    def _run(self) -> None:
        while True:
            self._look.wait(max(0.0, self._sweep_at - time.monotonic()))
            self._look.clear()
            try:
                self._watch()
            except (DatabaseAway, psycopg.Error) as error:
                log.warning("held calls not looked after", extra={"reason": type(error).__name__})
                if self.draining:
                    self._release(list(self._waiters), {})
            except Exception:
                # Whatever one row meets: without this greenlet nobody here would ever be woken.
                log.exception("held calls not looked after")

    def _watch(self) -> None:
        """Wake those that a notification has named, and in time those that none has."""
        told, self._told = self._told, set()
        self._wake(list(told))
        if time.monotonic() >= self._sweep_at:
            self._sweep_at = time.monotonic() + self._sweep_s
            self._sweep()

    def _sweep(self) -> None:
        ids = [
            id
            for id, waiters in self._waiters.items()
            if any(waiter.queued and not waiter.over for waiter in waiters)
        ]
        for start in range(0, len(ids), _SWEEP_AT_ONCE):
            some = ids[start : start + _SWEEP_AT_ONCE]
            self._wake(some if self.draining else self._over(some))

    def _over(self, ids: list[UUID]) -> list[UUID]:
        # As a text: psycopg takes more than twice as long over thousands of UUIDs, and nothing else runs meanwhile.
        values = {"ids": "{" + ",".join(map(str, ids)) + "}"}
        with self._connections.transaction() as connection:
            rows = connection.execute(_QUERIES["over_or_gone"], values).fetchall()
        return [id for (id,) in rows]

    def _wake(self, ids: Sequence[UUID]) -> None:
        """Read these requests, and wake the callers of those that are over or gone (all, when the process ends)."""
        for start in range(0, len(ids), _READ_AT_ONCE):
            some = ids[start : start + _READ_AT_ONCE]
            rows = {row.id: row for row in retrieval.rows_of(self._connections, some)}
            self._release(some, rows)

    def _release(self, ids: Sequence[UUID], rows: Mapping[UUID, Any]) -> None:
        for id in ids:
            row = rows.get(id)
            if row is None or row.state in _OVER or self.draining:
                for waiter in self._waiters.get(id, ()):
                    waiter.end(row)
