"""The worker's loop: claim, and have what was claimed run (`runs`); drained on SIGTERM.

It is woken by a notification (a flex request starts within milliseconds), by a call that ended (its slot is free), or by the clock. It
claims only what it can run, and claims again at once after a full round. The relay is the web process's own, in this process.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Mapping
from uuid import UUID

import gevent
import psycopg
from gevent.event import Event

from dwctl.ai.gateway import Gateway
from dwctl.db import DatabaseAway
from dwctl.queue import leases
from dwctl.queue.leases import GivenBack, Job
from dwctl.worker.runs import Runs

log = logging.getLogger(__name__)

_AFTER_FAULT_S = 1.0
_LEAST_PAUSE_S = 0.1
"""How long a model rests here whose limit was reached; where all its places are taken nobody knows when one is free."""


class Claims:
    """The one of this worker."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._settings = gateway.settings.background_services.batch_daemon
        self._wake = Event()
        self._greenlet: gevent.Greenlet | None = None
        self._doubtful: list[UUID] = []
        self._paused: dict[str, float] = {}
        self.runs = Runs(gateway, self._pause, self._wake.set)
        self.claimed = self.rounds = 0

    def start(self) -> None:
        """Begin to claim. Before the gateway's wake-ups start."""
        self._gateway.wakeups.subscribe(
            leases.READY_CHANNEL, lambda _payload: self._wake.set(), self._wake.set
        )
        self.runs.start()
        self._greenlet = gevent.spawn(self._run)

    def drain(self, deadline: float) -> None:
        """Claim no more, let calls end until `deadline` (monotonic), give the others back."""
        if self._greenlet is not None:
            self._greenlet.kill()
        self.runs.drain(deadline)

    # --- the loop

    def _run(self) -> None:
        while True:
            self._wake.wait(self._rest_s())
            self._wake.clear()
            try:
                while self._round():
                    pass
            except (DatabaseAway, psycopg.Error) as error:
                log.warning("claim failed", extra={"reason": type(error).__name__})
                gevent.sleep(_AFTER_FAULT_S)
            except Exception:
                log.exception("claim failed")
                gevent.sleep(_AFTER_FAULT_S)

    def _rest_s(self) -> float:
        """Until the clock says to claim again: the interval, or the end of a pause."""
        rest_s = self._settings.claim_interval_ms / 1000
        # Only once at once: where no slot is free, a round does not look at what has rested.
        if self._end_pauses():
            return 0.0
        if not self._paused:
            return rest_s
        return max(0.0, min(rest_s, min(self._paused.values()) - time.monotonic()))

    def _end_pauses(self) -> bool:
        """Whether some have ended since it was last looked."""
        now, before = time.monotonic(), len(self._paused)
        self._paused = {alias: until for alias, until in self._paused.items() if until > now}
        return len(self._paused) < before

    def _round(self) -> bool:
        """Claim once; whether there may be more at once."""
        most = min(self._settings.claim_batch_size, self._settings.max_in_flight - len(self.runs))
        if most <= 0 or self._gateway.snapshot.loaded_at is None:
            return False
        self.rounds += 1
        jobs = self._claim(most)
        self.claimed += len(jobs)
        self.runs.begin(jobs)
        return len(jobs) == most

    def _claim(self, most: int) -> list[Job]:
        me = self._gateway.registration.id
        if self._doubtful:
            # The commit of the last claim was not heard of: they may be ours, and nobody runs them.
            with self._gateway.connections.transaction() as connection:
                leases.give_back(connection, me, self._doubtful, why=GivenBack.DRAINED)
            self._doubtful = []
        with self._gateway.connections.transaction() as connection:
            jobs = leases.claim(connection, me=me, most=most, policy=self._policy())
            self._doubtful = [job.id for job in jobs]
        self._doubtful = []
        return jobs

    def _policy(self) -> leases.Policy:
        return leases.Policy(
            caps=self._caps(), default_cap=self._settings.default_model_concurrency
        )

    def _caps(self) -> Mapping[str, int]:
        """How many of a model may be in flight over all workers, where that is not the default. Never more than it runs at once at all."""
        default = self._settings.default_model_concurrency
        caps = {}
        for model in self._gateway.snapshot.routing.models.values():
            if model.batch_capacity or model.limits.capacity:
                cap = model.batch_capacity or default
                caps[model.alias] = min(cap, model.limits.capacity or cap)
        self._end_pauses()
        return caps | dict.fromkeys(self._paused, 0)

    def _pause(self, model: str, wait_s: float) -> None:
        """None of a model is claimed here for so long."""
        wait_s = max(_LEAST_PAUSE_S, wait_s)
        self._paused[model] = time.monotonic() + wait_s * random.uniform(1.0, 1.1)
