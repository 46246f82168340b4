"""The worker's loop: claim -> greenlet -> relay -> settle; drained on SIGTERM.

It is woken by a notification (a flex request starts within milliseconds), by a call that ended (its slot is free), or by the clock. It
claims only what it can run, and claims again at once after a full round. The relay is the web process's own, in this process.
"""

from __future__ import annotations

import logging
import random
import time
from collections import Counter
from collections.abc import Mapping
from uuid import UUID

import gevent
import psycopg
from gevent.event import Event
from gevent.pool import Group

from dwctl import clock
from dwctl.ai import admission, history, outcomes, relay
from dwctl.ai.bookkeeping import record_of_unrunnable
from dwctl.ai.gateway import Gateway
from dwctl.ai.in_progress import Flight
from dwctl.ai.outcomes import Failed, Interrupted, Outcome, Reason
from dwctl.db import DatabaseAway
from dwctl.errors import DwctlError
from dwctl.limits.standing import LimitReached
from dwctl.queue import leases, retry
from dwctl.queue.leases import GivenBack, Job

log = logging.getLogger(__name__)

_AFTER_FAULT_S = 1.0
_LEAST_PAUSE_S = 0.1
"""How long a model rests here whose limit was reached; where all its places are taken nobody knows when one is free."""
_FLUSH_S = 2.0


