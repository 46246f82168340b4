"""Requests that go back to the queue: for another try, because they may not run now, or because this process ends.

Those of a moment share one transaction, with the pauses that they ask for. What goes back waits for the database as long as it must: its
lease is renewed as long as this process lives, so nobody else would return it.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import gevent
import psycopg
from gevent.event import AsyncResult, Event

from dwctl.ai.gateway import Gateway
from dwctl.db import DatabaseAway
from dwctl.queue import leases, pauses
from dwctl.queue.leases import GivenBack, Job
from dwctl.queue.pauses import PauseReason

log = logging.getLogger(__name__)

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 5.0
_MOST_AT_ONCE = 500
_PATIENCE_S = 1.0


class Pause(NamedTuple):
    """Nobody claims a model's requests for a while: all of them, or (`owner`) one account's. `needs`: so much credit, in USD, ends it."""

    model: str
    owner: str | None
    wait_s: float
    reason: PauseReason
    needs: Decimal | None = None


class _Item:
    """A request on its way back. `again_in_s`: it has failed, and is tried again after so long; else `why` it is given back.

    Neither: it has begun in the place of another one.
    """

    __slots__ = ("again_in_s", "done", "job", "pause", "why")

    def __init__(
        self, job: Job, why: GivenBack | None, again_in_s: float | None, pause: Pause | None
    ) -> None:
        self.job = job
        self.why = why
        self.again_in_s = again_in_s
        self.pause = pause
        self.done = AsyncResult()


class Returns:
    """Those of this worker."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._waiting: list[_Item] = []
        self._arrived = Event()
        self._greenlet: gevent.Greenlet | None = None

    def start(self) -> None:
        """Begin to write."""
        self._greenlet = gevent.spawn(self._run)

    def give_back(
        self, job: Job, why: GivenBack = GivenBack.DRAINED, pause: Pause | None = None
    ) -> None:
        """Return a lease; when this returns that is committed."""
        self._submit(_Item(job, why, None, pause))

    def try_again(self, job: Job, wait_s: float, pause: Pause | None = None) -> None:
        """Put a request off that has failed: it counts, and is due after `wait_s`. When this returns that is committed."""
        self._submit(_Item(job, GivenBack.UNSETTLED, wait_s, pause))

    def take_place(self, job: Job) -> None:
        """A request that was held ahead has begun. When this returns it counts, or the database does not take it for some time: then a little
        later. (Whose place it has taken must be written down, in the spool if need be.)
        """
        item = _Item(job, None, None, None)
        self._waiting.append(item)
        self._arrived.set()
        item.done.wait(_PATIENCE_S)

    def _submit(self, item: _Item) -> None:
        self._waiting.append(item)
        self._arrived.set()
        item.done.get()

    def _run(self) -> None:
        wait_s = 0.0
        while True:
            self._arrived.wait()
            if wait_s:
                gevent.sleep(wait_s * random.uniform(0.5, 1.0))
            if self._write(self._waiting[:_MOST_AT_ONCE]):
                wait_s = 0.0
            else:
                wait_s = min(_LONGEST_WAIT_S, max(_FIRST_WAIT_S, 2 * wait_s))
            if not self._waiting:
                self._arrived.clear()

    def _write(self, group: list[_Item]) -> bool:
        """Write a group; False where the database is away, or some of it must be tried once more."""
        try:
            self._commit(group)
        except DatabaseAway:
            return False
        except Exception as error:
            if isinstance(error, psycopg.Error):
                log.warning("requests not returned", extra={"reason": type(error).__name__, "requests": len(group)})  # fmt: skip
            else:
                log.exception("requests not returned")
            return self._write_each(group) if len(group) > 1 else self._refused(group[0])
        self._settled(group)
        return True

    def _write_each(self, group: list[_Item]) -> bool:
        """One of them may be to blame; it does not stop the others."""
        written = [self._write([item]) for item in group]
        return all(written)

    def _refused(self, item: _Item) -> bool:
        """What cannot be put back as it should is given back as one that could not be settled: that counts, so it has an end."""
        if item.why is None:
            self._settled([item])
            return True
        item.why, item.again_in_s, item.pause = GivenBack.UNSETTLED, None, None
        return False

    def _commit(self, group: Sequence[_Item]) -> None:
        me = self._gateway.registration.id
        with self._gateway.connections.transaction() as connection:
            begun = [i.job.id for i in group if i.why is None]
            if begun:
                leases.take_places(connection, me, begun)
            again = [(i.job.id, i.again_in_s) for i in group if i.again_in_s is not None]
            if again:
                leases.retry_each_later(connection, me, dict(again))
            for why in (GivenBack.DRAINED, GivenBack.UNSETTLED):
                ids = [i.job.id for i in group if i.again_in_s is None and i.why is why]
                if ids:
                    leases.give_back(connection, me, ids, why=why)
            # Rows of queues come after those of requests.
            for pause in _longest(group):
                _begin(connection, pause)

    def _settled(self, group: Sequence[_Item]) -> None:
        gone = {id(item) for item in group}
        self._waiting = [item for item in self._waiting if id(item) not in gone]
        for item in group:
            item.done.set()


def _longest(group: Sequence[_Item]) -> list[Pause]:
    """Each pause once, in one order."""
    found: dict[tuple[str, str], Pause] = {}
    for item in group:
        if (pause := item.pause) is not None:
            key = (pause.model, pause.owner or "")
            if key not in found or found[key].wait_s < pause.wait_s:
                found[key] = pause
    return [found[key] for key in sorted(found)]


def _begin(connection: psycopg.Connection[Any], pause: Pause) -> None:
    if pause.owner is None:
        pauses.pause_model(connection, pause.model, pause.wait_s, pause.reason)
    else:
        pauses.pause_for_credit(connection, pause.model, pause.owner, pause.wait_s, pause.needs)
