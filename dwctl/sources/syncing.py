"""Carries synchronisations out in a worker: takes jobs that are due, some at a time, and does each in a greenlet of its own.

Not duties: a duty holds a transaction while it runs, and these wait for somebody else's server. A job is claimed in its own row for
`connections.sync.lease`; as long as its worker lives it is renewed, and what a dead worker had is taken by another when the lease is over.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

import gevent
import psycopg
from gevent.event import Event
from psycopg.rows import class_row

from dwctl.clock import uuid7
from dwctl.config import Settings
from dwctl.db import Connections, DatabaseAway
from dwctl.sources import activating, ingesting, listing
from dwctl.sources.connections import CHANNEL
from dwctl.sources.jobs import (
    MOST_TRIES,
    QUERIES,
    Activation,
    ClaimLost,
    Ingest,
    Job,
    Listing,
    change,
    fail,
    put_off,
    wait_s,
)
from dwctl.sources.open_sources import OpenSources
from dwctl.wakeups import Wakeups

log = logging.getLogger(__name__)

J = TypeVar("J", Listing, Ingest, Activation)

_LISTINGS = 2
_ACTIVATIONS = 2
_AFTER_FAULT_S = 5.0
_RENEWALS_IN_A_LEASE = 4


class Syncing:
    """What this process does for synchronisations."""

    def __init__(self, connections: Connections, in_force: Callable[[], Settings]) -> None:
        self._connections = connections
        self._in_force = in_force
        self._sources = OpenSources(in_force())
        self._running: dict[UUID, tuple[Job, gevent.Greenlet]] = {}
        self._woken = Event()
        self._renewal_due = Event()
        self._greenlets: list[gevent.Greenlet] = []

    @property
    def _settings(self) -> Settings:
        return self._in_force()

    def start(self, wakeups: Wakeups) -> None:
        """Begin. Before the wake-ups do."""
        wakeups.subscribe(CHANNEL, self._wake, self._wake)
        self._greenlets = [gevent.spawn(self._dispatch), gevent.spawn(self._renew_for_ever)]

    def stop(self) -> None:
        """End; others go on with what was in the middle."""
        gevent.killall(self._greenlets)
        claims = list(self._running)
        gevent.killall([greenlet for _job, greenlet in self._running.values()])
        self._sources.close()
        if not claims:
            return
        try:
            with self._connections.transaction() as connection:
                for statement in ("release_entries", "release_listings"):
                    connection.execute(QUERIES[statement], {"claims": claims})
        except (DatabaseAway, psycopg.Error):
            log.warning("synchronisations not given back")

    def _wake(self, _payload: str = "") -> None:
        self._woken.set()
        self._renewal_due.set()

    def _dispatch(self) -> None:
        while True:
            self._woken.clear()
            try:
                busy = self._take_all()
            except (DatabaseAway, psycopg.OperationalError):
                gevent.sleep(_AFTER_FAULT_S)
                continue
            except Exception:
                log.exception("synchronisations not looked for")
                gevent.sleep(_AFTER_FAULT_S)
                continue
            if not busy:
                self._woken.wait(self._settings.connections.sync.look_interval)

    def _take_all(self) -> bool:
        """Take what is due as far as there is room for it; whether anything was."""
        found = False
        for kind, most, take in (
            (Listing, _LISTINGS, self._take_listing),
            (Ingest, self._settings.connections.sync.max_ingests, self._take_ingest),
            (Activation, _ACTIVATIONS, self._take_activation),
        ):
            while self._running_of(kind) < most and (job := take()) is not None:
                self._begin(job)
                found = True
        return found

    def _running_of(self, kind: type[Job]) -> int:
        return sum(isinstance(job, kind) for job, _greenlet in self._running.values())

    def _take_listing(self) -> Listing | None:
        return self._take(Listing, "take_listing")

    def _take_ingest(self) -> Ingest | None:
        return self._take(Ingest, "take_ingest")

    def _take_activation(self) -> Activation | None:
        return self._take(Activation, "take_activation", batch_id=uuid7())

    def _take(self, kind: type[J], statement: str, **values: Any) -> J | None:
        given = {"lease_s": self._settings.connections.sync.lease, **values}
        with self._connections.transaction() as connection:
            cursor = connection.cursor(row_factory=class_row(kind))
            job = cursor.execute(QUERIES[statement], given).fetchone()
            if isinstance(job, Ingest):
                connection.execute(QUERIES["serve"], {"sync_id": job.sync_id})
        return job

    def _begin(self, job: Job) -> None:
        greenlet = gevent.spawn(self._run, job)
        self._running[job.claim] = (job, greenlet)
        # Also of one that is killed before it has begun.
        greenlet.rawlink(partial(self._ended, job.claim))

    def _ended(self, claim: UUID, _greenlet: gevent.Greenlet) -> None:
        self._running.pop(claim, None)
        self._woken.set()

    def _run(self, job: Job) -> None:
        try:
            self._carry_out(job)
        except ClaimLost:
            log.info("synchronisation given up", extra=_names(job))
        except (DatabaseAway, psycopg.OperationalError):
            # It is taken up again when its lease is over.
            log.warning("synchronisation interrupted", extra=_names(job))
        except Exception:
            log.exception("synchronisation failed", extra=_names(job))
            self._put_aside(job)

    def _carry_out(self, job: Job) -> None:
        doing: Callable[[], None]
        match job:
            case Listing():
                doing = partial(
                    listing.carry_out, self._connections, self._settings, self._sources, job
                )
            case Ingest():
                doing = partial(
                    ingesting.carry_out, self._connections, self._settings, self._sources, job
                )
            case Activation():
                doing = partial(activating.carry_out, self._connections, self._settings, job)
        doing()

    def _put_aside(self, job: Job) -> None:
        """After an error that nobody knows: again later, and not for ever."""
        why = "internal error"
        try:
            if isinstance(job, Listing):
                self._put_listing_aside(job, why)
            elif job.attempts + 1 < MOST_TRIES:
                put_off(self._connections, self._settings, job, why)
            else:
                fail(self._connections, job, why)
        except (ClaimLost, DatabaseAway, psycopg.Error):
            log.warning("synchronisation left to its lease", extra=_names(job))

    def _put_listing_aside(self, job: Listing, why: str) -> None:
        final = job.attempts + 1 >= MOST_TRIES
        with self._connections.transaction() as connection:
            change(
                connection,
                "fail_sync" if final else "put_listing_off",
                job,
                sync_id=job.id,
                error=why,
                wait_s=wait_s(self._settings, job.attempts),
            )

    def _renew_for_ever(self) -> None:
        lease_s = self._settings.connections.sync.lease
        while True:
            self._renewal_due.wait(lease_s / _RENEWALS_IN_A_LEASE)
            self._renewal_due.clear()
            try:
                self._renew(lease_s)
            except (DatabaseAway, psycopg.Error):
                log.warning("leases of synchronisations not renewed")

    def _renew(self, lease_s: float) -> None:
        """Go on with what is still ours; stop what is not."""
        before = dict(self._running)
        if not before:
            return
        values = {"claims": list(before), "lease_s": lease_s}
        kept: set[UUID] = set()
        with self._connections.transaction() as connection:
            for statement in ("renew_entries", "renew_listings"):
                rows = connection.execute(QUERIES[statement], values).fetchall()
                kept.update(claim for (claim,) in rows)
        for claim, (job, greenlet) in before.items():
            if claim not in kept and claim in self._running:
                log.info("synchronisation stopped", extra=_names(job))
                greenlet.kill(block=False)


def _names(job: Job) -> Mapping[str, str]:
    sync_id = job.id if isinstance(job, Listing) else job.sync_id
    return {"job": type(job).__name__, "sync_id": str(sync_id), "id": str(job.id)}
