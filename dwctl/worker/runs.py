"""One claimed request, from its claim to its end: admitted again, relayed, then written down, or put back for another time.

    ended       what it came to is recorded, and that is its end
    tried again a failure that may pass (`retry`): it counts as a try, and waits
    put off     it may not run now: a limit is reached, or its account has no credit. No try is counted; the account's line rests
    given back  this process ends

An upstream that names a time (429 or 503 with Retry-After) has its model rest for everybody, so that what failed there does not meet it
again at once.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from decimal import Decimal
from uuid import UUID

from gevent.pool import Group

from dwctl import clock, logs
from dwctl.ai import admission, history, outcomes, relay, retrieval, traced
from dwctl.ai.admission import Admitted
from dwctl.ai.bookkeeping import record_of_unrunnable
from dwctl.ai.gateway import Gateway
from dwctl.ai.in_progress import Flight
from dwctl.ai.outcomes import Failed, Interrupted, Outcome, Reason
from dwctl.billing.reservations import NO_CREDIT, CapReached, NoCredit
from dwctl.db import DatabaseAway
from dwctl.errors import DwctlError
from dwctl.figures.spreads import NO_MODEL
from dwctl.limits.standing import LimitReached
from dwctl.queue import leases, retry
from dwctl.queue.leases import GivenBack, Job
from dwctl.queue.pauses import PauseReason
from dwctl.upstream.retry_after import WAIT_STATUSES
from dwctl.worker.ahead import Ahead
from dwctl.worker.cancelling import Cancelling
from dwctl.worker.large_bodies import LargeBodies
from dwctl.worker.returns import Pause, Returns
from dwctl.worker.tally import Tally

log = logging.getLogger(__name__)

_FLUSH_S = 2.0
_CREDIT_PAUSE_S = 30.0
"""How long an account's line rests that has no credit. A grant ends that; this is for one that was not heard of."""
_BACK_EACH = 32
_MOST_UNKNOWN = 100
_LONGEST_PAUSE_S = 300.0
"""How long a model rests at most because its upstream said so: whether it still means it is then found out."""


