"""Signs of life: each web and worker process has a row in `daemons`, and beats while the database can be reached.

A process is dead only when its beats have been possible for a whole threshold and did not come: the duty `bury_the_dead` watches the
time during which the database was there (`duties.observed_since`), so after an outage everybody has a whole threshold to beat again.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import gevent
import psycopg
from gevent.event import Event
from psycopg.types.json import Jsonb

from dwctl import __version__, sql
from dwctl.db import Connections, DatabaseAway
from dwctl.figures.spreads import Spreads

log = logging.getLogger(__name__)

_QUERIES = sql.load("dwctl.queue")
_FIRST_BEAT_AGAIN_S = 0.5
BEAT_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)


class Registration:
    """This process's row in `daemons`. Make it after forking: two processes must not share an id."""

    def __init__(
        self,
        connections: Connections,
        config: dict[str, Any],
        heartbeat_s: float,
        in_flight: Callable[[], int] = lambda: 0,
    ) -> None:
        self.id: UUID = uuid4()
        self.processed = 0
        self.failed = 0
        self._connections = connections
        self._config = config
        self._heartbeat_s = heartbeat_s
        self._in_flight = in_flight
        self._greenlet: gevent.Greenlet | None = None
        self.last_beat_failed = False
        self.beats_failed = 0
        self.seconds = Spreads(BEAT_S)
        """How long beats took, its commit included."""
        self.beating_since: float | None = None
        """Since when no beat has failed (monotonic); None after one has."""
        self.registered = Event()
        """Set with the first beat. Before it nothing may be owned: what belongs to a process that nobody knows is taken for a dead one's."""

    def start(self) -> None:
        """Register and beat until `stop`; while the database is away, keep trying."""
        self._beat()
        self._greenlet = gevent.spawn(self._run)

    def stop(self) -> None:
        """Say goodbye, so that nobody waits for the next beat."""
        if self._greenlet is not None:
            self._greenlet.kill()
        try:
            with self._connections.transaction() as connection:
                connection.execute(_QUERIES["end_daemon"], self._values())
        except (DatabaseAway, psycopg.Error):
            log.warning("goodbye not written")

    def _run(self) -> None:
        while True:
            gevent.sleep(self._rest_s())
            self._beat()

    def _rest_s(self) -> float:
        if not self.registered.is_set():
            return _FIRST_BEAT_AGAIN_S
        # Twice as often while the database is away: the others are waiting to see this process alive.
        return self._heartbeat_s / (2 if self.last_beat_failed else 1)

    def _beat(self) -> None:
        began = time.monotonic()
        try:
            with self._connections.transaction() as connection:
                connection.execute(_QUERIES["beat"], self._values())
            self.seconds.add((), time.monotonic() - began)
            self.last_beat_failed = False
            self.beating_since = self.beating_since or time.monotonic()
            self.registered.set()
        except (DatabaseAway, psycopg.Error) as error:
            if not self.last_beat_failed:
                log.warning("heartbeat not written", extra={"reason": type(error).__name__})
            self.last_beat_failed = True
            self.beats_failed += 1
            self.beating_since = None

    def _values(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "hostname": socket.gethostname(),
            "pid": os.getpid(),
            "version": __version__,
            "config": Jsonb(self._config),
            "processed": self.processed,
            "failed": self.failed,
            "in_flight": self._in_flight(),
        }
