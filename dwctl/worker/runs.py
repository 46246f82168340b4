"""One claimed request, from its claim to its end: admitted again, relayed, then written down, put off or given back."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection
from uuid import UUID

import gevent
import psycopg
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
_FLUSH_S = 2.0


class Runs:
    """The requests that run in this worker."""

    def __init__(
        self, gateway: Gateway, rest: Callable[[str, float], None], freed: Callable[[], None]
    ) -> None:
        """`rest` is told that a model is not to be claimed here for so many seconds, `freed` that there is room for another request."""
        self._gateway = gateway
        self._rest = rest
        self._freed = freed
        self._policy = _policy(gateway)
        self._jobs: dict[UUID, Flight] = {}
        self._models: dict[UUID, str] = {}
        self._running = Group()
        self.retried = self.put_off = 0
        self.ended: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._jobs)

    def begin(self, jobs: Collection[Job]) -> None:
        """Run these, each in a greenlet of its own."""
        for job in jobs:
            self._jobs[job.id] = self._gateway.in_progress.enter(_flight(job))
            self._models[job.id] = job.model
            self._running.spawn(self._work, job)

    def drain(self, deadline: float) -> None:
        """Let calls end until `deadline` (monotonic), give the others back."""
        self._running.join(timeout=max(0.0, deadline - time.monotonic()))
        for flight in list(self._jobs.values()):
            flight.stop(Reason.DRAINED)
        self._running.join(timeout=2.0)

    def models_in_flight(self) -> list[str]:
        """The model of each request that runs here."""
        return list(self._models.values())

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
            self._freed()

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
        self._rest(job.model, wait_s)
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