class Runs:
    """The requests that run in this worker."""

    def __init__(
        self,
        gateway: Gateway,
        rest: Callable[[str, float], None],
        freed: Callable[[], None],
        low: Callable[[], None],
    ) -> None:
        """`rest` is told that a model is not to be claimed here for so many seconds, `freed` that there is room for another request, `low` that
        little is held ahead.
        """
        self._gateway = gateway
        self._rest = rest
        self._freed = freed
        self._low = low
        self._policy = _policy(gateway)
        self._strict = gateway.settings.onwards.strict_mode
        self._jobs: dict[int, Flight] = {}
        self._models: dict[int, str] = {}
        self._running = Group()
        self._ahead = Ahead()
        self._draining = False
        self._handed_over: set[int] = set()
        self._following: dict[int, tuple[UUID, UUID]] = {}
        self._ends = 0
        self._unknown: set[str] = set()
        self.running: Counter[str] = Counter()
        """How many run here of each model."""
        self._large = LargeBodies(gateway.settings.limits.process.buffered_bytes)
        self._returns = Returns(gateway)
        self.cancelling = Cancelling(gateway)
        self.tally = Tally()

    def __len__(self) -> int:
        return len(self._jobs)

    def start(self) -> None:
        """Before the gateway's wake-ups start."""
        self._returns.start()
        self.cancelling.start()

    def begin(self, jobs: Collection[Job]) -> None:
        """Run these, each in a greenlet of its own."""
        for job in jobs:
            if job.escalation is not None:
                self.tally.escalated[self._label(job.model), self._label(job.escalation)] += 1
            self._enter(job)
            self._start(job)

    def wanted_ahead(self, most: int, resting: Collection[str]) -> Mapping[str, int]:
        """How many more requests of which models to hold ahead, at most so many altogether."""
        running = {model: n for model, n in self.running.items() if model not in resting}
        return self._ahead.wanted(running, most)

    def handed_over(self) -> Counter[str]:
        """How many of each model have ended, and handed their places over, and are not written down yet."""
        return Counter(self._models[claim] for claim in self._handed_over)

    def following(self) -> Mapping[UUID, UUID]:
        """Of those that have ended for good, and are not written down yet, the requests that run in their places."""
        return dict(self._following.values())

    @property
    def unknown(self) -> Collection[str]:
        """Models that requests have asked for here, and that are not there."""
        known = self._gateway.snapshot.routing.models
        self._unknown = {model for model in self._unknown if model not in known}
        return self._unknown

    def hold(self, wanted: Mapping[str, int], jobs: list[Job]) -> None:
        """Hold these ahead, which came of what was `wanted`."""
        for job in jobs:
            self._enter(job)
        self._ahead.add(wanted, jobs)
        # Calls may have ended meanwhile, and left no place.
        self._let_go(self._ahead.without_places(self.running))

    def drain(self, deadline: float) -> None:
        """Let calls end until `deadline` (monotonic), give the others back."""
        self._draining = True
        self._let_go(self._ahead.drop())
        self._running.join(timeout=max(0.0, deadline - time.monotonic()))
        for flight in list(self._jobs.values()):
            flight.stop(Reason.DRAINED)
        self._running.join(timeout=2.0)

    def _enter(self, job: Job) -> None:
        """It is this worker's, though it may not run yet: who stops its batch stops it."""
        flight = self._jobs[job.claim] = self._gateway.in_progress.enter(_flight(job))
        line = admission.line_of(job)
        if line is not None:
            self.cancelling.enter(line.batch_id, flight)

    def _leave(self, job: Job) -> None:
        flight = self._jobs.pop(job.claim)
        line = admission.line_of(job)
        if line is not None:
            self.cancelling.leave(line.batch_id, flight)
        self._gateway.in_progress.leave(flight)

    def _start(self, job: Job) -> None:
        self._jobs[job.claim].started = time.monotonic()
        model = self._models[job.claim] = job.escalation or job.model
        self.running[model] += 1
        self._running.spawn(self._work, job)

    def _hand_over(self, job: Job, *, is_over: bool) -> None:
        """The call of this one has ended: the next of its model begins in its place. It must count before this one counts no more.

        is_over: it is not tried again, so nobody runs it any more.
        """
        model = job.model
        self._ends += 1
        # Some places go back all the same: so a cap that was lowered is reached, and other accounts and workers have their turn.
        stays = self._draining or job.escalation is not None or self._ends % _BACK_EACH == 0
        following = None if stays else self._ahead.next(model)
        if following is None:
            return
        self._start(following)
        self._handed_over.add(job.claim)
        if is_over:
            self._following[job.claim] = job.id, following.id
        if self._ahead.is_low(model, self.running[model]):
            self._low()
        self._returns.take_place(following)

    def _let_go(self, jobs: Collection[Job]) -> None:
        """Give back what was held ahead."""
        for job in jobs:
            self._running.spawn(self._give_back_unbegun, job)

    def _give_back_unbegun(self, job: Job) -> None:
        try:
            self._returns.give_back(job)
        finally:
            self._leave(job)
            self._freed()

    def _work(self, job: Job) -> None:
        flight = self._jobs[job.claim]
        tracer = self._gateway.tracer
        if tracer is not None:
            traced.begin_run(tracer, flight, job)
        logs.about(job.id, flight.trace_id)
        try:
            if job.body is None and job.body_size:
                self._settle_large(job, flight)
            else:
                self._settle(job, flight)
        except DatabaseAway as error:
            # Neither the database nor the spool took what it came to: it is run again.
            log.warning("request not settled", extra={"request_id": str(job.id), "reason": type(error).__name__})  # fmt: skip
            self._returns.give_back(job, GivenBack.UNSETTLED)
        except Exception:
            self.tally.panics += 1
            log.exception("request not settled", extra={"request_id": str(job.id)})
            self._returns.give_back(job, GivenBack.UNSETTLED)
        finally:
            if tracer is not None:
                traced.end_run(tracer, flight)
            self._leave(job)
            self._following.pop(job.claim, None)
            model = self._models.pop(job.claim)
            self.running[model] -= 1
            if not self.running[model]:
                del self.running[model]
                self._let_go(self._ahead.drop(model))
            if job.claim in self._handed_over:
                self._handed_over.discard(job.claim)
            else:
                self._freed()

    def _settle_large(self, job: Job, flight: Flight) -> None:
        """The same for one whose body was not brought along: it is read when there is room for it."""
        if not self._large.take(job.body_size, lambda: self._draining):
            self._returns.give_back(job)
            return
        try:
            with self._gateway.connections.transaction() as connection:
                body = leases.large_body(connection, job.id)
            self._settle(replace(job, body=body), flight)
        finally:
            self._large.give_back(job.body_size)

    def _settle(self, job: Job, flight: Flight) -> None:
        admitted = self._admitted(job)
        if admitted is None:
            return
        try:
            if demands := admission.demands_of(admitted):
                tokens = admission.tokens_of(admitted, demands)
                flight.permits = [self._gateway.limiter.take(demands, tokens)]
        except LimitReached as refusal:
            self._put_off(job, refusal.wait_s)
            return
        if not self._can_pay(job, admitted, flight):
            return
        run = relay.Run(self._gateway, admitted, flight)
        if admitted.request.asked.mode.stream:
            self._stream(job, run, flight)
        else:
            self._end(job, run, run.outcome())

    def _admitted(self, job: Job) -> Admitted | None:
        """The request as it may run now; None where it may not, and that is seen to."""
        gateway = self._gateway
        try:
            admitted = admission.readmit(gateway.snapshot, job, strict=self._strict)
            return history.resolve(gateway, admitted)
        except DatabaseAway:
            raise
        except DwctlError as error:
            if error.code == NO_CREDIT and admission.line_of(job) is not None:
                self._wait_for_credit(job)
            else:
                known = gateway.snapshot.routing.models
                if job.model not in known and len(self._unknown) < _MOST_UNKNOWN:
                    self._unknown.add(job.model)
                self._end_unrun(job, outcomes.refused(error))
        except Exception:
            # It would be met again at each try, so this is its end.
            log.exception("request not understood", extra={"request_id": str(job.id)})
            self._end_unrun(job, outcomes.internal())
        return None

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

    def _end(
        self,
        job: Job,
        run: relay.Run,
        outcome: Outcome,
        *,
        shown: bool = False,
    ) -> bool:
        """Write down how it ended, or see to it that it is run again; whether it has ended."""
        if outcome.refused_here and isinstance(outcome.end, Failed):
            self._put_off(job, outcome.end.retry_after_s or 0.0)
            return False
        if (
            not shown
            and isinstance(outcome.end, Interrupted)
            and outcome.end.reason is Reason.DRAINED
        ):
            self._returns.give_back(job)
            return False
        if not shown and (wait_s := self._wait_before_retry(job, outcome)) is not None:
            self.tally.retried[self._label(job.model)] += 1
            pause = self._pressure(job, outcome)
            if pause is None:
                self._hand_over(job, is_over=False)
            else:
                self._let_go(self._ahead.drop(job.model))
            self._returns.try_again(job, wait_s, pause)
            return False
        self._hand_over(job, is_over=True)
        run.finish(outcome)
        self._count(job, outcome)
        return True

    def _put_off(self, job: Job, wait_s: float) -> None:
        """A limit of its model, or of all the targets of that, is reached, which is no failure: it goes back to the queue, and none of that
        model is claimed here meanwhile.
        """
        self._rest(job.escalation or job.model, wait_s)
        self._let_go(self._ahead.drop(job.model))
        self.tally.limited += 1
        self._returns.give_back(job)

    def _can_pay(self, job: Job, admitted: Admitted, flight: Flight) -> bool:
        """Whether what it may cost is held, where that must be; if not, what becomes of it is seen to."""
        try:
            flight.held = self._gateway.funds.hold(admitted, self._gateway.snapshot.routing)
        except (NoCredit, CapReached) as refusal:
            self._unpaid(job, refusal)
            return False
        except DatabaseAway:
            # Nothing was sent, so nothing counts: a balance that somebody else has locked for long must not cost requests their tries.
            self._wait_for_credit(job)
            return False
        return True

    def _unpaid(self, job: Job, refusal: NoCredit | CapReached) -> None:
        """What the account, or the key's cap, has left is not enough. A line waits for credit; nothing waits for a cap to begin anew."""
        is_line = admission.line_of(job) is not None
        if refusal.others_are_in_the_way or (is_line and isinstance(refusal, NoCredit)):
            needs = refusal.needs if isinstance(refusal, NoCredit) else None
            self._wait_for_credit(job, needs)
        else:
            self._end_unrun(job, outcomes.refused(refusal))

    def _wait_for_credit(self, job: Job, needs: Decimal | None = None) -> None:
        """Its account may get some until the deadline, or other calls leave some. `needs`: how much ends the wait."""
        self.tally.pauses[PauseReason.NO_CREDIT] += 1
        reason = PauseReason.NO_CREDIT
        pause = Pause(job.model, job.created_by, _CREDIT_PAUSE_S, reason, needs)
        self._returns.give_back(job, pause=pause)

    def _pressure(self, job: Job, outcome: Outcome) -> Pause | None:
        """The rest that an upstream has asked for. (Of several targets of a model each rests by itself: `upstream.health`.)"""
        end = outcome.end
        if outcome.upstream_status not in WAIT_STATUSES or not isinstance(end, Failed):
            return None
        alias = job.escalation or job.model
        model = self._gateway.snapshot.routing.models.get(alias)
        if not end.retry_after_s or model is None or model.is_composite:
            return None
        reason = PauseReason.UPSTREAM_PRESSURE
        self.tally.pauses[reason] += 1
        return Pause(alias, None, min(_LONGEST_PAUSE_S, end.retry_after_s), reason)

    def _end_unrun(self, job: Job, outcome: Outcome) -> None:
        gateway = self._gateway
        is_stored = not retrieval.says_not_to_store(job.body)
        shown = gateway.request_log.of_queued(job.id, admission.key_of(job), is_stored=is_stored)
        trace_id = self._jobs[job.claim].trace_id
        record = record_of_unrunnable(job, outcome, gateway.registration.id, shown, trace_id)
        gateway.recorder.finish(record)
        gateway.count(outcome)
        known = gateway.snapshot.routing.models
        gateway.genai.refused(record.uri.removeprefix("/"), record, known)
        self._count(job, outcome)

    def _wait_before_retry(self, job: Job, outcome: Outcome) -> float | None:
        if not (isinstance(outcome.end, Failed) and outcome.retry_helps):
            return None
        model = self._label(job.model)
        if outcome.upstream_status is not None:
            self.tally.statuses[model, str(outcome.upstream_status)] += 1
        left_s = (job.deadline - clock.now()).total_seconds()
        wait_s = retry.delay(
            self._policy,
            attempt=job.attempt,
            left_s=left_s,
            retry_after_s=outcome.end.retry_after_s,
        )
        if wait_s is None:
            self.tally.denied[model, retry.why_not(self._policy, attempt=job.attempt)] += 1
        return wait_s

    # --- figures

    def _count(self, job: Job, outcome: Outcome) -> None:
        tally, model = self.tally, self._label(job.model)
        status = "success" if outcome.succeeded else "failure"
        failure = outcome.failure or {}
        tally.ended[model, status, str(failure.get("type", "")), str(outcome.status)] += 1
        tally.seconds.add((model, status), time.monotonic() - self._jobs[job.claim].started)
        if outcome.succeeded:
            tally.retries_of_success.add((model,), job.attempt)
        if job.deadline < clock.now():
            tally.late[model, status] += 1

    def _label(self, model: str) -> str:
        return model if model in self._gateway.snapshot.routing.models else NO_MODEL


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
