"""The running parts of one process behind the AI surface: made with the app, started when the process serves, drained at its end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

import gevent
import psycopg
from gevent.pool import Group

from dwctl.ai.held import Held
from dwctl.ai.in_progress import InProgress
from dwctl.ai.outcomes import Outcome
from dwctl.ai.stored import cancelled_among
from dwctl.analytics.recorder import Recorder
from dwctl.catalog.snapshot import Snapshot
from dwctl.config import Settings
from dwctl.db import DatabaseAway
from dwctl.queue.leases import CANCEL_CHANNEL
from dwctl.queue.processes import Registration
from dwctl.upstream.client import UpstreamClient
from dwctl.wakeups import Wakeups
from dwctl.web.current import Parts

log = logging.getLogger(__name__)

_SWEEP_CANCELLED_S = 5.0


class Gateway:
    """Snapshot, recorder, upstream client, wake-ups, and this process's row in `daemons`."""

    def __init__(self, parts: Parts, kind: dict[str, Any]) -> None:
        """`kind` is shown as this process's configuration in the registry of processes."""
        settings = parts.settings
        self.settings: Settings = settings
        self.connections = parts.connections
        self.client = UpstreamClient(max_idle_per_origin=settings.upstream.max_idle_per_origin)
        self.snapshot = Snapshot(settings, parts.connections, parts.sealer)
        self.recorder = Recorder(settings, self.snapshot.mark_unfunded)
        self.in_progress = InProgress(settings.recorder.open_after)
        self.wakeups = Wakeups(settings)
        self.registration = Registration(
            parts.connections,
            kind,
            settings.daemons.heartbeat,
            lambda: len(self.in_progress.flights),
        )
        self.held = Held(
            parts.connections,
            sweep_s=settings.responses.sweep_interval,
            most_per_owner=settings.responses.held_max_per_owner,
        )
        self._detached = Group()
        self._sweeper: gevent.Greenlet | None = None
        self.started = False
        self.draining = False

    def start(self) -> None:
        """Start every part, once. Call it in the process that serves, after forking."""
        if self.started:
            return
        self.started = True
        self.recorder.start()
        self.snapshot.start(self.wakeups)
        self.in_progress.start()
        self.held.start(self.wakeups)
        self.wakeups.subscribe(CANCEL_CHANNEL, self._cancel)
        self.registration.start()
        self.wakeups.start()
        self._sweeper = gevent.spawn(self._sweep_cancelled)

    def spawn(self, function: Callable[..., None], *arguments: Any) -> None:
        """Run something that outlives its request; `stop` waits for it."""
        self._detached.spawn(function, *arguments)

    def drain(self) -> None:
        """No new work: whoever waits for a worker is told so, and connections are not kept alive."""
        self.draining = True
        self.held.drain()

    def stop(self, within_s: float) -> None:
        """Write down what is left, and say goodbye."""
        if not self.started:
            return
        self.drain()
        deadline = time.monotonic() + within_s
        self._detached.join(timeout=max(0.0, within_s - 1.0))
        self.held.stop()
        self.snapshot.stop()
        self.recorder.stop(deadline)
        self.registration.stop()
        self.wakeups.stop()
        self.in_progress.stop()
        if self._sweeper is not None:
            self._sweeper.kill()
        self.client.close()

    def count(self, outcome: Outcome) -> None:
        """Keep the process's own tally."""
        self.registration.processed += 1
        if not outcome.succeeded:
            self.registration.failed += 1

    def _sweep_cancelled(self) -> None:
        """A cancel whose notification was lost reaches its call all the same, a little later."""
        while True:
            gevent.sleep(_SWEEP_CANCELLED_S)
            if not self.in_progress.flights:
                continue
            try:
                for id in cancelled_among(self.connections, list(self.in_progress.flights)):
                    self.in_progress.cancel(id)
            except (DatabaseAway, psycopg.Error) as error:
                log.warning("cancelled calls not swept", extra={"reason": type(error).__name__})

    def _cancel(self, payload: str) -> None:
        try:
            self.in_progress.cancel(UUID(payload))
        except ValueError:
            log.warning("strange notification", extra={"channel": CANCEL_CHANNEL})
