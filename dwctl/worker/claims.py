"""The worker's loop: claim, and have what was claimed run (`runs`); drained on SIGTERM.

It is woken by a notification (a flex request starts within milliseconds), by a call that ended (its slot is free), by the end of a pause, or
by the clock. It claims only what it can run, and claims again at once after a full round. A database that is away, or too slow to answer,
slows it down; nothing ends it. The relay is the web process's own, in this process.
"""

from __future__ import annotations

import logging
import random
import time
from uuid import UUID

import gevent
import psycopg
from gevent.event import Event

from dwctl.ai.gateway import Gateway
from dwctl.db import DatabaseAway
from dwctl.figures.spreads import Spreads
from dwctl.queue import leases, pauses
from dwctl.queue.leases import GivenBack, Job
from dwctl.worker.policies import Policies
from dwctl.worker.runs import Runs
from dwctl.worker.tally import CLAIM_SECONDS, CLAIM_SIZES

log = logging.getLogger(__name__)

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.25, 10.0
"""After a claim that failed, doubled each time, and spread so that workers do not come back together."""
_LEAST_PAUSE_S = 0.1
"""How long a model rests here whose limit was reached; where all its places are taken nobody knows when one is free."""
_ASK_AT_MOST_EVERY_S = 0.2


class Claims:
    """The one of this worker."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._settings = gateway.settings.background_services.batch_daemon
        self._wake = Event()
        self._only_low = False
        self._greenlet: gevent.Greenlet | None = None
        self._doubtful: list[UUID] = []
        self._paused: dict[str, float] = {}
        self._policies = Policies(self._settings)
        self._pause_ends_at: float | None = None
        self._asked_at = 0.0
        self.runs = Runs(gateway, self._pause, self._look, self._refill)
        self.claimed = self.rounds = self.faults = 0
        self.fine_at: float | None = None
        """When claiming last went well, or nothing was to be claimed (monotonic)."""
        self.seconds, self.sizes = Spreads(CLAIM_SECONDS), Spreads(CLAIM_SIZES)

    def start(self) -> None:
        """Begin to claim. Before the gateway's wake-ups start."""
        self._gateway.wakeups.subscribe(
            leases.READY_CHANNEL, lambda _payload: self._look(), self._look
        )
        self.runs.start()
        self._greenlet = gevent.spawn(self._run)

    def drain(self, deadline: float) -> None:
        """Claim no more, let calls end until `deadline` (monotonic), give the others back."""
        if self._greenlet is not None:
            self._greenlet.kill()
        returning = gevent.spawn(self._return_doubtful)
        self.runs.drain(deadline)
        returning.join(timeout=max(0.0, deadline - time.monotonic()))

    @property
    def room(self) -> int:
        """How many more requests this worker can run now."""
        return max(0, self._settings.max_in_flight - len(self.runs))

    @property
    def interval_s(self) -> float:
        """After how long it looks at the latest."""
        return self._settings.claim_interval_ms / 1000

    def _return_doubtful(self) -> None:
        """What a claim took that ended in its commit: it would count as lost."""
        try:
            self._settle_doubt()
        except (DatabaseAway, psycopg.Error) as error:
            reason = type(error).__name__
            log.warning("requests not returned", extra={"reason": reason, "requests": len(self._doubtful)})  # fmt: skip

    # --- the loop

    def _look(self) -> None:
        """There may be something to claim."""
        self._only_low = False
        self._wake.set()

    def _refill(self) -> None:
        """What is held ahead grows low."""
        self._only_low = self._only_low or not self._wake.is_set()
        self._wake.set()

    def _run(self) -> None:
        wait_s = 0.0
        while True:
            woken = self._wake.wait(self._rest_s())
            self._wake.clear()
            only_low, self._only_low = self._only_low and woken, False
            try:
                if only_low:
                    # No place is free, so a claim would find nothing.
                    self._hold_ahead()
                    continue
                while self._round():
                    wait_s = 0.0
            except Exception as error:
                self.faults += 1
                wait_s = min(_LONGEST_WAIT_S, max(_FIRST_WAIT_S, 2 * wait_s))
                self._tell(error)
                gevent.sleep(wait_s * random.uniform(0.5, 1.0))
                self._wake.set()
            else:
                wait_s = 0.0
                self.fine_at = time.monotonic()

    def _tell(self, error: Exception) -> None:
        if isinstance(error, DatabaseAway | psycopg.Error):
            log.warning("claim failed", extra={"reason": type(error).__name__})
        else:
            log.error("claim failed", exc_info=error)

    def _rest_s(self) -> float:
        """Until the clock says to claim again: the interval, or the end of a pause."""
        rest_s = self.interval_s
        # Only once at once: where no slot is free, a round does not look at what has rested.
        if self._end_pauses():
            return 0.0
        ends = [*self._paused.values()]
        if self._pause_ends_at is not None:
            ends.append(self._pause_ends_at)
        return max(0.0, min([rest_s, *(end - time.monotonic() for end in ends)]))

    def _end_pauses(self) -> bool:
        """Whether some have ended since it was last looked."""
        now, before = time.monotonic(), len(self._paused)
        self._paused = {alias: until for alias, until in self._paused.items() if until > now}
        ended = len(self._paused) < before
        if self._pause_ends_at is not None and self._pause_ends_at <= now:
            self._pause_ends_at = None
            return True
        return ended

    def _round(self) -> bool:
        """Claim once; whether there may be more at once."""
        most = min(self._settings.claim_batch_size, self.room)
        if most <= 0 or self._gateway.snapshot.loaded_at is None:
            return False
        self.rounds += 1
        began = time.monotonic()
        jobs = self._claim(most)
        self.seconds.add((), time.monotonic() - began)
        self.sizes.add((), len(jobs))
        self.claimed += len(jobs)
        self.runs.begin(jobs)
        if len(jobs) == most:
            return True
        self._hold_ahead()
        return False

    def _hold_ahead(self) -> None:
        """Claim for places that are about to be free."""
        policy = self._policy()
        most = min(self._settings.claim_batch_size, self.room)
        # What is near its deadline may go to another model: that is a claim's to decide. What ends without a call takes nobody's place.
        resting = {*self._paused, *policy.escalations, *self.runs.unknown}
        wanted = self.runs.wanted_ahead(most, resting)
        if not wanted:
            return
        self._settle_doubt()
        me = self._gateway.registration.id
        with self._gateway.connections.transaction() as connection:
            jobs = leases.claim_ahead(
                connection, me=me, wanted=wanted, ended=self.runs.handed_over(), policy=policy
            )
            self._doubtful = [job.id for job in jobs]
            if self._gateway.tracer is not None:
                jobs = leases.with_traces(connection, jobs)
        self._doubtful = []
        self.claimed += len(jobs)
        self.runs.hold(wanted, jobs)

    def _claim(self, most: int) -> list[Job]:
        self._settle_doubt()
        me = self._gateway.registration.id
        with self._gateway.connections.transaction() as connection:
            jobs = leases.claim(
                connection,
                me=me,
                most=most,
                policy=self._policy(),
                following=self.runs.following(),
            )
            self._doubtful = [job.id for job in jobs]
            if self._gateway.tracer is not None:
                jobs = leases.with_traces(connection, jobs)
            if len(jobs) < most:
                self._ask_for_pauses(connection)
        self._doubtful = []
        return jobs

    def _settle_doubt(self) -> None:
        """The commit of the last claim was not heard of: what it claimed may be ours, and nobody runs it."""
        if not self._doubtful:
            return
        me = self._gateway.registration.id
        with self._gateway.connections.transaction() as connection:
            leases.give_back(connection, me, self._doubtful, why=GivenBack.DRAINED)
        self._doubtful = []

    def _ask_for_pauses(self, connection: psycopg.Connection) -> None:
        """When the next pause ends, for everybody: this worker will rest no longer than that."""
        now = time.monotonic()
        if now - self._asked_at < _ASK_AT_MOST_EVERY_S:
            return
        self._asked_at = now
        ends_in_s = pauses.next_end_s(connection)
        self._pause_ends_at = None if ends_in_s is None else now + ends_in_s

    def _policy(self) -> leases.Policy:
        self._end_pauses()
        routing = self._gateway.snapshot.routing
        return self._policies.of(routing, self._paused, self.runs.unknown)

    def _pause(self, model: str, wait_s: float) -> None:
        """None of a model is claimed here for so long."""
        wait_s = max(_LEAST_PAUSE_S, wait_s)
        self._paused[model] = time.monotonic() + wait_s * random.uniform(1.0, 1.1)