class Claims:
    """The one of this worker."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._settings = gateway.settings.background_services.batch_daemon
        self._jobs: dict[UUID, Flight] = {}
        self._models: dict[UUID, str] = {}
        self._running = Group()
        self._wake = Event()
        self._greenlet: gevent.Greenlet | None = None
        self._policy = _policy(gateway)
        self._doubtful: list[UUID] = []
        self._paused: dict[str, float] = {}
        self.claimed = self.retried = self.put_off = self.rounds = 0
        self.ended: Counter[str] = Counter()

    def start(self) -> None:
        """Begin to claim. Before the gateway's wake-ups start."""
        self._gateway.wakeups.subscribe(
            leases.READY_CHANNEL, lambda _payload: self._wake.set(), self._wake.set
        )
        self._greenlet = gevent.spawn(self._run)

    def drain(self, deadline: float) -> None:
        """Claim no more, let calls end until `deadline` (monotonic), give the others back."""
        if self._greenlet is not None:
            self._greenlet.kill()
        self._running.join(timeout=max(0.0, deadline - time.monotonic()))
        for flight in list(self._jobs.values()):
            flight.stop(Reason.DRAINED)
        self._running.join(timeout=2.0)

    def models_in_flight(self) -> list[str]:
        """The model of each request that runs here."""
        return list(self._models.values())

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
        most = min(self._settings.claim_batch_size, self._settings.max_in_flight - len(self._jobs))
        if most <= 0 or self._gateway.snapshot.loaded_at is None:
            return False
        self.rounds += 1
        jobs, begun = self._claim(most)
        self.claimed += len(begun)
        for job in jobs:
            if job.id in begun:
                self._jobs[job.id] = self._gateway.in_progress.enter(_flight(job))
                self._models[job.id] = job.model
                self._running.spawn(self._work, job)
        return len(jobs) == most

    def _claim(self, most: int) -> tuple[list[Job], set[UUID]]:
        me = self._gateway.registration.id
        if self._doubtful:
            # The commit of the last claim was not heard of: they may be ours, and nobody runs them.
            with self._gateway.connections.transaction() as connection:
                leases.give_back(connection, me, self._doubtful, why=GivenBack.DRAINED)
            self._doubtful = []
        with self._gateway.connections.transaction() as connection:
            jobs = leases.claim(
                connection,
                me=me,
                caps=self._caps(),
                default_cap=self._settings.default_model_concurrency,
                most=most,
            )
            self._doubtful = [job.id for job in jobs]
            # What is claimed is run at once, so both are one commit.
            begun = leases.start(connection, me, self._doubtful) if jobs else set()
        self._doubtful = []
        return jobs, begun

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

    # --- one request

    def _work(self, job: Job) -> None:
        flight = self._jobs[job.id]
        try:
            self._settle(job, flight)
        except Exception as error:
            away = isinstance(error, DatabaseAway | psycopg.Error)
            log.log(
                logging.WARNING if away else logging.ERROR,
                "request not settled",
                extra={"request_id": str(job.id), "reason": type(error).__name__},
                exc_info=None if away else error,
            )
            # The lease stays with this process: it is renewed as long as the process lives, so it must be returned by hand.
            gevent.spawn(self._return_when_possible, job)
        finally:
            self._gateway.in_progress.leave(flight)
            del self._jobs[job.id], self._models[job.id]
            self._wake.set()

    def _settle(self, job: Job, flight: Flight) -> None:
        gateway = self._gateway
        strict = gateway.settings.onwards.strict_mode
        try:
            admitted = admission.readmit(gateway.snapshot, job, strict=strict)
            admitted = history.resolve(gateway, admitted)
        except DatabaseAway:
            raise
        except DwctlError as error:
            self._end_unrun(job, outcomes.refused(error))
            return
        except Exception:
            # It would be met again at each try, so this is its end.
            log.exception("request not understood", extra={"request_id": str(job.id)})
            self._end_unrun(job, outcomes.internal())
            return
        try:
            if demands := admission.demands_of(admitted):
                tokens = admission.tokens_of(admitted, demands)
                flight.permits = [gateway.limiter.take(demands, tokens)]
        except LimitReached as refusal:
            self._put_off(job, refusal.wait_s)
            return
        run = relay.Run(gateway, admitted, flight)
        if admitted.request.asked.mode.stream:
            self._stream(job, run, flight)
        else:
            self._end(job, run, run.outcome())

    def _stream(self, job: Job, run: relay.Run, flight: Flight) -> None:
        """Run it as a stream whose events others show. Once something was shown it is not run again, and not given back."""
        kept = self._gateway.event_log.begin(job.id)
        put_off = False

        def finish(outcome: Outcome) -> None:
            nonlocal put_off
            flight.over = True
            kept.flush(_FLUSH_S)
            put_off = not self._end(job, run, outcome, shown=kept.anything)

        relayed = run.streamed(finish)
        if isinstance(relayed.body, bytes):
            return  # an answer in one piece: its object tells everything
        for piece in relayed.body:
            if not put_off:
                kept.add(piece)
        kept.hurry()

    def _end(self, job: Job, run: relay.Run, outcome: Outcome, *, shown: bool = False) -> bool:
        """Write down how it ended, or see to it that it is run again; whether it has ended."""
        if outcome.refused_here and isinstance(outcome.end, Failed):
            self._put_off(job, outcome.end.retry_after_s or 0.0)
            return False
        if (
            not shown
            and isinstance(outcome.end, Interrupted)
            and outcome.end.reason is Reason.DRAINED
        ):
            self._give_back(job, GivenBack.DRAINED)
            return False
        if not shown and (wait_s := self._wait_before_retry(job, outcome)) is not None:
            self._retry(job, wait_s)
            return False
        run.finish(outcome)
        self._count(outcome)
        return True

    def _put_off(self, job: Job, wait_s: float) -> None:
        """A limit of its model, or of all the targets of that, is reached, which is no failure: it goes back to the queue, and none of that
        model is claimed here meanwhile.
        """
        wait_s = max(_LEAST_PAUSE_S, wait_s)
        self._paused[job.model] = time.monotonic() + wait_s * random.uniform(1.0, 1.1)
        self.put_off += 1
        self._give_back(job, GivenBack.DRAINED)

    def _end_unrun(self, job: Job, outcome: Outcome) -> None:
        gateway = self._gateway
        gateway.recorder.finish(record_of_unrunnable(job, outcome, gateway.registration.id))
        gateway.count(outcome)
        self._count(outcome)

    def _count(self, outcome: Outcome) -> None:
        self.ended["success" if outcome.succeeded else "failure"] += 1

    def _wait_before_retry(self, job: Job, outcome: Outcome) -> float | None:
        if not (isinstance(outcome.end, Failed) and outcome.retry_helps):
            return None
        left_s = (job.deadline - clock.now()).total_seconds()
        return retry.delay(
            self._policy,
            attempt=job.attempt,
            left_s=left_s,
            retry_after_s=outcome.end.retry_after_s,
        )

    def _retry(self, job: Job, wait_s: float) -> None:
        self.retried += 1
        with self._gateway.connections.transaction() as connection:
            leases.retry_later(connection, self._gateway.registration.id, job.id, wait_s)

    def _give_back(self, job: Job, why: GivenBack) -> None:
        with self._gateway.connections.transaction() as connection:
            leases.give_back(connection, self._gateway.registration.id, [job.id], why=why)

    def _return_when_possible(self, job: Job) -> None:
        while True:
            try:
                self._give_back(job, GivenBack.UNSETTLED)
                return
            except (DatabaseAway, psycopg.Error):
                gevent.sleep(_AFTER_FAULT_S)


def _flight(job: Job) -> Flight:
    flight = Flight(job.id)
    flight.opened = flight.row_is_there = True
    return flight


def _policy(gateway: Gateway) -> retry.Policy:
    settings = gateway.settings.background_services.batch_daemon
    stop_ms = settings.stop_before_deadline_ms
    return retry.Policy(
        max_retries=settings.max_retries,
        backoff_s=settings.backoff_ms / 1000,
        factor=settings.backoff_factor,
        max_backoff_s=settings.max_backoff_ms / 1000,
        stop_before_deadline_s=None if stop_ms is None else stop_ms / 1000,
    )
