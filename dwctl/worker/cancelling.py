"""Batches that are cancelled or deleted while lines of them run here: those lines stop.

A notification says so at once; whether one was lost is asked now and then, by the batches that run here.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from uuid import UUID

import gevent
import psycopg
from gevent.event import Event

from dwctl import sql
from dwctl.ai.gateway import Gateway
from dwctl.ai.in_progress import Flight
from dwctl.ai.outcomes import Reason
from dwctl.db import DatabaseAway
from dwctl.figures.spreads import Spreads
from dwctl.queue.leases import CANCEL_CHANNEL

log = logging.getLogger(__name__)

_QUERIES = sql.load("dwctl.queue")
_SWEEP_EVERY_S = 5.0
ASKED = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)


class Cancelling:
    """The lines in flight of this worker, by batch."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._flights: defaultdict[UUID, set[Flight]] = defaultdict(set)
        self._missed = Event()
        self.batches = self.faults = 0
        """Batches that were stopped here; questions whether there are any that the database did not answer."""
        self.asked, self.seconds = Spreads(ASKED), Spreads(SECONDS)
        """Of how many batches was asked at once, and how long the answer took."""

    def start(self) -> None:
        """Begin to listen. Before the gateway's wake-ups start."""
        self._gateway.wakeups.subscribe(CANCEL_CHANNEL, self._hear, self._missed.set)
        gevent.spawn(self._sweep_for_ever)

    def enter(self, batch: UUID, flight: Flight) -> None:
        """A line begins; `leave` must follow."""
        self._flights[batch].add(flight)

    def leave(self, batch: UUID, flight: Flight) -> None:
        """A line has ended."""
        flights = self._flights[batch]
        flights.discard(flight)
        if not flights:
            del self._flights[batch]

    def _hear(self, payload: str) -> None:
        """Of single requests, which are cancelled on the same channel, the gateway hears itself."""
        try:
            batch = UUID(payload)
        except ValueError:
            return
        if batch in self._flights:
            self._stop(batch)

    def _stop(self, batch: UUID) -> None:
        flights = [flight for flight in self._flights.get(batch, ()) if not flight.is_stopping]
        self.batches += bool(flights)
        for flight in flights:
            flight.give_up(Reason.CANCELLED)

    def _sweep_for_ever(self) -> None:
        while True:
            self._missed.wait(_SWEEP_EVERY_S)
            self._missed.clear()
            if not self._flights:
                continue
            self.asked.add((), len(self._flights))
            began = time.monotonic()
            try:
                with self._gateway.connections.transaction() as connection:
                    values = {"ids": list(self._flights)}
                    rows = connection.execute(_QUERIES["stopped_batches"], values).fetchall()
            except (DatabaseAway, psycopg.Error) as error:
                self.faults += 1
                log.warning("cancelled batches not swept", extra={"reason": type(error).__name__})
                continue
            self.seconds.add((), time.monotonic() - began)
            for (batch,) in rows:
                self._stop(batch)
